package queue_test

import (
	"fmt"
	"testing"
	"time"

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

func own(t *testing.T, db pg.Queryer, instance, trigger, most int32) []queue.Lane {
	t.Helper()
	require.NoError(t, queue.Register(t.Context(), db, instance, "test", "v", false))
	lanes, err := queue.ClaimLanes(t.Context(), db, instance, []queue.LaneWant{{Trigger: trigger, Most: most}})
	require.NoError(t, err)
	return lanes
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
	n, err := queue.Settle(t.Context(), db, queue.SettleOptions{Schema: queue.OrderedSchema, Instance: instance, KeepDelivered: true, KeepAttempts: true}, batch)
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
	require.WithinDuration(t, e.CreatedAt, e.DueAt, time.Second)
	require.Equal(t, seq, page.SeqBefore)
	require.Equal(t, []queue.LaneEnd{{Last: seq}}, page.Ends)

	n, lost := settle(t, q.conn, 7, attempt(e, lane, queue.Delivered))
	require.Equal(t, 1, n)
	require.Equal(t, []bool{false}, lost)
	require.Zero(t, q.count(t, "rowhook.event_log"))
	require.Equal(t, 1, q.count(t, "rowhook.event_archive where id = $1 and seq = $2 and tries = 1 and merged_into is null", uuid(id), seq))
}
