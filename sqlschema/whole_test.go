package sqlschema_test

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

// copied is another database with what pg_dump writes of this one.
func (w watched) copied(t *testing.T, arguments ...string) watched {
	t.Helper()
	db := pgtest.NewEmpty(t)
	db.Load(t, w.Dump(t, arguments...))
	return watched{db, db.Conn(t)}
}

func (w watched) lacking(t *testing.T) (lines []string) {
	t.Helper()
	require.NoError(t, pgx.BeginFunc(t.Context(), w.conn, func(tx pgx.Tx) (err error) {
		lines, err = sqlschema.Lacking(t.Context(), tx)
		return err
	}))
	return lines
}

func (w watched) migrate(t *testing.T) {
	t.Helper()
	require.NoError(t, sqlschema.Migrate(t.Context(), w.conn, quiet()))
}

// numbered advances the sequences of triggers and relations, so that they do not begin where those
// of a new database do.
func (w watched) numbered(t *testing.T) watched {
	t.Helper()
	w.Exec(t, "select setval('rowhook.trigger_id_seq', 6), setval('rowhook.relation_id_seq', 16)")
	return w
}

func TestACopyOfTheStructureIsMadeWholeByApply(t *testing.T) {
	t.Parallel()
	if !pgtest.CanDump(t) {
		return
	}
	const tables = "create table t (id int primary key, a int, b int); create table u (id int primary key, a int); create table v (id int primary key)"
	specs := []trigger.Spec{all("w", "t"), all("x", "u", payload("a")), all("gone", "v")}
	for name, c := range map[string]struct {
		version int32 // of the copied schema; 0: this program's
		dump    []string
		missing []string
	}{
		"structure alone":                        {0, []string{"--schema-only"}, []string{"rowhook.schema_version", "rowhook.setting"}},
		"of version 2":                           {2, []string{"--schema-only"}, []string{"rowhook.schema_version", "rowhook.setting"}},
		"of version 1":                           {1, []string{"--schema-only"}, []string{"rowhook.schema_version", "rowhook.setting"}},
		"without comments":                       {0, []string{"--schema-only", "--no-comments"}, []string{"rowhook.schema_version", "rowhook.setting"}},
		"of version 2 without comments":          {2, []string{"--schema-only", "--no-comments"}, []string{"rowhook.schema_version", "rowhook.setting"}},
		"without owners and privileges":          {0, []string{"--schema-only", "--no-owner", "--no-privileges"}, []string{"rowhook.schema_version", "rowhook.setting"}},
		"the rows of users' tables":              {0, []string{"--exclude-table-data=rowhook.*"}, []string{"rowhook.schema_version", "rowhook.setting"}},
		"without rows of the version":            {0, []string{"--exclude-table-data=rowhook.schema_version"}, []string{"rowhook.schema_version"}},
		"without the table of the version":       {0, []string{"--exclude-table=rowhook.schema_version"}, []string{"rowhook.schema_version"}},
		"without settings":                       {0, []string{"--exclude-table-data=rowhook.setting"}, []string{"rowhook.setting"}},
		"without triggers":                       {0, []string{"--exclude-table-data=rowhook.trigger"}, nil},
		"without triggers and relations":         {0, []string{"--exclude-table-data=rowhook.trigger", "--exclude-table-data=rowhook.relation"}, nil},
		"without triggers, numbers and settings": {0, []string{"--exclude-table-data=rowhook.trigger*", "--exclude-table-data=rowhook.setting"}, []string{"rowhook.setting"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWatched(t, tables).numbered(t)
			w.apply(t, specs...)
			if c.version != 0 {
				require.NoError(t, sqlschema.MigrateTo(t.Context(), w.conn, c.version, quiet()))
			}
			// Days of the past, as in an old dump.
			w.Exec(t, "select rowhook.ensure_partitions(now() - interval '9 days', now() - interval '8 days')")
			dup := w.copied(t, c.dump...)

			_, _, err := sqlschema.Compatible(t.Context(), dup.conn)
			var incomplete *sqlschema.IncompleteError
			if c.missing == nil {
				require.NoError(t, err)
			} else {
				require.ErrorAs(t, err, &incomplete)
				require.Equal(t, c.missing, incomplete.Missing)
				require.ErrorContains(t, err, "copy of the structure")
			}
			rowsCame := dup.scalar(t, "select count(*) from rowhook.trigger") != "0"
			dup.Exec(t, "insert into t values (1, 1, 1); insert into u values (1, 1); insert into v values (1)")

			// One of the three triggers is not configured in the copy, and another one has its own
			// table.
			dup.Exec(t, "create table n (id int primary key)")
			configured := []trigger.Spec{all("n", "n"), all("w", "t"), all("x", "u", payload("a"))}
			require.NotEmpty(t, dup.plan(t, configured...).Changes())
			dup.migrate(t)
			dup.apply(t, configured...)
			require.Empty(t, dup.plan(t, configured...).Changes())
			database, program, err := sqlschema.Compatible(t.Context(), dup.conn)
			require.NoError(t, err)
			require.Equal(t, program, database)
			require.Empty(t, dup.lacking(t))

			require.Equal(t, "gone 9 f, n 10 t, w 7 t, x 8 t", dup.scalar(t, "select string_agg(concat_ws(' ', name, id, removed_at is null), ', ' order by name) from rowhook.trigger"))
			dead, waiting := "7 8 9", "0"
			if dup.scalar(t, "select count(*) from rowhook.dead_letter where reason = 'trigger removed' and trigger_id <> 9") == "0" {
				dead, waiting = "9", "2"
			}
			require.Equal(t, rowsCame, waiting == "2")
			require.Equal(t, dead, dup.scalar(t, "select string_agg(trigger_id::text, ' ' order by trigger_id) from rowhook.dead_letter"), "captured before the copy was applied")
			require.Equal(t, waiting, dup.scalar(t, "select count(*) from rowhook.event_log"))
			dup.Exec(t, "delete from rowhook.event_log")
			dup.Exec(t, "insert into t values (2, 2, 2); insert into u values (2, 2); insert into v values (2); insert into n values (2)")
			require.Equal(t, `10 {"id":2}, 7 {"id":2,"a":2,"b":2}, 8 {"a":2}`, dup.scalar(t, "select string_agg(concat_ws(' ', trigger_id, new), ', ' order by trigger_id::text) from rowhook.event_log"))
			if c.version != 1 && incomplete != nil {
				require.Equal(t, "0", dup.scalar(t, "select count(*) from pg_inherits where inhparent = 'rowhook.event_archive'::regclass and inhrelid::regclass::text "+
					"< 'rowhook.event_archive_' || to_char(now() at time zone 'UTC', 'YYYYMMDD')"), "days of the past")
			}
			require.Equal(t, "4", dup.scalar(t, "select count(*) from pg_inherits where inhparent = 'rowhook.event_archive'::regclass and right(inhrelid::regclass::text, 8) >= to_char(now() at time zone 'UTC', 'YYYYMMDD')"))

			require.NoError(t, sqlschema.Uninstall(t.Context(), dup.conn, quiet()))
			dup.Exec(t, "insert into t values (3, 3, 3)")
		})
	}
}

