package browser_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"
)

// dead returns an installation whose receiver has refused n orders: they are dead letters.
func dead(t *testing.T, n int) *house {
	t.Helper()
	h := buildHouse(t, "orders", "users")
	h.Receiver.Fails("orders", http.StatusServiceUnavailable, "<script>alert(1)</script>\x1b[31m \u202egpj.exe")
	h.Apply(t, "triggers:\n"+h.trigger("orders", "retry: {limit: 0}", "breaker: off")+h.trigger("users"))
	h.Run(t)
	h.Exec(t, fmt.Sprintf("insert into orders (customer, amount) select 'customer ' || n, n from generate_series(1, %d) n", n))
	h.isSoon(t, n, "select count(*) from rowhook.dead_letter")
	return h
}

// isSoon waits until a query has this number.
func (h *house) isSoon(t *testing.T, n int, query string) {
	t.Helper()
	require.Eventually(t, func() bool { return h.number(t, query) == n }, patience, 50*time.Millisecond, query)
}

func TestAFilterIsInTheAddressAndBack(t *testing.T) {
	t.Parallel()
	h := dead(t, 3)
	h.Exec(t, "insert into users (customer) values ('ann')")
	tb := newPerson(t).SignedIn(t, h, adminToken, "#/events")
	tb.Sees("main", "users")
	// Completed by the keyboard alone.
	tb.Press("/")
	tb.Press("st")
	tb.Sees("[role=listbox]", "state:")
	tb.Press(kb.ArrowDown)
	tb.wait("the box never named the option", `document.activeElement.getAttribute("aria-activedescendant") === "filter-0"`)
	tb.Press(kb.Enter)
	tb.Press("dea")
	tb.Sees("[role=listbox]", "dead")
	tb.Press(kb.ArrowDown + kb.Enter + kb.Enter)
	tb.Waits(`q=state:dead$`)
	tb.SeesNot("table", "users")
	tb.Sees("table", "orders")
	tb.Press("jj") // keys move in what is found at once
	tb.wait("the second row is reached", `document.activeElement.closest("tr[data-id]") === document.querySelectorAll("tr[data-id]")[1]`)
	tb.Types("main", "Filter of events", "op:insert new.customer:\"customer 2\"")
	tb.Press(kb.Enter)
	tb.Waits(`q=op:insert.new\.customer`)
	tb.wait("one event matches", `document.querySelectorAll("tr[data-id]").length === 1`)
	tb.Does("history.back()")
	tb.wait("three are dead", `document.querySelectorAll("tr[data-id]").length === 3`)
	require.Equal(t, "state:dead", eval[string](tb, `document.querySelector("#filter").value`))
	tb.Does("history.forward()")
	tb.wait("one event matches", `document.querySelectorAll("tr[data-id]").length === 1`)
	tb.run(chromedp.Reload())
	tb.wait("one event matches after the page is loaded anew", `document.querySelectorAll("tr[data-id]").length === 1`)
	tb.Types("main", "Filter of events", "stat:dead")
	tb.Press(kb.Enter)
	tb.Sees("main", "did you mean state:dead?")
	// From another page, by the box of the frame.
	tb.Goes("#/")
	tb.Sees("main", "orders")
	tb.Press("/")
	tb.Press("trigger:users" + kb.Enter)
	tb.Waits(`events\?q=trigger:users`)
	tb.Sees("table", "users")
}

func TestAllThatMatchAreCountedAskedAndRedelivered(t *testing.T) {
	t.Parallel()
	h := dead(t, 30)
	tb := newPerson(t).SignedIn(t, h, adminToken, "#/events?q=state:dead%20trigger:orders")
	tb.Clicks("main", "Redeliver all that match")
	tb.Sees("dialog", "Redeliver 30 events?")
	tb.Sees("dialog", "state:dead trigger:orders until:")
	tb.Clicks("dialog", "Cancel")
	require.Equal(t, 30, h.number(t, "select count(*) from rowhook.dead_letter"))
	h.Receiver.Answers("orders", nil)
	// One by the keyboard.
	tb.Press("j")
	tb.Press("x")
	tb.Sees("main", "1 event selected")
	tb.Clicks("main", "Redeliver")
	tb.Clicks("dialog", "Redeliver 1 event")
	tb.Sees(".notices", "1 event is sent again")
	h.isSoon(t, 29, "select count(*) from rowhook.dead_letter")
	tb.Clicks("main", "Redeliver all that match")
	tb.Clicks("dialog", "Redeliver 29 events")
	tb.Sees(".notices", "29 events are sent again")
	h.isSoon(t, 0, "select count(*) from rowhook.dead_letter")
	tb.Sees("main", "No event matches")
}

