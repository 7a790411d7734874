package sqlschema_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

// leftBehind is what a way down leaves, since running writes need it.
const leftBehind = `^(r|i) relation|^relation\.|\.relation_id |^trigger\.(watched|origin_id|relations|home) |^event_log\.claim |^instance\.seen_at |^S relation_id_seq|relation_pkey|relation_oid` +
	`|^event_log\.(key|lane|seq) |^instance\.serves |^S (event_seq|handover) |^(r|i) key_move|^key_move\.|^rowhook\.(parked\(\)|lane_of\(text\)|numbers_as_text\(json,oid\))|^(r|i) trigger_table|^trigger_table\.`

// migrated is a database with the schema rowhook.
type migrated struct {
	*pgtest.DB
	conn *pgx.Conn
}

func newMigrated(t *testing.T) migrated {
	db := pgtest.New(t)
	return migrated{db, db.Conn(t)}
}

func (q migrated) count(t *testing.T, table string) (n int) {
	t.Helper()
	require.NoError(t, q.conn.QueryRow(t.Context(), "select count(*) from "+table).Scan(&n))
	return n
}

// objects returns what the schema rowhook holds, with comments and settings.
func (q migrated) objects(t *testing.T) (out string) {
	t.Helper()
	require.NoError(t, q.conn.QueryRow(t.Context(), `
select string_agg(o, E'\n' order by o) from (
  select format('%s %s %s', c.relkind, c.relname, obj_description(c.oid, 'pg_class')) as o from pg_class c
   where c.relnamespace = 'rowhook'::regnamespace and not c.relispartition
  union all
  select format('%s.%s %s', c.relname, a.attname, col_description(c.oid, a.attnum)) from pg_class c join pg_attribute a on a.attrelid = c.oid
   where c.relnamespace = 'rowhook'::regnamespace and c.relkind in ('r', 'p', 'v') and a.attnum > 0 and not a.attisdropped and not c.relispartition
  union all
  select p.oid::regprocedure::text from pg_proc p where p.pronamespace = 'rowhook'::regnamespace
  union all
  select name from rowhook.setting) as x
 where o !~ $1`, leftBehind).Scan(&out))
	return out
}

func TestEveryVersionCanBeLeftAndComeBackTo(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	q := migrated{db, db.Conn(t)}
	_, newest, err := sqlschema.Version(t.Context(), q.conn)
	require.NoError(t, err)
	var before []string
	for v := int32(1); v <= newest; v++ {
		require.NoError(t, sqlschema.MigrateTo(t.Context(), q.conn, v, quiet()))
		before = append(before, q.objects(t))
	}
	q.Exec(t, "insert into rowhook.trigger (name, relation, schema_name, table_name, spec) values ('t', 'pg_class'::regclass, 'pg_catalog', 'pg_class', '{}')")
	q.Exec(t, "insert into rowhook.event_log (id, trigger_id, op, new) select rowhook.uuid7(), 1, 'I', '{}' from generate_series(1, 3)")
	q.Exec(t, "insert into rowhook.event_archive (id, created_at, delivered_at, trigger_id, tries, op) select rowhook.uuid7(), now(), now(), 1, 1, 'I' from generate_series(1, 5)")
	for v := newest - 1; v >= 1; v-- {
		require.NoError(t, sqlschema.MigrateTo(t.Context(), q.conn, v, quiet()))
		require.Equal(t, before[v-1], q.objects(t), "version %d", v)
	}
	require.NoError(t, sqlschema.Migrate(t.Context(), q.conn, quiet()))
	require.Equal(t, before[newest-1], q.objects(t))
	require.Equal(t, 3, q.count(t, "rowhook.event_log"))
	require.Equal(t, 5, q.count(t, "rowhook.event_archive"))
	require.ErrorContains(t, sqlschema.MigrateTo(t.Context(), q.conn, newest+1, quiet()), "knows 1 to")
	require.ErrorContains(t, sqlschema.MigrateTo(t.Context(), q.conn, 0, quiet()), "knows 1 to")
}

func TestANewerSchemaIsWorkedOnIfItSaysThatItIsCompatible(t *testing.T) {
	t.Parallel()
	q := newMigrated(t)
	_, program, err := sqlschema.Version(t.Context(), q.conn)
	require.NoError(t, err)
	q.Exec(t, "update rowhook.schema_version set version = version + 1")
	for compatible, works := range map[int32]bool{program - 1: true, program: true, program + 1: false} {
		q.Exec(t, "update rowhook.setting set value = to_jsonb($1::integer) where name = 'compatible'", compatible)
		_, _, err := sqlschema.Compatible(t.Context(), q.conn)
		migrated := sqlschema.Migrate(t.Context(), q.conn, quiet())
		_, applied := sqlschema.Apply(t.Context(), q.conn, nil, trigger.DefaultSettings(), quiet())
		for _, err := range []error{err, migrated, applied} {
			var newer *sqlschema.NewerSchemaError
			if works {
				require.NoError(t, err)
				continue
			}
			require.ErrorAs(t, err, &newer)
			require.Equal(t, sqlschema.NewerSchemaError{Database: program + 1, Program: program}, *newer)
		}
	}
	var newer *sqlschema.NewerSchemaError
	require.ErrorAs(t, sqlschema.MigrateTo(t.Context(), q.conn, program, quiet()), &newer, "only the newer program knows the way back")
}

