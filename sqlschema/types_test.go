package sqlschema_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// sampleValues has a literal and its JSON for every type that a column can have, except types that
// the server derives from these.
var sampleValues = [][3]string{
	{"bool", "true", "true"}, {"bytea", `\xdeadbeef`, `"\\xdeadbeef"`}, {"char(3)", "a", `"a  "`}, {`"char"`, "a", `"a"`},
	{"name", "n", `"n"`}, {"text", "ü\t", `"ü\t"`}, {"varchar(9)", "v", `"v"`}, {"int2", "-1", "-1"}, {"int4", "2", "2"}, {"int8", "9223372036854775807", "9223372036854775807"},
	{"numeric", "0.10", "0.10"}, {"numeric(20,5)", "1", "1.00000"}, {"float4", "1e10", "1e+10"}, {"float8", "0.1", "0.1"}, {"money", "1", `"$1.00"`}, {"oid", "5", `"5"`},
	{"date", "2026-02-03", `"2026-02-03"`}, {"time", "01:02:03.4", `"01:02:03.4"`}, {"timetz", "01:02+02", `"01:02:00+02"`},
	{"timestamp", "2026-02-03 04:05:06.789", `"2026-02-03T04:05:06.789"`}, {"timestamptz", "2026-02-03 04:05+02", `"2026-02-03T02:05:00+00:00"`},
	{"interval", "1 day 02:00", `"1 day 02:00:00"`}, {"uuid", "00000000-0000-4000-8000-000000000001", `"00000000-0000-4000-8000-000000000001"`},
	{"json", `[1, 2.0]`, `[1, 2.0]`}, {"jsonb", `{"b":1,"a":2.0}`, `{"a": 2.0, "b": 1}`}, {"jsonpath", "$.a", `"$.\"a\""`}, {"xml", "<a>b</a>", `"<a>b</a>"`},
	{"point", "(1,2)", `"(1,2)"`}, {"line", "{1,2,3}", `"{1,2,3}"`}, {"lseg", "[(1,2),(3,4)]", `"[(1,2),(3,4)]"`}, {"box", "(3,4),(1,2)", `"(3,4),(1,2)"`},
	{"path", "((1,2),(3,4))", `"((1,2),(3,4))"`}, {"polygon", "((1,2),(3,4))", `"((1,2),(3,4))"`}, {"circle", "<(1,2),3>", `"<(1,2),3>"`},
	{"inet", "10.0.0.1/8", `"10.0.0.1/8"`}, {"cidr", "10.0.0.0/8", `"10.0.0.0/8"`}, {"macaddr", "08:00:2b:01:02:03", `"08:00:2b:01:02:03"`}, {"macaddr8", "08:00:2b:01:02:03:04:05", `"08:00:2b:01:02:03:04:05"`},
	{"bit(3)", "101", `"101"`}, {"varbit", "1", `"1"`}, {"tsvector", "a:1 b", `"'a':1 'b'"`}, {"tsquery", "a & b", `"'a' & 'b'"`},
	{"int4range", "[1,3)", `"[1,3)"`}, {"int8range", "(,3)", `"(,3)"`}, {"numrange", "empty", `"empty"`}, {"daterange", "[2026-01-01,)", `"[2026-01-01,)"`},
	{"tsrange", "[2026-01-01,)", `"[\"2026-01-01 00:00:00\",)"`}, {"tstzrange", "[2026-01-01 00:00+00,)", `"[\"2026-01-01 00:00:00+00\",)"`},
	{"int4multirange", "{[1,3),[5,6)}", `"{[1,3),[5,6)}"`}, {"int8multirange", "{}", `"{}"`}, {"nummultirange", "{[1.10,2]}", `"{[1.10,2]}"`},
	{"datemultirange", "{[2026-01-01,2026-01-02)}", `"{[2026-01-01,2026-01-02)}"`}, {"tsmultirange", "{}", `"{}"`}, {"tstzmultirange", "{[2026-01-01 00:00+00,)}", `"{[\"2026-01-01 00:00:00+00\",)}"`},
	{"regclass", "pg_class", `"pg_class"`}, {"regtype", "int4", `"integer"`}, {"regproc", "now", `"now"`}, {"regprocedure", "now()", `"now()"`}, {"regoper", "pg_catalog.|/", `"|/"`},
	{"regoperator", "+(int4,int4)", `"+(integer,integer)"`}, {"regnamespace", "public", `"public"`}, {"regconfig", "simple", `"simple"`}, {"regdictionary", "simple", `"simple"`},
	{"regcollation", `"C"`, `"\"C\""`}, {"pg_lsn", "0/16AE7F8", `"0/16AE7F8"`}, {"pg_snapshot", "10:20:10", `"10:20:10"`}, {"txid_snapshot", "10:20:10", `"10:20:10"`},
	{"tid", "(1,2)", `"(1,2)"`}, {"xid", "3", `"3"`}, {"xid8", "3", `"3"`}, {"cid", "3", `"3"`}, {"oidvector", "1 2", `["1","2"]`}, {"int2vector", "1 2", `[1,2]`}, {"refcursor", "c", `"c"`},
	{"int4[]", "{1,NULL}", "[1,null]"}, {"text[][]", "{{a,b}}", `[["a","b"]]`}, {"numeric[]", "{1.10}", "[1.10]"}, {"json[]", `{"{\"a\":1.0}"}`, `[{"a":1.0}]`}, {"timestamptz[]", "{2026-02-03 04:05+00}", `["2026-02-03T04:05:00+00:00"]`},
	{"int4range[]", "{}", "[]"}, {"amount", "1.10", "1.10"}, {"mood", "so-so", `"so-so"`}, {"pair", "(1.10,\"a b\")", `{"n":1.10,"t":"a b"}`}, {"pair[]", `{"(1,)"}`, `[{"n":1,"t":null}]`},
	{"floatrange", "[1.5,2.5)", `"[1.5,2.5)"`}, {"floatmultirange", "{[1.5,2.5)}", `"{[1.5,2.5)}"`}, {"moods", "{so-so}", `["so-so"]`}, {"nested", `("(1.10,x)",{1})`, `{"p":{"n":1.10,"t":"x"},"a":[1]}`},
}

