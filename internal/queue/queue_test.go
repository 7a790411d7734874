package queue_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/internal/timed"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

// fixture is a migrated database with rows that are written directly into event_log.
type fixture struct {
	*pgtest.DB
	conn *pgx.Conn
}

func newQueue(t *testing.T) fixture {
	db := pgtest.New(t)
	return fixture{db, db.Conn(t)}
}

// add puts n events of a trigger into the queue. Event i is due i seconds ago. The result has the
// oldest first.
func (q fixture) add(t *testing.T, trigger int32, n int) [][16]byte {
	t.Helper()
	rows, err := q.conn.Query(t.Context(), `
insert into rowhook.event_log (id, trigger_id, op, new, due_at)
select rowhook.uuid7(), $1, 'I', json_build_object('n', i), clock_timestamp() - make_interval(secs => $2 - i)
  from generate_series(1, $2) i returning id`, trigger, n)
	require.NoError(t, err)
	ids, err := pgx.CollectRows(rows, pgx.RowTo[[16]byte])
	require.NoError(t, err)
	return ids
}

func (q fixture) count(t *testing.T, where string, args ...any) (n int) {
	t.Helper()
	require.NoError(t, q.conn.QueryRow(t.Context(), "select count(*) from "+where, args...).Scan(&n))
	return n
}

func want(trigger int32, limit int32) queue.Want {
	const pgClass = 1259
	return queue.Want{Trigger: trigger, Relation: pgClass, Limit: limit, Lease: time.Minute}
}

func claim(t *testing.T, db pg.Queryer, instance int32, wants ...queue.Want) []queue.Claimed {
	t.Helper()
	require.NoError(t, queue.Register(t.Context(), db, instance, "test", "v", false))
	got, err := queue.Claim(t.Context(), db, numbered(instance), wants)
	require.NoError(t, err)
	return got
}

// claims counts the claims of all tests, so that no two have the same number.
var claims atomic.Int64

func numbered(instance int32) queue.Claimant {
	return queue.Claimant{Instance: instance, Number: claims.Add(1)}
}

func holding(c queue.Claimed) queue.Holding {
	return queue.Holding{ID: c.ID, Tries: c.Tries, Claim: c.Claim}
}

func ids(events []queue.Claimed) (out [][16]byte) {
	for _, e := range events {
		out = append(out, e.ID)
	}
	return out
}

func TestClaimTakesTheOldestOfEachTriggerUpToItsLimit(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	one, two := q.add(t, 1, 5), q.add(t, 2, 2)
	q.add(t, 3, 1)
	got := claim(t, q.conn, 7, want(1, 3), want(2, 10))
	require.ElementsMatch(t, append(one[:3:3], two...), ids(got))
	for _, e := range got {
		require.EqualValues(t, 1, e.Tries)
		require.EqualValues(t, 'I', e.Op)
		require.Contains(t, e.Table, "pg_class")
		require.WithinDuration(t, time.Now(), e.CreatedAt, time.Minute)
		require.Zero(t, e.Held)
		require.Nil(t, e.Old)
		require.Contains(t, string(e.New), `"n" : `)
	}
	require.Equal(t, 5, q.count(t, "rowhook.event_log where claimed_by = 7 and tries = 1 and due_at > now() + interval '50 s'"))
	require.ElementsMatch(t, one[3:], ids(claim(t, q.conn, 8, want(1, 10), want(2, 10))), "a claimed event is not due")
}

func TestClaimSkipsRowsLockedByOthers(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	all := q.add(t, 1, 4)
	tx, err := q.Conn(t).Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(context.Background()) }()
	require.Len(t, claim(t, tx, 8, want(1, 2)), 2)
	require.Equal(t, all[2:], ids(claim(t, q.conn, 7, want(1, 10))))
}

func TestClaimStartsAtTheFloorAndLeavesTheFutureAlone(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	all := q.add(t, 1, 3)
	q.Exec(t, "insert into rowhook.event_log (id, trigger_id, op, due_at) values (rowhook.uuid7(), 1, 'I', now() + interval '1 h')")
	w := want(1, 10)
	w.Floor = time.Now().Add(-1500 * time.Millisecond)
	require.Equal(t, all[1:], ids(claim(t, q.conn, 7, w)))
	require.Equal(t, all[:1], ids(claim(t, q.conn, 7, want(1, 10))), "from the beginning it finds the rest")
}

func TestClaimReadsNothingOfOtherTriggers(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	q.add(t, 1, 20_000)
	q.add(t, 2, 1)
	q.Exec(t, "vacuum analyze rowhook.event_log")
	tx, err := q.conn.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(context.Background()) }()
	require.Len(t, claim(t, tx, 7, want(2, 100)), 1)
	var read int
	require.NoError(t, tx.QueryRow(t.Context(), `
select pg_stat_get_xact_tuples_fetched(i) + pg_stat_get_xact_tuples_returned(i)
  from unnest(array['rowhook.event_log'::regclass]) i`).Scan(&read))
	require.Less(t, read, 10, "the events of another trigger were read")
}

