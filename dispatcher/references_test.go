package dispatcher_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

// secretsIn gives out the files of a directory.
func secretsIn(dir string) func(*dispatcher.Config) {
	return func(c *dispatcher.Config) {
		c.Lookup = func(string) (string, bool) { return "", false }
		c.SecretsDirs = []string{dir}
	}
}

// rotate replaces a file at once.
func rotate(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path+".new", []byte(text), 0o600))
	require.NoError(t, os.Rename(path+".new", path))
}

func TestASecretThatIsRotatedUnderLoadIsNeverUsedInPart(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "token")
	version := func(n int) string { return strings.Repeat(fmt.Sprintf("v%d.", n), 2000) }
	rotate(t, file, version(0)+"\n")
	var latest atomic.Value
	latest.Store("")
	b.receiver.respond(func(_ int, _ delivery, w http.ResponseWriter, r *http.Request) {
		token := r.Header.Get("X-Token")
		if first, _, _ := strings.Cut(token, "."); token != strings.Repeat(first+".", 2000) {
			t.Errorf("a token of %d bytes", len(token))
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		latest.Store(token)
	})
	b.watch(t, "orders", func(s *trigger.Spec) { s.Webhook.Headers = map[string]string{"X-Token": "${file:" + file + "}"} })
	b.start(t, secretsIn(dir))
	for n := 1; n <= 5; n++ {
		rotate(t, file, version(n)+"\n")
		// Each version is used, within about a second.
		require.Eventually(t, func() bool {
			b.Exec(t, "insert into orders (v) select 'x' from generate_series(1, 20)")
			return latest.Load() == version(n)
		}, patience, 50*time.Millisecond)
	}
	b.settled(t)
	conn := b.Conn(t)
	require.Zero(t, one[int](t, conn, "select count(*) from rowhook.event_archive where tries <> 1"))
	require.Zero(t, one[int](t, conn, "select count(*) from rowhook.dead_letter"))
}

func TestATriggerWaitsForAFileAndGoesOnWhenItIsThere(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "url")
	b.watch(t, "fine")
	b.watch(t, "orders", noRetry, func(s *trigger.Spec) { s.Webhook.URL = "${file:" + file + "}/orders" })
	r := b.start(t, secretsIn(dir))
	unable := func() string {
		for _, s := range r.Stats().Triggers {
			if s.Name == "orders" {
				return s.Unable
			}
		}
		return ""
	}
	b.Exec(t, "insert into orders default values; insert into fine default values")
	b.receiver.await(t, "fine", 1)
	require.Contains(t, unable(), "the file "+file+" does not exist")
	rotate(t, file, b.receiver.URL+"\n")
	b.receiver.await(t, "orders", 1)

	require.NoError(t, os.Remove(file))
	require.Eventually(t, func() bool { return unable() != "" }, patience, 10*time.Millisecond)
	b.Exec(t, "insert into orders default values")
	rotate(t, file, b.receiver.URL)
	b.receiver.await(t, "orders", 2)
	b.settled(t)
	require.Equal(t, 2, one[int](t, b.Conn(t), "select count(*) from rowhook.event_archive a join rowhook.trigger t on t.id = a.trigger_id where t.name = 'orders' and a.tries = 1"))
	r.says(t, "can send a trigger's events again")
}

