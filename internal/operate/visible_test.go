package operate_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/sqlschema"
)

// The role may read every table, but row level security hides rows from it.
func TestHiddenRowsAreNotTakenForNone(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	ids := d.wait(t, "a", 3)
	dead := d.bury(t, "a", 2)
	role, url := d.Role(t)
	d.do(t, "grant usage on schema rowhook to "+role)
	d.do(t, "grant all on all tables in schema rowhook to "+role)
	d.do(t, "grant all on all sequences in schema rowhook to "+role)
	d.do(t, "grant select on a to "+role)
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer conn.Close(t.Context())
	asks := map[string]struct {
		table string
		ask   func() error
	}{
		"status":                   {"event_log", func() error { _, err := operate.ReadStatus(t.Context(), conn); return err }},
		"status, by the triggers":  {"trigger", func() error { _, err := operate.ReadStatus(t.Context(), conn); return err }},
		"status, by the instances": {"instance", func() error { _, err := operate.ReadStatus(t.Context(), conn); return err }},
		"drain":                    {"event_log", func() error { _, err := operate.Drain(t.Context(), conn, nil, nil); return err }},
		"list": {"dead_letter", func() error {
			_, err := operate.List(t.Context(), conn, operate.Filter{}, operate.ListOptions{})
			return err
		}},
		"show": {"event_log", func() error { _, err := operate.Show(t.Context(), conn, ids[0]); return err }},
		"redeliver": {"dead_letter", func() error {
			_, err := operate.Redeliver(t.Context(), conn, operate.Filter{IDs: dead}, operate.BulkOptions{})
			return err
		}},
		"pause": {"trigger", func() error { _, err := operate.Pause(t.Context(), conn, "a"); return err }},
		"backfill": {"backfill", func() error {
			_, err := operate.Backfill(t.Context(), conn, "a", operate.BackfillOptions{})
			return err
		}},
		"uninstall": {"dead_letter", func() error { _, err := sqlschema.UninstallSummary(t.Context(), conn); return err }},
	}
	for name, c := range asks {
		d.do(t, "alter table rowhook."+c.table+" enable row level security")
		var hidden *queue.HiddenRowsError
		require.ErrorAs(t, c.ask(), &hidden, name)
		require.ErrorContains(t, hidden, "alter table rowhook."+c.table+" disable row level security", name)
		d.do(t, "alter table rowhook."+c.table+" disable row level security")
	}
	d.do(t, "alter table rowhook.event_log enable row level security")
	s, err := operate.ReadStatus(t.Context(), d.conn)
	require.NoError(t, err)
	require.Equal(t, int64(3), statusOf(t, s, "a").Waiting, "a superuser sees all")
	require.Len(t, s.Warnings, 2)
	require.Contains(t, s.Warnings[0].Problem, "row level security is on for rowhook.event_log")
	require.Equal(t, "foreign_grants", s.Warnings[1].Code, "of the rights that this test has given")
}