func TestClaimNonEmptyTakesWhatClaimTakesAndLooksOnlyWhereThereIsAnything(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	q.add(t, 1, 3000) // not wanted: paused, for instance
	for _, trigger := range []int32{2, 40, 41, 999, 1000, 2000} {
		q.add(t, trigger, int(trigger%7)+1)
	}
	q.Exec(t, "insert into rowhook.event_log (id, trigger_id, op, due_at) values (rowhook.uuid7(), 500, 'I', now() + interval '1 h')")
	require.NoError(t, queue.Register(t.Context(), q.conn, 7, "test", "v", false))
	q.Exec(t, "vacuum analyze rowhook.event_log")
	var wants []queue.Want
	for trigger := range int32(1000) {
		w := want(trigger+2, trigger%3+1)
		if trigger%5 == 0 {
			w.Floor = time.Now().Add(-2500 * time.Millisecond)
		}
		wants = append(wants, w)
	}
	both := map[bool][]queue.Claimed{}
	for nonEmpty, claim := range map[bool]func(context.Context, pg.Queryer, queue.Claimant, []queue.Want) ([]queue.Claimed, error){
		false: queue.Claim, true: queue.ClaimNonEmpty,
	} {
		tx, err := q.conn.Begin(t.Context())
		require.NoError(t, err)
		_, err = tx.Exec(t.Context(), "set local enable_seqscan = off; set local enable_bitmapscan = off; set local enable_hashjoin = off; set local enable_mergejoin = off")
		require.NoError(t, err)
		scans := func() (n int) { // scans of the transaction before may be counted late
			require.NoError(t, tx.QueryRow(t.Context(), "select pg_stat_get_xact_numscans('rowhook.event_log_due'::regclass)").Scan(&n))
			return n
		}
		before := scans()
		both[nonEmpty], err = claim(t.Context(), tx, numbered(7), wants)
		require.NoError(t, err)
		if took := scans() - before; nonEmpty {
			require.Less(t, took, 20)
		} else {
			require.GreaterOrEqual(t, took, len(wants))
		}
		require.NoError(t, tx.Rollback(t.Context()))
	}
	require.NotEmpty(t, both[true])
	require.ElementsMatch(t, ids(both[false]), ids(both[true]))
}

func TestClaimHoldsBackLargePayloadsAndFetchPayloadBringsThem(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	q.Exec(t, `insert into rowhook.event_log (id, trigger_id, op, old, new)
select rowhook.uuid7(), 1, 'U', to_json(repeat('x', $1)), to_json(repeat('y', $1))`, 40_000)
	q.Exec(t, `insert into rowhook.event_log (id, trigger_id, op, new) select rowhook.uuid7(), 2, 'I', to_json(repeat('z', 65000))`)
	big := claim(t, q.conn, 7, want(1, 1))
	require.Len(t, big, 1)
	require.Positive(t, big[0].Held)
	require.True(t, big[0].Packed)
	size, ok, err := queue.PayloadSize(t.Context(), q.conn, 7, holding(big[0]))
	require.NoError(t, err)
	require.True(t, ok)
	require.EqualValues(t, 80_004, size)
	_, ok, err = queue.PayloadSize(t.Context(), q.conn, 7, queue.Holding{ID: big[0].ID, Tries: 1, Claim: big[0].Claim + 1})
	require.NoError(t, err)
	require.False(t, ok, "it is not that claim's")
	require.Nil(t, big[0].New)
	p, ok, err := queue.FetchPayload(t.Context(), q.conn, 7, holding(big[0]))
	require.NoError(t, err)
	require.True(t, ok)
	require.Len(t, p.Old, 40_002)
	require.Equal(t, byte('y'), p.New[1])
	_, ok, err = queue.FetchPayload(t.Context(), q.conn, 8, holding(big[0]))
	require.NoError(t, err)
	require.False(t, ok, "it is not that instance's")

	q.Exec(t, `insert into rowhook.event_log (id, trigger_id, op, session) select rowhook.uuid7(), 3, 'I', to_json(repeat('s', 100000))`)
	session := claim(t, q.conn, 7, want(3, 1))
	require.Nil(t, session[0].Session, "a writer's settings are bounded, too")
	p, _, err = queue.FetchPayload(t.Context(), q.conn, 7, holding(session[0]))
	require.NoError(t, err)
	require.Len(t, p.Session, 100_002)

	small := claim(t, q.conn, 7, want(2, 1))
	require.Len(t, small[0].New, 65_002)
	require.Zero(t, small[0].Held)

	q.Exec(t, `insert into rowhook.event_log (id, trigger_id, op, new)
select rowhook.uuid7(), 4, 'I', to_json(string_agg(md5(random()::text), '')) from generate_series(1, 3000)`)
	loose := claim(t, q.conn, 7, want(4, 1))
	require.False(t, loose[0].Packed)
	require.InDelta(t, 96_002, loose[0].Held, 8, "stored as it is, so its size is known")
}