func TestWhatADispatcherDoesNotGiveOutIsSentNowhere(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	dir := t.TempDir()
	rotate(t, filepath.Join(dir, "token"), "t0ken")
	require.NoError(t, os.Symlink("/proc/self/environ", filepath.Join(dir, "environ")))
	var leaked atomic.Value
	leaked.Store("")
	b.receiver.respond(func(_ int, d delivery, _ http.ResponseWriter, r *http.Request) {
		if text := fmt.Sprint(r.URL, r.Header); strings.Contains(text, "hunter2") {
			leaked.Store(text)
		}
	})
	// Each is a try of somebody who may apply, and wants the password.
	tries := map[string]func(*trigger.Webhook){
		"in the query":  func(w *trigger.Webhook) { w.URL += "?x=${DATABASE_URL}" },
		"in the path":   func(w *trigger.Webhook) { w.URL += "/${PGPASSWORD}" },
		"in a header":   func(w *trigger.Webhook) { w.Headers = map[string]string{"X": "a ${PGPASSFILE} b"} },
		"as the secret": func(w *trigger.Webhook) { w.Secret = "whsec_${ROWHOOK_HTTP_TOKEN}" },
		"another name":  func(w *trigger.Webhook) { w.Headers = map[string]string{"X": "${COPY_OF_URL}"} },
		"a file":        func(w *trigger.Webhook) { w.Headers = map[string]string{"X": "${file:/proc/self/environ}"} },
		"a link":        func(w *trigger.Webhook) { w.Headers = map[string]string{"X": "${file:" + dir + "/environ}"} },
		"dots": func(w *trigger.Webhook) {
			w.Headers = map[string]string{"X": "${file:" + dir + "/../../../../etc/passwd}"}
		},
		"a token": func(w *trigger.Webhook) {
			w.OAuth2 = trigger.OAuth2{TokenURL: w.URL + "/${DATABASE_URL}", ClientID: "a", ClientSecret: "b"}
		},
		"a client secret": func(w *trigger.Webhook) {
			w.OAuth2 = trigger.OAuth2{TokenURL: w.URL, ClientID: "a", ClientSecret: "${PGPASSWORD}"}
		},
		"certificates": func(w *trigger.Webhook) { w.URL, w.TLS.CAFile = "https://127.0.0.1:1", "${DATABASE_URL}" },
		"a body":       func(w *trigger.Webhook) { w.Body = `{"a": "${DATABASE_URL}"}` },
		"a parameter":  func(w *trigger.Webhook) { w.Query = map[string]string{"a": "${DATABASE_URL}"} },
	}
	for name, change := range tries {
		table := strings.ReplaceAll(name, " ", "_")
		b.watch(t, table, func(s *trigger.Spec) { change(&s.Webhook) })
	}
	b.watch(t, "fine", func(s *trigger.Spec) { s.Webhook.Headers = map[string]string{"X": "${file:" + dir + "/token}"} })
	password := ""
	r := b.start(t, func(c *dispatcher.Config) {
		u, err := url.Parse(c.DatabaseURL)
		require.NoError(t, err)
		password, _ = u.User.Password()
		lookup("DATABASE_URL", c.DatabaseURL+"&application_name=hunter2", "PGPASSWORD", "hunter2", "PGPASSFILE", "hunter2", "ROWHOOK_HTTP_TOKEN", "hunter2hunter2",
			"COPY_OF_URL", c.DatabaseURL+"&application_name=hunter2")(c)
		c.SecretsDirs = []string{dir}
	})
	require.GreaterOrEqual(t, len(password), 8)
	for name := range tries {
		b.Exec(t, "insert into "+strings.ReplaceAll(name, " ", "_")+" default values")
	}
	b.Exec(t, "insert into fine default values")
	b.receiver.await(t, "fine", 1)
	require.Empty(t, leaked.Load())
	refused := map[string]string{}
	for _, s := range r.Stats().Triggers {
		refused[s.Name] = s.Unable
	}
	for name := range tries {
		require.Contains(t, refused[strings.ReplaceAll(name, " ", "_")], "the dispatcher does not give out", name)
	}
	require.NotContains(t, r.log.String(), "hunter2")
	require.NotContains(t, r.log.String(), password)
	conn := b.Conn(t)
	require.Zero(t, one[int](t, conn, "select count(*) from rowhook.invocation_log l where l::text like '%hunter2%'"))
	require.Equal(t, len(tries), one[int](t, conn, "select count(*) from rowhook.event_log where tries = 0"))
}

// tokenIssuer issues tokens, of which only the last one is valid.
type tokenIssuer struct {
	issued atomic.Int32
	down   atomic.Bool
	asked  atomic.Int32
}

