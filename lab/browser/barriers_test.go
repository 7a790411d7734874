package browser_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"
)

// narrowest and widest are the windows that the page is made for.
const (
	narrowest = 360
	widest    = 3840
)

// fits asserts that nothing is wider than the window, on the narrowest and the widest one, and that
// axe-core finds no barrier, light and dark.
func (tb *tab) fits(where string) {
	tb.t.Helper()
	for _, width := range []int64{narrowest, widest, 1320} {
		tb.Looks(width, 900, "light")
		require.LessOrEqual(tb.t, eval[int](tb, "document.documentElement.scrollWidth"), int(width), "%s is wider than the window, by these:\n%s", where, tb.wide())
		require.Empty(tb.t, eval[string](tb, `[...document.querySelectorAll("dialog[open]")].filter((d) => d.getBoundingClientRect().right > innerWidth || d.getBoundingClientRect().left < 0).map((d) => d.innerText).join()`), where)
	}
	require.Empty(tb.t, tb.barriers(), "what axe-core finds: %s", where)
	tb.Looks(1320, 900, "dark")
	require.Empty(tb.t, tb.contrasts(), "what axe-core finds in the dark: %s", where)
	tb.Looks(1320, 900, "light")
}

// wide names what is wider than the window.
func (tb *tab) wide() string {
	tb.t.Helper()
	return eval[string](tb, `[...document.querySelectorAll("main *, header *")].filter((e) => e.getBoundingClientRect().right > innerWidth + 0.5).map((e) => e.outerHTML.slice(0, 200)).slice(0, 20).join("\n")`)
}

func TestNoBarrierInEmptyPlaces(t *testing.T) {
	t.Parallel()
	h := buildHouse(t)
	h.Apply(t, "triggers: []\n")
	h.Run(t)
	p := newPerson(t)
	stranger := p.Tab(t, h, "")
	stranger.Expects("401")
	stranger.Sees("main", "A token is needed")
	stranger.fits("sign-in")
	stranger.Types("main", "Token", "0123456789abcdef-of-nobody")
	stranger.Clicks("main", "Sign in")
	stranger.Sees("main", "This token is not valid")
	stranger.fits("sign-in, refused")
	tb := p.SignedIn(t, h, adminToken, "")
	tb.Expects("404")
	for _, at := range []struct{ hash, shows string }{
		{"#/", "There are no triggers yet"},
		{"#/events", "There are no events yet"},
		{"#/events?q=state%3Adead", "No event matches"},
		{"#/events?q=stat%3Adead", "did you mean state:dead?"},
		{"#/dead", "There are no dead letters"},
		{"#/dispatchers", "lives"},
		{"#/operations", "Nothing runs"},
		{"#/health", "connected"},
		{"#/audit", "migrate"},
		{"#/trigger/none", "There is no trigger"},
		{"#/event/0199a8e2-7c5d-7a3e-9f10-2b7f4c1d8e90", "There is no event"},
		{"#/nowhere", "There is no such page"},
	} {
		tb.Goes(at.hash)
		tb.Sees("main", at.shows)
		tb.fits(at.hash)
	}
}

func TestNoBarrierInDialogsListsAndLongEvents(t *testing.T) {
	t.Parallel()
	h := buildHouse(t, "orders")
	h.Receiver.Fails("orders", http.StatusServiceUnavailable, "down for maintenance "+strings.Repeat("W", 2000))
	h.Apply(t, "triggers:\n"+h.trigger("orders", "retry: {limit: 0}", "breaker: off"))
	h.Run(t)
	h.Exec(t, "insert into orders (customer) values ('ann'), (repeat('1 MB of it ', 100000))")
	h.isSoon(t, 2, "select count(*) from rowhook.dead_letter")
	tb := newPerson(t).SignedIn(t, h, adminToken, "")
	tb.Sees("main", "failing")
	tb.fits("the overview")
	for button, title := range map[string]string{"Pause orders": "Pause orders?", "Redeliver the dead orders": "Redeliver 2 events?"} {
		tb.Clicks("main table", button)
		tb.Sees("dialog", title)
		tb.fits("the question: " + title)
		tb.Escape()
		tb.wait("the question stayed", `!document.querySelector("dialog[open]")`)
	}
	tb.Press("?")
	tb.Sees("dialog", "Keys")
	tb.fits("the keys")
	tb.Escape()
	tb.Goes("#/trigger/orders")
	tb.Sees("main", "Configuration")
	tb.fits("a trigger")
	for button, title := range map[string]string{"Test event orders": "Send a test event", "Backfill orders": "Backfill orders?", "Replay orders": "Replay orders?"} {
		tb.Clicks("main", button)
		tb.Sees("dialog", title)
		tb.fits("the question: " + title)
		tb.Escape()
		tb.wait("the question stayed", `!document.querySelector("dialog[open]")`)
	}
	tb.Goes("#/events?q=state:dead")
	tb.wait("two events", `document.querySelectorAll("tr[data-id]").length === 2`)
	tb.Press("jx")
	tb.Sees("main", "1 event selected")
	tb.fits("a list with a selection")
	tb.Press("/")
	tb.Press(kb.End + " ")
	tb.Sees("[role=listbox]", "trigger:")
	tb.Press(kb.ArrowDown)
	require.Empty(t, tb.barriers(), "what axe-core finds where words are completed")
	tb.Escape()
	tb.Goes("#/dead")
	tb.Sees("table", "answered 503")
	tb.fits("dead letters")
	tb.Goes("#/event/" + h.word(t, "select id::text from rowhook.dead_letter order by length(new::text) desc limit 1"))
	tb.Clicks("main", "Show more of the new customer")
	tb.wait("more of it is shown", "document.body.innerText.length > 200000")
	tb.fits("an event of 1 MB")
	tb.Clicks("main", "Discard")
	tb.Sees("dialog", "Discard this event?")
	tb.fits("the question of an event")
	tb.Escape()
	h.Exec(t, fmt.Sprintf("insert into orders (customer) select 'n' || n from generate_series(1, %d) n", 5))
	tb.Goes("#/audit")
	tb.Sees("main", "apply")
	tb.fits("the audit")
}
