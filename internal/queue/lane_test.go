package queue_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
)

const pgClass = 1259

// lanes makes the 64 lanes of a trigger.
func (q fixture) lanes(t *testing.T, triggers ...int32) {
	t.Helper()
	q.Exec(t, "insert into rowhook.lane (trigger_id, lane) select t, l from unnest($1::integer[]) t, generate_series(0, 63) l", triggers)
}

// park puts an event with a key into a lane and returns its id and number.
func (q fixture) park(t *testing.T, db pg.Queryer, lane queue.Lane, key string) (id [16]byte, seq int64) {
	t.Helper()
	require.NoError(t, db.QueryRow(t.Context(), `
insert into rowhook.event_log (id, trigger_id, op, old, new, due_at, key, lane, seq)
select rowhook.uuid7(), $1, 'U', json_build_object('old', n), json_build_object('new', n), now() + interval '1752000 hours', $3, $2, n
  from nextval('rowhook.event_seq') n returning id, seq`, lane.Trigger, lane.Lane, key).Scan(&id, &seq))
	return id, seq
}

func own(t *testing.T, db pg.Queryer, instance, trigger, most int32) (out []queue.Lane) {
	t.Helper()
	require.NoError(t, queue.Register(t.Context(), db, instance, "test", "v", false))
	lanes, err := queue.ClaimLanes(t.Context(), db, instance, []queue.LaneWant{{Trigger: trigger, Most: most}})
	require.NoError(t, err)
	return lanesOf(lanes)
}

func lanesOf(taken []queue.TakenLane) (out []queue.Lane) {
	for _, l := range taken {
		out = append(out, l.Lane)
	}
	return out
}

func laneNumbers(lanes []queue.Lane) (out []int16) {
	for _, l := range lanes {
		out = append(out, l.Lane)
	}
	return out
}

func read(t *testing.T, db pg.Queryer, reads ...queue.LaneRead) queue.LanePage {
	t.Helper()
	page, err := queue.ReadLanes(t.Context(), db, reads)
	require.NoError(t, err)
	return page
}

func laneRead(lane queue.Lane, after int64, limit int32) queue.LaneRead {
	return queue.LaneRead{Trigger: lane.Trigger, Lane: lane.Lane, Relation: pgClass, After: after, Limit: limit}
}

func seqs(page queue.LanePage) (out []int64) {
	for _, e := range page.Events {
		out = append(out, e.Seq)
	}
	return out
}

// attempt settles the attempt of an event of a lane.
func attempt(e queue.LaneEvent, lane queue.Lane, fate queue.Fate) queue.Settlement {
	return queue.Settlement{ID: e.ID, Trigger: e.Trigger, Tries: e.Tries, Lane: lane, Fate: fate}
}

func settle(t *testing.T, db pg.Queryer, instance int32, batch ...queue.Settlement) (n int, lost []bool) {
	t.Helper()
	n, err := queue.Settle(t.Context(), db, queue.SettleOptions{Instance: instance, KeepDelivered: true, KeepAttempts: true}, batch)
	require.NoError(t, err)
	for i := range batch {
		lost = append(lost, batch[i].Lost)
	}
	return n, lost
}

func uuid(id [16]byte) pgtype.UUID { return pgtype.UUID{Bytes: id, Valid: true} }

func TestAnEventOfALaneIsReadAndSettledWithoutAClaim(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	q.lanes(t, 1)
	lane := own(t, q.conn, 7, 1, 1)[0]
	require.Equal(t, queue.Lane{Trigger: 1, Lane: 0, Epoch: 1}, lane)
	id, seq := q.park(t, q.conn, lane, "k")
	require.Empty(t, claim(t, q.conn, 7, want(1, 10)), "a claim does not find what is parked")
	page := read(t, q.conn, laneRead(lane, 0, 10))
	require.Len(t, page.Events, 1)
	e := page.Events[0]
	require.Equal(t, id, e.ID)
	require.Equal(t, seq, e.Seq)
	require.EqualValues(t, 1, e.Tries, "the attempt to come")
	require.Equal(t, "k", e.Key)
	require.EqualValues(t, 'U', e.Op)
	require.Contains(t, e.Table, "pg_class")
	require.JSONEq(t, fmt.Sprintf(`{"old": %d}`, seq), string(e.Old))
	require.Equal(t, queue.NoMove, e.Move)
	require.WithinDuration(t, e.CreatedAt, e.DueAt, time.Minute)
	require.Equal(t, seq, page.SeqBefore)
	require.Equal(t, []queue.LaneEnd{{Last: seq}}, page.Ends)

	n, lost := settle(t, q.conn, 7, attempt(e, lane, queue.Delivered))
	require.Equal(t, 1, n)
	require.Equal(t, []bool{false}, lost)
	require.Zero(t, q.count(t, "rowhook.event_log"))
	require.Equal(t, 1, q.count(t, "rowhook.event_archive where id = $1 and seq = $2 and tries = 1 and merged_into is null", uuid(id), seq))
}

