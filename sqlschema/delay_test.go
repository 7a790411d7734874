package sqlschema_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

func delayedBy(d time.Duration) func(*trigger.Spec) {
	return func(s *trigger.Spec) { s.Delay = trigger.Duration(d) }
}

// dueAfter reports whether all events are due d after a time between before and now. Their created_at and
// their due_at are read from the clock one after the other, and a busy machine may pause in between.
func (w watched) dueAfter(t *testing.T, before string, d time.Duration) bool {
	t.Helper()
	return w.scalar(t, `
select coalesce(bool_and(case when due_at > '2150-01-01' then due_at - interval '1752000 hours' else due_at end - make_interval(secs => $2)
         between $1::timestamptz - interval '1 ms' and clock_timestamp() + interval '1 ms'), false)
  from rowhook.event_log`, before, d.Seconds()) == "true"
}

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
				write := func() (before string) {
					before = w.scalar(t, "clock_timestamp()")
					w.do(t, "truncate rowhook.event_log", "insert into t select i, 'x' from generate_series(1, 3) i", "update t set v = 'y'", "delete from t where id = 1")
					w.do(t, "truncate t")
					return before
				}
				require.True(t, w.dueAfter(t, write(), 90*time.Second+500*time.Millisecond))
				require.Empty(t, w.apply(t, all("w", "t", change, delayedBy(90*time.Second+500*time.Millisecond))).Changes())
				w.apply(t, all("w", "t", change, delayedBy(10*24*time.Hour)))
				require.True(t, w.dueAfter(t, write(), 10*24*time.Hour))
				found, err := sqlschema.ForeignGrants(t.Context(), w.conn)
				require.NoError(t, err)
				require.Empty(t, found)
				w.apply(t, all("w", "t", change))
				require.True(t, w.dueAfter(t, write(), 0))
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
		w.do(t, "set timezone = 'America/New_York'", "truncate rowhook.event_log")
		before := w.scalar(t, "clock_timestamp()")
		w.do(t, "select rowhook.emit('w', '1')")
		require.True(t, w.dueAfter(t, before, d), d)
	}
}
