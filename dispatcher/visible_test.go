package dispatcher_test

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

// dispatches makes a role that may dispatch and nothing else.
func (b *fixture) dispatches(t *testing.T) (role, url string) {
	t.Helper()
	role, url = b.Role(t)
	_, err := sqlschema.Grant(t.Context(), b.Conn(t), []string{role})
	require.NoError(t, err)
	return role, url
}

func TestRunRefusesTablesWhoseRowsAreHiddenFromIt(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	role, url := b.dispatches(t)
	for _, table := range []string{"event_log", "trigger", "instance", "setting", "schema_version", "dead_letter"} {
		b.Exec(t, "alter table rowhook."+table+" enable row level security")
		d, err := dispatcher.New(dispatcher.Config{DatabaseURL: url, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		var hidden *queue.HiddenRowsError
		require.ErrorAs(t, d.Run(t.Context()), &hidden, table)
		require.Equal(t, []string{"rowhook." + table}, hidden.Tables)
		require.ErrorContains(t, hidden, "from the role "+role)
		require.ErrorContains(t, hidden, "alter table rowhook."+table+" disable row level security")
		b.Exec(t, "alter table rowhook."+table+" disable row level security")
	}
}

// TestADispatcherNoticesWhenRowsAreHiddenFromIt turns row level security on while it runs, with a
// session of its own and as through a pooler: fewer rows must not look like nothing to do.
func TestADispatcherNoticesWhenRowsAreHiddenFromIt(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*dispatcher.Config){
		"listening": func(*dispatcher.Config) {},
		"polling":   func(c *dispatcher.Config) { c.NoListen, c.PollInterval = true, 50*time.Millisecond },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newFixture(t)
			b.watch(t, "orders")
			_, url := b.dispatches(t)
			r := b.start(t, func(c *dispatcher.Config) { c.DatabaseURL = url }, change)
			for _, table := range []string{"event_log", "instance"} {
				b.Exec(t, "alter table rowhook."+table+" enable row level security")
				b.Exec(t, "insert into orders (v) values ('x')")
				require.Eventually(t, func() bool {
					return strings.Contains(r.Stats().Claiming, "row level security keeps rows of rowhook."+table)
				}, patience, 5*time.Millisecond)
				b.Exec(t, "alter table rowhook."+table+" disable row level security")
				require.Eventually(t, func() bool { return r.Stats().Claiming == "" }, patience, 5*time.Millisecond)
			}
			b.receiver.await(t, "orders", 2)
		})
	}
}

// TestRowLevelSecurityThatCapturesMeetIsRefused has the tables belong to a role that is no
// superuser, and forces the policies on it.
func TestRowLevelSecurityThatCapturesMeetIsRefused(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	b.Exec(t, "alter table rowhook.event_log enable row level security")
	conn := b.Conn(t)
	specs := []trigger.Spec{b.Spec("orders")}
	plan, err := sqlschema.MakePlan(t.Context(), conn, specs, trigger.DefaultSettings())
	require.NoError(t, err)
	require.Contains(t, plan.String(), "! row level security is on for rowhook.event_log, and dispatchers and commands of other roles stop with an error: "+
		"alter table rowhook.event_log disable row level security")

	role, _ := b.Role(t)
	b.Exec(t, "alter table rowhook.event_log owner to "+role+"; alter table rowhook.event_log force row level security")
	_, err = sqlschema.Apply(t.Context(), conn, specs, trigger.DefaultSettings(), slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, "writes to watched tables fail, or their events are lost: alter table rowhook.event_log disable row level security")
	r := b.start(t)
	require.Contains(t, r.log.String(), "writes to watched tables fail, or their events are lost")
}
