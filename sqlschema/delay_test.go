package sqlschema_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

func delayedBy(d time.Duration) func(*trigger.Spec) {
	return func(s *trigger.Spec) { s.Delay = trigger.Duration(d) }
}

// dueAfter returns how long after their changes events are due, in seconds, each figure once.
const dueAfter = `select string_agg(distinct round(extract(epoch from case when due_at > '2150-01-01' then due_at - interval '1752000 hours' else due_at end - created_at), 1)::text, ' ')
  from rowhook.event_log`

func TestEventsOfEveryKindAreDueAfterTheDelay(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*trigger.Spec){
		"whole":    func(*trigger.Spec) {},
		"rows":     func(s *trigger.Spec) { s.Capture = trigger.CaptureRows },
		"when":     func(s *trigger.Spec) { s.When = "true" },
		"columns":  func(s *trigger.Spec) { s.Payload.Columns = []string{"id"} },
		"ordered":  func(s *trigger.Spec) { s.Order.By = []string{trigger.OrderByRow} },
		"truncate": func(s *trigger.Spec) { s.On.Truncate = true },
		"both": func(s *trigger.Spec) {
			s.On.Truncate, s.Order.By = true, []string{trigger.OrderByRow}
		},
	} {
		for _, foreign := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				w := newWatched(t, "create table t (id int primary key, v text)")
				if foreign {
					role, _ := w.Role(t)
					w.do(t, "alter table t owner to "+role)
				}
				w.apply(t, all("w", "t", change, delayedBy(90*time.Second+500*time.Millisecond)))
				write := func() {
					w.do(t, "truncate rowhook.event_log", "insert into t select i, 'x' from generate_series(1, 3) i", "update t set v = 'y'", "delete from t where id = 1")
					w.do(t, "truncate t")
				}
				write()
				require.Equal(t, "90.5", w.scalar(t, dueAfter))
				require.Empty(t, w.apply(t, all("w", "t", change, delayedBy(90*time.Second+500*time.Millisecond))).Changes())
				w.apply(t, all("w", "t", change, delayedBy(10*24*time.Hour)))
				write()
				require.Equal(t, "864000.0", w.scalar(t, dueAfter))
				found, err := sqlschema.ForeignGrants(t.Context(), w.conn)
				require.NoError(t, err)
				require.Empty(t, found)
				w.apply(t, all("w", "t", change))
				write()
				require.Equal(t, "0.0", w.scalar(t, dueAfter))
				require.Equal(t, "0", w.scalar(t, "select count(*) from pg_class where relname like 'delayed\\_%'"))
			})
		}
	}
}

func TestAManualEventIsDueAfterTheDelay(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (id int)")
	for _, d := range []time.Duration{0, 250 * time.Millisecond, 90*time.Second + 500*time.Millisecond, 25*time.Hour + time.Minute, 40 * 24 * time.Hour} {
		w.apply(t, all("w", "t", func(s *trigger.Spec) { s.On.Manual = true }, delayedBy(d)))
		w.do(t, "set timezone = 'America/New_York'", "truncate rowhook.event_log", "select rowhook.emit('w', '1')")
		require.Equal(t, d.Round(time.Millisecond).Seconds(), secondsOf(t, w.scalar(t, "select round(extract(epoch from due_at - created_at), 2)::text from rowhook.event_log")), d)
	}
}

func secondsOf(t *testing.T, text string) float64 {
	t.Helper()
	f, err := strconv.ParseFloat(text, 64)
	require.NoError(t, err)
	return f
}
