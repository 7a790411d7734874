package sqlschema_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

func (w watched) as(t *testing.T, url string) watched {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return watched{w.DB, conn}
}

// memberships are the ways in which a role can be a member of another. PostgreSQL 16 has options
// for each grant.
func memberships(t *testing.T, of, member string) map[string][]string {
	t.Helper()
	if pgtest.Version(t) < 16 {
		return map[string][]string{"": {}, "set": {"alter role " + member + " noinherit", "grant " + of + " to " + member}, "set inherit": {"grant " + of + " to " + member}}
	}
	grant := func(options string) []string { return []string{"grant " + of + " to " + member + " with " + options} }
	return map[string][]string{
		"": grant("admin true, set false, inherit false"), "set": grant("set true, inherit false"), "inherit": grant("set false, inherit true"),
		"set inherit": grant("set true, inherit true"),
	}
}

// If the owner of a table can neither act as the role that installed Rowhook nor has its rights,
// captures are guarded, whatever else the membership allows.
func TestMembershipIsTrustedForWhatItAllowsOnly(t *testing.T) {
	t.Parallel()
	for kind := range memberships(t, "a", "b") {
		t.Run("membership with "+kind, func(t *testing.T) {
			t.Parallel()
			db := pgtest.NewEmpty(t)
			w := watched{db, db.Conn(t)}
			installer, _ := w.Role(t)
			owner, url := w.Role(t)
			w.do(t, "create schema rowhook authorization "+installer, "set role "+installer)
			require.NoError(t, sqlschema.Migrate(t.Context(), w.conn, nil))
			w.do(t, "reset role")
			w.do(t, memberships(t, installer, owner)[kind]...)
			w.do(t, "create type e as enum ('x'); create table t (a int, e e); alter type e owner to "+owner+"; alter table t owner to "+owner,
				"create table trap (a int, who text default current_user); grant all on trap to public",
				"create function spring(e) returns json language plpgsql as $$ begin insert into public.trap values (1); return '1'; end $$", "create cast (e as json) with function spring(e)")
			w.apply(t, all("w", "t"))
			w.as(t, url).do(t, "insert into t values (1, 'x')")
			want := installer
			if kind == "" {
				want = owner
			}
			require.Equal(t, want, w.scalar(t, "select who from trap"))
		})
	}
}

// A role with CREATEROLE, as on managed services, is a member of the roles that it created. From
// PostgreSQL 16 on the membership has neither option.
func TestThePlanKnowsWhatARoleLacksAndNamesTheGrant(t *testing.T) {
	t.Parallel()
	for kind := range memberships(t, "a", "b") {
		t.Run("membership with "+kind, func(t *testing.T) {
			t.Parallel()
			db := pgtest.NewEmpty(t)
			w := watched{db, db.Conn(t)}
			admin, url := w.Role(t)
			app, appURL := w.Role(t)
			w.do(t, memberships(t, app, admin)[kind]...)
			w.do(t, "do $$ begin execute format('grant create on database %I to "+admin+"', current_database()); end $$",
				"create table t (a int)", "alter table t owner to "+app, "grant trigger on t to "+admin)
			as := w.as(t, url)
			_, err := sqlschema.MakePlan(t.Context(), as.conn, []trigger.Spec{all("w", "t")}, trigger.DefaultSettings())
			if kind != "set inherit" {
				require.ErrorContains(t, err, "who could run code as the role that installed Rowhook")
				require.Equal(t, "false", w.scalar(t, "select exists (select from pg_namespace where nspname = 'rowhook')"))
				if kind != "" || pgtest.Version(t) >= 16 {
					require.ErrorContains(t, err, "is a member of "+app+", but may not act as it: grant "+app+" to "+admin+" with set true, inherit true")
				}
				if pgtest.Version(t) >= 16 {
					w.do(t, "grant "+app+" to "+admin+" with set true, inherit true")
				} else {
					w.do(t, "grant "+app+" to "+admin, "alter role "+admin+" inherit")
				}
				as = w.as(t, url)
			}
			require.NoError(t, sqlschema.Migrate(t.Context(), as.conn, nil))
			as.apply(t, all("w", "t"))
			as.apply(t, all("w", "t", payload("a")))
			w.as(t, appURL).do(t, "insert into t values (1)")
			require.Len(t, w.take(t), 1)
			as.apply(t)

			// An uninstall does not end half-way either.
			w.do(t, "create table admins (a int)", "alter table admins owner to "+admin)
			as.apply(t, all("w", "t"), all("x", "admins"))
			w.do(t, "revoke "+app+" from "+admin)
			as = w.as(t, url)
			before := w.scalar(t, "select count(*) from pg_trigger where tgname like 'rowhook%'")
			err = sqlschema.Uninstall(t.Context(), as.conn, nil)
			require.ErrorContains(t, err, "or grant "+app+" to "+admin+" with set true, inherit true")
			require.Equal(t, before, w.scalar(t, "select count(*) from pg_trigger where tgname like 'rowhook%'"))
		})
	}
}

func TestThePlanSaysWhatTheSchemaDatabaseAndLanguagesDenyARole(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	w := watched{db, db.Conn(t)}
	role, url := w.Role(t)
	installer, _ := w.Role(t)
	as := w.as(t, url)
	w.do(t, "create table t (a int)", "alter table t owner to "+role)
	lacks := func(message string) {
		t.Helper()
		_, err := sqlschema.MakePlan(t.Context(), as.conn, []trigger.Spec{all("w", "t")}, trigger.DefaultSettings())
		require.ErrorContains(t, err, message)
	}
	lacks("may not create the schema rowhook: grant create on database ")
	w.do(t, "do $$ begin execute format('grant create on database %I to "+role+"', current_database()); end $$", "revoke usage on language plpgsql from public")
	lacks("may not create functions in the language plpgsql: grant usage on language plpgsql to " + role)
	w.do(t, "grant usage on language plpgsql to public", "create schema rowhook authorization "+installer)
	w.do(t, "set role "+installer)
	require.NoError(t, sqlschema.MigrateTo(t.Context(), w.conn, 2, nil))
	w.do(t, "reset role", "grant usage on schema rowhook to "+role, "grant select on all tables in schema rowhook to "+role)
	lacks("may not change the schema rowhook, which belongs to " + installer + ": apply as " + installer + ", or grant " + installer + " to " + role + " with set true, inherit true")
	require.NoError(t, sqlschema.Migrate(t.Context(), w.conn, nil))
	w.do(t, "grant select on all tables in schema rowhook to "+role)
	lacks("may not write rowhook.trigger, which belongs to " + installer)
}
