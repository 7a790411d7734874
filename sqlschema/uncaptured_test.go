package sqlschema_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

// TestWhatIsNoLongerCapturedIsFoundAndPutRight changes a watched table as an operator or an online
// schema change does. An apply repairs it.
func TestWhatIsNoLongerCapturedIsFoundAndPutRight(t *testing.T) {
	t.Parallel()
	partitioned := "create table t (id int, a int) partition by range (id); create table t_1 partition of t for values from (0) to (100)"
	for name, c := range map[string]struct {
		table, meddle, problem, remedy string
		spec                           func(*trigger.Spec)
	}{
		"all is well":               {"", "", "", "", nil},
		"renamed":                   {"", "alter table t rename to orders", "", "", nil},
		"moved to another schema":   {"", "create schema s; alter table t set schema s", "", "", nil},
		"its column renamed":        {"", "alter table t rename a to z", "", "", nil},
		"a trigger renamed":         {"", "alter trigger rowhook_w_insert on t rename to mine", "", "", nil},
		"fires more than it has to": {"", "alter table t enable always trigger rowhook_w_update", "", "", nil},
		"dropped":                   {"", "drop table t", "the table public.t was dropped", `create it again and run "rowhook apply", or remove the trigger from rowhook.yaml`, nil},
		"dropped and made again": {"", "drop table t; create table t (id int, a int)",
			"the table public.t was dropped and created again, and the new one is not captured", `run "rowhook apply"`, nil},
		"swapped by a rename": {"", "create table t_new (like t); alter table t rename to t_old; alter table t_new rename to t",
			"public.t is another table now, and is not captured: the watched table is now called public.t_old",
			`run "rowhook apply" to watch the table that has the name now, or write table: public.t_old in rowhook.yaml to keep the old one`, nil},
		"swapped, and the old one dropped": {"", "create table t_new (like t); alter table t rename to t_old; alter table t_new rename to t; drop table t_old",
			"the table public.t was dropped and created again, and the new one is not captured", `run "rowhook apply"`, nil},
		"swapped for a partitioned one": {"", "alter table t rename to t_old; create table t (id int, a int) partition by range (id)",
			"public.t is another table now, and is not captured: the watched table is now called public.t_old",
			`run "rowhook apply" to watch the table that has the name now, or write table: public.t_old in rowhook.yaml to keep the old one`, nil},
		"all triggers disabled": {"", "alter table t disable trigger all",
			"the capture trigger rowhook_w_delete, rowhook_w_insert, rowhook_w_update on public.t is disabled", `run "rowhook apply"`, nil},
		"the user's triggers disabled": {"", "alter table t disable trigger user",
			"the capture trigger rowhook_w_delete, rowhook_w_insert, rowhook_w_update on public.t is disabled", `run "rowhook apply"`, nil},
		"one disabled": {"", "alter table t disable trigger rowhook_w_update", "the capture trigger rowhook_w_update on public.t is disabled", `run "rowhook apply"`, nil},
		"one for replicas only": {"", "alter table t enable replica trigger rowhook_w_update",
			"the capture trigger rowhook_w_update on public.t is enabled only for sessions that apply replicated changes", `run "rowhook apply"`, nil},
		"no longer for replicas": {"", "alter table t disable trigger rowhook_w_update; alter table t enable trigger rowhook_w_update",
			"the capture trigger rowhook_w_update on public.t is not enabled for sessions that apply replicated changes", `run "rowhook apply"`, onReplication},
		"dropped by hand": {"", "drop trigger rowhook_w_insert on t; drop trigger rowhook_w_delete on t",
			"the capture trigger rowhook_w_delete, rowhook_w_insert on public.t was dropped", `run "rowhook apply"`, nil},
		"a column dropped with what depends on it": {"", "alter table t drop a cascade; alter table t add a int",
			"the capture trigger rowhook_w_update on public.t was dropped", `run "rowhook apply"`, updatesOf("a")},
		"another function in its place": {"",
			"create function nothing() returns trigger language plpgsql as 'begin return null; end'; create or replace trigger rowhook_w_delete after delete on t for each row execute function nothing()",
			"the capture trigger rowhook_w_delete on public.t was dropped", "", nil},
		"redefined": {"", "create or replace trigger rowhook_w_delete after delete on t for each row when (old.a = 1) execute function rowhook.capture('1')",
			"the capture trigger rowhook_w_delete on public.t was changed after it was applied", `run "rowhook apply"`, nil},
		"disabled on a partition": {partitioned, "alter table t_1 disable trigger all",
			"the capture trigger rowhook_w_delete, rowhook_w_insert, rowhook_w_update on public.t is enabled differently on one of the partitions", `run "rowhook apply"`, nil},
		"a function gone": {"", "drop function rowhook.payload_1",
			"the functions of the capture trigger were dropped, so writes to public.t fail", `run "rowhook apply"`, payload("a")},
		"manual events alone": {"", "drop table t", "", "", func(s *trigger.Spec) { s.On = trigger.On{Manual: true} }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			table := c.table
			if table == "" {
				table = "create table t (id int, a int)"
			}
			w := newWatched(t, table)
			spec := all("w", "t")
			if c.spec != nil {
				spec = all("w", "t", c.spec)
			}
			w.apply(t, spec)
			w.do(t, c.meddle)
			found, err := sqlschema.FindUncaptured(t.Context(), w.conn)
			require.NoError(t, err)
			if c.problem == "" {
				require.Empty(t, found)
				return
			}
			require.Len(t, found, 1)
			require.Equal(t, "w", found[0].Trigger)
			require.Equal(t, c.problem, found[0].Problem)
			if c.remedy == "" {
				return // apply does not replace a trigger that is not Rowhook's
			}
			require.Equal(t, c.remedy, found[0].Remedy)
			if name == "dropped" {
				w.do(t, "create table t (id int, a int)")
			}
			w.apply(t, spec)
			found, err = sqlschema.FindUncaptured(t.Context(), w.conn)
			require.NoError(t, err)
			require.Empty(t, found)
		})
	}
}

func TestSessionsThatFireNoTriggersAreFound(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (id int, a int)")
	w.apply(t, all("w", "t"), all("v", "t", onReplication))
	w.do(t, "do $$ begin execute format('alter database %I set session_replication_role = replica', current_database()); end $$")
	found, err := sqlschema.FindUncaptured(t.Context(), w.conn)
	require.NoError(t, err)
	require.Len(t, found, 1)
	require.Equal(t, "w", found[0].Trigger)
	require.Contains(t, found[0].Problem, "begin with session_replication_role = replica")
}
