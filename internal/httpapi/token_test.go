package httpapi_test

import (
	"bufio"
	"context"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/access"
	"github.com/rowhook/rowhook/internal/httpapi"
	"github.com/rowhook/rowhook/internal/operate"
)

// namedDesk is a desk with a file of tokens.
type namedDesk struct {
	*desk
	path string
}

func newNamedDesk(t *testing.T, change ...func(*httpapi.Config)) *namedDesk {
	t.Helper()
	d := &namedDesk{path: filepath.Join(t.TempDir(), "tokens")}
	require.NoError(t, os.WriteFile(d.path, nil, 0o600))
	keyring, err := access.OpenKeyring(d.path, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	d.desk = newDesk(t, append(change, func(c *httpapi.Config) { c.Tokens = keyring })...)
	return d
}

func (d *namedDesk) add(t *testing.T, name string, scopes access.Scopes, until time.Time) (secret string) {
	t.Helper()
	_, secret, err := access.Add(d.path, name, scopes, until)
	require.NoError(t, err)
	return secret
}

func TestNamedTokensSayWhoMayDoWhat(t *testing.T) {
	t.Parallel()
	d := newNamedDesk(t)
	require.Equal(t, "401 unauthorized", d.outcome(t, "", "GET", "/api/v1/status", nil), "a file without tokens lets nobody in")
	end := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	viewer, ops, admin := d.add(t, "viewer", access.Status, end), d.add(t, "ops", access.Steer, time.Time{}), d.add(t, "boss", access.Admin, time.Time{})
	backfill := func(token string) string {
		return d.outcome(t, token, "POST", "/api/v1/triggers/orders/backfill", map[string]any{"where": "true"})
	}
	pause := func(token string) string {
		return d.outcome(t, token, "POST", "/api/v1/pause", map[string]any{"all": true})
	}
	require.Equal(t, []string{"200", "403 scope", "403 scope"}, []string{d.outcome(t, viewer, "GET", "/api/v1/status", nil), pause(viewer), backfill(viewer)})
	require.Equal(t, []string{"200", "200", "403 scope"}, []string{d.outcome(t, ops, "GET", "/api/v1/status", nil), pause(ops), backfill(ops)})
	require.Equal(t, "200", backfill(admin))

	d.token = viewer
	var p httpapi.Problem
	d.ask(t, "POST", "/api/v1/pause", map[string]any{"all": true}).into(t, &p)
	require.Equal(t, "this token lacks the scope steer", p.Detail)
	require.Equal(t, "use another token: rowhook token add NAME --scope steer makes one", p.Remedy)
	me := d.me(t)
	require.Equal(t, []any{"viewer", []string{"status"}, "token viewer", true}, []any{*me.Name, me.Scopes, me.Actor, me.Tokens})
	require.Equal(t, end, me.Until.UTC())
	require.NotContains(t, me.May, "pause")

	d.token = admin
	var audit operate.AuditPage
	d.ask(t, "GET", "/api/v1/audit?action=pause", nil).into(t, &audit)
	require.Equal(t, []string{"token ops", "127.0.0.1"}, []string{audit.Entries[0].Who, audit.Entries[0].Client})
}

func TestATokenEndsWhenItIsRemovedOrItsTimeHasCome(t *testing.T) {
	t.Parallel()
	d := newNamedDesk(t)
	removed := d.add(t, "removed", access.Payloads, time.Time{})
	soon := d.add(t, "soon", access.Payloads, time.Now().Add(10*time.Second)) // after the streams are open
	narrowed := d.add(t, "narrowed", access.Payloads, time.Time{})
	stays := d.add(t, "stays", access.Payloads, time.Time{})

	last := map[string]chan string{}
	for name, token := range map[string]string{"removed": removed, "soon": soon, "narrowed": narrowed, "stays": stays} {
		last[name] = d.lastLine(t, token, "/api/v1/events/tail")
	}
	live := d.lastLine(t, removed, "/api/v1/status/stream")
	require.NoError(t, access.Remove(d.path, "removed"))
	require.Equal(t, "401 unauthorized", d.outcome(t, removed, "GET", "/api/v1/status", nil), "at once")
	text, err := os.ReadFile(d.path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(d.path, []byte(strings.Replace(string(text), "narrowed status,payloads", "narrowed status", 1)), 0o600))
	for name, want := range map[string]string{"removed": "was removed", "soon": "has ended", "narrowed": "have changed"} {
		select {
		case line := <-last[name]:
			require.Contains(t, line, `"code":"unauthorized"`, name)
			require.Contains(t, line, want)
		case <-time.After(patience):
			require.Fail(t, "the stream goes on", name)
		}
	}
	select {
	case line := <-live:
		require.Contains(t, line, `{"problem":{`)
		require.Contains(t, line, "was removed")
	case <-time.After(patience):
		require.Fail(t, "the stream of the status goes on")
	}
	require.Equal(t, "401 unauthorized", d.outcome(t, soon, "GET", "/api/v1/me", nil))
	var p httpapi.Problem
	d.ask(t, "GET", "/api/v1/me", nil).into(t, &p)
	require.Contains(t, p.Detail, "the token soon has ended at ")
	select {
	case line := <-last["stays"]:
		require.Fail(t, "the stream of another token has ended", line)
	default:
	}
}

// lastLine opens a stream, and returns what receives its last line when it ends.
func (d *namedDesk) lastLine(t *testing.T, token, path string) chan string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url+path, nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req) //nolint:bodyclose // the goroutine below closes it
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, resp.StatusCode)
	ended := make(chan string, 1)
	go func() {
		defer resp.Body.Close()
		last := ""
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			last = lines.Text()
		}
		if ctx.Err() == nil {
			ended <- last
		}
	}()
	return ended
}

func TestOneTokenCantKeepTheOthersFromTheirStreams(t *testing.T) {
	t.Parallel()
	d := newNamedDesk(t)
	greedy := d.add(t, "greedy", access.Payloads, time.Time{})
	other := d.add(t, "other", access.Payloads, time.Time{})
	for range 16 {
		d.lastLine(t, greedy, "/api/v1/events/tail")
	}
	for _, path := range []string{"/api/v1/events/tail", "/api/v1/status/stream", "/api/v1/events/export"} {
		require.Equal(t, "429 too_many", d.outcome(t, greedy, "GET", path, nil), path)
	}
	last := d.lastLine(t, other, "/api/v1/status/stream")
	require.NoError(t, access.Remove(d.path, "greedy"))
	greedy = d.add(t, "greedy", access.Payloads, time.Time{})
	require.Eventually(t, func() bool {
		return d.outcome(t, greedy, "GET", "/api/v1/events/export", nil) == "200"
	}, patience, 20*time.Millisecond, "streams that have ended count no longer")
	select {
	case line := <-last:
		require.Fail(t, "the stream of the other has ended", line)
	default:
	}
}
