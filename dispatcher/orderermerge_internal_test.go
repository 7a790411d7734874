package dispatcher

import (
	"log/slog"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/order"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/trigger"
)

func TestTheNextOwnerOfADeadlyLaneSendsByItselfWhatTheLastOneMerged(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for name, c := range map[string]struct {
		deaths int32
		sent   []int // of the events of each delivery
	}{
		"few owners have died":     {deadlyFrom - 1, []int{2}},
		"several have, one by one": {deadlyFrom, []int{1, 1}},
	} {
		spec := trigger.Spec{Order: trigger.Order{By: []string{trigger.OrderByRow}, Latest: true}}
		o := newOrderer(nil, nil, newScheduler(10, 10), nil, &observers{}, slog.New(slog.DiscardHandler))
		n := &line{
			trigger: orderedTrigger{queue.Trigger{ID: 1, Spec: spec}, &lane{}}, lanes: order.NewLanes(order.Options{Latest: true}),
			grants: map[int16]*grant{}, doubted: map[int16]time.Time{}, before: map[int16]int64{},
		}
		n.take(queue.TakenLane{Lane: queue.Lane{Trigger: 1, Epoch: 1}, Deaths: c.deaths}, 0)
		n.lanes.Mark()
		page := order.Page{End: order.End{Last: 2}}
		for seq := int64(1); seq <= 2; seq++ {
			page.Entries = append(page.Entries, &order.Entry{Seq: seq, Key: "k", Op: "-UD"[seq], Read: now, Load: &queue.Claimed{Op: "-UD"[seq], Seq: seq, Old: []byte{byte('0' + seq)}}})
		}
		n.lanes.Took(n.lanes.Reads(10, math.MaxInt64), []order.Page{page}, 0, false, now)
		var sent []int
		for run := n.lanes.Next(now, mostMerged); run != nil; run = n.lanes.Next(now, mostMerged) {
			d := o.merge(n, run, now)
			sent = append(sent, 1+len(d.placed.over))
			require.Equal(t, len(d.placed.over) > 0, string(d.event.Old) == "1" && d.event.Op == 'D', "it has the old row of the first: %s", name)
			require.Equal(t, c.deaths >= deadlyFrom && len(sent) == 1, d.placed.suspect, "only the first of a key was in flight: %s", name)
			for _, e := range append(d.placed.over, d.placed.entry) {
				n.lanes.Done(e, order.Gone, now)
			}
		}
		require.Equal(t, c.sent, sent, name)
	}
}
