package dispatcher

import (
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/trigger"
)

func hours(n int) trigger.Duration { return trigger.Duration(n) * trigger.Duration(time.Hour) }

func TestNothingIsTrimmedWhereWholeDaysAreDropped(t *testing.T) {
	t.Parallel()
	require.Empty(t, trimPlans(trigger.Retention{Delivered: hours(168), Attempts: hours(24)}, nil))
	require.Empty(t, trimPlans(trigger.Retention{}, nil))
	require.Empty(t, trimPlans(trigger.Retention{Delivered: hours(48), Attempts: hours(48)}, map[int32]trigger.Retention{1: {Delivered: hours(48), Attempts: hours(48)}}))
	plans := trimPlans(trigger.Retention{Delivered: hours(12), Attempts: hours(24)}, map[int32]trigger.Retention{1: {Delivered: hours(12), Attempts: hours(72)}})
	require.Equal(t, []time.Duration{12 * time.Hour}, plans["event_archive"].due)
	require.Equal(t, []time.Duration{24 * time.Hour}, plans["invocation_log"].due, "the day is kept for the trigger that needs it longest")
	require.Equal(t, hours(72), widest(trigger.Retention{Attempts: hours(24)}, map[int32]trigger.Retention{1: {Attempts: hours(72)}}).Attempts)
}

// TestADayIsReadWhileItIsTrimmedAndNoMore lets a minute pass between looks.
func TestADayIsReadWhileItIsTrimmedAndNoMore(t *testing.T) {
	t.Parallel()
	p := trimPlan{due: []time.Duration{12 * time.Hour}}
	day := time.Date(2026, 11, 26, 0, 0, 0, 0, time.UTC)
	var pass, first time.Time
	passes := 0
	for now := day; now.Before(day.Add(4 * 24 * time.Hour)); now = now.Add(time.Minute) {
		if p.dueFor(day, now, pass) {
			if pass = now; passes == 0 {
				first = now
			}
			passes++
		}
	}
	require.Equal(t, day.Add(12*time.Hour), first)
	require.Equal(t, day.Add(36*time.Hour), pass, "the last one finds nothing that is not past its retention")
	require.Equal(t, 25, passes, "once an hour")
}

func TestHistoryIsTrimmedByTheTimesOfItsTriggers(t *testing.T) {
	t.Parallel()
	db := &database{}
	db.use(pgtest.New(t).Pool(t))
	conn := db.writes
	_, err := conn.Exec(t.Context(), "insert into rowhook.instance (id, name, version, listens) values (7, 'a', 'v', false), (9, 'b', 'v', false)")
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), "select rowhook.ensure_partitions(now() - interval '5 days', now())")
	require.NoError(t, err)
	// One row an hour of each of three triggers, for four days.
	for _, sql := range []string{
		"insert into rowhook.event_archive (id, created_at, delivered_at, trigger_id, tries, op) select gen_random_uuid(), now(), now() - make_interval(hours => h), t, 1, 'I' from generate_series(0, 95) h, generate_series(1, 3) t",
		"insert into rowhook.invocation_log (event_id, started_at, trigger_id, instance_id, duration_us, attempt) select gen_random_uuid(), now() - make_interval(hours => h), t, 7, 1, 1 from generate_series(0, 95) h, generate_series(1, 3) t",
	} {
		_, err = conn.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	cfg := &configuration{settings: trigger.Settings{Retention: trigger.Retention{Delivered: hours(48), Attempts: hours(36)}}, own: map[int32]trigger.Retention{
		1: {Delivered: hours(12), Attempts: hours(36)}, 2: {Delivered: hours(96), Attempts: 0},
	}}
	count := func(table string, trigger int) (n int) {
		require.NoError(t, conn.QueryRow(t.Context(), "select count(*) from rowhook."+table+" where trigger_id = $1", trigger).Scan(&n))
		return n
	}
	tr := &trimmer{db: db, self: &identity{id: 9}, configuration: cfg, log: slog.New(slog.DiscardHandler), plans: map[string]trimPlan{}, passes: map[string]time.Time{}}
	require.NoError(t, tr.look(t.Context()))
	require.Equal(t, 96, count("event_archive", 1), "that is for another instance")
	tr.self.id = 7
	require.NoError(t, tr.look(t.Context()))
	require.InDelta(t, 12, count("event_archive", 1), 1)
	require.InDelta(t, 96, count("event_archive", 2), 1)
	require.InDelta(t, 48, count("event_archive", 3), 1)
	require.InDelta(t, 36, count("invocation_log", 1), 1)
	require.Zero(t, count("invocation_log", 2))
	require.InDelta(t, 36, count("invocation_log", 3), 1)
}