// TestEveryTypeIsCaptured writes a value of each type. It fails if the server has a type that is
// not in the list.
func TestEveryTypeIsCaptured(t *testing.T) {
	t.Parallel()
	w := newWatched(t, `create domain amount as numeric check (value > 0); create type mood as enum ('so-so', 'good'); create type pair as (n numeric, t text);
		create type floatrange as range (subtype = float8); create domain moods as mood[]; create type nested as (p pair, a int[])`)
	define, literals, chosen := "create table t (id int", "insert into t values (1", []string{"id"}
	wantRow, same := `{"id":1`, "update t set id = id"
	for i, v := range sampleValues {
		name := fmt.Sprintf("c%d", i)
		define += fmt.Sprintf(", %s %s", name, v[0])
		literals += ", '" + v[1] + "'"
		chosen = append(chosen, name)
		wantRow += fmt.Sprintf(",%q:%s", name, v[2])
		same += fmt.Sprintf(", %s = '%s'", name, v[1])
	}
	wantRow += "}"
	w.do(t, define+")")
	w.apply(t, all("a_whole", "t"), all("b_chosen", "t", payload(chosen...)), all("c_listed", "t", updatesOf(chosen...)))
	w.do(t, literals+")")
	require.ElementsMatch(t, []string{"a_whole I null " + wantRow, "b_chosen I null " + wantRow}, w.take(t))
	w.do(t, same)
	require.Empty(t, w.take(t), "an update to the same values")
	for i, v := range sampleValues {
		w.do(t, fmt.Sprintf("update t set c%d = null", i))
		require.Len(t, w.take(t), 3, "update of %s", v[0])
	}

	rows, err := w.conn.Query(t.Context(), `
select format_type(t.oid, null) from pg_type t
 where t.typnamespace = 'pg_catalog'::regnamespace and t.typtype in ('b', 'd', 'e', 'r', 'm') and t.typisdefined
   and t.typelem = 0 and t.oid not in (select typ.oid from pg_attribute a join pg_type typ on typ.oid = a.atttypid where a.attrelid = 't'::regclass)
 order by 1`)
	require.NoError(t, err)
	untried, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	known := []string{
		// Types of the catalogs without an input function.
		"aclitem", "gtsvector", "pg_brin_bloom_summary", "pg_brin_minmax_multi_summary", "pg_dependencies", "pg_mcv_list", "pg_ndistinct", "pg_node_tree",
		"regrole", // its value depends on the server's roles
	}
	untried = slices.DeleteFunc(untried, func(name string) bool { return slices.Contains(known, name) })
	require.Empty(t, untried, "types of this server without a sample value")
}