func TestAMigrationLetsOthersPassWhileATableIsBusy(t *testing.T) {
	t.Parallel()
	q := newMigrated(t)
	_, program, err := sqlschema.Version(t.Context(), q.conn)
	require.NoError(t, err)
	const before = 2 // the version before the last one whose migration locks rowhook.event_archive
	require.NoError(t, sqlschema.MigrateTo(t.Context(), q.conn, before, quiet()))
	holder := q.Conn(t)
	_, err = holder.Exec(t.Context(), "begin; select from rowhook.event_archive limit 1")
	require.NoError(t, err)
	done := make(chan error, 1)
	conn := q.Conn(t)
	go func() { done <- sqlschema.Migrate(t.Context(), conn, quiet()) }()
	waits := "pg_locks where not granted and relation = 'rowhook.event_archive'::regclass and database = (select oid from pg_database where datname = current_database())"
	require.Eventually(t, func() bool { return q.count(t, waits) > 0 }, time.Minute, 5*time.Millisecond, "the migration waits")
	q.Exec(t, "insert into rowhook.event_archive (id, created_at, delivered_at, trigger_id, tries, op) values (rowhook.uuid7(), now(), now(), 1, 1, 'I')")
	select {
	case err := <-done:
		require.FailNow(t, "it ended while the table was busy", "%v", err)
	default:
	}
	_, err = holder.Exec(t.Context(), "commit")
	require.NoError(t, err)
	require.NoError(t, <-done)
	database, _, err := sqlschema.Version(t.Context(), q.conn)
	require.NoError(t, err)
	require.Equal(t, program, database)
}

func TestMigrationsLeaveTheSettingsOfTheSession(t *testing.T) {
	t.Parallel()
	q := newMigrated(t)
	want := map[string]string{"search_path": `public, "$user"`, "lock_timeout": "7s", "statement_timeout": "5min", "timezone": "Asia/Tokyo"}
	for name, value := range want {
		_, err := q.conn.Exec(t.Context(), "select set_config($1, $2, false)", name, value)
		require.NoError(t, err)
	}
	require.NoError(t, sqlschema.MigrateTo(t.Context(), q.conn, 1, quiet()))
	require.NoError(t, sqlschema.Migrate(t.Context(), q.conn, quiet()))
	for name, value := range want {
		var have string
		require.NoError(t, q.conn.QueryRow(t.Context(), "select current_setting($1)", name).Scan(&have))
		require.Equal(t, value, have, name)
	}
}

func TestAMigrationThatFailsNamesFileAndLineAndChangesNothing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		from, to     int32
		broken, line string
	}{
		{2, 3, "alter table rowhook.trigger rename schema_name to s", `where n.nspname = t.schema_name::name and c.relname = t.table_name::name and c.oid <> t.relation`},
		{3, 2, "alter table rowhook.instance rename seen_at to s", "update rowhook.instance set seen_at = null;"},
	} {
		q := newMigrated(t)
		require.NoError(t, sqlschema.MigrateTo(t.Context(), q.conn, c.from, quiet()))
		q.Exec(t, c.broken)
		text, err := os.ReadFile("migrations/003_hardening.sql")
		require.NoError(t, err)
		before, _, found := strings.Cut(string(text), c.line)
		require.True(t, found, c.line)
		line := 1 + strings.Count(before+c.line, "\n")
		was := q.objects(t)
		require.ErrorContains(t, sqlschema.MigrateTo(t.Context(), q.conn, c.to, quiet()), fmt.Sprintf(" 003_hardening.sql:%d: ERROR: column ", line))
		require.Equal(t, was, q.objects(t))
		database, _, err := sqlschema.Version(t.Context(), q.conn)
		require.NoError(t, err)
		require.Equal(t, c.from, database)
	}
}

func TestARoleThatDispatchesKeepsUpWithTheSchema(t *testing.T) {
	t.Parallel()
	q := newMigrated(t)
	role, _ := q.Role(t)
	_, err := sqlschema.Grant(t.Context(), q.conn, []string{role})
	require.NoError(t, err)
	require.NoError(t, sqlschema.MigrateTo(t.Context(), q.conn, 1, quiet()))
	require.NotEqual(t, granted(), rights(t, q.conn, role))
	require.NoError(t, sqlschema.Migrate(t.Context(), q.conn, quiet()))
	require.Equal(t, granted(), rights(t, q.conn, role))
}
