package metrics_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/localpg"
	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/pgtest"
)

// docs/prometheus/rules_test.yml stages outages with invented series. These tests cause the
// outages, and check that the metrics behind the alerts change.

func TestAnEndpointThatIsDownShowsInTheMetrics(t *testing.T) {
	t.Parallel()
	s := newStage(t, pgtest.New(t))
	s.endpoint.Close()
	s.Exec(t, "insert into orders (v) values ('x')")
	s.until(t, atLeast(2), "rowhook_attempts_total", "trigger=orders", "outcome=failed")
	s.until(t, atLeast(2), "rowhook_attempt_failures_total", "trigger=orders", "reason=refused")
	s.until(t, is(1), "rowhook_events_dead_total", "trigger=orders")
	s.until(t, is(1), "rowhook_dead_letters", "trigger=orders")
	require.InDelta(t, 0, s.value(t, "rowhook_attempts_total", "outcome=delivered"), 0)
}

func TestABacklogThatGrowsOldShowsInTheMetrics(t *testing.T) {
	t.Parallel()
	s := newStage(t, pgtest.New(t))
	_, err := operate.Pause(t.Context(), s.Conn(t))
	require.NoError(t, err)
	require.Eventually(t, func() bool { return s.Stats().Triggers[0].Paused }, patience, 5*time.Millisecond)
	s.until(t, is(1), "rowhook_trigger_paused", "trigger=orders")
	s.Exec(t, "insert into orders (v) values ('x'), ('y')")
	s.until(t, is(2), "rowhook_backlog_events", "trigger=orders", "state=waiting")
	s.until(t, atLeast(1), "rowhook_backlog_oldest_age_seconds", "trigger=orders")
}

func TestADeadDispatcherShowsInTheMetrics(t *testing.T) {
	t.Parallel()
	s := newStage(t, pgtest.New(t))
	// An instance without a session's lock counts as dead. The dispatcher removes it within
	// seconds, so the test inserts it again before each scrape.
	conn := s.Conn(t)
	s.until(t, func(dead float64) bool {
		_, err := conn.Exec(t.Context(), "insert into rowhook.instance (id, name, version, listens) values (99, 'dead', 'v0', true) on conflict do nothing")
		return err == nil && dead >= 1
	}, "rowhook_instances", "state=dead")
	s.until(t, is(0), "rowhook_instances", "state=dead")
}

func TestARestartOfPostgresShowsInTheMetrics(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t)
	s := newStage(t, server.New(t))
	server.Stop(t, localpg.Fast)
	s.until(t, is(0), "rowhook_listening")
	s.until(t, is(0), "rowhook_database_up")
	s.until(t, is(0), "rowhook_claiming")
	s.until(t, atLeast(1), "rowhook_database_errors_total", "statement=claim", "reason=connection")
	server.Start(t)
	for _, name := range []string{"rowhook_listening", "rowhook_database_up", "rowhook_claiming"} {
		s.until(t, is(1), name)
	}
	s.until(t, atLeast(1), "rowhook_listener_reconnects_total")
	s.Exec(t, "insert into orders (v) values ('x')")
	s.until(t, is(1), "rowhook_attempts_total", "outcome=delivered")
}

func TestALongTransactionShowsInTheMetrics(t *testing.T) {
	t.Parallel()
	s := newStage(t, pgtest.New(t))
	tx, err := s.Conn(t).Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "set transaction isolation level repeatable read; select count(*) from orders")
	require.NoError(t, err)
	s.until(t, atLeast(1), "rowhook_vacuum_held_back_seconds")
	s.Exec(t, "insert into orders (v) values ('x')")
	s.until(t, atLeast(1), "rowhook_vacuum_held_back_transactions")
	require.NoError(t, tx.Rollback(t.Context()))
	s.until(t, func(seconds float64) bool { return seconds < 1 }, "rowhook_vacuum_held_back_seconds")
}

func TestAFullDiskShowsInTheMetrics(t *testing.T) {
	t.Parallel()
	s := newStage(t, pgtest.New(t))
	s.Exec(t, `
create function full_disk() returns trigger language plpgsql as $$ begin raise 'could not extend file: No space left on device' using errcode = 'disk_full'; end $$;
create trigger full_disk before insert on rowhook.event_archive for each row execute function full_disk()`)
	s.Exec(t, "insert into orders (v) values ('x')")
	s.until(t, atLeast(1), "rowhook_database_errors_total", "statement=settle", "reason=disk_full")
	s.until(t, is(0), "rowhook_settling")
	s.Exec(t, "drop trigger full_disk on rowhook.event_archive")
	s.until(t, is(1), "rowhook_settling")
}

func TestATableThatIsNotCapturedShowsInTheMetrics(t *testing.T) {
	t.Parallel()
	s := newStage(t, pgtest.New(t))
	s.until(t, is(0), "rowhook_trigger_uncaptured", "trigger=orders")
	s.Exec(t, "alter table orders disable trigger user")
	s.until(t, is(1), "rowhook_trigger_uncaptured", "trigger=orders")
	s.Exec(t, "alter table orders enable trigger user")
	s.until(t, is(0), "rowhook_trigger_uncaptured", "trigger=orders")
}
