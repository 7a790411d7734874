package browser_test

import (
	"net/http"
	"strings"
	"testing"

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
		for _, button := range []string{"Pause", "Resume", "Test event", "Backfill", "Redeliver", "Discard", "Break off"} {
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