// TestClaimDoesNotUnpackWhatItLeavesBehind compares with one decompression of the same events, so
// that it passes on a busy machine.
func TestClaimDoesNotUnpackWhatItLeavesBehind(t *testing.T) {
	timed.Alone(t)
	q := newQueue(t)
	q.Exec(t, `insert into rowhook.event_log (id, trigger_id, op, new)
select rowhook.uuid7(), 1, 'I', to_json(repeat('0123456789abcdef', 200000)) from generate_series(1, 60)`)
	began := time.Now()
	var bytes int64
	require.NoError(t, q.conn.QueryRow(t.Context(), "select sum(octet_length(new::text)) from rowhook.event_log").Scan(&bytes))
	once := time.Since(began)
	require.Greater(t, bytes, int64(60*3_200_000))
	began = time.Now()
	require.Len(t, claim(t, q.conn, 7, want(1, 60)), 60)
	require.Less(t, time.Since(began), once/2)
}

func TestSettleMovesReschedulesBuriesReleasesAndLogs(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	q.add(t, 1, 4)
	got := claim(t, q.conn, 7, want(1, 4))
	attempt := &queue.Attempt{StartedAt: time.Now(), Duration: 1500 * time.Microsecond, Status: 200, Header: []byte(`{"A": "b"}`), Body: "ok"}
	failed := &queue.Attempt{StartedAt: time.Now(), Duration: time.Second, Kind: "refused", Error: "connection refused"}
	batch := []queue.Settlement{
		{ID: got[0].ID, Trigger: 1, Tries: 1, Claim: got[0].Claim, Fate: queue.Delivered, Attempt: attempt},
		{ID: got[1].ID, Trigger: 1, Tries: 1, Claim: got[1].Claim, Fate: queue.Retried, Delay: 10 * time.Second, Attempt: failed},
		{ID: got[2].ID, Trigger: 1, Tries: 1, Claim: got[2].Claim, Fate: queue.Dead, Reason: "connection refused", Attempt: failed},
		{ID: got[3].ID, Trigger: 1, Tries: 1, Claim: got[3].Claim, Fate: queue.Released},
	}
	opt := queue.SettleOptions{Instance: 7, KeepDelivered: true, KeepAttempts: true}
	n, err := queue.Settle(t.Context(), q.conn, opt, batch)
	require.NoError(t, err)
	require.Equal(t, 4, n)

	require.Equal(t, 1, q.count(t, "rowhook.event_archive where id = $1 and tries = 1 and op = 'I' and new is not null", pgtype.UUID{Bytes: got[0].ID, Valid: true}))
	require.Equal(t, 1, q.count(t, `rowhook.event_log where id = $1 and claimed_by is null and tries = 1
		and due_at between clock_timestamp() + interval '8 s' and clock_timestamp() + interval '10 s'`, pgtype.UUID{Bytes: got[1].ID, Valid: true}))
	require.Equal(t, 1, q.count(t, "rowhook.dead_letter where id = $1 and reason = 'connection refused'", pgtype.UUID{Bytes: got[2].ID, Valid: true}))
	require.Equal(t, 1, q.count(t, "rowhook.event_log where id = $1 and claimed_by is null and tries = 0 and due_at <= clock_timestamp()", pgtype.UUID{Bytes: got[3].ID, Valid: true}))
	require.Equal(t, 2, q.count(t, "rowhook.event_log"))
	require.Equal(t, 1, q.count(t, `rowhook.invocation_log where event_id = $1 and attempt = 1 and status = 200 and error_kind is null and error is null
		and duration_us = 1500 and instance_id = 7 and trigger_id = 1 and response_headers::text = '{"A": "b"}' and response_body = 'ok'`, pgtype.UUID{Bytes: got[0].ID, Valid: true}))
	require.Equal(t, 2, q.count(t, "rowhook.invocation_log where status is null and error_kind = 'refused' and error = 'connection refused'"))
	require.Equal(t, 3, q.count(t, "rowhook.invocation_log"))
}