func TestAChangeOfManyShowsHowFarItIsAndIsCanceled(t *testing.T) {
	t.Parallel()
	h := buildHouse(t, "orders")
	h.Apply(t, "triggers:\n"+h.trigger("orders"))
	h.Command(t, "pause", "orders") // what is redelivered waits, so that more waits for room
	h.Run(t)
	h.Exec(t, `insert into rowhook.dead_letter (id, trigger_id, op, new, tries, created_at, died_at, reason)
select rowhook.uuid7(), (select id from rowhook.trigger where name = 'orders'), 'I', '{"id": 1}', 1, clock_timestamp(), clock_timestamp(), 'answered 503' from generate_series(1, 100000)`)
	tb := newPerson(t).SignedIn(t, h, adminToken, "#/events?q=state:dead")
	tb.wait("a page of events", `document.querySelectorAll("tr[data-id]").length === 100`)
	tb.Clicks("main", "Older")
	tb.Waits("before=")
	tb.wait("another page", `document.querySelectorAll("tr[data-id]").length === 100`)
	tb.Clicks("main", "Redeliver all that match")
	tb.Sees("dialog", " events?")
	tb.Clicks("dialog", "Redeliver")
	tb.Sees(".running", "looked at, to be sent again")
	tb.Clicks(".running", "Cancel")
	tb.Sees(".notices", "Canceled.")
	tb.wait("what runs is gone", `!document.querySelector(".running")`)
}

func TestTheListIsLiveAndPauses(t *testing.T) {
	t.Parallel()
	h := newHouse(t, "orders")
	tb := newPerson(t).SignedIn(t, h, adminToken, "#/events")
	tb.Sees("main", "There are no events yet")
	tb.Sees("main", "live")
	h.Exec(t, "insert into orders (customer) values ('ann')")
	tb.wait("the event appears by itself", `document.querySelectorAll("tr[data-id]").length === 1`)
	tb.Sees("table", "delivered")
	tb.Press("p")
	tb.Sees("main", "paused")
	h.Exec(t, "insert into orders (customer) values ('bob'), ('cid')")
	tb.Sees("main", "Go on (2 new)")
	require.Equal(t, 1, eval[int](tb, `document.querySelectorAll("tr[data-id]").length`))
	tb.Clicks("main", "Go on")
	tb.wait("the others appear", `document.querySelectorAll("tr[data-id]").length === 3`)
	h.Exec(t, "insert into orders (customer) select 'n' || n from generate_series(1, 3000) n")
	tb.wait("rows are bounded", `document.querySelectorAll("tr[data-id]").length === 300`)
}

