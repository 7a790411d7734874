package queue_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/queue"
)

func TestLanesSettleMovesReschedulesBuriesAndLogs(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	q.lanes(t, 1)
	lane := own(t, q.conn, 7, 1, 1)[0]
	for range 4 {
		q.park(t, q.conn, lane, "k")
	}
	events := read(t, q.conn, laneRead(lane, 0, 10)).Events
	sent := &queue.Attempt{StartedAt: time.Now(), Status: 500, Header: []byte(`{"A": "b"}`)}
	delivered, retried, dead, blocking := attempt(events[0], lane, queue.Delivered), attempt(events[1], lane, queue.Retried), attempt(events[2], lane, queue.Dead), attempt(events[3], lane, queue.Dead)
	delivered.Attempt, retried.Attempt, dead.Attempt, blocking.Attempt = sent, sent, sent, sent
	retried.Delay, dead.Reason, blocking.Reason, blocking.Blocks = 10*time.Second, "HTTP 500", "HTTP 500", true
	began := time.Now()
	n, _ := settle(t, q.conn, 7, delivered, retried, dead, blocking)
	require.Equal(t, 4, n)
	require.Equal(t, 1, q.count(t, "rowhook.event_archive where id = $1 and tries = 1 and new is not null and seq = $2", uuid(events[0].ID), events[0].Seq))
	require.Equal(t, 1, q.count(t, `rowhook.event_log where id = $1 and tries = 1 and claimed_by is null and lane = 0 and key = 'k' and seq = $2
		and due_at - interval '1752000 hours' between $3::timestamptz + interval '10 s' and clock_timestamp() + interval '10 s'`, uuid(events[1].ID), events[1].Seq, began))
	require.Equal(t, 1, q.count(t, "rowhook.dead_letter where id = $1 and reason = 'HTTP 500' and key = 'k' and lane = 0 and seq = $2 and blocks is null", uuid(events[2].ID), events[2].Seq))
	require.Equal(t, 1, q.count(t, "rowhook.event_log"))
	require.Equal(t, 4, q.count(t, "rowhook.invocation_log where status = 500 and attempt = 1 and instance_id = 7 and trigger_id = 1"))

	blocked, err := queue.ReadBlocked(t.Context(), q.conn, []queue.Lane{{Trigger: 1, Lane: 1}, lane})
	require.NoError(t, err)
	require.Equal(t, []queue.Blocked{{ID: events[3].ID, Trigger: 1, Lane: 0, Seq: events[3].Seq, Key: "k"}}, blocked)

	again := read(t, q.conn, laneRead(lane, 0, 10)).Events
	require.Len(t, again, 1)
	require.EqualValues(t, 2, again[0].Tries)
	require.WithinRange(t, again[0].DueAt, began.Add(10*time.Second), time.Now().Add(10*time.Second))
}

func TestLanesSettleNothingUnderAnotherOwner(t *testing.T) {
	t.Parallel()
	for name, takeOver := range map[string]string{
		"another instance owns the lane":     "update rowhook.lane set owner = 8, epoch = epoch + 1",
		"it was released":                    "update rowhook.lane set owner = null",
		"it came back under another epoch":   "update rowhook.lane set epoch = epoch + 1",
		"the trigger has no lanes any more":  "delete from rowhook.lane",
		"the same epoch of another instance": "update rowhook.lane set owner = 8",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := newQueue(t)
			q.lanes(t, 1)
			lanes := own(t, q.conn, 7, 1, 2)
			q.park(t, q.conn, lanes[0], "k")
			q.park(t, q.conn, lanes[1], "l")
			events := read(t, q.conn, laneRead(lanes[0], 0, 10), laneRead(lanes[1], 0, 10)).Events
			q.Exec(t, takeOver+" where lane = 0")
			for _, fate := range []queue.Fate{queue.Delivered, queue.Retried, queue.Dead, queue.Annulled} {
				lost := attempt(events[0], lanes[0], fate)
				lost.Attempt = &queue.Attempt{StartedAt: time.Now(), Status: 200}
				n, got := settle(t, q.conn, 7, attempt(events[1], lanes[1], queue.Retried), lost)
				require.LessOrEqual(t, n, 1)
				require.Equal(t, []bool{false, true}, got)
			}
			require.Equal(t, 1, q.count(t, "rowhook.event_log where lane = 0 and tries = 0"))
			require.Zero(t, q.count(t, "rowhook.event_archive"))
			require.Zero(t, q.count(t, "rowhook.dead_letter"))
			require.Equal(t, 4, q.count(t, "rowhook.invocation_log"), "the attempts were made all the same")
		})
	}
}

