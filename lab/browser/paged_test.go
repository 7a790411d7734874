package browser_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What a person who is paged at night does: see the trouble in words on the first page, find its
// cause, cure it, and see that it is gone.

// note waits for a note of the overview or of a trigger with all of these words.
func (tb *tab) note(words ...string) {
	tb.t.Helper()
	tb.wait(fmt.Sprintf("there never was a note with %q", words), fmt.Sprintf(`[...document.querySelectorAll("main .note")].some((e) => %s.every((w) => e.innerText.replace(/\s+/g, " ").includes(w)))`, list(words)))
}

// list writes words as an array of JavaScript.
func list(words []string) string {
	var quoted []string
	for _, w := range words {
		quoted = append(quoted, fmt.Sprintf("%q", w))
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// row waits for the row of a trigger in the overview with this text.
func (tb *tab) row(trigger, text string) {
	tb.t.Helper()
	tb.wait(fmt.Sprintf("the row of %s never had %q", trigger, text),
		fmt.Sprintf(`[...document.querySelectorAll("main tbody tr")].some((e) => e.querySelector(".name")?.innerText === %q && e.innerText.replace(/\s+/g, " ").includes(%q))`, trigger, text))
}

// downHost is an address where nothing listens until Live is called.
type downHost struct{ address string }

func newDownHost(t *testing.T) *downHost {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	return &downHost{l.Addr().String()}
}

// Live begins to answer.
func (d *downHost) Live(t *testing.T) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(context.WithoutCancel(t.Context()), "tcp", d.address)
	require.NoError(t, err)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	require.NoError(t, s.Listener.Close())
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
}

func TestEachTroubleOfATriggerIsSeenAndCuredFromTheFirstPage(t *testing.T) {
	t.Parallel()
	names := []string{"refused", "secret", "hang", "colleague", "recorded", "blocked", "limited"}
	h := buildHouse(t, names...)
	away := newDownHost(t)
	h.Receiver.Fails("secret", http.StatusUnauthorized, `{"error": "the signature does not match"}`)
	h.Receiver.Fails("blocked", http.StatusUnprocessableEntity, `{"error": "unknown customer"}`)
	h.Receiver.Hangs(t, "hang")
	h.Apply(t, "triggers:\n"+
		h.trigger("refused", fmt.Sprintf("webhook: {url: %q}", "http://"+away.address+"/"), "breaker: on")+
		h.trigger("secret", "retry: {limit: 1, interval: 1s, backoff: fixed}")+
		h.trigger("hang")+h.trigger("colleague")+h.trigger("recorded")+
		h.trigger("blocked", "order: {by: [customer], on_dead: block}", "retry: {limit: 0, interval: 1s}")+
		h.trigger("limited", "rate: {limit: 1/s}"))
	h.Command(t, "pause", "colleague", "--reason", "partner's migration")
	h.Run(t)
	for _, name := range names {
		h.Exec(t, fmt.Sprintf("insert into %s (customer, amount) select 'customer ' || n %% 2, n from generate_series(1, 20) n", name))
	}
	tb := newPerson(t).SignedIn(t, h, adminToken, "")

	// A rate: no trouble, and the page says why events wait.
	tb.row("limited", "delivers at its rate")
	tb.row("limited", "since at most 1/s may be sent")

	// The endpoint is down. It is found when it is back, without a click.
	tb.note("refused is failing", "connection refused by "+away.address, "Nothing listens there", "lose nothing", "finds out when it is back")
	away.Live(t)
	tb.SeesNot("main .note", "refused")
	tb.row("refused", "delivers")

	// A wrong secret: what the receiver says is one click away.
	tb.note("secret is failing", "answered 401 Unauthorized", "look at the secret", "20 dead letters wait for you")
	tb.Clicks("main .note", "secret")
	tb.Sees("main", "the signature does not match")
	tb.note("failing", "answered 401")
	require.Empty(t, tb.barriers())
	h.Receiver.Answers("secret", nil)
	tb.Clicks("main", "Redeliver the dead secret")
	tb.Clicks("dialog", "Redeliver 20 events")
	tb.note("delivers")
	tb.Goes("#/")
	tb.SeesNot("main .note", "secret")

	// An endpoint that hangs. Once it is mended, what hangs is sent again at a click.
	tb.note("hang its endpoint hangs", "attempts without an answer", "stuck or overloaded", "“Break off” sends what hangs again at once")
	h.Receiver.Answers("hang", nil)
	tb.Clicks("main .note", "Break off hang")
	tb.Clicks("dialog", "Break off")
	tb.SeesNot("main .note", "hang")

	// A colleague's pause.
	tb.row("colleague", "“partner's migration”")
	tb.Clicks("main", "Resume colleague")
	tb.row("colleague", "delivers")

	// SQL triggers that are disabled, and a table that is gone.
	h.Exec(t, "alter table recorded disable trigger user")
	tb.note("recorded is not captured", "rowhook apply", "without an event", "backfill")
	h.Command(t, "apply", "-f", h.file)
	tb.SeesNot("main .note", "recorded")
	h.Exec(t, "drop table recorded; create table recorded (id bigint primary key)")
	tb.note("recorded is not captured", "dropped and created again")
	h.Command(t, "apply", "-f", h.file)
	tb.SeesNot("main .note", "recorded")

	// Keys behind dead letters.
	tb.note("blocked has 2 keys blocked", "answered 422", "its answer mostly says why", "other keys do not wait")
	tb.Clicks("main .note", "Show the dead letters")
	tb.Sees("main h1", "2 dead letters of blocked")
	require.Empty(t, tb.barriers())
	tb.Clicks("main", "an example")
	tb.Sees("main", "unknown customer")
	h.Receiver.Answers("blocked", nil)
	tb.Goes("#/")
	tb.Clicks("main .note", "Redeliver the dead blocked")
	tb.Clicks("dialog", "Redeliver 2 events")
	tb.SeesNot("main .note", "blocked")
}

func TestAVariableThatDispatchersLackIsSaidWithHowManySend(t *testing.T) {
	t.Parallel()
	h := buildHouse(t, "stock")
	h.Apply(t, "triggers:\n"+h.trigger("stock", fmt.Sprintf("webhook: {url: %q, headers: {Authorization: \"Bearer ${STOCK_TOKEN}\"}}", h.Receiver.URL+"/stock")))
	first := h.Run(t)
	h.Exec(t, "insert into stock (customer) values ('Ada'), ('Grace')")
	tb := newPerson(t).SignedIn(t, h, adminToken, "")
	tb.Expects("ERR_|503")
	tb.note("stock waits for its configuration", "STOCK_TOKEN is not set", "2 events wait and lose nothing until then")
	with := append(h.environment, "STOCK_TOKEN=secret")
	runProgram(t, with, "run", "--http", "127.0.0.1:0")
	tb.note("stock delivers by 1 of 2 dispatchers", "STOCK_TOKEN is not set", "Until then the others send its events")
	first.Stop()
	runProgram(t, with, "run", "--http", strings.TrimPrefix(first.url, "http://"))
	tb.SeesNot("main .note", "stock")
	tb.row("stock", "delivers")
}

func TestADatabaseThatTakesNoWritesIsSaidOnTheFirstPage(t *testing.T) {
	t.Parallel()
	h := newHouse(t, "orders")
	tb := newPerson(t).SignedIn(t, h, adminToken, "")
	tb.Expects("ERR_|50[03]")
	tb.row("orders", "delivers")
	database := h.word(t, "select current_database()")
	change := func(how string) {
		h.Exec(t, "begin; set transaction read write; alter database "+database+" "+how+"; commit")
		h.Exec(t, "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()")
	}
	change("set default_transaction_read_only = on")
	tb.note("This dispatcher can't take events", "database")
	tb.note("No dispatcher is alive", "nothing is sent", "lose nothing")
	change("reset default_transaction_read_only")
	tb.SeesNot("main .note", "dispatcher")
	tb.Sees("main", "delivers")
}

func TestManyTriggersThatFailInTheSameWayAreOneNote(t *testing.T) {
	t.Parallel()
	h := buildHouse(t, "orders")
	configuration := "triggers:\n"
	for i := range 200 {
		name := fmt.Sprintf("t%03d", i)
		if i%7 == 3 { // 29 of them
			h.Receiver.Fails(name, http.StatusServiceUnavailable, "down")
		}
		configuration += fmt.Sprintf("  - name: %s\n    table: public.orders\n    on: {insert: true}\n    webhook: {url: %q}\n    breaker: off\n    retry: {limit: 0, interval: 1s}\n", name, h.Receiver.URL+"/"+name)
	}
	h.Apply(t, configuration)
	h.Run(t)
	h.Exec(t, "insert into orders (customer) values ('Ada')")
	tb := newPerson(t).SignedIn(t, h, adminToken, "")
	tb.note("29 triggers: failing", "answered 503 Service Unavailable", "down or overloaded", "t003, t010", "and 23 more in the table", "29 dead letters wait for you")
	require.Empty(t, tb.barriers())
	tb.wait("it was not the only note", `document.querySelectorAll("main .note").length === 1`)
	tb.Clicks("main", "Only the 29 in trouble")
	tb.wait("the others stayed", `document.querySelectorAll("main tbody tr").length === 29`)
	for i := 3; i < 200; i += 7 {
		h.Receiver.Answers(fmt.Sprintf("t%03d", i), nil)
	}
	tb.Clicks("main .note", "Redeliver the dead 29 triggers")
	tb.Clicks("dialog", "Redeliver 29 events")
	tb.Sees("main", "No trigger is in trouble any more")
	tb.Clicks("main", "Show all 200 triggers")
	tb.row("t003", "delivers")

	// All of them are paused, and resumed.
	h.Command(t, "pause", "--all", "--reason", "moving house")
	tb.note("everything is paused", "“moving house”", "lose nothing until somebody resumes them")
	tb.Clicks("main .note", "Resume all")
	tb.Clicks("dialog", "Resume all")
	tb.SeesNot("main .note", "paused")
	tb.row("t199", "delivers")
}
