package dispatcher_test

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/trigger"
)

// lookup has the variables that are listed, by name and value.
func lookup(pairs ...string) func(*dispatcher.Config) {
	return func(c *dispatcher.Config) {
		c.Lookup = func(name string) (string, bool) {
			for i := 0; i < len(pairs); i += 2 {
				if pairs[i] == name {
					return pairs[i+1], true
				}
			}
			return "", false
		}
	}
}

func noRetry(s *trigger.Spec) { s.Retry.Limit = 0 }

func TestAnInstanceThatCannotSendLeavesEventsToOneThatCan(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*trigger.Spec){
		"unset": func(s *trigger.Spec) { s.Webhook.URL = "${U}/orders" },
		"token": func(s *trigger.Spec) { s.Webhook.Headers = map[string]string{"X-Token": "${U}"} },
		"key":   func(s *trigger.Spec) { s.Webhook.Secret = "${U}" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newFixture(t)
			b.watch(t, "orders", noRetry, change)
			without := b.start(t, lookup())
			b.Exec(t, "insert into orders (v) select 'x' from generate_series(1, 200)")
			with := b.start(t, lookup("U", b.receiver.URL))
			b.Exec(t, "insert into orders (v) select 'x' from generate_series(1, 800)")
			b.receiver.await(t, "orders", 1000)
			b.settled(t)
			conn := b.Conn(t)
			require.Equal(t, 1000, one[int](t, conn, "select count(*) from rowhook.event_archive where tries = 1"))
			require.Zero(t, one[int](t, conn, "select count(*) from rowhook.dead_letter"))
			require.Equal(t, 1000, b.receiver.unique("orders"))
			require.Contains(t, without.log.String(), "can't send a trigger's events")
			require.NotContains(t, with.log.String(), "can't send a trigger's events")
		})
	}
}

func TestEventsOfATriggerThatNobodyCanSendWaitUncountedAndAreShown(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "fine")
	b.watch(t, "orders", noRetry, func(s *trigger.Spec) { s.Webhook.URL = "${SECRET_U}/orders" })
	r := b.start(t, lookup("SECRET_U", "no url hunter2"))
	b.Exec(t, "insert into orders default values; insert into fine default values")
	b.receiver.await(t, "fine", 1)
	conn := b.Conn(t)
	var found []operate.Warning
	require.Eventually(t, func() bool {
		s, err := operate.ReadStatus(t.Context(), conn)
		require.NoError(t, err)
		found = s.Warnings
		return len(found) > 0
	}, patience, 20*time.Millisecond)
	require.Equal(t, "cannot_send", found[0].Code)
	require.Equal(t, "orders", found[0].Trigger)
	require.Contains(t, found[0].Problem, "SECRET_U")
	require.NotContains(t, found[0].Problem, "hunter2")
	for _, s := range r.Stats().Triggers {
		require.Equal(t, s.Name == "orders", s.Unable != "", s.Name)
	}
	eventually(t, conn, "0", "select coalesce(string_agg(tries::text, ','), '') from rowhook.event_log")
	require.Zero(t, one[int](t, conn, "select count(*) from rowhook.dead_letter"))

	b.apply(t, b.Spec("orders"))
	b.receiver.await(t, "orders", 1)
	r.says(t, "can send a trigger's events again")
	eventually(t, conn, true, "select bool_and(trouble is null) from rowhook.instance")
}