func TestLanesSettleTwiceWritesOnce(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	q.lanes(t, 1)
	lane := own(t, q.conn, 7, 1, 1)[0]
	q.park(t, q.conn, lane, "k")
	q.park(t, q.conn, lane, "k")
	events := read(t, q.conn, laneRead(lane, 0, 10)).Events
	opt := queue.SettleOptions{Instance: 7, KeepDelivered: true, KeepAttempts: true}
	for i := range 3 {
		delivered, retried := attempt(events[0], lane, queue.Delivered), attempt(events[1], lane, queue.Retried)
		delivered.Attempt, retried.Attempt = &queue.Attempt{StartedAt: time.Now(), Status: 200}, &queue.Attempt{StartedAt: time.Now(), Status: 500}
		batch := []queue.Settlement{delivered, retried}
		n, err := queue.Settle(t.Context(), q.conn, opt, batch)
		require.NoError(t, err)
		require.Equal(t, i == 0, n == 2)
		require.False(t, batch[0].Lost || batch[1].Lost)
		opt.MayHaveCommitted = true
	}
	require.Equal(t, 2, q.count(t, "rowhook.invocation_log"))
	require.Equal(t, 1, q.count(t, "rowhook.event_log where tries = 1"))
}

func TestLanesSettleWithoutHistoryAndOnTheSchemaBefore(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	q.lanes(t, 1)
	lane := own(t, q.conn, 7, 1, 1)[0]
	for range 4 {
		q.park(t, q.conn, lane, "k")
	}
	events := read(t, q.conn, laneRead(lane, 0, 10)).Events
	q.Exec(t, "drop table rowhook.event_archive, rowhook.invocation_log cascade")
	dead, merged := attempt(events[0], lane, queue.Dead), attempt(events[2], lane, queue.Delivered)
	dead.Attempt, merged.Merge = &queue.Attempt{StartedAt: time.Now(), Status: 500}, &queue.Merge{Over: []queue.Passed{{ID: events[1].ID, Tries: 1}}, FirstOld: true}
	n, err := queue.Settle(t.Context(), q.conn, queue.SettleOptions{Instance: 7, NoHistory: true, KeepDelivered: true, KeepAttempts: true}, []queue.Settlement{dead, merged})
	require.NoError(t, err)
	require.Equal(t, 2, n)
	require.Equal(t, 1, q.count(t, "rowhook.event_log"))
	require.Equal(t, 1, q.count(t, "rowhook.dead_letter where seq = $1", events[0].Seq))
}

func TestLanesSettleArchivesWhatWasMergedWithWhatWasSent(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	q.lanes(t, 1)
	lane := own(t, q.conn, 7, 1, 1)[0]
	for range 6 {
		q.park(t, q.conn, lane, "k")
	}
	e := read(t, q.conn, laneRead(lane, 0, 10)).Events
	over := func(events ...queue.LaneEvent) (out []queue.Passed) {
		for _, e := range events {
			out = append(out, queue.Passed{ID: e.ID, Tries: e.Tries})
		}
		return out
	}
	retried := attempt(e[2], lane, queue.Retried)
	retried.Merge = &queue.Merge{Over: over(e[0], e[1]), Op: 'I', FirstOld: true}
	n, _ := settle(t, q.conn, 7, retried)
	require.Equal(t, 1, n)
	require.Equal(t, 6, q.count(t, "rowhook.event_log"), "nothing is merged for good while it is retried")

	retried.Fate, retried.Tries = queue.Delivered, 2
	n, _ = settle(t, q.conn, 7, retried)
	require.Equal(t, 1, n, "those that were passed over are not counted")
	require.Equal(t, 2, q.count(t, "rowhook.event_archive where merged_into = $1 and tries = 0 and op = 'U' and old ->> 'old' = seq::text", uuid(e[2].ID)))
	require.Equal(t, 1, q.count(t, "rowhook.event_archive where id = $1 and merged_into is null and tries = 2 and op = 'I' and old ->> 'old' = $2 and new ->> 'new' = seq::text",
		uuid(e[2].ID), string(e[0].Old[9:len(e[0].Old)-1])))

	annulled := attempt(e[4], lane, queue.Annulled)
	annulled.Merge = &queue.Merge{Over: over(e[3])}
	n, _ = settle(t, q.conn, 7, annulled)
	require.Equal(t, 1, n)
	require.Equal(t, 2, q.count(t, "rowhook.event_archive where merged_into = $1 and tries = 0", uuid(e[4].ID)))
	require.Equal(t, 1, q.count(t, "rowhook.event_log"))

	dead := attempt(e[5], lane, queue.Dead)
	dead.Merge = &queue.Merge{Over: []queue.Passed{{ID: e[0].ID, Tries: 1}}, FirstOld: true} // gone meanwhile
	n, _ = settle(t, q.conn, 7, dead)
	require.Equal(t, 1, n)
	require.Equal(t, 1, q.count(t, "rowhook.dead_letter where old ->> 'old' = seq::text"))
}