func TestLanesAreClaimedOnceAndFreeAgainWithoutTheirOwner(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	q.lanes(t, 1, 2)
	mine := own(t, q.conn, 7, 1, 40)
	require.Len(t, mine, 40)
	theirs := own(t, q.conn, 8, 1, 40)
	require.Len(t, theirs, 24, "the others are taken")
	lanes, err := queue.ClaimLanes(t.Context(), q.conn, 99, []queue.LaneWant{{Trigger: 2, Most: 64}})
	require.NoError(t, err)
	require.Empty(t, lanes, "an instance that is not registered gets nothing")

	n, err := queue.ReleaseLanes(t.Context(), q.conn, 8, append(theirs[:4:4], mine[0]))
	require.NoError(t, err)
	require.Equal(t, 4, n, "another instance's lane is left alone")
	lanes, err = queue.ClaimLanes(t.Context(), q.conn, 7, []queue.LaneWant{{Trigger: 1, Most: 64}})
	require.NoError(t, err)
	require.ElementsMatch(t, []int16{40, 41, 42, 43}, laneNumbers(lanesOf(lanes)))

	_, err = queue.Reclaim(t.Context(), q.conn, []int32{7})
	require.NoError(t, err)
	lanes, err = queue.ClaimLanes(t.Context(), q.conn, 8, []queue.LaneWant{{Trigger: 1, Most: 64}})
	require.NoError(t, err)
	require.Len(t, lanes, 44, "the lanes of a buried instance are free at once")
	for _, l := range lanes {
		require.Greater(t, l.Epoch, int64(1))
	}
}

func TestALaneOfItsOwnIsClaimedAnewOnRequest(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	q.lanes(t, 1)
	lanes := own(t, q.conn, 7, 1, 3)
	again, err := queue.ClaimLanes(t.Context(), q.conn, 7, []queue.LaneWant{{Trigger: 1, Most: 1, Anew: []int16{1}}})
	require.NoError(t, err)
	require.Equal(t, []queue.Lane{{Trigger: 1, Lane: 1, Epoch: lanes[1].Epoch + 1}}, lanesOf(again))
}

func TestALaneCountsTheOwnersThatDiedWithItWithinADayOfEachOther(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	q.Exec(t, "insert into rowhook.lane (trigger_id, lane) values (1, 0)")
	take := func(instance int32, anew ...int16) queue.TakenLane {
		require.NoError(t, queue.Register(t.Context(), q.conn, instance, "test", "v", false))
		lanes, err := queue.ClaimLanes(t.Context(), q.conn, instance, []queue.LaneWant{{Trigger: 1, Most: 1, Anew: anew}})
		require.NoError(t, err)
		require.Len(t, lanes, 1)
		return lanes[0]
	}
	dies := func(instance int32) {
		_, err := queue.Reclaim(t.Context(), q.conn, []int32{instance})
		require.NoError(t, err)
	}
	require.Zero(t, take(7).Deaths, "nobody had it")
	require.Zero(t, take(7, 0).Deaths, "it was its own")
	dies(7)
	lane := take(8)
	require.EqualValues(t, 1, lane.Deaths)
	_, err := queue.ReleaseLanes(t.Context(), q.conn, 8, []queue.Lane{lane.Lane})
	require.NoError(t, err)
	require.EqualValues(t, 1, take(9).Deaths, "it was given back, and what was sent by the one that died may not have been sent again")
	dies(9)
	require.EqualValues(t, 2, take(10).Deaths)
	q.Exec(t, "update rowhook.lane set died_at = died_at - interval '25 hours'")
	require.Zero(t, take(10, 0).Deaths)
	dies(10)
	require.EqualValues(t, 1, take(11).Deaths)
}

