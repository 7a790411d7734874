package sqlschema_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

// shop is a schema of a user, on the search_path of the user's sessions. It has a type e for which
// a cast to json is created.
const shop = `create schema shop; set search_path = shop, public;
create type e as enum ('x', 'y'); create type k as enum ('y'); create table rates (a int, day timestamptz); create function helper(text) returns text language sql as $$ select $1 || '!' $$;
create function bound(text) returns text language sql return helper($1); create function unbound(text) returns text language plpgsql as $$ begin return helper($1); end $$;
create collation c (locale = 'C'); create text search configuration conf (copy = pg_catalog.english); create view v as select unbound('x') as u; create domain d as text check (unbound(value) <> '');
create operator <~> (function = texteq, leftarg = text, rightarg = text); `

// castOf creates the cast of shop.e to json by a function with this body.
func castOf(body string, options ...string) string {
	return "create function shop.e_json(e shop.e) returns json " + strings.Join(options, " ") + " as $body$" + body + "$body$; create cast (shop.e as json) with function shop.e_json(shop.e); "
}

func problemsOf(t *testing.T, w watched, spec trigger.Spec) trigger.SpecErrors {
	t.Helper()
	_, err := sqlschema.Apply(t.Context(), w.conn, []trigger.Spec{spec}, trigger.DefaultSettings(), nil)
	var problems trigger.SpecErrors
	if err != nil {
		require.ErrorAs(t, err, &problems)
	}
	return problems
}

// TestApplyRefusesCastsToJSONThatFeelWhatACaptureSets checks that each write works before the table
// is watched. Then either apply reports a problem with a remedy that works, or the write still
// works.
func TestApplyRefusesCastsToJSONThatFeelWhatACaptureSets(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ cast, reason string }{
		"a function":                    {castOf("select to_json(helper('z'))", "language sql"), "looks up the function helper through the search_path (in shop.e_json(shop.e))"},
		"a function, in PL/pgSQL":       {castOf("begin return to_json(helper(e::text)); end", "language plpgsql", "immutable"), "looks up the function helper"},
		"a table":                       {castOf("select to_json(count(*)) from rates", "language sql"), "looks up the table rates"},
		"a type":                        {castOf("select to_json('y'::k)", "language sql"), "looks up the type k"},
		"a domain":                      {castOf("select to_json('y'::d)", "language sql"), "looks up the type d"},
		"an operator":                   {castOf("select to_json('a' <~> 'b'::text)", "language sql"), "looks up the operator <~>"},
		"a name in a string":            {castOf("select to_json('rates'::regclass::oid is null)", "language sql"), "looks up the table rates"},
		"dynamic SQL":                   {castOf("declare n bigint; begin execute 'select count(*) from ra' || 'tes' into n; return to_json(n); end", "language plpgsql"), "execute"},
		"what it calls":                 {castOf("select to_json(shop.unbound('z'))", "language sql"), "looks up the function helper through the search_path (in shop.unbound(text))"},
		"what a bound body calls":       {"create function shop.e_json(e shop.e) returns json language sql return to_json(shop.unbound('z')); create cast (shop.e as json) with function shop.e_json(shop.e)", "in shop.unbound(text)"},
		"what a view calls":             {castOf("select to_json(u) from shop.v", "language sql"), "in shop.unbound(text)"},
		"what a domain's check calls":   {castOf("select to_json('y'::shop.d)", "language sql"), "in shop.unbound(text)"},
		"the time zone":                 {castOf("select to_json(to_char('2024-01-01 00:00+00'::timestamptz, 'HH24 TZ'))", "language sql", "set search_path = shop"), "depends on datestyle"},
		"a setting by its name":         {castOf("select to_json(current_setting('TimeZone'))", "language sql"), "depends on timezone"},
		"the schema":                    {castOf("select to_json(current_schema())", "language sql"), "depends on search_path"},
		"bytes as text":                 {castOf(`select to_json('\x00'::bytea::text)`, "language sql"), "depends on bytea_output"},
		"a collation":                   {castOf("select to_json('x' collate c < 'y')", "language sql"), "looks up the collation c"},
		"text search":                   {castOf("select to_json(to_tsvector('conf', 'cats')::text)", "language sql"), "looks up the text search configuration conf"},
		"who runs it":                   {castOf("select to_json(current_user::text = session_user::text)", "language sql", "set search_path = shop"), "depends on the role (current_user)"},
		"nothing, as it is its owner":   {castOf("select to_json(current_user::text = '')", "language sql", "security definer set search_path = shop"), ""},
		"nothing, as names have theirs": {castOf("select to_json(shop.helper('z'))", "language sql"), ""},
		"nothing, as it sets the path":  {castOf("select to_json(unbound('z'))", "language sql", "set search_path = shop"), ""},
		"nothing, as it is Postgres's":  {castOf("begin return to_json(upper(e::text)); end", "language plpgsql"), ""},
		"a path of whoever captures":    {castOf("select to_json(helper('z'))", "language sql", `set search_path = "$user", shop`), "looks up the function helper"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWatched(t, shop)
			w.do(t, c.cast, "create table t (id int, e e)", "insert into t values (1, 'x')")
			spec := all("w", "shop.t")
			problems := problemsOf(t, w, spec)
			if c.reason != "" {
				require.Len(t, problems, 1)
				require.Contains(t, problems[0].Message, c.reason)
				require.Contains(t, problems[0].Message, "shop.e_json(shop.e)")
				require.Equal(t, "0", w.scalar(t, "select count(*) from pg_trigger where tgname like 'rowhook%'"), "nothing is left to the first write")
				_, remedy, _ := strings.Cut(problems[0].Message, `run "`)
				remedy, _, _ = strings.Cut(remedy, `"`+", or leave")
				w.do(t, remedy)
			}
			before := w.scalar(t, "select 'x'::e::json")
			w.apply(t, spec)
			w.do(t, "insert into t values (1, 'x')", "update t set id = 2", "delete from t where id = 2")
			require.Contains(t, w.take(t), `w I null {"id":1,"e":`+before+`}`)
		})
	}
}

