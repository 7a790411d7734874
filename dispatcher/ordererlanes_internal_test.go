package dispatcher

import (
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/order"
	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/internal/queue"
)

func TestLanesClaimedForATriggerThatIsLeftMeanwhileAreGivenBack(t *testing.T) {
	t.Parallel()
	for name, lost := range map[string]bool{"the answer comes later": false, "the answer is lost": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, test := t.Context(), pgtest.New(t)
			db := &database{}
			db.use(test.Pool(t))
			test.Exec(t, "insert into rowhook.lane (trigger_id, lane) select 1, l from generate_series(0, 63) l")
			self := &identity{id: 7}
			require.NoError(t, queue.Register(ctx, db.writes, self.id, "test", "v", false))
			o := newOrderer(db, self, newScheduler(10, 10), newPulse(db, self, nil, nil), nil, slog.New(slog.DiscardHandler))
			n := &line{lanes: order.NewLanes(order.Options{}), grants: map[int16]*grant{}, doubted: map[int16]time.Time{}, before: map[int16]int64{}}
			o.lines[1], o.serves = n, []int32{1}
			ask := func(j job) (then func()) {
				then, err := j(ctx)
				require.NoError(t, err)
				return then
			}
			owned := func() (lanes int) {
				require.NoError(t, db.writes.QueryRow(ctx, "select count(*) from rowhook.lane where owner = 7").Scan(&lanes))
				return lanes
			}
			ask(o.seats())()
			answer := ask(o.claim())
			require.Equal(t, queue.Lanes, owned())
			n.gone, o.serves = true, nil
			n.leaveAll(false)
			if lost {
				o.pulse.doubts.Add(1)
			}
			answer()
			for range 10 {
				ask(o.seats())()
				if j := o.give(); j != nil {
					ask(j)()
				}
			}
			require.Zero(t, owned(), "others can serve it")
			require.Empty(t, o.lines)
		})
	}
}

func TestLanesThatWereToBeGivenBackAreInDoubtLikeTheOthers(t *testing.T) {
	t.Parallel()
	n := &line{lanes: order.NewLanes(order.Options{}), grants: map[int16]*grant{}, doubted: map[int16]time.Time{}, before: map[int16]int64{}}
	for lane := range int16(2) {
		n.take(queue.TakenLane{Lane: queue.Lane{Trigger: 1, Lane: lane, Epoch: 1}}, 0)
	}
	n.lanes.Leave(0)
	n.leaveAll(true)
	require.Len(t, n.doubted, 2, "their attempts may end within doubtedFor, too")
	require.Empty(t, n.grants)
	first := n.doubted[0]
	n.leaveAll(true)
	require.Equal(t, first, n.doubted[0])
}
