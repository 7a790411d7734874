package browser_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAReplayIsCountedAskedAndSeen(t *testing.T) {
	t.Parallel()
	h := newHouse(t, "orders")
	h.Exec(t, "insert into orders (customer, amount) select 'Ada', i from generate_series(1, 3) i")
	h.isSoon(t, 3, "select count(*) from rowhook.event_archive")
	tb := newPerson(t).SignedIn(t, h, adminToken, "#/trigger/orders")
	begins := func(words string, asNew bool) {
		tb.Clicks("main", "Replay orders")
		tb.Sees("dialog", "Replay orders?")
		if words != "" {
			tb.Types("dialog", "Only events that match", words)
		}
		if asNew {
			tb.Does(fmt.Sprintf(`(() => { const e = %s; e.value = "new"; e.dispatchEvent(new Event("change", {bubbles: true})) })()`, named("dialog", "Sent under")))
		}
		tb.Clicks("dialog", "Count")
	}
	begins("op:insert new.amount:2", false)
	tb.Sees("dialog", "Replay 1 event?")
	tb.Sees("dialog", "They keep their ids")
	tb.Clicks("dialog", "Replay 1 event")
	tb.Sees("main", "1 event back in the queue")
	h.isSoon(t, 3, "select count(*) from rowhook.event_archive")
	require.Equal(t, "#/operations", tb.Hash()[:len("#/operations")])

	tb.Goes("#/trigger/orders")
	begins("", true)
	tb.Sees("dialog", "They get new ids")
	tb.fits("the question")
	tb.Clicks("dialog", "Replay 3 events")
	tb.Sees("main", "under new ids")
	h.isSoon(t, 6, "select count(*) from rowhook.event_archive")

	tb.Goes("#/trigger/orders")
	begins("state:dead", false)
	tb.Sees(".notices", "can't be chosen by state")

	// One that was interrupted is gone on with.
	h.Exec(t, "update rowhook.replay set finished_at = null, position = null, replayed = 0 where as_new")
	tb.Goes("#/operations")
	tb.Sees("main", "it was interrupted")
	tb.Clicks("main", "Go on with the replay of orders")
	tb.Sees("main", "done")
	h.isSoon(t, 0, "select count(*) from rowhook.replay where finished_at is null")
}

func TestATestEventHasSessionVariables(t *testing.T) {
	t.Parallel()
	h := buildHouse(t, "orders")
	h.Apply(t, "triggers:\n"+h.trigger("orders"))
	h.Run(t)
	tb := newPerson(t).SignedIn(t, h, adminToken, "#/trigger/orders")
	tb.Clicks("main", "Test event orders")
	tb.Types("dialog", "Session variables", `{"x-hasura-user-id": 7`)
	tb.Clicks("dialog", "Send")
	tb.Sees(".notices", "The session variables are not JSON")
	tb.Clicks("main", "Test event orders")
	tb.Types("dialog", "Session variables", `{"x-hasura-user-id": 50755254975729665}`)
	tb.Clicks("dialog", "Send")
	tb.Sees("main", "50755254975729665")
}
