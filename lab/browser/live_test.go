package browser_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAPauseWithItsReasonIsSeenInAnotherTab(t *testing.T) {
	t.Parallel()
	h := newHouse(t, "orders")
	p := newPerson(t)
	one, two := p.SignedIn(t, h, adminToken, ""), p.SignedIn(t, h, adminToken, "")
	colleague := newPerson(t).SignedIn(t, h, adminToken, "")
	one.Clicks("main", "Pause orders")
	one.Types("dialog", "Reason", "partner's <b>migration</b>")
	one.Clicks("dialog", "Pause")
	one.Sees(".notices", "orders is paused")
	for _, tb := range []*tab{one, two, colleague} {
		tb.Sees("main", "paused")
		tb.Sees("main", "“partner's <b>migration</b>”")
	}
	colleague.Clicks("main", "Resume orders")
	for _, tb := range []*tab{one, two, colleague} {
		tb.Sees("main", "delivers")
	}
}

// streams returns how often the tab has opened the stream of the status.
func (tb *tab) streams() int {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	n := 0
	for _, u := range tb.asked {
		if strings.Contains(u, "/status/stream") {
			n++
		}
	}
	return n
}

func TestThreeTabsShareOneStream(t *testing.T) {
	t.Parallel()
	h := newHouse(t, "orders")
	p := newPerson(t)
	tabs := []*tab{p.SignedIn(t, h, adminToken, ""), p.SignedIn(t, h, adminToken, ""), p.SignedIn(t, h, adminToken, "")}
	for _, tb := range tabs {
		tb.Sees("main", "public.orders")
	}
	h.Command(t, "pause", "orders")
	streams := 0
	for _, tb := range tabs {
		tb.Sees("main", "paused")
		streams += tb.streams()
	}
	require.Equal(t, 1, streams)
}

func TestTheDispatcherStopsAndComesBack(t *testing.T) {
	t.Parallel()
	h := newHouse(t, "orders")
	address := strings.TrimPrefix(h.Page(), "http://")
	tb := newPerson(t).SignedIn(t, h, adminToken, "")
	tb.Expects("ERR_CONNECTION_REFUSED|ERR_EMPTY_RESPONSE|ERR_INCOMPLETE_CHUNKED_ENCODING|503|ERR_CONNECTION_RESET")
	tb.Sees("main", "public.orders")
	h.running.Stop()
	tb.Sees("body", "The server does not answer")
	tb.Sees("main", "public.orders")
	h.running = runProgram(t, h.environment, "run", "--http", address)
	tb.SeesNot("body", "The server does not answer")
	h.Command(t, "pause", "orders", "--reason", "after the restart")
	tb.Sees("main", "after the restart")
}

func TestTheStateFollowsWithoutAClick(t *testing.T) {
	t.Parallel()
	h := newHouse(t, "orders")
	tb := newPerson(t).SignedIn(t, h, adminToken, "")
	tb.Sees("main", "delivers")
	h.Receiver.Fails("orders", 503, "down")
	h.Exec(t, "insert into orders (customer, amount) values ('Ada', 1)")
	tb.Sees("main .note", "answered 503")
	h.Receiver.Answers("orders", nil)
	h.Exec(t, "insert into orders (customer, amount) values ('Ada', 2)")
	tb.wait("the trouble never ended", `!document.querySelector("main .note")`)
}

func TestEverythingIsReachedByTheKeyboardAlone(t *testing.T) {
	t.Parallel()
	h := newHouse(t, "orders")
	tb := newPerson(t).SignedIn(t, h, adminToken, "")
	tb.Sees("main", "public.orders")
	tb.Press("?")
	tb.Sees("dialog", "Keys")
	tb.Escape()
	tb.wait("the help stayed", `!document.querySelector("dialog[open]")`)
	tb.Press("/")
	require.Equal(t, "search", eval[string](tb, "document.activeElement.type"))
	tb.Escape()
	// By Tab alone: to the button, through its question, and back.
	for range 60 {
		tb.Press("\t")
		if eval[string](tb, `document.activeElement.getAttribute("aria-label") ?? ""`) == "Pause orders" {
			break
		}
	}
	require.Equal(t, "Pause orders", eval[string](tb, `document.activeElement.getAttribute("aria-label") ?? ""`))
	require.NotEqual(t, "none", eval[string](tb, `getComputedStyle(document.activeElement).outlineStyle`), "the focus is visible")
	tb.Press("\r")
	tb.Sees("dialog", "Pause orders?")
	require.Equal(t, "INPUT", eval[string](tb, "document.activeElement.tagName"), "the first field has the focus")
	tb.Press("by hand")
	tb.Press("\r")
	tb.Sees("main", "“by hand”")
}

// barriers returns what axe-core finds on the page.
func (tb *tab) barriers() string {
	tb.t.Helper()
	return tb.finds(`{runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}`)
}

// contrasts returns which colours axe-core finds too near to each other.
func (tb *tab) contrasts() string {
	tb.t.Helper()
	return tb.finds(`{runOnly: {type: "rule", values: ["color-contrast"]}}`)
}

func (tb *tab) finds(options string) string {
	tb.t.Helper()
	if !eval[bool](tb, `"axe" in window`) {
		tb.Does(axe(tb.t) + "; undefined")
	}
	return eval[string](tb, fmt.Sprintf(`axe.run(document, %s).then((r) => r.violations.flatMap((v) => v.nodes.map((n) => v.id + ": " + n.html.slice(0, 200) + " " + n.failureSummary)).join("\n"))`, options))
}