// TestANewOwnerReadsALaneAfterTheSettlementsOfTheOldOne: an owner that is taken for dead may have a
// settlement that still runs in the server.
func TestANewOwnerReadsALaneAfterTheSettlementsOfTheOldOne(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	q.lanes(t, 1)
	lanes := own(t, q.conn, 7, 1, 2)
	q.park(t, q.conn, lanes[0], "k")
	event := read(t, q.conn, laneRead(lanes[0], 0, 10)).Events[0]
	tx, err := q.Conn(t).Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(context.Background()) }()
	n, _ := settle(t, tx, 7, attempt(event, lanes[0], queue.Delivered))
	require.Equal(t, 1, n)
	_, err = queue.Reclaim(t.Context(), q.conn, []int32{7})
	require.NoError(t, err)
	require.NotContains(t, laneNumbers(own(t, q.conn, 8, 1, 64)), int16(0), "it is being settled")
	require.NoError(t, tx.Commit(t.Context()))
	none, err := queue.ClaimLanes(t.Context(), q.conn, 9, []queue.LaneWant{{Trigger: 1, Most: 64}})
	require.NoError(t, err)
	require.Empty(t, none)
	lanes = own(t, q.conn, 9, 1, 64)
	require.Equal(t, []int16{0}, laneNumbers(lanes))
	require.Empty(t, read(t, q.conn, laneRead(lanes[0], 0, 10)).Events)
}

func TestClaimedEventsKeepTheirNumberInHistoryAndDeadLetters(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	q.add(t, 1, 3)
	q.Exec(t, "update rowhook.event_log set seq = 40 + (new ->> 'n')::integer where new ->> 'n' <> '3'")
	got := claim(t, q.conn, 7, want(1, 3))
	require.ElementsMatch(t, []int64{41, 42, 0}, []int64{got[0].Seq, got[1].Seq, got[2].Seq})
	var batch []queue.Settlement
	for _, e := range got {
		fate := queue.Delivered
		if e.Seq == 42 {
			fate = queue.Dead
		}
		batch = append(batch, queue.Settlement{ID: e.ID, Trigger: 1, Tries: 1, Claim: e.Claim, Fate: fate})
	}
	n, err := queue.Settle(t.Context(), q.conn, queue.SettleOptions{Instance: 7, KeepDelivered: true}, batch)
	require.NoError(t, err)
	require.Equal(t, 3, n)
	require.Equal(t, 1, q.count(t, "rowhook.event_archive where seq = 41"))
	require.Equal(t, 1, q.count(t, "rowhook.event_archive where seq is null"))
	require.Equal(t, 1, q.count(t, "rowhook.dead_letter where seq = 42 and lane is null and blocks is null"))
}