func TestEventsOfARequestShareAnAttemptAndEachHasARow(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	q.add(t, 1, 5)
	q.add(t, 2, 1)
	got := claim(t, q.conn, 7, want(1, 5), want(2, 1))
	request := func(batch string, status int) *queue.Attempt {
		return &queue.Attempt{StartedAt: time.Now(), Status: status, Batch: batch, Header: []byte(`{"A": "` + batch + `"}`), Body: batch}
	}
	a, b := request("a", 200), request("b", 500)
	var batch []queue.Settlement
	var expected []string
	for i, attempt := range []*queue.Attempt{a, a, b, nil, a, a} { // the last event is of another trigger
		e := &got[i]
		st := queue.Settlement{ID: e.ID, Trigger: e.Trigger, Tries: e.Tries, Claim: e.Claim, Fate: queue.Released, Attempt: attempt}
		if attempt != nil {
			st.Fate, st.Tries = queue.Delivered, int32(i+1)
			q.Exec(t, "update rowhook.event_log set tries = $2 where id = $1", pgtype.UUID{Bytes: e.ID, Valid: true}, i+1)
			expected = append(expected, fmt.Sprintf("%x %d %d %d %[5]s %[5]s", e.ID, e.Trigger, i+1, attempt.Status, attempt.Batch))
		}
		batch = append(batch, st)
	}
	n, err := queue.Settle(t.Context(), q.conn, queue.SettleOptions{Instance: 7, KeepDelivered: true, KeepAttempts: true}, batch)
	require.NoError(t, err)
	require.Equal(t, 6, n)
	rows, err := q.conn.Query(t.Context(), `
select concat_ws(' ', replace(event_id::text, '-', ''), trigger_id, attempt, status, batch, response_headers->>'A') from rowhook.invocation_log where response_body = batch`)
	require.NoError(t, err)
	logged, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.ElementsMatch(t, expected, logged)
}

func TestSettleTouchesNothingThatIsNoLongerThisClaims(t *testing.T) {
	t.Parallel()
	for name, takeOver := range map[string]string{
		"another instance has it": "update rowhook.event_log set claimed_by = 8",
		"it was claimed again":    "update rowhook.event_log set tries = 2, claim = claim + 1",
		"it was given back and claimed again, which counts the same": "update rowhook.event_log set claim = claim + 1",
		"it was given back":           "update rowhook.event_log set claimed_by = null",
		"another instance settled it": "delete from rowhook.event_log",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := newQueue(t)
			q.add(t, 1, 1)
			got := claim(t, q.conn, 7, want(1, 1))
			q.Exec(t, takeOver)
			left := q.count(t, "rowhook.event_log")
			for _, fate := range []queue.Fate{queue.Delivered, queue.Retried, queue.Dead, queue.Released} {
				n, err := queue.Settle(t.Context(), q.conn, queue.SettleOptions{Instance: 7, KeepDelivered: true, KeepAttempts: true},
					[]queue.Settlement{{ID: got[0].ID, Trigger: 1, Tries: 1, Claim: got[0].Claim, Fate: fate, Attempt: &queue.Attempt{StartedAt: time.Now(), Status: 200}}})
				require.NoError(t, err)
				require.Zero(t, n)
			}
			require.Equal(t, left, q.count(t, "rowhook.event_log"))
			require.Zero(t, q.count(t, "rowhook.event_archive"))
			require.Zero(t, q.count(t, "rowhook.dead_letter"))
			require.Equal(t, 4, q.count(t, "rowhook.invocation_log"), "the attempts were made all the same")
		})
	}
}

func TestSettleWrittenTwiceLogsOnce(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	q.add(t, 1, 1)
	got := claim(t, q.conn, 7, want(1, 1))
	batch := []queue.Settlement{{ID: got[0].ID, Trigger: 1, Tries: 1, Claim: got[0].Claim, Fate: queue.Delivered, Attempt: &queue.Attempt{StartedAt: time.Now(), Status: 200}}}
	opt := queue.SettleOptions{Instance: 7, KeepDelivered: true, KeepAttempts: true}
	for range 3 {
		_, err := queue.Settle(t.Context(), q.conn, opt, batch)
		require.NoError(t, err)
		opt.MayHaveCommitted = true
	}
	require.Equal(t, 1, q.count(t, "rowhook.invocation_log"))
	require.Equal(t, 1, q.count(t, "rowhook.event_archive"))
}

func TestSettleKeepsNoHistoryWhereNoneIsWanted(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	q.add(t, 1, 1)
	got := claim(t, q.conn, 7, want(1, 1))
	n, err := queue.Settle(t.Context(), q.conn, queue.SettleOptions{Instance: 7}, []queue.Settlement{
		{ID: got[0].ID, Trigger: 1, Tries: 1, Claim: got[0].Claim, Fate: queue.Delivered, Attempt: &queue.Attempt{StartedAt: time.Now(), Status: 200}}})
	require.NoError(t, err)
	require.Equal(t, 1, n)
	for _, table := range []string{"event_log", "event_archive", "dead_letter", "invocation_log"} {
		require.Zero(t, q.count(t, "rowhook."+table), table)
	}
}

