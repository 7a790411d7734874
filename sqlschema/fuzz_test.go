package sqlschema_test

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/trigger"
)

// FuzzIdentifiersSurviveSQL gives a schema, a table and a column any names that Postgres allows,
// watches the table, and compares the names in the event with those in Postgres.
func FuzzIdentifiersSurviveSQL(f *testing.F) {
	for _, seed := range [][3]string{
		{"s", "t", "c"}, {"S s", `T"t`, "C'c"}, {`a.b`, `"`, `\`}, {"größe", "日本", "\u202e"}, {"select", "user", "new"}, {"s;--", "/* t", "*/"}, {"$1", "${X}", "%I"},
		{"\n", "\t", "\r\n"}, {strings.Repeat("x", 63), strings.Repeat("ü", 31), strings.Repeat("\"", 63)}, {"E'", `\x`, "old"}, {"\x01", "\x7f", "\u0085"}, {"s", "t", "tg_argv"}, {"s", "t", "id"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	db := pgtest.New(f)
	conn := db.Conn(f)
	f.Fuzz(func(t *testing.T, schema, table, column string) {
		for _, name := range []string{schema, table, column} {
			if name == "" || len(name) > 63 || !utf8.ValidString(name) || strings.ContainsRune(name, 0) {
				return
			}
		}
		if strings.HasPrefix(schema, "pg_") || schema == "rowhook" || schema == "information_schema" || schema == "public" {
			return
		}
		w := watched{db, conn}
		quote := func(names ...string) string { return pgx.Identifier(names).Sanitize() }
		w.do(t, "drop schema if exists "+quote(schema)+" cascade", "create schema "+quote(schema))
		defer w.do(t, "drop schema "+quote(schema)+" cascade")
		if _, err := conn.Exec(t.Context(), "create table "+quote(schema, table)+" ("+quote(column)+" text)"); err != nil {
			return // a reserved name, such as ctid
		}
		chosen := all("chosen", quote(schema, table), payload(column), func(s *trigger.Spec) {
			s.On = trigger.On{Insert: true, Update: trigger.UpdateOn{Enabled: true, Columns: []string{column}}}
		})
		w.apply(t, chosen, all("whole", quote(schema, table)))
		w.do(t, "insert into "+quote(schema, table)+" values ('x')", "update "+quote(schema, table)+" set "+quote(column)+" = 'y'")
		var same bool
		require.NoError(t, conn.QueryRow(t.Context(), `
select count(*) = 4 and bool_and(
         (e.new->>$1) in ('x', 'y') and (select count(*) from json_object_keys(e.new)) = 1
         and t.schema_name = $2 and t.table_name = $3 and t.relation::regclass::oid = t.relation)
  from rowhook.event_log e join rowhook.trigger t on t.id = e.trigger_id`, column, schema, table).Scan(&same))
		require.True(t, same)
		require.NoError(t, queue.Register(t.Context(), conn, 7, "test", "v", false))
		claimed, err := queue.Claim(t.Context(), conn, queue.Claimant{Instance: 7, Number: time.Now().UnixMicro()},
			[]queue.Want{{Trigger: triggerID(t, conn, "whole"), Relation: relationOf(t, conn, "whole"), Limit: 5, Lease: 1e9}})
		require.NoError(t, err)
		require.Len(t, claimed, 2)
		w.do(t, "truncate rowhook.event_log")
		w.apply(t)
	})
}

func triggerID(t *testing.T, conn *pgx.Conn, name string) (id int32) {
	t.Helper()
	require.NoError(t, conn.QueryRow(t.Context(), "select id from rowhook.trigger where name = $1", name).Scan(&id))
	return id
}

func relationOf(t *testing.T, conn *pgx.Conn, name string) (oid uint32) {
	t.Helper()
	require.NoError(t, conn.QueryRow(t.Context(), "select relation from rowhook.trigger where name = $1", name).Scan(&oid))
	return oid
}