func TestSeatsCountThoseThatServeAndWhatIsFree(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	q.lanes(t, 1, 2)
	mine := own(t, q.conn, 7, 1, 3)
	own(t, q.conn, 8, 1, 5)
	seats := func(instance int32, triggers ...int32) []queue.Seats {
		s, err := queue.ReadSeats(t.Context(), q.conn, instance, triggers, nil)
		require.NoError(t, err)
		return s
	}
	seats(7, 2, 1)
	require.Equal(t, []queue.Seats{{Trigger: 1, Serving: 2, Mine: mine, Free: 56}, {Trigger: 2, Serving: 1, Free: 64}}, func() []queue.Seats {
		seats(8, 1)
		return seats(7, 1, 2)
	}())
	version := func() (v int) {
		require.NoError(t, q.conn.QueryRow(t.Context(), "select xmin::text::bigint from rowhook.instance where id = 7").Scan(&v))
		return v
	}
	before := version()
	seats(7, 2, 1)
	require.Equal(t, before, version(), "it writes only what differs")
	require.Empty(t, seats(8))
	left, err := queue.ReadSeats(t.Context(), q.conn, 8, nil, []int32{1})
	require.NoError(t, err)
	require.Len(t, left, 1)
	require.Len(t, left[0].Mine, 5, "it does not serve the trigger, and still has lanes of it")
	require.EqualValues(t, 1, seats(7, 1, 2)[0].Serving)
	require.Empty(t, seats(99, 1)[0].Mine)
	require.EqualValues(t, 1, seats(99, 1)[0].Serving, "it is not registered")
}

func TestInstancesAreToldWhenOneServesOtherTriggers(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	q.lanes(t, 1)
	own(t, q.conn, 7, 1, 1)
	hearing := q.Conn(t)
	_, err := hearing.Exec(t.Context(), "listen "+queue.Channel)
	require.NoError(t, err)
	for _, triggers := range [][]int32{{1}, {1}, {1, 2}, nil} {
		_, err := queue.ReadSeats(t.Context(), q.conn, 7, triggers, nil)
		require.NoError(t, err)
	}
	require.NoError(t, queue.NotifyPeers(t.Context(), q.conn, "all"))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, want := range []string{queue.LanesPayload, queue.LanesPayload, queue.LanesPayload, "all"} {
		n, err := hearing.WaitForNotification(ctx)
		require.NoError(t, err)
		require.Equal(t, want, n.Payload)
	}
}

func TestAReadOfLanesGoesFromTheCursorToTheLimit(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	one, two := queue.Lane{Trigger: 1, Lane: 5}, queue.Lane{Trigger: 1, Lane: 6}
	var inOne, inTwo []int64
	for range 5 {
		_, seq := q.park(t, q.conn, one, "a")
		inOne = append(inOne, seq)
		_, seq = q.park(t, q.conn, two, "b")
		inTwo = append(inTwo, seq)
	}
	page := read(t, q.conn, laneRead(one, inOne[0], 2), laneRead(two, 0, 10))
	require.Equal(t, append(inOne[1:3:3], inTwo...), seqs(page))
	require.Equal(t, []queue.LaneEnd{{Last: inOne[2], More: true}, {Last: inTwo[4]}}, page.Ends)
	up := laneRead(one, 0, 10)
	up.UpTo = inOne[1]
	page = read(t, q.conn, up, laneRead(queue.Lane{Trigger: 2}, 4, 10))
	require.Equal(t, inOne[:2], seqs(page))
	require.Equal(t, []queue.LaneEnd{{Last: inOne[1]}, {Last: 4}}, page.Ends)

	held := laneRead(one, 0, 1)
	held.Hold = true
	page = read(t, q.conn, held)
	require.Nil(t, page.Events[0].New)
	require.Positive(t, page.Events[0].Held)
	payload, ok, err := queue.FetchPayload(t.Context(), q.conn, 7, queue.Holding{ID: page.Events[0].ID, Ordered: true})
	require.NoError(t, err)
	require.True(t, ok)
	require.NotNil(t, payload.New)
	q.add(t, 3, 1)
	claimed := claim(t, q.conn, 7, want(3, 1))
	_, ok, err = queue.FetchPayload(t.Context(), q.conn, 7, queue.Holding{ID: claimed[0].ID, Ordered: true})
	require.NoError(t, err)
	require.False(t, ok, "an event without a lane needs its claim")
}