func TestNextDueIsTheFirstOfEachTriggerThatIsNotDueYet(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	q.add(t, 1, 2)
	ask := func(ago time.Duration) map[int32]time.Duration {
		next, err := queue.NextDue(t.Context(), q.conn, []int32{1, 2, 3, 4}, []time.Duration{0, ago, 0, 0})
		require.NoError(t, err)
		return next
	}
	require.Empty(t, ask(0))
	q.Exec(t, `insert into rowhook.event_log (id, trigger_id, op, due_at)
select rowhook.uuid7(), t, 'I', now() + make_interval(mins => t * i) from generate_series(1, 3) i, generate_series(2, 3) t
union all select rowhook.uuid7(), 2, 'I', now() - interval '1 min'`)
	next := ask(0)
	require.Len(t, next, 2)
	require.InDelta(t, 2*time.Minute, next[2], float64(5*time.Second))
	require.InDelta(t, 3*time.Minute, next[3], float64(5*time.Second))
	require.Zero(t, ask(time.Hour)[2], "it became due within the hour")
	require.InDelta(t, 3*time.Minute, ask(time.Hour)[3], float64(5*time.Second))
}

func TestHorizonCoversATransactionThatIsTheLatest(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	require.NoError(t, queue.Register(t.Context(), q.conn, 7, "silent", "v", true))
	require.NoError(t, queue.Silence(t.Context(), q.conn, 7))
	tx, err := q.Conn(t).Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(context.Background()) }()
	// No later transaction completes, so this transaction is the xmax of a snapshot.
	_, err = tx.Exec(t.Context(), "insert into rowhook.event_log (id, trigger_id, op) values (rowhook.uuid7(), 1, 'I')")
	require.NoError(t, err)
	horizon, err := queue.Ring(t.Context(), q.conn, queue.Handover{})
	require.NoError(t, err)
	pending, err := queue.Pending(t.Context(), q.conn, horizon)
	require.NoError(t, err)
	require.Positive(t, pending)
	require.NoError(t, tx.Commit(t.Context()))
	require.Eventually(t, func() bool { // other tests on this server have transactions, too
		pending, err := queue.Pending(t.Context(), q.conn, horizon)
		return err == nil && pending == 0
	}, time.Minute, 20*time.Millisecond)
	w, err := queue.ReadWatch(t.Context(), q.conn)
	require.NoError(t, err)
	require.EqualValues(t, queue.Ringing, w.Doorbell)
}

// Whoever is not registered is buried by nobody. If it silenced the bell, rang again and died, no other
// instance would look for what was written in between.
func TestOnlyARegisteredInstanceSilencesTheBell(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	bell := func() int32 {
		w, err := queue.ReadWatch(t.Context(), q.conn)
		require.NoError(t, err)
		return w.Doorbell
	}
	_, err := queue.Ring(t.Context(), q.conn, queue.Handover{})
	require.NoError(t, err)
	require.ErrorIs(t, queue.Silence(t.Context(), q.conn, 7), queue.ErrUnregistered)
	require.EqualValues(t, queue.Ringing, bell())
	require.NoError(t, queue.Register(t.Context(), q.conn, 7, "silent", "v", true))
	require.NoError(t, queue.Silence(t.Context(), q.conn, 7))
	require.EqualValues(t, 7, bell())
	require.NoError(t, queue.Silence(t.Context(), q.conn, queue.Nobody))
	require.EqualValues(t, queue.Nobody, bell())
}

// The sequence of ids begins at 1 again with each installation. The generation, by which
// dispatchers notice changes, must not.
func TestADispatcherThatOutlivesAnUninstallIsNotTakenForAnother(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	first, err := queue.NewInstance(t.Context(), q.conn)
	require.NoError(t, err)
	outlives := q.Conn(t)
	require.NoError(t, queue.HoldLock(t.Context(), outlives, first))
	before, err := queue.Load(t.Context(), q.conn)
	require.NoError(t, err)
	require.NoError(t, sqlschema.Uninstall(t.Context(), q.conn, slog.New(slog.DiscardHandler)))
	require.NoError(t, sqlschema.Migrate(t.Context(), q.conn, slog.New(slog.DiscardHandler)))
	second, err := queue.NewInstance(t.Context(), q.conn)
	require.NoError(t, err)
	require.NotEqual(t, first, second, "its lock shows that it lives")
	require.NoError(t, queue.Register(t.Context(), q.conn, second+1, "polls", "v", false))
	third, err := queue.NewInstance(t.Context(), q.conn)
	require.NoError(t, err)
	require.Equal(t, second+2, third)
	after, err := queue.Load(t.Context(), q.conn)
	require.NoError(t, err)
	require.NotEqual(t, before.Generation, after.Generation)
}