func TestAnEventThatChangesItsKeyWaitsForTheOldOne(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	q.lanes(t, 1)
	lanes := own(t, q.conn, 7, 1, 2)
	_, first := q.park(t, q.conn, lanes[0], "old")
	id, seq := q.park(t, q.conn, lanes[1], "new")
	q.Exec(t, "insert into rowhook.key_move (event_id, trigger_id, lane, seq, key) values ($1, 1, 0, $2, 'old')", uuid(id), seq)
	_, last := q.park(t, q.conn, lanes[0], "old")
	state := func() (queue.LanePage, map[[16]byte]bool) {
		moves, err := queue.ReadMoves(t.Context(), q.conn, [][16]byte{id, {1}})
		require.NoError(t, err)
		return read(t, q.conn, laneRead(lanes[0], 0, 10), laneRead(lanes[1], 0, 10)), moves
	}
	finish := func() [][16]byte {
		gone, err := queue.FinishMoves(t.Context(), q.conn, [][16]byte{id})
		require.NoError(t, err)
		return gone
	}
	page, moves := state()
	require.Equal(t, []int64{first, last, seq}, seqs(page))
	require.Equal(t, []queue.Move{queue.NoMove, queue.NoMove, queue.MoveWaits}, []queue.Move{page.Events[0].Move, page.Events[1].Move, page.Events[2].Move})
	require.Equal(t, []queue.KeyMove{{Event: id, Trigger: 1, Lane: 0, Seq: seq, Key: "old"}}, page.Moves)
	require.Equal(t, map[[16]byte]bool{id: false}, moves)
	require.Equal(t, []int64{first}, seqs(read(t, q.conn, laneRead(lanes[0], 0, 1))), "a move behind the limit is read next time")
	require.Empty(t, read(t, q.conn, laneRead(lanes[0], 0, 1)).Moves)
	require.Len(t, read(t, q.conn, laneRead(lanes[0], first, 1)).Moves, 1)
	require.Equal(t, []queue.LaneEnd{{Last: seq, More: true}}, read(t, q.conn, laneRead(lanes[0], first, 1)).Ends)

	stale := queue.LaneMove{Event: id, Owned: lanes[0]}
	stale.Owned.Epoch++
	require.NoError(t, queue.MarkMovesReady(t.Context(), q.conn, 7, []queue.LaneMove{stale}))
	require.NoError(t, queue.MarkMovesReady(t.Context(), q.conn, 8, []queue.LaneMove{{Event: id, Owned: lanes[0]}}))
	_, moves = state()
	require.Equal(t, map[[16]byte]bool{id: false}, moves, "only the lane's owner may say so")
	require.NoError(t, queue.MarkMovesReady(t.Context(), q.conn, 7, []queue.LaneMove{{Event: id, Owned: lanes[0]}}))
	page, moves = state()
	require.Equal(t, queue.MoveReady, page.Events[2].Move)
	require.True(t, page.Moves[0].Ready)
	require.Equal(t, map[[16]byte]bool{id: true}, moves)

	require.Empty(t, finish(), "the event is still owed")
	settle(t, q.conn, 7, attempt(page.Events[2], lanes[1], queue.Delivered))
	require.Equal(t, [][16]byte{id}, finish())
	require.Equal(t, [][16]byte{id}, finish(), "somebody else may have deleted it")
	require.Zero(t, q.count(t, "rowhook.key_move"))
}

// TestOneEventOfALaneIsOneDeadTuple counts what vacuum has to remove after all are delivered.
func TestOneEventOfALaneIsOneDeadTuple(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	q.lanes(t, 1)
	lane := own(t, q.conn, 7, 1, 1)[0]
	q.Exec(t, "alter table rowhook.event_log set (autovacuum_enabled = off)")
	const events = 2000
	q.Exec(t, `
insert into rowhook.event_log (id, trigger_id, op, new, due_at, key, lane, seq)
select rowhook.uuid7(), 1, 'I', '{}', now() + interval '1752000 hours', n, 0, nextval('rowhook.event_seq') from generate_series(1, $1) n`, events)
	after := int64(0)
	for range events / 100 {
		page := read(t, q.conn, laneRead(lane, after, 100))
		var batch []queue.Settlement
		for _, e := range page.Events {
			batch = append(batch, attempt(e, lane, queue.Delivered))
		}
		n, _ := settle(t, q.conn, 7, batch...)
		require.Equal(t, 100, n)
		after = page.Ends[0].Last
	}
	require.Eventually(t, func() bool {
		_, err := q.conn.Exec(t.Context(), "select pg_stat_clear_snapshot()", pgx.QueryExecModeSimpleProtocol)
		return err == nil && q.count(t, "pg_stat_user_tables where relid = 'rowhook.event_log'::regclass and n_tup_del = $1", events) == 1
	}, time.Minute, 50*time.Millisecond)
	var dead int
	err := q.conn.QueryRow(t.Context(), "select sum(n_dead_tup) from pg_stat_user_tables where schemaname = 'rowhook'").Scan(&dead)
	require.NoError(t, err)
	require.LessOrEqual(t, float64(dead), 1.1*events)
}
