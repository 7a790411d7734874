package browser_test

import (
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// withToken gives the house a file of tokens, with a token of these scopes, and returns it.
func (h *house) withToken(t *testing.T, name, scopes string) string {
	t.Helper()
	file := h.directory + "/tokens"
	h.environment = append(h.environment, "ROWHOOK_HTTP_TOKENS="+file)
	out := h.Command(t, "token", "add", name, "--scope", scopes)
	for word := range strings.FieldsSeq(out) {
		if strings.HasPrefix(word, "rwh_") {
			return word
		}
	}
	require.FailNow(t, "token add printed no token", out)
	return ""
}

// ask sends a request with a token, as a program would, and returns the status.
func (h *house) ask(t *testing.T, token, method, path, body string) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, h.Page()+path, strings.NewReader(body))
	require.NoError(t, err)
	r.Header.Set("Authorization", "Bearer "+token)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	response, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	return response.StatusCode
}

func TestAStatusTokenSeesNoPayloadAndNoButtons(t *testing.T) {
	t.Parallel()
	h := buildHouse(t, "orders")
	h.Apply(t, "triggers:\n"+h.trigger("orders", "retry: {limit: 0, interval: 1s}"))
	h.Receiver.Fails("orders", http.StatusUnprocessableEntity, "we do not know Ada")
	token := h.withToken(t, "wall", "status")
	h.Run(t)
	h.Exec(t, "insert into orders (customer, amount) values ('Ada Lovelace', 1)")
	tb := newPerson(t).SignedIn(t, h, token, "")
	tb.Sees("main", "failing")
	tb.Sees("header", "wall")
	for _, hash := range []string{"#/", "#/trigger/orders", "#/dispatchers", "#/operations", "#/health"} {
		tb.Goes(hash)
		tb.Sees("main", map[string]string{"#/": "orders", "#/trigger/orders": "Configuration", "#/dispatchers": "lives", "#/operations": "Nothing runs", "#/health": "connected"}[hash])
		require.NotContains(t, tb.text("body"), "Ada", hash)
		for _, button := range []string{"Pause", "Resume", "Test event", "Backfill", "Replay", "Redeliver", "Discard", "Break off"} {
			require.False(t, tb.Has("main", button), "%s on %s", button, hash)
		}
	}
	require.Equal(t, http.StatusForbidden, h.ask(t, token, http.MethodPost, "/api/v1/pause", `{"all": true}`))
	require.Equal(t, http.StatusForbidden, h.ask(t, token, http.MethodGet, "/api/v1/events?with_payload=true", ""))
}

func TestATabWithoutATokenHearsNothingOfOneThatHasIt(t *testing.T) {
	t.Parallel()
	h := newHouse(t, "orders")
	p := newPerson(t)
	signed := p.SignedIn(t, h, adminToken, "")
	signed.Sees("main", "public.orders")
	stranger := p.Tab(t, h, "")
	stranger.Expects("401")
	stranger.Sees("main", "A token is needed")
	h.Exec(t, "insert into orders (customer, amount) values ('Ada', 1)")
	require.NotContains(t, stranger.text("body"), "orders")
	require.Empty(t, eval[string](stranger, `sessionStorage.getItem("rowhook.token") ?? ""`))
	require.Empty(t, eval[string](stranger, `document.cookie`))
	require.Equal(t, 0, eval[int](stranger, `localStorage.length`))
}

func TestATokenThatIsRemovedEndsThePage(t *testing.T) {
	t.Parallel()
	h := buildHouse(t, "orders")
	h.Apply(t, "triggers:\n"+h.trigger("orders"))
	token := h.withToken(t, "leaver", "payloads,steer")
	h.Run(t)
	tb := newPerson(t).SignedIn(t, h, token, "")
	tb.Expects("401")
	tb.Sees("main", "public.orders")
	h.Command(t, "token", "remove", "leaver")
	tb.Sees("main", "not valid")
	tb.SeesNot("body", "public.orders")
}

// buttons are what changes something, by the beginning of its name.
var buttons = []string{"Pause orders", "Resume", "Test event", "Backfill", "Replay", "Redeliver", "Discard", "Break off", "Select"}