func TestLookFindsInstancesThatHoldNoLock(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	alive := q.Conn(t)
	require.NoError(t, queue.HoldLock(t.Context(), alive, 5))
	for id, listens := range map[int32]bool{5: true, 6: true, 7: false} {
		require.NoError(t, queue.Register(t.Context(), q.conn, id, fmt.Sprint("i", id), "v", listens))
	}
	q.Exec(t, "update rowhook.instance set seen_at = seen_at + interval '1 hour'") // for as long as the test takes
	w, err := queue.ReadWatch(t.Context(), q.conn)
	require.NoError(t, err)
	require.ElementsMatch(t, []int32{5, 6, 7}, w.Alive, "who has just registered may still open its session")
	q.Exec(t, "update rowhook.instance set seen_at = now() - interval '3 s'")
	w, err = queue.ReadWatch(t.Context(), q.conn)
	require.NoError(t, err)
	require.ElementsMatch(t, []int32{5, 7}, w.Alive)
	require.Equal(t, []int32{6}, w.Dead)
	require.True(t, w.IsAlive(7))
	require.False(t, w.IsAlive(6))
	require.EqualValues(t, queue.Nobody, w.Doorbell, "nobody has asked for a doorbell that was never set")
	require.NoError(t, queue.Silence(t.Context(), q.conn, 5))
	w, err = queue.ReadWatch(t.Context(), q.conn)
	require.NoError(t, err)
	require.EqualValues(t, 5, w.Doorbell)

	require.ErrorContains(t, queue.HoldLock(t.Context(), q.conn, 5), "earlier session")
	require.NoError(t, alive.Close(t.Context()))
	require.Eventually(t, func() bool { return queue.HoldLock(t.Context(), q.conn, 5) == nil }, time.Minute, 10*time.Millisecond)
}

func TestReclaimGivesBackTheClaimsOfTheDeadAndCountsThem(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	q.add(t, 1, 3)
	require.NoError(t, queue.Register(t.Context(), q.conn, 6, "dead", "v", true))
	claim(t, q.conn, 6, want(1, 2))
	claim(t, q.conn, 7, want(1, 2))
	n, err := queue.Reclaim(t.Context(), q.conn, []int32{6})
	require.NoError(t, err)
	require.Equal(t, 2, n)
	require.Zero(t, q.count(t, "rowhook.instance where id = 6"))
	late, err := queue.Claim(t.Context(), q.conn, numbered(6), []queue.Want{want(1, 10)})
	require.NoError(t, err)
	require.Empty(t, late, "an instance that was found dead can't claim any more")
	got := claim(t, q.conn, 8, want(1, 10))
	require.Len(t, got, 2)
	for _, e := range got {
		require.EqualValues(t, 2, e.Tries)
	}
}

func TestNothingIsTakenByAnInstanceThatOthersMayTakeForDead(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	q.Exec(t, "insert into rowhook.trigger (name, relation, schema_name, table_name, spec) values ('t', 'pg_class'::regclass, 'pg_catalog', 'pg_class', '{}')")
	ids := q.add(t, 1, 1)
	require.NoError(t, queue.Register(t.Context(), q.conn, 6, "late", "v", true))
	q.Exec(t, "update rowhook.event_log set claim = 1, claimed_by = 6, tries = 1, due_at = now() + interval '90 s'")
	taken := func() int {
		announced, err := queue.Take(t.Context(), q.conn, 6, ids, false)
		require.NoError(t, err)
		others, err := queue.TakeOthers(t.Context(), q.conn, 6, nil, false, 10)
		require.NoError(t, err)
		require.Len(t, others, len(announced))
		return len(others)
	}
	beats := func() { // for as long as the test takes
		require.Equal(t, 1, q.count(t, "rowhook.instance where seen_at > now() - interval '1 minute'"))
		q.Exec(t, "update rowhook.instance set seen_at = now() + interval '1 hour'")
	}
	beats()
	require.Equal(t, 1, taken())
	q.Exec(t, "update rowhook.instance set seen_at = now() - interval '1 hour'")
	require.Zero(t, taken())
	registered, err := queue.Beat(t.Context(), q.conn, 6, true)
	require.NoError(t, err)
	require.True(t, registered)
	beats()
	require.Equal(t, 1, taken())
}

