// Package dispatchtest runs dispatchers in tests, between a database of [pgtest] and an endpoint.
package dispatchtest

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

// Patience is how long a test waits for something that must happen. It is long because the machine
// may be busy.
const Patience = 60 * time.Second

// Spec returns a trigger for every change of the table public.NAME, which posts to baseURL/NAME.
func Spec(name, baseURL string, change ...func(*trigger.Spec)) trigger.Spec {
	s := trigger.DefaultSpec()
	s.Name, s.Table, s.Webhook.URL = name, "public."+name, baseURL+"/"+name
	s.On = trigger.On{Insert: true, Update: trigger.UpdateOn{Enabled: true}, Delete: true, Manual: true}
	s.Webhook.Timeout = trigger.Duration(10 * time.Second)
	for _, c := range change {
		c(&s)
	}
	return s
}

// Apply applies these triggers and no others.
func Apply(t testing.TB, db *pgtest.DB, specs ...trigger.Spec) {
	t.Helper()
	_, err := sqlschema.Apply(t.Context(), db.Conn(t), specs, trigger.DefaultSettings(), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
}

// Site is a database and the endpoint to which its triggers post.
type Site struct {
	*pgtest.DB
	Endpoint string // its URL
}

// Table makes a table with a key and two columns, unless it is there.
func (s *Site) Table(t testing.TB, name string) {
	t.Helper()
	s.Exec(t, "create table if not exists "+name+" (id bigint generated always as identity primary key, v text, n numeric)")
}

// Spec is [Spec] for the endpoint.
func (s *Site) Spec(name string, change ...func(*trigger.Spec)) trigger.Spec {
	return Spec(name, s.Endpoint, change...)
}

// Apply is [Apply] for the database.
func (s *Site) Apply(t testing.TB, specs ...trigger.Spec) {
	t.Helper()
	Apply(t, s.DB, specs...)
}

// Run is [Run] for the database. The poll interval is an hour, so that nothing is found by polling.
func (s *Site) Run(t testing.TB, change ...func(*dispatcher.Config)) *Running {
	t.Helper()
	cfg := dispatcher.Config{DatabaseURL: s.URL(), PollInterval: time.Hour, Version: "v1"}
	for _, c := range change {
		c(&cfg)
	}
	return Run(t, cfg)
}

// Running is a dispatcher that runs until it is stopped or the test ends.
type Running struct {
	*dispatcher.Dispatcher
	Cancel context.CancelFunc // as SIGTERM does
	Done   chan struct{}      // closed when it has ended
	Err    error              // how it ended, after that
}

// Run starts a dispatcher and waits until it is ready.
func Run(t testing.TB, cfg dispatcher.Config) *Running {
	t.Helper()
	d, err := dispatcher.New(cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	r := &Running{Dispatcher: d, Cancel: cancel, Done: make(chan struct{})}
	go func() { defer close(r.Done); r.Err = d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		d.Abort()
		<-r.Done
	})
	select {
	case <-d.Ready():
	case <-r.Done:
		require.FailNow(t, "the dispatcher ended", "%v", r.Err)
	case <-time.After(Patience):
		require.FailNow(t, "the dispatcher does not get ready")
	}
	return r
}

// Stop ends the dispatcher as SIGTERM does, and waits for it.
func (r *Running) Stop(t testing.TB) {
	t.Helper()
	r.Cancel()
	select {
	case <-r.Done:
		require.NoError(t, r.Err)
	case <-time.After(Patience):
		require.FailNow(t, "the dispatcher does not stop")
	}
}