// TestEventsOfTriggersThatARestoreLostAreToldAndBuried restores without the watched tables, so that
// no row of rowhook.trigger can be loaded.
func TestEventsOfTriggersThatARestoreLostAreToldAndBuried(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (id int primary key, a int, b int); create table u (id int primary key)", all("w", "t"), all("x", "u"))
	w.Exec(t, "insert into t values (1, 1, 1), (2, 2, 2); insert into u values (1)")
	w.Exec(t, "drop table t, u; delete from rowhook.trigger")
	require.Equal(t, []string{"events wait for triggers that have no row in rowhook.trigger (#1, #2): they are not delivered"}, w.lacking(t))
	require.Contains(t, w.plan(t).String(), "~ events of the triggers #1, #2")
	w.apply(t)
	require.Equal(t, "0", w.scalar(t, "select count(*) from rowhook.event_log"))
	require.Equal(t, "trigger unknown 3", w.scalar(t, "select min(reason) || ' ' || count(*) from rowhook.dead_letter"))
	require.Empty(t, w.lacking(t))
	require.Empty(t, w.plan(t).Changes())
}

func TestACopyCanBeUninstalled(t *testing.T) {
	t.Parallel()
	if !pgtest.CanDump(t) {
		return
	}
	w := newWatched(t, "create table t (id int primary key, a int, b int)", all("w", "t"))
	dup := w.copied(t, "--schema-only")
	_, err := sqlschema.UninstallSummary(t.Context(), dup.conn)
	require.NoError(t, err)
	require.NoError(t, sqlschema.Uninstall(t.Context(), dup.conn, quiet()))
	dup.Exec(t, "insert into t values (1, 1, 1)")
}

