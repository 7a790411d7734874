package browser_test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/performance"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"
)

// crowd writes n delivered and n dead events into the history, as if they had been recorded within
// the last hour.
func (h *house) crowd(t *testing.T, trigger string, n int) {
	t.Helper()
	ids := `(lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '7' || substr(md5(g::text), 1, 3) || '8' || substr(md5(g::text), 4, 15))::uuid`
	from := fmt.Sprintf("from (select g, now() - g * interval '1 hour' / %d as at, (select id from rowhook.trigger where name = '%s') as trigger from generate_series(1, %[1]d) as g) as x", n, trigger)
	h.Exec(t, "select rowhook.ensure_partitions(now() - interval '2 hours', now())")
	h.Exec(t, fmt.Sprintf(`insert into rowhook.event_archive (id, created_at, delivered_at, trigger_id, tries, op, new)
		select %s, at, at + interval '2 ms', trigger, 1, 'I', json_build_object('id', g, 'customer', 'customer ' || g %% 100) %s`, ids, from))
	h.Exec(t, fmt.Sprintf(`insert into rowhook.dead_letter (id, created_at, died_at, trigger_id, tries, op, reason, new)
		select %s, at, at + interval '2 s', trigger, 3, 'I', 'answered ' || 500 + g %% 4, json_build_object('id', g, 'customer', 'customer ' || g %% 100) %s`, strings.Replace(ids, "'8'", "'9'", 1), from))
	h.Exec(t, "analyze rowhook.event_archive")
	h.Exec(t, "analyze rowhook.dead_letter")
}

// cost is what a page has used so far.
type cost struct{ seconds, heap, nodes float64 }

// cost returns the seconds of the processor that the page's thread has used, its memory after
// garbage is collected, and the nodes of its document.
func (tb *tab) cost() (c cost) {
	tb.t.Helper()
	call(tb, cdp.Command[cdp.Empty, cdp.Empty]{Method: "HeapProfiler.collectGarbage"}, cdp.Empty{})
	for _, m := range call(tb, performance.GetMetrics, cdp.Empty{}).Metrics {
		switch m.Name {
		case "TaskDuration":
			c.seconds = m.Value
		case "JSHeapUsedSize":
			c.heap = m.Value
		case "Nodes":
			c.nodes = m.Value
		}
	}
	return c
}

// watchesFirstPage has each page that is opened from now on note when it shows the trigger of orders.
func (tb *tab) watchesFirstPage() {
	tb.t.Helper()
	call(tb, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: `
		addEventListener("DOMContentLoaded", () => new MutationObserver((_, o) => {
			if (!document.querySelector("main")?.innerText.includes("public.orders")) return;
			window.shownAfter = performance.now();
			o.disconnect();
		}).observe(document.body, {subtree: true, childList: true, characterData: true}))`})
}

// firstPage opens the overview, as somebody sees it who has been there before, and returns after how
// many ms it shows the triggers.
func (tb *tab) firstPage() float64 {
	tb.t.Helper()
	tb.Open("")
	tb.wait("the overview never came", `"shownAfter" in window`)
	return eval[float64](tb, "shownAfter")
}

// TestTheFirstPageIsThereAtOnceBesideMillionsOfEvents measures, so it runs only where a person says
// how many events of the last week are archived: ROWHOOK_TEST_ARCHIVED=5000000.
func TestTheFirstPageIsThereAtOnceBesideMillionsOfEvents(t *testing.T) {
	archived, err := strconv.Atoi(os.Getenv("ROWHOOK_TEST_ARCHIVED"))
	if err != nil {
		t.Skip("ROWHOOK_TEST_ARCHIVED says how many events are archived, and is not set")
	}
	h := buildHouse(t, "orders")
	h.Apply(t, "triggers:\n"+h.trigger("orders"))
	h.Exec(t, "select rowhook.ensure_partitions(now() - interval '7 days', now())")
	h.Exec(t, fmt.Sprintf(`
insert into rowhook.event_archive (id, created_at, delivered_at, trigger_id, tries, op, new)
select (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '7' || substr(md5(g::text), 1, 3) || '8' || substr(md5(g::text), 4, 15))::uuid,
       at, at + interval '2 ms', (select id from rowhook.trigger), 1, 'I', json_build_object('id', g, 'customer', 'customer ' || g %% 100)
  from (select g, now() - g * interval '6 days' / %d as at from generate_series(1, %[1]d) as g) as x`, archived))
	h.Exec(t, "analyze rowhook.event_archive")
	h.Run(t)
	tb := newPerson(t).Tab(t, h, "#token="+adminToken)
	tb.Sees("main", "public.orders")
	tb.watchesFirstPage()
	shown := make([]float64, 11)
	for i := range shown {
		shown[i] = tb.firstPage()
	}
	slices.Sort(shown)
	t.Logf("beside %d archived events the overview is shown after %.0f ms (median of %d; %.0f to %.0f)", archived, shown[5], len(shown), shown[0], shown[10])
	require.Less(t, shown[5], 100.0)
}

