package sqlschema_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/sqlschema"
)

func TestUninstallTakesNothingOfTheUsersAlong(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		made string
		want []string
	}{
		"nothing":                          {"", nil},
		"a view":                           {"create view mine as select id from rowhook.events", []string{"view public.mine"}},
		"a view on a view":                 {"create view mine as select id from rowhook.dead_letter; create view theirs as select * from mine", []string{"view public.mine", "view public.theirs"}},
		"a materialized view":              {"create materialized view mine as select id from rowhook.event_log; create index on mine (id)", []string{"materialized view public.mine"}},
		"a default":                        {"create table mine (id uuid default rowhook.uuid7(), n int)", []string{"default value for column id of table public.mine"}},
		"a generated identity of a domain": {"create domain mine as uuid default rowhook.uuid7()", []string{"type public.mine"}},
		"a function by its argument":       {"create function mine(rowhook.trigger) returns int language sql as 'select 1'", []string{"function public.mine(rowhook.trigger)"}},
		"a function by its body":           {"create function mine() returns uuid language sql begin atomic select rowhook.uuid7(); end", []string{"function public.mine()"}},
		"a foreign key":                    {"create table mine (id int references rowhook.trigger)", []string{"constraint mine_id_fkey on table public.mine"}},
		"a column":                         {"create table mine (n int, t rowhook.trigger)", []string{"column t of table public.mine"}},
		"a check":                          {"create table mine (id uuid check (id <> rowhook.uuid7()))", []string{"constraint mine_id_check on table public.mine"}},
		"a policy":                         {"create table mine (id uuid); create policy p on mine using (id <> rowhook.uuid7())", []string{"policy p on table public.mine"}},
		"a rule":                           {"create table mine (id uuid); create rule r as on insert to mine do also select rowhook.uuid7()", []string{"rule r on table public.mine"}},
		"a trigger":                        {"create table mine (id uuid); create trigger mine after insert on mine for each row execute function rowhook.capture()", []string{"trigger mine on table public.mine"}},
		"a trigger by its condition":       {"create function f() returns trigger language plpgsql as 'begin return null; end'; create table mine (id uuid); create trigger mine after insert on mine for each row when (new.id <> rowhook.uuid7()) execute function f()", []string{"trigger mine on table public.mine"}},
		"an index":                         {"create table mine (a text); create index mine_i on mine ((rowhook.as_json(a)::text))", []string{"index public.mine_i"}},
		"a table that inherits":            {"create table mine () inherits (rowhook.trigger)", []string{"table public.mine"}},
		"a table in the schema":            {"create table rowhook.mine (id serial primary key, t text default 'x'); create index on rowhook.mine (t)", []string{"table rowhook.mine"}},
		"a function in the schema":         {"create function rowhook.mine() returns int language sql as 'select 1'", []string{"function rowhook.mine()"}},
		"a type in the schema":             {"create type rowhook.mine as enum ('a'); create table theirs (m rowhook.mine)", []string{"column m of table public.theirs", "type rowhook.mine"}},
		"several at once": {"create view mine as select rowhook.uuid7() as id; create table theirs (id uuid default rowhook.uuid7() references rowhook.event_log)",
			[]string{"constraint theirs_id_fkey on table public.theirs", "default value for column id of table public.theirs", "view public.mine"}},
		"a publication, rights and an index on its own": {"create publication certain for table rowhook.dead_letter; create index on rowhook.dead_letter (died_at); " +
			"alter default privileges in schema rowhook grant select on tables to public; create statistics s (dependencies) on trigger_id, tries from rowhook.dead_letter", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			w := watched{db, db.Conn(t)}
			w.Exec(t, "create table t (id int primary key, a int, b int); create table p (id int primary key, a int, b int) partition by range (id); create table p1 partition of p for values from (1) to (9)")
			w.apply(t, all("w", "t"), all("p", "p"), all("x", "t", payload("a")))
			w.Exec(t, c.made)
			loss, err := sqlschema.UninstallSummary(t.Context(), w.conn)
			require.NoError(t, err)
			require.Equal(t, c.want, loss.Dependants)
			err = sqlschema.Uninstall(t.Context(), w.conn, nil)
			if c.want == nil {
				require.NoError(t, err)
				return
			}
			var dependants *sqlschema.DependantsError
			require.ErrorAs(t, err, &dependants)
			require.Equal(t, c.want, dependants.Dependants)
			w.Exec(t, "insert into t values (1, 1, 1)")
			require.Equal(t, "2", w.scalar(t, "select count(*) from rowhook.event_log"), "nothing was removed")
			require.NoError(t, sqlschema.Applier{Cascade: true}.Uninstall(t.Context(), w.conn, nil))
			require.Equal(t, "0", w.scalar(t, "select count(*) from pg_namespace where nspname = 'rowhook'"))
		})
	}
}