// TestAnInstanceThatCanNotSendTellsTheOthersOfWhatReadItsSilence has a transaction read that writers
// need not notify, which is on account of an instance that can't send its event.
func TestAnInstanceThatCanNotSendTellsTheOthersOfWhatReadItsSilence(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders", func(s *trigger.Spec) { s.Webhook.URL = "${U}/orders" })
	armed := make(chan struct{}, 10)
	tells := func(c *dispatcher.Config) {
		c.Observers = append(c.Observers, dispatcher.Observer{Doorbell: func(silent bool) {
			if !silent {
				armed <- struct{}{}
			}
		}})
	}
	b.start(t, lookup(), tells)
	<-armed
	conn := b.Conn(t)
	unable := one[int](t, conn, "select id from rowhook.instance")
	b.start(t, lookup("U", b.receiver.URL), tells)
	<-armed
	_, err := conn.Exec(t.Context(), "select setval('rowhook.doorbell', $1)", unable)
	require.NoError(t, err)
	tx, err := b.Conn(t).Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "insert into orders default values")
	require.NoError(t, err)
	<-armed
	_, err = conn.Exec(t.Context(), "select pg_sleep(2)") // the other's watch has found that it rings
	require.NoError(t, err)
	require.NoError(t, tx.Commit(t.Context()))
	committed := time.Now()
	b.receiver.await(t, "orders", 1)
	require.Less(t, time.Since(committed), 10*time.Second, "the maintenance finds it within a minute")
}

func TestATLSFileThatAppearsLaterIsTriedAgainAndBurnsNothing(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	secure := httptest.NewTLSServer(b.receiver)
	t.Cleanup(secure.Close)
	file := filepath.Join(t.TempDir(), "ca.pem")
	b.watch(t, "orders", noRetry, func(s *trigger.Spec) {
		s.Webhook.URL, s.Webhook.TLS.CAFile = secure.URL+"/orders", file
	})
	r := b.start(t)
	b.Exec(t, "insert into orders default values")
	require.Contains(t, r.log.String(), "ca.pem")
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}), 0o600))
	b.receiver.await(t, "orders", 1)
	b.settled(t)
	require.Equal(t, 1, one[int](t, b.Conn(t), "select count(*) from rowhook.event_archive where tries = 1"))
}

func TestWhatIsClaimedOfATriggerThatBecomesUnableIsGivenBackUncounted(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	held := make(chan struct{})
	b.receiver.respond(func(_ int, _ delivery, _ http.ResponseWriter, r *http.Request) {
		select {
		case <-held:
		case <-r.Context().Done():
		}
	})
	one1 := func(s *trigger.Spec) {
		s.Concurrency, s.Retry.Limit, s.Webhook.Timeout = 1, 0, trigger.Duration(patience)
	}
	b.watch(t, "orders", one1)
	r := b.start(t, lookup())
	b.Exec(t, "insert into orders (v) select 'x' from generate_series(1, 50)")
	b.receiver.await(t, "orders", 1)
	b.apply(t, b.Spec("orders", one1, func(s *trigger.Spec) { s.Webhook.URL = "${U}" }))
	// Until the dispatcher has loaded this it sends the next event by the URL of before.
	require.Eventually(t, func() bool { return r.Stats().Triggers[0].Unable != "" }, patience, 5*time.Millisecond)
	conn := b.Conn(t)
	// If it took long until now, the attempt in flight hangs, and is given back uncounted, too.
	eventually(t, conn, true, "select count(claimed_by) <= 1 from rowhook.event_log")
	close(held)
	eventually(t, conn, true, "select count(*) >= 49 and count(claimed_by) = 0 and sum(tries) = 0 from rowhook.event_log")
	require.Zero(t, one[int](t, conn, "select count(*) from rowhook.dead_letter"))
}

func TestTheLogNamesTheHostOfAURLFromAVariable(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders", noRetry, func(s *trigger.Spec) { s.Webhook.URL = "${U}?key=hunter2" })
	b.receiver.respond(func(_ int, _ delivery, w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	r := b.start(t, lookup("U", b.receiver.URL+"/services/T0/hunter2"))
	b.Exec(t, "insert into orders default values")
	b.settled(t)
	require.Contains(t, r.log.String(), "endpoint=\""+b.receiver.URL+"/${U}?key=<redacted>\"")
	require.NotContains(t, r.log.String(), "hunter2")
}
