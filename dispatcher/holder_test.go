package dispatcher

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/internal/queue"
)

func TestWhoeverHoldsBackVacuumIsNamedOnceAndWhenThatIsOver(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	var log strings.Builder
	d, err := New(Config{DatabaseURL: db.URL(), Logger: slog.New(slog.NewTextHandler(&log, nil))})
	require.NoError(t, err)
	require.NoError(t, d.db.open(db.URL(), "", nil))
	t.Cleanup(d.db.close)
	report := db.Conn(t)
	_, err = report.Exec(t.Context(), "set application_name = 'nightly report'; begin isolation level repeatable read; select 1")
	require.NoError(t, err)
	for range 2 {
		h, err := d.maintenance.watchHolder(t.Context(), queue.QueueHealth{Dead: 7}, 0)
		require.NoError(t, err)
		require.NotNil(t, h)
	}
	require.Equal(t, 1, strings.Count(log.String(), "an old transaction keeps vacuum from removing dead rows of the queue"))
	require.Contains(t, log.String(), "nightly report")
	require.Contains(t, log.String(), "pg_terminate_backend")
	_, err = report.Exec(t.Context(), "commit")
	require.NoError(t, err)
	for range 2 {
		_, err = d.maintenance.watchHolder(t.Context(), queue.QueueHealth{}, 0)
		require.NoError(t, err)
	}
	require.Equal(t, 1, strings.Count(log.String(), "vacuum of the queue is no longer held back"))
}