// TestApplyRefusesCastsToJSONThatNeedRightsWhichCapturesLack has a cast that reads a table. The
// writer may read it, and the owner of the watched table, as which the capture runs, may not.
func TestApplyRefusesCastsToJSONThatNeedRightsWhichCapturesLack(t *testing.T) {
	t.Parallel()
	w := newWatched(t, shop)
	owner, _ := w.Role(t)
	writer, url := w.Role(t)
	w.do(t, castOf("select to_json(count(*)) from shop.rates", "language sql"), "create table t (id int, e e); alter table t owner to "+owner,
		"grant usage on schema shop to "+writer+", "+owner, "grant select on rates to "+writer, "grant insert on t to "+writer)
	as := w.as(t, url)
	as.do(t, "insert into shop.t values (1, 'x')")
	spec := all("w", "shop.t")
	problems := problemsOf(t, w, spec)
	require.Len(t, problems, 1)
	require.Contains(t, problems[0].Message, "needs rights on the table rates that "+owner+", the role as which captures run, does not have")
	require.Contains(t, problems[0].Message, `run "alter function shop.e_json(shop.e) security definer"`)
	w.do(t, "alter function shop.e_json(shop.e) security definer")
	require.Empty(t, problemsOf(t, w, spec))
	as.do(t, "insert into shop.t values (2, 'x')")
	require.Len(t, w.take(t), 1)
}

// TestACastToJSONIsFoundWhereverACapturedColumnHoldsItsType has the type within other types, and in
// columns that are not captured.
func TestACastToJSONIsFoundWhereverACapturedColumnHoldsItsType(t *testing.T) {
	t.Parallel()
	w := newWatched(t, shop)
	w.do(t, castOf("select to_json(helper('z'))", "language sql"), `create domain de as e; create type c as (n int, e de[]); create type r as range (subtype = timestamptz);
		create function r_json(r) returns json language sql as 'select to_json($1::text)'; create cast (r as json) with function r_json(r);
		create table t (id int, plain text, a e[], b de, c c, d c[], f int4range, g r)`)
	for column, refused := range map[string]bool{"id": false, "plain": false, "f": false, "a": true, "b": true, "c": true, "d": true, "g": true} {
		problems := problemsOf(t, w, all("w", "shop.t", payload(column)))
		require.Equal(t, refused, len(problems) == 1, "%s: %v", column, problems)
		if refused {
			require.Equal(t, []string{"payload", "columns", "0"}, problems[0].Path)
		}
	}
	require.Len(t, problemsOf(t, w, all("w", "shop.t")), 5, "all of them at once")
	require.Empty(t, problemsOf(t, w, all("w", "shop.t", func(s *trigger.Spec) { s.On = trigger.On{Manual: true} })))
}