func TestReclaimWaitsForAClaimThatIsStillRunning(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	q.add(t, 1, 2)
	require.NoError(t, queue.Register(t.Context(), q.conn, 6, "dies", "v", true))
	// If the instance that reclaims dies, too, the next one finds the dead instance by its row. So
	// an instance that still holds events must have a row.
	q.Exec(t, `
create function holds() returns trigger language plpgsql as $$
begin
  if exists (select from rowhook.event_log where claimed_by = old.id) then raise 'it still holds events'; end if;
  return old;
end $$;
create trigger holds before delete on rowhook.instance for each row execute function holds()`)
	dying := q.Conn(t)
	tx, err := dying.Begin(t.Context())
	require.NoError(t, err)
	got, err := queue.Claim(t.Context(), tx, numbered(6), []queue.Want{want(1, 2)})
	require.NoError(t, err)
	require.Len(t, got, 2)
	burier := q.Conn(t)
	reclaimed := make(chan int, 1)
	go func() {
		n, err := queue.Reclaim(context.Background(), burier, []int32{6})
		if !assert.NoError(t, err) {
			n = -1
		}
		reclaimed <- n
	}()
	require.Eventually(t, func() bool {
		return q.count(t, "pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()") == 1
	}, time.Minute, 5*time.Millisecond)
	require.NoError(t, tx.Commit(t.Context()))
	require.Equal(t, 2, <-reclaimed, "what it claimed last is given back, too")
}

func TestTheLastToLeaveSilencesTheDoorbellAndOthersAreTold(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	for _, id := range []int32{5, 6} {
		require.NoError(t, queue.Register(t.Context(), q.conn, id, "i", "v", true))
	}
	_, err := queue.Ring(t.Context(), q.conn, queue.Handover{})
	require.NoError(t, err)
	require.NoError(t, queue.Unregister(t.Context(), q.conn, 5))
	w, err := queue.ReadWatch(t.Context(), q.conn)
	require.NoError(t, err)
	require.EqualValues(t, queue.Ringing, w.Doorbell)
	require.EqualValues(t, 1, w.Departures)
	require.NoError(t, queue.Unregister(t.Context(), q.conn, 6))
	w, err = queue.ReadWatch(t.Context(), q.conn)
	require.NoError(t, err)
	require.EqualValues(t, 6, w.Doorbell, "nobody listens")
	require.EqualValues(t, 2, w.Departures)
}

func TestSettleBuriesAnEventWhoseIDIsAlreadyAmongTheDead(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	q.add(t, 1, 1)
	got := claim(t, q.conn, 7, want(1, 1))
	q.Exec(t, "insert into rowhook.dead_letter (id, created_at, trigger_id, tries, op, reason) select id, created_at, 1, 6, 'I', 'earlier' from rowhook.event_log")
	n, err := queue.Settle(t.Context(), q.conn, queue.SettleOptions{Instance: 7}, []queue.Settlement{{ID: got[0].ID, Trigger: 1, Tries: 1, Claim: got[0].Claim, Fate: queue.Dead, Reason: "again"}})
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.Equal(t, 1, q.count(t, "rowhook.dead_letter where reason = 'again'"))
}

func TestDisownGivesBackWhatOneClaimTookUncounted(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	q.add(t, 1, 3)
	q.add(t, 2, 2)
	earlier, other := claim(t, q.conn, 7, want(1, 1)), claim(t, q.conn, 8, want(1, 1))
	lost := numbered(7)
	wants := []queue.Want{want(1, 10), want(2, 1)}
	_, err := queue.Claim(t.Context(), q.conn, lost, wants)
	require.NoError(t, err)
	later := claim(t, q.conn, 7, want(2, 1))
	n, err := queue.ReleaseUnknown(t.Context(), q.conn, lost, wants)
	require.NoError(t, err)
	require.Equal(t, 2, n)
	require.Equal(t, 2, q.count(t, "rowhook.event_log where claimed_by is null and tries = 0 and due_at <= clock_timestamp()"))
	for _, e := range append(append(earlier, other...), later...) {
		require.Equal(t, 1, q.count(t, "rowhook.event_log where id = $1 and claimed_by is not null and tries = 1 and claim = $2", pgtype.UUID{Bytes: e.ID, Valid: true}, e.Claim))
	}
}

// A settlement whose answer was lost is written again. By then the event may have been claimed once
// more.
func TestASettlementWrittenAgainDoesNotPassForThatOfTheNextClaim(t *testing.T) {
	t.Parallel()
	for name, fate := range map[string]queue.Fate{"released": queue.Released, "retried": queue.Retried} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := newQueue(t)
			q.add(t, 1, 1)
			got := claim(t, q.conn, 7, want(1, 1))
			batch := []queue.Settlement{{ID: got[0].ID, Trigger: 1, Tries: got[0].Tries, Claim: got[0].Claim, Fate: fate}}
			opt := queue.SettleOptions{Instance: 7}
			n, err := queue.Settle(t.Context(), q.conn, opt, batch)
			require.NoError(t, err)
			require.Equal(t, 1, n)
			// A redelivery does the same.
			q.Exec(t, "update rowhook.event_log set tries = 0, due_at = clock_timestamp()")
			again := claim(t, q.conn, 7, want(1, 1))
			require.Equal(t, got[0].Tries, again[0].Tries, "tries don't tell the two apart")
			opt.MayHaveCommitted = true
			n, err = queue.Settle(t.Context(), q.conn, opt, batch)
			require.NoError(t, err)
			require.Zero(t, n)
			require.Equal(t, 1, q.count(t, "rowhook.event_log where claimed_by = 7 and claim = $1", again[0].Claim))
			batch[0].Claim = again[0].Claim
			n, err = queue.Settle(t.Context(), q.conn, opt, batch)
			require.NoError(t, err)
			require.Equal(t, 1, n)
		})
	}
}

