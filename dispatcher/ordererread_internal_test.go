package dispatcher

import (
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/internal/timed"
	"github.com/rowhook/rowhook/trigger"
)

// It runs alone: transactions of other databases are open ones, too.
func TestAShortTransactionThatIsOpenAtTheFirstReadHasNothingReadAgain(t *testing.T) {
	timed.Alone(t)
	ctx, test := t.Context(), pgtest.New(t)
	conn := test.Conn(t)
	db := &database{}
	db.use(test.Pool(t))
	o := newOrderer(db, &identity{id: 7}, newScheduler(10, 10), nil, &observers{}, slog.New(slog.DiscardHandler))
	park := func(db pg.Queryer) {
		rows, err := db.Query(ctx, `insert into rowhook.event_log (id, trigger_id, op, new, key, lane, seq)
			select rowhook.uuid7(), 1, 'I', '{}', 'k' || n, 0, n from nextval('rowhook.event_seq') n`)
		require.NoError(t, err)
		rows.Close()
		require.NoError(t, rows.Err())
	}
	ask := func(j job) {
		then, err := j(ctx)
		require.NoError(t, err)
		then()
	}
	for range 5 {
		park(conn)
	}
	spec := trigger.Spec{Order: trigger.Order{By: []string{trigger.OrderByRow}}}
	o.triggers = map[int32]orderedTrigger{1: {queue.Trigger{ID: 1, Spec: spec}, &lane{}}}
	o.reconfigure()
	ask(o.job(time.Now()))
	n := o.lines[1]
	n.take(queue.TakenLane{Lane: queue.Lane{Trigger: 1, Epoch: 1}}, 0)
	tx, err := conn.Begin(ctx)
	require.NoError(t, err)
	park(tx)
	park(test.Conn(t)) // is read, and has the higher number
	ask(o.read(time.Now()))
	require.Equal(t, 6, n.lanes.Entries())
	require.NoError(t, tx.Commit(ctx))

	n.lanes.Mark()
	read := 0
	for n.lanes.Marked() {
		reads := n.lanes.Reads(100, o.horizon.Recent())
		all := make([]queue.LaneRead, len(reads))
		for i, r := range reads {
			all[i] = queue.LaneRead{Trigger: 1, Lane: r.Lane, After: r.After, UpTo: r.UpTo, Limit: int32(r.Limit)}
		}
		page, err := queue.ReadLanes(ctx, db.claims, all)
		require.NoError(t, err)
		read += len(page.Events)
		o.took([]round{{n, reads}}, &page, time.Now())
	}
	require.Equal(t, 7, n.lanes.Entries())
	require.Equal(t, 2, read, "only what has a higher number than any that was drawn before the transaction")
}