func TestAReadOfLanesTellsWhichTransactionsMayCommitBehindIt(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	lane := queue.Lane{Trigger: 1}
	begin := func() (pgx.Tx, uint64) {
		tx, err := q.Conn(t).Begin(t.Context())
		require.NoError(t, err)
		t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
		var xid int64
		require.NoError(t, tx.QueryRow(t.Context(), "select pg_current_xact_id()::text::bigint").Scan(&xid))
		return tx, uint64(xid)
	}
	early, first := begin()
	late, second := begin()
	_, lateSeq := q.park(t, late, lane, "k")
	_, seq := q.park(t, early, lane, "k")
	require.NoError(t, early.Commit(t.Context()))
	page := read(t, q.conn, laneRead(lane, 0, 10))
	require.Equal(t, []int64{seq}, seqs(page))
	require.Less(t, lateSeq, seq)
	require.True(t, page.Sees(first))
	require.False(t, page.Sees(second), "it is open, though the list of the snapshot may not have it")
	require.Less(t, second, page.Next, "its numbers may be below the cursor")
	require.Equal(t, seq, page.SeqBefore)

	after, third := begin()
	require.GreaterOrEqual(t, third, page.Next)
	_, afterSeq := q.park(t, after, lane, "k")
	require.Greater(t, afterSeq, page.SeqBefore)
	require.NoError(t, after.Commit(t.Context()))
	next := read(t, q.conn, laneRead(lane, seq, 10))
	require.Equal(t, []int64{afterSeq}, seqs(next))
	require.Contains(t, next.Xip, second)
	require.LessOrEqual(t, next.Xmin, second)
	require.NoError(t, late.Commit(t.Context()))
	back := laneRead(lane, 0, 10)
	back.UpTo = seq
	last := read(t, q.conn, back)
	require.True(t, last.Sees(second))
	require.Equal(t, []int64{lateSeq, seq}, seqs(last))
}

// TestAReadOfLanesReadsNothingElse has the settings of a dispatcher's session, and statistics that
// were true once.
func TestAReadOfLanesReadsNothingElse(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	fill := `
insert into rowhook.event_log (id, trigger_id, op, new, due_at, key, lane, seq)
select rowhook.uuid7(), 1 + n % 2, 'I', '{}', now() + interval '1752000 hours', n / 2 % 5000, case when $1 then 3 else n / 2 % 5000 % 64 end, nextval('rowhook.event_seq')
  from generate_series(1, 100000) n`
	reads := func(t *testing.T, after int64) {
		conn := q.Conn(t)
		for name, value := range (pg.ByIndex().With(pg.Settings{"enable_bitmapscan": "off", "plan_cache_mode": "force_generic_plan"})) {
			_, err := conn.Exec(t.Context(), "select set_config($1, $2, false)", name, value)
			require.NoError(t, err)
		}
		tx, err := conn.Begin(t.Context())
		require.NoError(t, err)
		defer func() { _ = tx.Rollback(context.Background()) }()
		counted := func() (scans, fetched [3]int64) {
			for i, index := range []string{"event_log_lane", "event_log_due", "event_log_pkey"} {
				require.NoError(t, tx.QueryRow(t.Context(), "select pg_stat_get_xact_numscans($1::text::regclass), pg_stat_get_xact_tuples_returned($1::text::regclass)", "rowhook."+index).Scan(&scans[i], &fetched[i]))
			}
			return scans, fetched
		}
		scans, fetched := counted()
		page := read(t, tx, laneRead(queue.Lane{Trigger: 1, Lane: 3}, after, 20), laneRead(queue.Lane{Trigger: 2, Lane: 3}, after, 20))
		require.NotEmpty(t, page.Events)
		scansNow, fetchedNow := counted()
		require.EqualValues(t, 2, scansNow[0]-scans[0])
		require.LessOrEqual(t, fetchedNow[0]-fetched[0], int64(42))
		require.Equal(t, scans[1:], scansNow[1:], "another index was used")
	}
	q.Exec(t, "vacuum analyze rowhook.event_log")
	q.Exec(t, fill, false)
	reads(t, 50_000)
	q.Exec(t, "vacuum analyze rowhook.event_log")
	reads(t, 50_000)
	q.Exec(t, "truncate rowhook.event_log")
	q.Exec(t, fill, true)
	reads(t, 150_000)
	q.Exec(t, "vacuum analyze rowhook.event_log")
	reads(t, 150_000)
}
