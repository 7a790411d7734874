package browser_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/localpg"
	"github.com/rowhook/rowhook/internal/pgtest"
)

func TestTheDatabaseGoesAwayAndComesBack(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t)
	h := buildHouseIn(t, server.New(t), "orders")
	h.Apply(t, "triggers:\n"+h.trigger("orders"))
	h.Run(t)
	h.Exec(t, "insert into orders (customer) values ('ann')")
	p := newPerson(t)
	tb, list := p.SignedIn(t, h, adminToken, ""), p.SignedIn(t, h, adminToken, "#/events")
	for _, tab := range []*tab{tb, list} {
		tab.Expects(`\b50[0-9]\b`)
	}
	tb.Sees("main", "public.orders")
	tb.Sees("main", "delivers")
	list.wait("one event", `document.querySelectorAll("tr[data-id]").length === 1`)
	server.Stop(t, localpg.Immediate)
	for _, tab := range []*tab{tb, list} {
		tab.Sees(".gone", "the database")
	}
	tb.Sees("main", "public.orders")
	require.Equal(t, 1, eval[int](list, `document.querySelectorAll("tr[data-id]").length`), "what was known stays")
	tb.Goes("#/health")
	tb.Sees("main", "connected The database answers fails")
	// What is done meanwhile says why it can't be done.
	tb.Goes("#/")
	tb.Clicks("main", "Pause orders")
	tb.Clicks("dialog", "Pause")
	tb.Sees(".notices", "the database")
	tb.Clicks(".notices", "Close this notice")
	// Whoever comes now is told, too, and waits.
	late := p.SignedIn(t, h, adminToken, "#/events")
	late.Expects(`\b50[0-9]\b`)
	late.Sees("body", "the database")
	server.Start(t)
	for _, tab := range []*tab{tb, list, late} {
		tab.wait("the page never went on", `!document.querySelector(".gone")`)
	}
	late.wait("one event", `document.querySelectorAll("tr[data-id]").length === 1`)
	tb.Sees("main", "delivers")
	h.Receiver.Fails("orders", http.StatusServiceUnavailable, "down")
	h.Exec(t, "insert into orders (customer) values ('bob')")
	tb.Sees("main .note", "answered 503")
	for _, tab := range []*tab{list, late} {
		tab.wait("the new event", `document.querySelectorAll("tr[data-id]").length === 2`)
	}
}
