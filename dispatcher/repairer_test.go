package dispatcher

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

// testLog is a log that a test reads while it is written.
type testLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *testLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *testLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// The session of a claim can't be ended through a pooler, so the claim may run after its events
// were looked for.
func TestAClaimThatRunsAfterItWasGivenBackThroughAPoolerIsGivenBackAgain(t *testing.T) {
	t.Parallel()
	db, conn, got := ordersOf(t)
	d, err := New(Config{DatabaseURL: db.URL(), ListenURL: db.URL(), PollInterval: time.Hour})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	t.Cleanup(func() { cancel(); require.NoError(t, <-done) })
	<-d.Ready()
	id, err := queue.NewInstance(t.Context(), conn)
	require.NoError(t, err)
	require.NoError(t, queue.Register(t.Context(), conn, id, "test", "v", false))
	by := queue.Claimant{Instance: id, Number: 7}
	wants := []queue.Want{{Trigger: 1, Limit: 10, Lease: 10 * time.Minute}}
	d.repairer.add(interrupted{by: by, wants: wants, asked: time.Now()})
	require.Eventually(t, func() bool {
		d.repairer.mu.Lock()
		defer d.repairer.mu.Unlock()
		return len(d.repairer.lost) == 1 && !d.repairer.lost[0].next.IsZero()
	}, time.Minute, time.Millisecond, "its events are looked for once, and will be again")
	require.NoError(t, pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), "insert into orders values (1), (2), (3)"); err != nil {
			return err
		}
		late, err := queue.Claim(t.Context(), tx, by, wants)
		require.Len(t, late, 3)
		return err
	}))
	for range 3 {
		select {
		case <-got:
		case <-time.After(time.Minute):
			require.FailNow(t, "the events wait for the end of their lease")
		}
	}
}

// ordersOf is a database with a watched table orders, and what arrives at its receiver.
func ordersOf(t *testing.T) (db *pgtest.DB, conn *pgx.Conn, got chan struct{}) {
	t.Helper()
	db = pgtest.New(t)
	got = make(chan struct{}, 100)
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { got <- struct{}{} }))
	t.Cleanup(receiver.Close)
	spec := trigger.DefaultSpec()
	spec.Name, spec.Table, spec.Webhook.URL = "orders", "public.orders", receiver.URL
	spec.On = trigger.On{Insert: true}
	conn = db.Conn(t)
	_, err := conn.Exec(t.Context(), "create table orders (n integer)")
	require.NoError(t, err)
	_, err = sqlschema.Apply(t.Context(), conn, []trigger.Spec{spec}, trigger.DefaultSettings(), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	return db, conn, got
}

func TestAnInterruptedClaimThatCanNotBeGivenBackStopsNoOther(t *testing.T) {
	t.Parallel()
	db, conn, got := ordersOf(t)
	_, err := conn.Exec(t.Context(), "insert into orders values (1), (2), (3)")
	require.NoError(t, err)

	log := &testLog{}
	d, err := New(Config{DatabaseURL: db.URL(), PollInterval: time.Hour, Logger: slog.New(slog.NewTextHandler(log, nil))})
	require.NoError(t, err)
	// Its answer was lost: the events are this instance's, which does not know them. To give them
	// back fails.
	id, err := queue.NewInstance(t.Context(), conn)
	require.NoError(t, err)
	require.NoError(t, queue.Register(t.Context(), conn, id, "test", "v", false))
	by := queue.Claimant{Instance: id, Number: 7}
	wants := []queue.Want{{Trigger: 1, Limit: 10, Lease: 40 * time.Second}}
	lost, err := queue.Claim(t.Context(), conn, by, wants)
	require.NoError(t, err)
	require.Len(t, lost, 3)
	_, err = conn.Exec(t.Context(), fmt.Sprintf(`
create function refuse() returns trigger language plpgsql as $$ begin raise exception 'canceling statement due to statement timeout' using errcode = '57014'; end $$;
create trigger refuse before update on rowhook.event_log for each row when (old.claimed_by = %d and new.claimed_by is null) execute function refuse()`, id))
	require.NoError(t, err)
	d.repairer.add(interrupted{by: by, wants: wants, asked: time.Now()})

	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	t.Cleanup(func() { cancel(); require.NoError(t, <-done) })
	<-d.Ready()
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "can't give back") }, time.Minute, 5*time.Millisecond)
	for n := range 20 {
		_, err = conn.Exec(t.Context(), "insert into orders values ($1)", n)
		require.NoError(t, err)
		<-got
	}
	_, err = conn.Exec(t.Context(), "drop trigger refuse on rowhook.event_log")
	require.NoError(t, err)
	for range 3 {
		<-got
	}
	require.Eventually(t, func() bool { // another goroutine may have sent them before this one says so
		return strings.Contains(log.String(), `gave back the events of an interrupted claim" events=3`)
	}, time.Minute, 5*time.Millisecond)
	require.NotContains(t, log.String(), "a database statement failed")
}
