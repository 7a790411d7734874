package rowhooktest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rowhook/rowhook/internal/clone"
	"github.com/rowhook/rowhook/internal/session"
)

// Harness is a database with Rowhook in it, a receiver, and a dispatcher between them. Make it by
// [Start]. Its methods may be called by several goroutines, but those that take a t only by the
// test's own, since they end the test if they fail.
type Harness struct {
	t        testing.TB
	options  options
	settings *installation
	database *clone.Database // nil: the caller's own
	holding  *pgx.Conn       // holds the test's place on the server, or the caller's own database
	url      string
	pool     *pgxpool.Pool
	receiver *receiver
	delivery *delivery
	log      *journal
	started  bool // Start has returned
	ended    atomic.Bool
}

// Start makes a database of its own for the test, installs Rowhook and its triggers in it, and runs
// a receiver and a dispatcher until the test ends. All triggers send to that receiver, whatever
// their URL. Tests that call Start may run in parallel: none sees the rows of another.
//
// The configuration comes from [File] or [Config], one of which is required; the tables come from
// [Schema], [SQL] or [Migrate]. The server is that of [Server], or of the variable
// [ServerVariable], or a private one that ends with the process. Start fails the test if something
// is wrong.
func Start(t testing.TB, options ...Option) *Harness {
	t.Helper()
	o, err := collect(options)
	if err != nil {
		t.Fatalf("rowhooktest: %v", err)
	}
	h := &Harness{t: t, options: o, log: &journal{}}
	ctx, cancel := h.within(t, startTimeout)
	defer cancel()
	t.Cleanup(h.stop)
	if err := h.start(ctx); err != nil {
		t.Fatalf("rowhooktest: %v", err)
	}
	h.started = true
	return h
}

// startTimeout bounds Start. Its slow part may be the download of Postgres.
const startTimeout = 2 * time.Minute

// forever is longer than any test.
const forever = 1000 * time.Hour

// stopTimeout bounds the end of a test.
const stopTimeout = 30 * time.Second

func (h *Harness) start(ctx context.Context) (err error) {
	if h.settings, err = readInstallation(h.options); err != nil {
		return err
	}
	if h.receiver, err = startReceiver(h.settings); err != nil {
		return err
	}
	if h.url, h.database, h.holding, err = h.settings.database(ctx); err != nil {
		return err
	}
	config, err := session.ParsePool(h.url)
	if err != nil {
		return fmt.Errorf("read the connection string: %w", err)
	}
	// One session is enough. It stays, since later there may be none left on the server.
	config.MaxConns, config.MaxConnLifetime, config.MaxConnIdleTime = 1, forever, forever
	if h.pool, err = pgxpool.NewWithConfig(context.WithoutCancel(ctx), config); err != nil {
		return fmt.Errorf("connect to the test's database: %w", err)
	}
	if err := clone.Persist(ctx, h.pool.Ping); err != nil {
		return fmt.Errorf("connect to the test's database: %w", err)
	}
	if h.database != nil {
		if err := lockDatabase(ctx, h.pool, "pg_try_advisory_lock"); err != nil {
			return err
		}
	}
	h.delivery, err = startDelivery(ctx, h)
	return err
}

// stop ends everything in reverse order, and drops the database. A failed test gets the dispatcher's
// log, and keeps its database if the server outlives the process and the test has come beyond Start.
func (h *Harness) stop() {
	h.ended.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if text := h.log.text(); text != "" && h.t.Failed() {
		h.t.Logf("rowhooktest: the dispatcher's log:\n%s", text)
	}
	if h.delivery != nil {
		h.delivery.stop()
	}
	h.receiver.stop()
	if h.pool != nil {
		h.pool.Close()
	}
	if h.holding != nil {
		defer h.holding.Close(ctx)
	}
	if h.database == nil {
		return
	}
	if h.t.Failed() && h.started && h.settings.private == nil {
		shown, asks := clone.WithoutPassword(h.url), ""
		if shown != h.url {
			asks = " (without the password, since logs are kept: psql asks for it, or takes it from PGPASSWORD)"
		}
		h.t.Logf("rowhooktest: the test's database is kept, open it with: psql '%s'%s", shown, asks)
		return
	}
	err := h.database.DropBy(ctx, h.holding, dropPatience)
	if err != nil { // the session may have ended with a restart of the server
		err = h.database.Drop(ctx, dropPatience)
	}
	if err != nil {
		h.t.Errorf("rowhooktest: %v", err)
	}
}

// dropPatience is how long the end of a test waits until its database is dropped. The server goes on
// by itself: where fsync is on, it takes some 300 ms.
const dropPatience = 25 * time.Millisecond

// URL returns the connection string of the test's database, for the program under test.
func (h *Harness) URL() string { return h.settings.public(h.url) }

// ReceiverURL returns the address of the receiver, such as http://127.0.0.1:34567. Each trigger
// posts to the path /NAME there.
func (h *Harness) ReceiverURL() string { return h.receiver.url }

// Exec runs a statement in the test's database and commits it. Several statements, separated by ;
// and without arguments, are one transaction. It fails the test if Postgres returns an error.
func (h *Harness) Exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	ctx, cancel := h.within(t, h.options.timeout)
	defer cancel()
	if _, err := h.pool.Exec(ctx, sql, args...); err != nil {
		t.Fatalf("rowhooktest: exec: %v", explainSQL(err, sql))
	}
}

// within returns a context that ends after a time, or shortly before the test's own deadline, so that
// the reason of a failure can still be printed. It fails the test if the harness has ended.
func (h *Harness) within(t testing.TB, most time.Duration) (context.Context, context.CancelFunc) {
	t.Helper()
	if h.ended.Load() {
		t.Fatalf("rowhooktest: the harness has ended: cleanups run in the reverse order, so register one that uses it by t.Cleanup after Start")
	}
	deadline := time.Now().Add(most)
	if d, ok := t.(interface {
		Deadline() (deadline time.Time, ok bool)
	}); ok {
		if end, ok := d.Deadline(); ok && end.Add(-spare).Before(deadline) {
			deadline = end.Add(-spare)
		}
	}
	return context.WithDeadline(context.WithoutCancel(t.Context()), deadline) // cleanups of a test may use it
}

// spare is the time that is left of a test's deadline for its end.
const spare = 2 * time.Second

var errNoConfiguration = errors.New("name the configuration: rowhooktest.File(\"rowhook.yaml\"), or rowhooktest.Config with its text")