// Neither giving back an interrupted claim nor reclaiming from a dead instance reads waiting
// events.
func TestGivingBackReadsOnlyWhatBecomesDueWithinTheLease(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	q.Exec(t, `insert into rowhook.event_log (id, trigger_id, op, due_at)
select rowhook.uuid7(), 1, 'I', clock_timestamp() + i * interval '1 s' from generate_series(-30000, 300000, 10) i where i > 3600 * 25 or i < 0`)
	q.Exec(t, "vacuum analyze rowhook.event_log")
	lost := numbered(7)
	require.NoError(t, queue.Register(t.Context(), q.conn, 7, "test", "v", false))
	_, err := queue.Claim(t.Context(), q.conn, lost, []queue.Want{want(1, 5)})
	require.NoError(t, err)
	for name, giveBack := range map[string]func(tx pgx.Tx) (int, error){
		"disown": func(tx pgx.Tx) (int, error) {
			return queue.ReleaseUnknown(t.Context(), tx, lost, []queue.Want{want(1, 5)})
		},
		"reclaim": func(tx pgx.Tx) (int, error) { return queue.Reclaim(t.Context(), tx, []int32{7}) },
	} {
		tx, err := q.conn.Begin(t.Context())
		require.NoError(t, err)
		read := func() (n int) {
			require.NoError(t, tx.QueryRow(t.Context(), `
select coalesce(pg_stat_get_xact_tuples_fetched(i), 0) + coalesce(pg_stat_get_xact_tuples_returned(i), 0)
  from unnest(array['rowhook.event_log'::regclass]) i`).Scan(&n))
			return n
		}
		before := read()
		n, err := giveBack(tx)
		require.NoError(t, err)
		require.Equal(t, 5, n)
		require.Less(t, read()-before, 50, name)
		require.NoError(t, tx.Rollback(t.Context()))
	}
}

// Retries of one settlement are due at the same time. The events of a claim may stand behind more
// of them than one statement reads.
func TestGivingBackPassesWhatIsDueAtTheSameTime(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	q.add(t, 1, 3)
	require.NoError(t, queue.Register(t.Context(), q.conn, 7, "test", "v", false))
	lost := numbered(7)
	_, err := queue.Claim(t.Context(), q.conn, lost, []queue.Want{want(1, 3)})
	require.NoError(t, err)
	q.Exec(t, `insert into rowhook.event_log (id, trigger_id, op, due_at) select rowhook.uuid7(), 1, 'I', now() + interval '20 s' from generate_series(1, 9000)`)
	n, err := queue.ReleaseUnknown(t.Context(), q.conn, lost, []queue.Want{want(1, 3)})
	require.NoError(t, err)
	require.Equal(t, 3, n)
}

func TestTidyMakesPartitionsAheadAndDropsWhatIsOver(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	q.Exec(t, "select rowhook.ensure_partitions(now() - interval '10 days', now())")
	q.Exec(t, "drop table rowhook.event_archive_"+time.Now().UTC().AddDate(0, 0, 2).Format("20060102"))
	tx, err := q.conn.Begin(t.Context())
	require.NoError(t, err)
	gone, err := queue.DropExpired(t.Context(), tx, trigger.Retention{Delivered: trigger.Duration(72 * time.Hour), Attempts: trigger.Duration(240 * time.Hour)})
	require.NoError(t, err)
	require.NoError(t, tx.Commit(t.Context()))
	dropped := names(gone)
	require.Contains(t, dropped, "event_archive_"+day(-4))
	require.NotContains(t, dropped, "event_archive_"+day(-3), "its end is within the retention")
	require.NotContains(t, dropped, "invocation_log_"+day(-10))
	require.Equal(t, 1, q.count(t, "pg_class where relname = $1", "event_archive_"+day(2)))
	require.Zero(t, q.count(t, "pg_class where relname = $1", "event_archive_"+day(-4)))
}

func TestEveryTableAndColumnIsCommentedAndNoPartitionIsDefault(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	require.Zero(t, q.count(t, `pg_class c left join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
 where c.relnamespace = 'rowhook'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition and c.relname <> 'schema_version'
   and (col_description(c.oid, a.attnum) is null or obj_description(c.oid, 'pg_class') is null)`))
	require.Zero(t, q.count(t, "pg_partitioned_table where partdefid <> 0"))
}