func TestHostileRowsDoNothingAndDigitsAreKept(t *testing.T) {
	t.Parallel()
	h := dead(t, 1)
	h.Exec(t, "alter table users add column note text, add column big bigint")
	h.Exec(t, `insert into users (customer, amount, big, note) values (E'<img src=x onerror="document.title=1">\x1b[31m \u202Egpj.exe \u200B', 12345678901234567890.0000000001, 9007199254740993, repeat('1 MB of it ', 100000))`)
	h.Exec(t, "update users set amount = 12345678901234567890.0000000002")
	h.isSoon(t, 2, "select count(*) from rowhook.event_archive")
	tb := newPerson(t).SignedIn(t, h, adminToken, "#/events?q=op:update")
	tb.wait("one event is an update", `document.querySelectorAll("tr[data-id]").length === 1`)
	tb.Press("j")
	tb.wait("the row is reached", `Boolean(document.activeElement.closest("tr[data-id]"))`)
	tb.Press(kb.Enter)
	tb.Waits("#/event/")
	tb.Sees(".rows .changed", "12345678901234567890.0000000001")
	tb.Sees(".rows .changed", "12345678901234567890.0000000002")
	tb.Sees(".rows", "9007199254740993")
	tb.Sees(".rows", `onerror=\"document.title=1\">\u001b[31m \u202egpj.exe \u200b`)
	tb.Sees("main", "1 of 5 columns changed")
	require.Zero(t, eval[int](tb, `document.querySelectorAll("main img, main script").length`))
	require.Less(t, eval[int](tb, "document.body.innerText.length"), 40_000, "long values are folded")
	tb.Clicks("main", "Show more of the new note")
	tb.wait("more of it is shown", "document.body.innerText.length > 200000")
	require.False(t, eval[bool](tb, `/[\u202e\u200b\u001b]/.test(document.body.innerText)`))
	tb.Sees("pre", "curl --globoff --request 'POST'")
	// What the receiver has answered.
	tb.Goes("#/events?q=state:dead")
	tb.wait("one is dead", `document.querySelectorAll("tr[data-id]").length === 1`)
	tb.Does(`document.querySelector("tr[data-id] a").click()`)
	tb.Sees("main", `<script>alert(1)</script>\u001b[31m \u202egpj.exe`)
	tb.Sees("main", "became a dead letter: answered 503")
	tb.Clicks("main", "Discard")
	tb.Clicks("dialog", "Discard")
	h.isSoon(t, 0, "select count(*) from rowhook.dead_letter")
	tb.Waits("#/events$")
}

func TestADeadGroupIsRedelivered(t *testing.T) {
	t.Parallel()
	h := dead(t, 12)
	tb := newPerson(t).SignedIn(t, h, adminToken, "#/dead")
	tb.Sees("main", "12 dead letters")
	tb.Sees("table", "answered 503 Service Unavailable")
	h.Receiver.Answers("orders", nil)
	tb.Clicks("table", "Redeliver orders")
	tb.Sees("dialog", "Redeliver 12 events?")
	tb.Clicks("dialog", "Redeliver 12")
	tb.Sees(".notices", "12 events are sent again")
	tb.Sees("main", "There are no dead letters")
}

func TestDeadLettersAreDownloaded(t *testing.T) {
	t.Parallel()
	h := dead(t, 5)
	tb := newPerson(t).SignedIn(t, h, adminToken, "#/dead")
	tb.Sees("main", "5 dead letters")
	// A dialog of the browser can't be used here: as in a browser without one, the file is saved at the end.
	tb.Does(`delete window.showSaveFilePicker; window.saved = []; const make = URL.createObjectURL; URL.createObjectURL = (b) => { void b.text().then((t) => window.saved.push(t)); return make(b) }`)
	tb.Clicks("main", "Download all")
	tb.Sees(".notices", "has 5 events")
	tb.wait("the file is there", "window.saved.length === 1")
	lines := strings.Split(strings.TrimSpace(eval[string](tb, "window.saved[0]")), "\n")
	require.Len(t, lines, 5)
	require.Contains(t, lines[0], `"customer":"customer `)
}

func TestAStatusTokenSeesThatDataIsWithheld(t *testing.T) {
	t.Parallel()
	h := dead(t, 3)
	h.running.Stop()
	token := h.withToken(t, "wall", "status")
	h.Run(t)
	tb := newPerson(t).SignedIn(t, h, token, "#/dead")
	tb.Sees("main", "3 dead letters")
	tb.Sees("table", "503")
	tb.Goes("#/events?q=state:dead")
	tb.wait("three are dead", `document.querySelectorAll("tr[data-id]").length === 3`)
	tb.Does(`document.querySelector("tr[data-id] a").click()`)
	tb.Sees("main", "This token does not show data")
	tb.Sees("main", "rowhook token add NAME --scope status,payloads")
	tb.Sees("main", "became a dead letter: answered 503")
	for _, hash := range []string{"#/dead", "#/events", "#/events?q=state:dead", tb.Hash()} {
		tb.Goes(hash)
		tb.Sees("main", "orders")
		require.NotContains(t, tb.text("body"), "customer", hash)
		require.NotContains(t, tb.text("body"), "egpj", hash)
		for _, button := range []string{"Redeliver", "Discard", "Download", "Save as", "Select"} {
			require.False(t, tb.Has("main", button), "%s on %s", button, hash)
		}
	}
	tb.Goes("#/events?q=new.id:7")
	tb.Sees("main", "This token can't search by new.id")
}
