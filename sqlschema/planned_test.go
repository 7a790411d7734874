package sqlschema_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

func TestWhatIsPlannedIsWhatIsDone(t *testing.T) {
	t.Parallel()
	for name, migrate := range map[string]int32{"current schema": 0, "older schema": sqlschema.OldestSchema} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWatched(t, "create table a (id int primary key); create table b (id int primary key)", all("moves", "a"), all("goes", "b"), all("stays", "b"))
			if migrate != 0 {
				require.NoError(t, sqlschema.MigrateTo(t.Context(), w.conn, migrate, quiet()))
			}
			specs := []trigger.Spec{all("moves", "b"), all("stays", "b"), all("new", "a")}
			specs[1].Payload.Columns = []string{"id"}
			var printed string
			applier := sqlschema.Applier{Migrator: &sqlschema.Migrator{}, Planned: func(p *sqlschema.Plan) error {
				printed = p.String()
				return nil
			}}
			plan, err := applier.Apply(t.Context(), w.conn, specs, trigger.DefaultSettings(), quiet())
			require.NoError(t, err)
			require.NotEmpty(t, printed)
			require.Equal(t, printed, plan.String())
			again, err := sqlschema.MakePlan(t.Context(), w.conn, specs, trigger.DefaultSettings())
			require.NoError(t, err)
			require.Empty(t, again.Changes())
		})
	}
}

func TestAPlanThatIsRefusedChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table a (id int primary key)", all("one", "a"))
	specs := []trigger.Spec{all("two", "a")}
	before, err := sqlschema.MakePlan(t.Context(), w.conn, specs, trigger.DefaultSettings())
	require.NoError(t, err)
	no := errors.New("no")
	_, err = sqlschema.Applier{Planned: func(*sqlschema.Plan) error { return no }}.Apply(t.Context(), w.conn, specs, trigger.DefaultSettings(), quiet())
	require.ErrorIs(t, err, no)
	after, err := sqlschema.MakePlan(t.Context(), w.conn, specs, trigger.DefaultSettings())
	require.NoError(t, err)
	require.Equal(t, before.String(), after.String())
}

func TestAnApplyToManyTablesCountsItsChanges(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "do $$ begin for i in 1..8 loop execute format('create table t%s (id int primary key)', i); end loop; end $$")
	plan := w.plan(t, many("w", []string{"public.*"}), all("one", "t1"))
	text, shortened := plan.Summary()
	require.True(t, shortened)
	require.Contains(t, text, "+ trigger w: on 8 tables: public.t1, public.t2, public.t3 and 5 more\n"+
		"  + 24 capture triggers on 8 tables (locks each table against writes for a moment)\n  + 8 guard triggers on 8 tables (locks each table against writes for a moment)\n")
	require.Contains(t, text, "  + capture trigger rowhook_one_insert on public.t1 (locks the table against writes for a moment)\n")
	require.NotContains(t, text, "rowhook_w_insert")
	require.Contains(t, plan.String(), "rowhook_w_insert on public.t8")
	text, shortened = w.plan(t, all("one", "t1")).Summary()
	require.False(t, shortened)
	require.Equal(t, w.plan(t, all("one", "t1")).String(), text)
}