func (i *tokenIssuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.asked.Add(1)
	if id, secret, ok := r.BasicAuth(); i.down.Load() || !ok || id != "rowhook" || secret != "hunter2" {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"access_token": fmt.Sprintf("token-%d", i.issued.Add(1)), "token_type": "Bearer", "expires_in": 3600})
}

func (i *tokenIssuer) valid(r *http.Request) bool {
	return r.Header.Get("Authorization") == fmt.Sprintf("Bearer token-%d", i.issued.Load())
}

func TestAnEndpointProtectedByOAuthIsServedAcrossRevocations(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	issuer := &tokenIssuer{}
	tokens := httptest.NewServer(issuer)
	t.Cleanup(tokens.Close)
	b.receiver.respond(func(_ int, _ delivery, w http.ResponseWriter, r *http.Request) {
		if !issuer.valid(r) {
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	for _, table := range []string{"orders", "invoices"} {
		b.watch(t, table, noRetry, func(s *trigger.Spec) {
			s.Webhook.OAuth2 = trigger.OAuth2{TokenURL: tokens.URL, ClientID: "rowhook", ClientSecret: "${CLIENT_SECRET}"}
		})
	}
	r := b.start(t, lookup("CLIENT_SECRET", "hunter2"))
	b.Exec(t, "insert into orders (v) select 'x' from generate_series(1, 50); insert into invoices (v) select 'x' from generate_series(1, 50)")
	b.settled(t)
	require.EqualValues(t, 1, issuer.asked.Load(), "two triggers share a token")
	issuer.issued.Add(1) // no token that was given is valid any more
	b.Exec(t, "insert into orders (v) values ('y')")
	b.settled(t)
	conn := b.Conn(t)
	require.Equal(t, 101, one[int](t, conn, "select count(*) from rowhook.event_archive where tries = 1"))
	require.Zero(t, one[int](t, conn, "select count(*) from rowhook.dead_letter"))
	require.EqualValues(t, 2, issuer.asked.Load())
	require.NotContains(t, r.log.String(), "hunter2")
	require.NotContains(t, r.log.String(), "token-")
	require.Zero(t, one[int](t, conn, "select count(*) from rowhook.invocation_log l where l::text like '%token-%' or l::text like '%hunter2%'"))
}

func TestABrokenEndpointForTokensBurnsNoEventsAndHoldsNoOtherTrigger(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	issuer := &tokenIssuer{}
	issuer.down.Store(true)
	tokens := httptest.NewServer(issuer)
	t.Cleanup(tokens.Close)
	b.watch(t, "fine") // on the same host, without a token
	b.watch(t, "orders", func(s *trigger.Spec) {
		s.Retry.Limit, s.Retry.Interval, s.Retry.Backoff = 12, trigger.Duration(50*time.Millisecond), trigger.BackoffFixed
		s.Webhook.OAuth2 = trigger.OAuth2{TokenURL: tokens.URL, ClientID: "rowhook", ClientSecret: "${CLIENT_SECRET}"}
	})
	b.start(t, lookup("CLIENT_SECRET", "hunter2"))
	conn := b.Conn(t)
	b.Exec(t, "insert into orders (v) select 'x' from generate_series(1, 30)")
	eventually(t, conn, true, "select exists (select from rowhook.health where target like 'trigger%' and state <> 'ok')")
	b.Exec(t, "insert into fine default values")
	b.receiver.await(t, "fine", 1)
	// The attempts are written by another session than the health of their endpoint.
	eventually(t, conn, string(webhook.KindToken), "select coalesce(string_agg(distinct error_kind, ' '), '') from rowhook.invocation_log")
	require.Contains(t, one[string](t, conn, "select error from rowhook.invocation_log where error_kind = 'token' limit 1"), "token: "+tokens.URL+" answered 503")
	issuer.down.Store(false)
	b.receiver.await(t, "orders", 30)
	b.settled(t)
	require.Zero(t, one[int](t, conn, "select count(*) from rowhook.dead_letter"))
	require.Less(t, issuer.asked.Load(), int32(60))
}