func TestSequencesThatAreBehindCatchUp(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (id int primary key, a int, b int)").numbered(t)
	w.apply(t, all("w", "t"))
	w.Exec(t, "insert into t values (1, 1, 1)")
	w.Exec(t, `
insert into rowhook.instance (id, name, version, listens) values (30, 'a', 'b', false);
insert into rowhook.dead_letter (id, created_at, trigger_id, tries, op, reason) values (rowhook.uuid7(), now(), 40, 1, 'I', 'x');
insert into rowhook.backfill (id, trigger_id, condition, key, expected) overriding system value values (50, 1, '', '{}', 0)`)
	w.Exec(t, `
insert into rowhook.lane (trigger_id, lane, owner) values (1, 0, 33);
insert into rowhook.event_log (id, trigger_id, op, lane, seq) values (rowhook.uuid7(), 1, 'I', 0, 60);
insert into rowhook.event_archive (id, created_at, delivered_at, trigger_id, tries, op, seq) values (rowhook.uuid7(), now(), now(), 1, 1, 'I', 61)`)
	// As on a subscriber.
	w.Exec(t, "select setval(c.oid, case when c.relname = 'instance_id' then 2 else 1 end, false) from pg_class c where c.relnamespace = 'rowhook'::regnamespace and c.relkind = 'S'")
	require.GreaterOrEqual(t, len(w.lacking(t)), 3)
	w.Exec(t, "create table u (id int primary key)")
	specs := []trigger.Spec{all("w", "t"), all("x", "u")}
	require.Contains(t, w.plan(t, specs...).String(), "~ sequence rowhook.trigger_id_seq: 0 becomes 40, which is in use")
	w.apply(t, specs...)
	require.Equal(t, "41", w.scalar(t, "select id from rowhook.trigger where name = 'x'"))
	require.Equal(t, "34 51 62", w.scalar(t, "select concat_ws(' ', nextval('rowhook.instance_id'), nextval('rowhook.backfill_id_seq'), nextval('rowhook.event_seq'))"))
	require.Empty(t, w.lacking(t))
	before := w.state(t)
	w.migrate(t)
	w.apply(t, specs...)
	require.Equal(t, before, w.state(t), "twice changes nothing")
}

func TestASequenceIsNotSetBack(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (id int primary key, a int, b int)").numbered(t)
	w.apply(t, all("w", "t"))
	w.Exec(t, "delete from rowhook.trigger; drop trigger rowhook_w_insert on t; drop trigger rowhook_w_update on t; drop trigger rowhook_w_delete on t; drop trigger rowhook_w_guard on t")
	w.apply(t, all("w", "t"))
	require.Equal(t, "8", w.scalar(t, "select id from rowhook.trigger"))
}

func TestStructuresAreToldApartByEachVersion(t *testing.T) {
	t.Parallel()
	if !pgtest.CanDump(t) {
		return
	}
	db := pgtest.NewEmpty(t)
	w := watched{db, db.Conn(t)}
	_, newest, err := sqlschema.Version(t.Context(), w.conn)
	require.NoError(t, err)
	for v := int32(1); v <= newest; v++ {
		require.NoError(t, sqlschema.MigrateTo(t.Context(), w.conn, v, quiet()))
		for _, comments := range []string{"", "--no-comments"} {
			dump := []string{"--schema-only"}
			if comments != "" {
				dump = append(dump, comments)
			}
			_, _, err := sqlschema.Version(t.Context(), w.copied(t, dump...).conn)
			var incomplete *sqlschema.IncompleteError
			require.ErrorAs(t, err, &incomplete)
			require.Equal(t, v, incomplete.Database, "%v", dump)
		}
	}
	// A newer program has left it, and this one does not know its structure.
	w.Exec(t, fmt.Sprintf("comment on table rowhook.schema_version is 'Version of the schema rowhook: %d'", newest+1))
	dup := w.copied(t, "--schema-only")
	require.NoError(t, sqlschema.Migrate(t.Context(), dup.conn, quiet()))
	require.Equal(t, fmt.Sprint(newest+1), dup.scalar(t, "select version from rowhook.schema_version"))
}

// TestCapturingComesBackAfterItsFunctionWasDropped drops the function that all capture triggers
// run, with the triggers.
func TestCapturingComesBackAfterItsFunctionWasDropped(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (id int primary key, a int, b int); create table u (id int primary key)")
	specs := []trigger.Spec{all("w", "t"), all("x", "u", payload("id"))}
	w.apply(t, specs...)
	const what = "select concat_ws(' ', pg_get_functiondef(p.oid), p.proacl, obj_description(p.oid), p.proowner) from pg_proc p where p.oid = to_regprocedure('rowhook.capture()')"
	before := w.scalar(t, what)
	w.Exec(t, "drop function rowhook.capture() cascade")
	require.Contains(t, w.lacking(t), "the function rowhook.capture was dropped: nothing is captured without it")
	require.Contains(t, w.plan(t, specs...).String(), "+ function rowhook.capture: it was dropped")
	w.apply(t, specs...)
	require.Empty(t, w.lacking(t))
	require.Empty(t, w.plan(t, specs...).Changes())
	require.Equal(t, before, w.scalar(t, what))
	w.Exec(t, "insert into t values (1, 1, 1); insert into u values (1)")
	require.Equal(t, "2", w.scalar(t, "select count(*) from rowhook.event_log"))
	require.Equal(t, "f", w.scalar(t, "select has_function_privilege('public', 'rowhook.capture()', 'EXECUTE')")[:1])
}