func TestAStatusTokenSeesEventsWithoutTheirData(t *testing.T) {
	t.Parallel()
	h := buildHouse(t, "orders")
	h.Apply(t, "triggers:\n"+h.trigger("orders", "retry: {limit: 0}", "breaker: off", "order: {by: [customer]}"))
	h.Receiver.Fails("orders", http.StatusUnprocessableEntity, "we do not know Ada")
	token := h.withToken(t, "wall", "status")
	h.Run(t)
	h.Exec(t, "insert into orders (customer, amount) values ('Ada Lovelace', 1)")
	h.isSoon(t, 1, "select count(*) from rowhook.dead_letter")
	id := h.word(t, "select id::text from rowhook.dead_letter")
	tb := newPerson(t).SignedIn(t, h, token, "")
	for _, at := range []struct{ hash, shows string }{
		{"#/events", "orders"}, {"#/events?q=state:dead", "dead"}, {"#/event/" + id, "This token does not show data"}, {"#/dead", "1 dead letter"}, {"#/audit", "apply"},
	} {
		tb.Goes(at.hash)
		tb.Sees("main", at.shows)
		require.NotContains(t, tb.text("body"), "Ada", at.hash)
		for _, button := range append(buttons, "Download", "Copy the command", "Save as a fixture") {
			require.False(t, tb.Has("main", button), "%s on %s", button, at.hash)
		}
	}
	tb.Goes("#/events")
	tb.wait("one event", `document.querySelectorAll("tr[data-id]").length === 1`)
	tb.Press("jx")
	require.False(t, tb.Has("main", "Clear"), "nothing can be selected")
	tb.Goes("#/events?q=new.customer%3AAda")
	tb.Sees("main", "This token can't search by")
	for _, path := range []string{"/api/v1/events/export", "/api/v1/events?payload=new.customer%3DAda", "/api/v1/events?error=Ada"} {
		require.Equal(t, http.StatusForbidden, h.ask(t, token, http.MethodGet, path, ""), path)
	}
	for _, path := range []string{"/api/v1/events/redeliver", "/api/v1/events/discard"} {
		require.Equal(t, http.StatusForbidden, h.ask(t, token, http.MethodPost, path, `{"filter": {"ids": ["`+id+`"]}}`), path)
	}
}

func TestATokenWithoutSteerSeesDataAndNoButtons(t *testing.T) {
	t.Parallel()
	h := buildHouse(t, "orders")
	h.Apply(t, "triggers:\n"+h.trigger("orders", "retry: {limit: 0}", "breaker: off"))
	h.Receiver.Fails("orders", http.StatusUnprocessableEntity, "we do not know Ada")
	token := h.withToken(t, "reader", "payloads")
	h.Run(t)
	h.Exec(t, "insert into orders (customer, amount) values ('Ada Lovelace', 1)")
	h.isSoon(t, 1, "select count(*) from rowhook.dead_letter")
	id := h.word(t, "select id::text from rowhook.dead_letter")
	tb := newPerson(t).SignedIn(t, h, token, "")
	for _, at := range []struct{ hash, shows string }{
		{"#/", "failing"}, {"#/trigger/orders", "Configuration"}, {"#/events?q=new.customer%3A%22Ada%20Lovelace%22", "dead"}, {"#/event/" + id, "we do not know Ada"}, {"#/dead", "1 dead letter"},
	} {
		tb.Goes(at.hash)
		tb.Sees("main", at.shows)
		for _, button := range buttons {
			require.False(t, tb.Has("main", button), "%s on %s", button, at.hash)
		}
	}
	tb.Goes("#/event/" + id)
	tb.Sees(".rows", "Ada Lovelace")
	require.True(t, tb.Has("main", "Save as a fixture"))
	require.Equal(t, http.StatusForbidden, h.ask(t, token, http.MethodPost, "/api/v1/events/redeliver", `{"filter": {"ids": ["`+id+`"]}}`))
	require.Equal(t, http.StatusForbidden, h.ask(t, token, http.MethodPost, "/api/v1/pause", `{"triggers": ["orders"]}`))
}

func TestATokenThatEndsInTheMiddleOfAStreamEndsThePage(t *testing.T) {
	t.Parallel()
	h := buildHouse(t, "orders")
	h.Apply(t, "triggers:\n"+h.trigger("orders"))
	token := h.withToken(t, "contractor", "payloads,steer")
	h.Run(t)
	p := newPerson(t)
	tb, list := p.SignedIn(t, h, token, ""), p.SignedIn(t, h, token, "#/events")
	h.Exec(t, "insert into orders (customer) values ('Ada')")
	tb.Sees("main", "public.orders")
	list.wait("the event appears by itself", `document.querySelectorAll("tr[data-id]").length === 1`)
	for _, tab := range []*tab{tb, list} {
		tab.Expects("401")
	}
	// The file as it would be a moment after its end.
	text, err := os.ReadFile(h.directory + "/tokens")
	require.NoError(t, err)
	ended := regexp.MustCompile(`(?m)^(contractor .* until=)never( .*)$`)
	require.Regexp(t, ended, string(text))
	require.NoError(t, os.WriteFile(h.directory+"/tokens", ended.ReplaceAll(text, []byte("${1}"+time.Now().Add(-time.Second).UTC().Format(time.RFC3339)+"$2")), 0o600))
	for _, tab := range []*tab{tb, list} {
		tab.Sees("main", "not valid")
		require.NotContains(t, tab.text("body"), "orders")
	}
}
