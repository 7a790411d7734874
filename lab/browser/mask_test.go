package browser_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestThePageOfAnEventShowsNothingThatIsMasked(t *testing.T) {
	t.Parallel()
	h := buildHouse(t, "orders")
	h.Receiver.Fails("orders", http.StatusUnprocessableEntity, "no ann2@example.com")
	h.Apply(t, "triggers:\n"+h.trigger("orders", "retry: {limit: 0}", "breaker: off", "payload: {mask: [customer]}"))
	h.Run(t)
	h.Exec(t, "insert into orders (customer, amount) values ('ann1@example.com', 1.10)")
	h.isSoon(t, 1, "select count(*) from rowhook.dead_letter")
	h.Exec(t, "update rowhook.dead_letter set old = '{\"id\": 1, \"customer\": \"ann2@example.com\", \"amount\": 1}', op = 'U'")
	var id string
	require.NoError(t, h.pool.QueryRow(t.Context(), "select id::text from rowhook.dead_letter").Scan(&id))
	tb := newPerson(t).SignedIn(t, h, adminToken, "#/event/"+id)
	tb.Does(stubs)
	tb.Sees("main", "The trigger masks customer")
	tb.Sees("main", "<masked>")
	tb.Sees("main", "1.10")
	tb.Sees("main", "What the trigger masks stands here as <masked>.")
	tb.Clicks("main", "Save as a fixture")
	tb.Clicks("main", "Copy the command")
	tb.wait("what was copied and saved", "copied.length === 1 && saved.length === 1")
	everything := eval[string](tb, "document.body.innerText + document.body.innerHTML + copied + saved")
	require.NotContains(t, everything, "ann1@")
	require.NotContains(t, everything, "ann2@")
	require.Contains(t, eval[string](tb, "copied[0]"), "<masked>")
	tb.Goes("#/events?q=new.customer:ann1@example.com")
	tb.Expects("422")
	tb.Sees("main", "masks it, so no events can be chosen by it")
	h.Command(t, "erase", "--payload", "new.customer=ann1@example.com", "--yes")
	tb.Expects("404")
	tb.Goes("#/event/" + id)
	tb.Sees("main", "There is no event")
}
