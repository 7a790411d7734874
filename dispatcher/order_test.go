package dispatcher_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/trigger"
)

// byRow asks for order within the primary key.
func byRow(s *trigger.Spec) { s.Order = trigger.Order{By: []string{trigger.OrderByRow}} }

// inOrder is one delivery of an ordered trigger.
type inOrder struct {
	sequence int64
	id       string
	n        int64
	op       string
}

// sequences returns what came to a path, by the id of the row.
func sequences(t *testing.T, all []delivery) map[int64][]inOrder {
	t.Helper()
	got := map[int64][]inOrder{}
	for _, d := range all {
		var e struct {
			ID       string
			Sequence int64
			Event    struct {
				Op   string
				Data struct{ Old, New *struct{ ID, N int64 } }
			}
		}
		require.NoError(t, json.Unmarshal([]byte(d.body), &e), d.body)
		row := e.Event.Data.New
		if row == nil {
			row = e.Event.Data.Old
		}
		got[row.ID] = append(got[row.ID], inOrder{e.Sequence, e.ID, row.N, e.Event.Op})
	}
	return got
}

// requireOrder checks that no event of a row came after a later one of it.
func requireOrder(t *testing.T, all []delivery) {
	t.Helper()
	for id, events := range sequences(t, all) {
		last := int64(0)
		for _, e := range events {
			require.GreaterOrEqual(t, e.sequence, last, "row %d: %v", id, events)
			require.NotZero(t, e.sequence)
			last = e.sequence
		}
	}
}

func TestEventsOfARowAreSentInOrderByManyDispatchers(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2, 4} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			b := newFixture(t)
			b.watch(t, "orders", byRow)
			b.receiver.respond(func(_ int, d delivery, w http.ResponseWriter, _ *http.Request) {
				if len(d.id)%7 == 0 {
					w.WriteHeader(http.StatusInternalServerError)
				}
			})
			for range n {
				b.start(t)
			}
			b.Exec(t, "insert into orders (n) select 0 from generate_series(1, 50)")
			for range 10 {
				b.Exec(t, "update orders set n = n + 1")
			}
			b.receiver.await(t, "orders", 550)
			b.settled(t)
			requireOrder(t, b.receiver.on("orders"))
			require.Equal(t, 550, b.receiver.unique("orders"))
		})
	}
}

func TestAFailingEventHoldsItsKeyAlone(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders", byRow, func(s *trigger.Spec) { s.Retry.Interval = trigger.Duration(3 * time.Second) })
	b.receiver.respond(func(n int, d delivery, w http.ResponseWriter, _ *http.Request) {
		if n == 0 && string(d.new["id"]) == "1" && string(d.new["n"]) == "0" {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	b.start(t)
	b.Exec(t, "insert into orders (n) select 0 from generate_series(1, 5)")
	b.receiver.await(t, "orders", 5)
	b.Exec(t, "update orders set n = 1")
	for _, d := range b.receiver.await(t, "orders", 9) {
		require.False(t, string(d.new["id"]) == "1" && string(d.new["n"]) == "1", "it waits for the one that failed")
	}
	conn := b.Conn(t)
	b.receiver.await(t, "orders", 11)
	b.settled(t)
	requireOrder(t, b.receiver.on("orders"))
	row := sequences(t, b.receiver.on("orders"))[1]
	require.Equal(t, []int64{0, 0, 1}, []int64{row[0].n, row[1].n, row[2].n})
	require.Equal(t, 2, one[int](t, conn, "select tries from rowhook.event_archive where new->>'id' = '1' and new->>'n' = '0'"))
	require.Equal(t, 1, one[int](t, conn, "select tries from rowhook.event_archive where new->>'id' = '1' and new->>'n' = '1'"), "to wait is no attempt")
}