func TestAHundredThousandEventsAreNoBurden(t *testing.T) {
	t.Parallel()
	h := buildHouse(t, "orders", "users")
	h.Apply(t, "triggers:\n"+h.trigger("orders", "breaker: off")+h.trigger("users"))
	h.crowd(t, "orders", 50_000)
	h.Run(t)
	tb := newPerson(t).Tab(t, h, "#token="+adminToken)
	// The processor's time of the page's own thread is the same on a machine that is busy with other things.
	call(tb, performance.Enable, performance.EnableParams{TimeDomain: performance.EnableTimeDomainThreadTicks})
	tb.Sees("main", "public.orders")

	tb.watchesFirstPage()
	shown := tb.firstPage()
	asked := eval[[]string](tb, `performance.getEntriesByType("resource").filter((r) => !r.name.includes("/assets/")).map((r) => r.name)`)
	require.LessOrEqual(t, len(asked), 4, "requests for the first page: %s", strings.Join(asked, " "))
	sent := eval[int](tb, `[...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")].reduce((n, r) => n + r.transferSize, 0)`)
	require.Less(t, sent, 50_000, "bytes of the first page; its files are kept")
	t.Logf("the overview is shown after %.0f ms, by %d requests beside its files and %d bytes", shown, len(asked), sent)

	tb.Does(`window.longest = 0; new PerformanceObserver((l) => { for (const e of l.getEntries()) window.longest = Math.max(window.longest, e.duration) }).observe({type: "longtask"})`)
	began := tb.cost()
	rows := func(what string, n int) {
		t.Helper()
		tb.wait(what, fmt.Sprintf(`document.querySelectorAll("tr[data-id]").length === %d`, n))
	}
	tb.Goes("#/events")
	rows("a page of events", 100)
	for range 3 {
		before := tb.Hash()
		tb.Clicks("main", "Older")
		tb.wait("the address never changed", fmt.Sprintf("location.hash !== %q", before))
		rows("an older page", 100)
	}
	tb.Types("main", "Filter of events", "new.customer:\"customer 7\"")
	tb.Press(kb.Enter)
	tb.Waits("customer.7")
	tb.wait("some that match", `document.querySelectorAll("tr[data-id]").length > 0`) // a page ends after a time, too
	tb.Types("main", "Filter of events", "state:dead trigger:orders")
	tb.Press(kb.Enter)
	tb.Waits("state:dead.trigger:orders$")
	rows("a page of those that match", 100)
	tb.Does("document.activeElement.blur()")
	for range 40 {
		tb.Press("j")
	}
	require.Equal(t, 39, eval[int](tb, `[...document.querySelectorAll("tr[data-id]")].indexOf(document.activeElement.closest("tr"))`))
	tb.Does(`(async () => { for (let y = 0; y < document.body.scrollHeight; y += 400) { scrollTo(0, y); await new Promise(requestAnimationFrame) } })()`)
	tb.Goes("#/dead")
	tb.Sees("main", "dead letters Download all") // how many were counted depends on the machine
	tb.Sees("table", "answered 50")
	walked := tb.cost()

	// A list that is live, and 6,000 events that come as fast as the database writes them.
	tb.Goes("#/events?q=trigger:users")
	tb.Sees("main", "live")
	quiet := tb.cost()
	for range 6 {
		h.Exec(t, "insert into users (customer) select 'n' || n from generate_series(1, 1000) n")
	}
	h.isSoon(t, 6000, "select count(*) from rowhook.event_archive e join rowhook.trigger t on t.id = e.trigger_id where t.name = 'users'")
	newest := h.word(t, "select max(e.id::text) from rowhook.event_archive e join rowhook.trigger t on t.id = e.trigger_id where t.name = 'users'")
	tb.wait("the newest event, and no more rows than it keeps", fmt.Sprintf(`(() => {
		const all = document.querySelectorAll("tr[data-id]");
		return all[0]?.dataset.id === %q && all.length >= 100 && all.length <= 300;
	})()`, newest))
	tb.wait("all rows are settled", `[...document.querySelectorAll("tr[data-id]")].every((r) => r.innerText.includes("delivered"))`)
	after := tb.cost()
	t.Logf("seconds of the processor: %.2f for pages, scrolling and filters, %.2f for 6,000 live events; the longest task took %d ms; heap %.1f MB, then %.1f MB; %.0f nodes, then %.0f",
		walked.seconds-began.seconds, after.seconds-quiet.seconds, eval[int](tb, "Math.round(longest)"), quiet.heap/1e6, after.heap/1e6, quiet.nodes, after.nodes)
	require.Less(t, walked.seconds-began.seconds, 10.0)
	require.Less(t, after.seconds-quiet.seconds, 20.0)
	require.Less(t, after.heap-quiet.heap, 20e6, "bytes that live events leave behind")
	require.Less(t, after.nodes, 50_000.0)
}
