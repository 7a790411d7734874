package browser_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// shop is an installation with a trigger in each state that a person can meet.
func shop(t *testing.T) *house {
	t.Helper()
	h := buildHouse(t, "orders", "users", "invoices", "stock", "parcels")
	h.Receiver.Fails("users", http.StatusServiceUnavailable, "down for maintenance")
	h.Receiver.Fails("parcels", http.StatusUnprocessableEntity, `{"error": "unknown parcel"}`)
	h.Apply(t, "triggers:\n"+
		h.trigger("orders", "order: row")+
		h.trigger("users", "breaker: on", "retry: {limit: 12, interval: 10s}")+
		h.trigger("invoices", "batch: {max: 10}")+
		h.trigger("stock", fmt.Sprintf("webhook: {url: %q, headers: {Authorization: \"Bearer ${STOCK_TOKEN}\"}}", h.Receiver.URL+"/stock"))+
		h.trigger("parcels", "retry: {limit: 1, interval: 1s, backoff: fixed}", "breaker: off"))
	h.Command(t, "pause", "invoices", "--reason", "partner's migration")
	h.Run(t)
	for _, table := range []string{"users", "invoices", "stock", "parcels", "orders"} {
		h.Exec(t, fmt.Sprintf("insert into %s (customer, amount) select 'customer ' || n, n * 1.0000000001 from generate_series(1, 40) n", table))
	}
	h.Exec(t, "update orders set amount = 12345678901234567890.0000000001 where id < 5")
	require.Eventually(t, func() bool {
		return h.number(t, "select count(*) from rowhook.event_log e join rowhook.trigger t on t.id = e.trigger_id where t.name = 'orders'") == 0 &&
			h.number(t, "select count(*) from rowhook.dead_letter") == 40
	}, patience, 50*time.Millisecond)
	return h
}

// number returns the one number of a query.
func (h *house) number(t *testing.T, query string) int {
	t.Helper()
	var n int
	require.NoError(t, h.pool.QueryRow(t.Context(), query).Scan(&n))
	return n
}

// word returns the one text of a query.
func (h *house) word(t *testing.T, query string) string {
	t.Helper()
	var word string
	require.NoError(t, h.pool.QueryRow(t.Context(), query).Scan(&word))
	return word
}

// TestPictures makes pictures of every page, light, dark and narrow. No page may be wider than the
// window, and axe-core finds no barrier on any. ROWHOOK_TEST_SHOTS names a directory for them.
func TestPictures(t *testing.T) {
	t.Parallel()
	h := shop(t)
	tb := newPerson(t).SignedIn(t, h, adminToken, "")
	tb.Sees("main", "stock")
	for _, page := range []struct{ name, hash, shows string }{
		{"overview", "#/", "parcels"},
		{"events", "#/events", "orders"},
		{"event", "#/event/" + h.word(t, "select id::text from rowhook.event_archive where op = 'UPDATE' limit 1"), "delivered"},
		{"dead", "#/dead", "parcels"},
		{"trigger", "#/trigger/users", "Configuration"},
		{"dispatchers", "#/dispatchers", "lives"},
		{"operations", "#/operations", "Nothing runs"},
		{"health", "#/health", "connected"},
		{"audit", "#/audit", "pause"},
	} {
		tb.Goes(page.hash)
		tb.Sees("main", page.shows)
		for _, look := range []struct {
			name          string
			width, height int64
			scheme        string
		}{{"light", 1320, 900, "light"}, {"dark", 1320, 900, "dark"}, {"narrow", 360, 800, "light"}} {
			tb.Looks(look.width, look.height, look.scheme)
			require.LessOrEqual(t, eval[int](tb, "document.documentElement.scrollWidth"), int(look.width), "%s is wider than the window", page.name)
			tb.Shot(page.name + "-" + look.name)
			require.Empty(t, tb.barriers(), "what axe-core finds on %s, %s", page.name, look.name)
		}
		tb.Looks(1320, 900, "light")
	}
}
