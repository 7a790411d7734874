package supabase_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/dispatchtest"
	"github.com/rowhook/rowhook/internal/importer"
	"github.com/rowhook/rowhook/internal/importer/importertest"
	"github.com/rowhook/rowhook/internal/importer/supabase"
	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/trigger"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

func imported(t *testing.T, text string) *importer.Result {
	t.Helper()
	return importertest.Finish(t, supabase.Import("a test", []supabase.File{{Name: "dump.sql", Text: text}}), nil, "s3cr3t")
}

func seconds(n float64) trigger.Duration {
	return trigger.Duration(time.Duration(n * float64(time.Second)))
}

func TestWebhooksOfADumpBecomeTriggers(t *testing.T) {
	t.Parallel()
	r := imported(t, `
SET statement_timeout = 0;
\connect shop
SELECT pg_catalog.set_config('search_path', '', false);
COPY public.notes (id, body) FROM stdin;
1	CREATE TRIGGER no AFTER INSERT ON public.notes FOR EACH ROW EXECUTE FUNCTION supabase_functions.http_request('http://x', 'POST', '{}', '{}', '1');
2	it's "open
\.
CREATE FUNCTION public.touch() RETURNS trigger LANGUAGE plpgsql AS $_$ begin new.at = now(); return new; end $_$;
CREATE TRIGGER touch BEFORE UPDATE OF "Name", b ON public.notes FOR EACH ROW WHEN (((new.a)::text <> 'it''s; (')) EXECUTE FUNCTION public.touch();
-- CREATE TRIGGER "off" AFTER INSERT ON public.notes FOR EACH ROW EXECUTE FUNCTION supabase_functions.http_request('http://x', 'POST', '{}', '{}', '1');
/* CREATE TRIGGER off2 /* nested */ AFTER INSERT ON public.notes FOR EACH ROW EXECUTE FUNCTION supabase_functions.http_request('http://x', 'POST', '{}', '{}', '1'); */
CREATE OR REPLACE TRIGGER "Order / to Slack" AFTER INSERT OR DELETE OR UPDATE ON "Shop"."Order Lines" FOR EACH ROW EXECUTE FUNCTION "supabase_functions"."http_request"('https://hooks.slack.com/services/T0/B0/s3cr3t', 'POST', '{"Content-type":"application/json","X-Tenant":"s3cr3t it''s","X-Live":true}', '{"api_key":"s3cr3t1","page":2,"none":null}', '5000');
create
constraint trigger late after update on only orders deferrable initially deferred
  for row when (new.status = 'paid' -- only then
    and old.status <> 'paid')
  execute procedure supabase_functions . http_request ( 'http://user:s3cr3t2@kong:8000/x', 'GET' );
CREATE TRIGGER emptied AFTER TRUNCATE ON public.orders FOR EACH STATEMENT EXECUTE FUNCTION supabase_functions.http_request('https://e.com/a?token=s3cr3t3', 'POST', E'{"Authorization":"Basic s3cr3t4"}', 'null', 'null');
CREATE TRIGGER retried AFTER INSERT ON public.orders FOR EACH ROW EXECUTE FUNCTION supabase_functions.http_request('https://e.com/r', 'POST', '{}', '{}', null, '7');
`)
	require.Len(t, r.Triggers, 4)
	slack, late, emptied, retried := r.Triggers[0], r.Triggers[1], r.Triggers[2], r.Triggers[3]

	require.Equal(t, "Order_to_Slack", slack.Name)
	require.Equal(t, `"Shop"."Order Lines"`, slack.Table)
	require.Equal(t, trigger.On{Insert: true, Update: trigger.UpdateOn{Enabled: true}, Delete: true}, slack.On)
	require.Equal(t, "https://hooks.slack.com/${ORDER_TO_SLACK_URL_PATH}", slack.Webhook.URL)
	require.Equal(t, map[string]string{"X-Tenant": "${ORDER_TO_SLACK_X_TENANT}", "X-Live": "true"}, slack.Webhook.Headers)
	require.Equal(t, map[string]string{"api_key": "${ORDER_TO_SLACK_API_KEY}", "page": "2"}, slack.Webhook.Query)
	require.Equal(t, seconds(5), slack.Webhook.Timeout)
	require.Zero(t, slack.Retry.Limit)
	require.Equal(t, trigger.BreakerOff, slack.Breaker)
	importertest.Told(t, r, importer.Differs, "Order_to_Slack", `is "Order / to Slack" there`)

	require.Equal(t, "public.orders", late.Table)
	require.Equal(t, "new.status = 'paid' and old.status <> 'paid'", late.When)
	require.Equal(t, "GET", late.Webhook.Method)
	require.Empty(t, late.Webhook.Body)
	require.Equal(t, seconds(1), late.Webhook.Timeout)
	require.Equal(t, "http://${LATE_URL_USER}:${LATE_URL_PASSWORD}@kong:8000/x", late.Webhook.URL)
	importertest.Told(t, r, importer.Differs, "late", "constraint trigger")
	importertest.Told(t, r, importer.Note, "late", "timeout", "where it is 1s then")
	importertest.Told(t, r, importer.Note, "late", "has no schema")

	require.Equal(t, trigger.On{Truncate: true}, emptied.On)
	require.Contains(t, string(emptied.Webhook.Body), `"record":null,"schema":"$table.schema","old_record":null`, "a placeholder for a row that is never there is refused")
	require.Contains(t, string(retried.Webhook.Body), `"record":"$new","schema":"$table.schema","old_record":null`)
	require.Contains(t, string(slack.Webhook.Body), `"record":"$new","schema":"$table.schema","old_record":"$old"`)
	require.Equal(t, "https://e.com/a?token=${EMPTIED_TOKEN}", emptied.Webhook.URL)
	require.Equal(t, "Basic ${EMPTIED_AUTHORIZATION}", emptied.Webhook.Headers["Authorization"])

	require.Equal(t, 7, retried.Retry.Limit)
	require.Equal(t, []trigger.Duration{seconds(0.25), seconds(0.5), seconds(1), seconds(2.5), seconds(5)}, retried.Retry.Schedule)
	require.Equal(t, seconds(3), retried.Webhook.Timeout, "the function that retries has this default")
	require.Zero(t, r.Report.Lost())
	require.Contains(t, string(r.File), "Supabase makes one attempt")
}

func TestWhatComesLaterInAMigrationCounts(t *testing.T) {
	t.Parallel()
	hook := func(name, rest string) string {
		return "create or replace trigger " + name + " after " + rest + " for each row execute function supabase_functions.http_request('https://e.com/" + name + "', 'POST', '{}', '{}', '1000');\n"
	}
	r := imported(t, hook("a", "insert on t")+hook("a", "delete on public.t")+hook("a", "insert on u")+
		hook("dropped", "insert on t")+"drop trigger if exists dropped on t;\n"+
		hook("gone", "insert on w")+"drop table if exists w cascade;\n"+
		hook("was", "insert on t")+"alter trigger was on t rename to is_now;\n"+
		hook("off", "insert on t")+"alter table t disable trigger off;\n"+
		hook("again", "insert on t")+"alter table t disable trigger again; alter table only t enable trigger again;\n"+
		hook("both", "insert on t")+"alter table t enable always trigger both;\n"+
		hook("moved", "insert on x")+"alter table x rename to y; alter table y set schema z;\n")
	names := map[string]string{}
	for _, s := range r.Triggers {
		names[s.Name] = s.Table
	}
	require.Equal(t, map[string]string{"a": "public.t", "a_u": "public.u", "is_now": "public.t", "again": "public.t", "both": "public.t", "moved": "z.y"}, names)
	for _, s := range r.Triggers {
		require.Equal(t, s.Name == "both", s.OnReplication, "%s: ENABLE ALWAYS fires for replicated changes, too", s.Name)
	}
	require.True(t, r.Triggers[0].On.Delete)
	require.False(t, r.Triggers[0].On.Insert)
	importertest.Told(t, r, importer.Note, "a: dump.sql:1", "the last one counts", "(insert) is not done any more")
	importertest.Told(t, r, importer.Differs, "a_u", "a trigger of another table has that name, too")
	importertest.Told(t, r, importer.Skipped, "off", "is disabled")
	require.Equal(t, 1, r.Report.Lost())
}

func TestWhatCanNotBeImportedIsNamed(t *testing.T) {
	t.Parallel()
	const args = "execute function supabase_functions.http_request('https://e.com', 'POST', '{}', '{}', '1000');\n"
	r := imported(t, `
create function public.notify_slack() returns trigger language plpgsql security definer as $$
begin
  -- net.http_get( is not called
  perform net . http_post(url := 'https://hooks.slack.com/services/s3cr3t', body := jsonb_build_object('id', new.id));
  return new;
end $$;
create trigger by_hand after insert on orders for each row execute function notify_slack();
create function unused() returns void language sql as $$ select extensions.http_get('https://e.com') $$;
create function harmless() returns trigger language plpgsql as $$ begin /* net.http_post( */ return new; end $$;
create trigger harmless after insert on orders for each row execute function harmless();
select cron.schedule('nightly', '0 3 * * *', $$ select net.http_post(url := 'https://e.com/?k=s3cr3t') $$);
create trigger statement after insert on orders `+args+`
create trigger view instead of insert on orders_view for each row `+args+`
create trigger no_url after insert on orders for each row execute function supabase_functions.http_request();
create trigger psql after insert on orders for each row execute function supabase_functions.http_request(:'url', 'POST', '{}', '{}', '1000');
create trigger concat after insert on orders for each row execute function supabase_functions.http_request('https://e.com/' || 'x', 'POST', '{}', '{}', '1000');
create trigger before_it before insert on orders for each row `+args+`
create trigger of_columns after update of status, "Total" on orders for each row `+args+`
create trigger odd after insert on orders for each row execute function supabase_functions.http_request('https://e.com/odd', 'post', 'no json', '[]', 'soon');
create trigger doubled after insert on auth.users for each row execute function supabase_functions.http_request('https://e.com/d', 'POST', '{"X-A":"true","x-a":"true","Content-Length":"9","Content-Type":"text/plain","Bad Name":"x"}', '{}', '1000');
do $do$ begin
  if not exists (select from pg_trigger where tgname = 'in_a_block') then
    create trigger in_a_block after insert on orders for each row execute function supabase_functions.http_request('https://e.com/b', 'POST', '{}', '{}', '1000');
  end if;
  execute format('create trigger %I after insert on %I for each row execute function supabase_functions.http_request(%L)', 'x', 'y', 'z');
end $do$;
create trigger filled after insert on orders for each row execute function supabase_functions.http_request('${SUPABASE_URL}/functions/v1/x', 'POST', '{"Authorization":"Bearer {{ SERVICE_KEY }}"}', '{}', '1000');
`)
	importertest.Told(t, r, importer.Skipped, "by_hand", "runs the function public.notify_slack (dump.sql:2), which calls net.http_post by itself", "by hand")
	importertest.Told(t, r, importer.Note, "dump.sql:9", "public.unused", "which no trigger in these files runs")
	importertest.Told(t, r, importer.Note, "dump.sql:12", "net.http_post, on a schedule of pg_cron")
	importertest.Told(t, r, importer.Skipped, "statement", "once for a statement")
	importertest.Told(t, r, importer.Skipped, "view", "is a view")
	importertest.Told(t, r, importer.Skipped, "no_url", "has no URL")
	importertest.Told(t, r, importer.Skipped, "psql", "is an expression or a variable of psql")
	importertest.Told(t, r, importer.Skipped, "concat", "is an expression")
	importertest.Told(t, r, importer.Differs, "before_it", "runs before the write there")
	importertest.Told(t, r, importer.Differs, "of_columns", "update of")
	importertest.Told(t, r, importer.Differs, "odd", "timeout", "which no request can keep to")
	importertest.Told(t, r, importer.NotCarried, "odd", "headers", "is no JSON object")
	importertest.Told(t, r, importer.NotCarried, "odd", "params", "is no JSON object")
	importertest.Told(t, r, importer.NotCarried, "doubled", "headers.x-a", "is the same header as X-A")
	importertest.Told(t, r, importer.NotCarried, "doubled", "headers.Content-Length")
	importertest.Told(t, r, importer.Note, "doubled", "belongs to Supabase itself (schema auth)")
	importertest.Told(t, r, importer.Note, "in_a_block", "stands in a block of code")
	importertest.Told(t, r, importer.Skipped, "dump.sql", "from a text, which is known when it runs alone")
	names := map[string]trigger.Spec{}
	for _, s := range r.Triggers {
		names[s.Name] = s
	}
	require.Len(t, names, 6)
	require.Equal(t, []string{"status", "Total"}, names["of_columns"].On.Update.Columns)
	require.Equal(t, "text/plain", names["doubled"].Webhook.Headers["Content-Type"])
	require.Equal(t, "${SUPABASE_URL}/functions/v1/x", names["filled"].Webhook.URL)
	require.Equal(t, "Bearer ${SERVICE_KEY}", names["filled"].Webhook.Headers["Authorization"])
	require.Contains(t, names, "in_a_block")
	require.Contains(t, names, "before_it")
}

func TestNothingIsMadeOfWhatIsNoWebhook(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", ";;", "create", "create trigger", "create trigger x after insert", "'", `"`, "$$", "$a$ x", "/*", "--", "\\x", "create trigger x after insert on t for each row when (", "copy t from stdin;", "do $$ begin", "alter table", "drop table", "E'\\", ":'", "\xfe", "a\xc3"} {
		require.Empty(t, imported(t, text).Triggers, text)
	}
}

func TestEscapesOfStringsAreReadAsPostgresDoes(t *testing.T) {
	t.Parallel()
	r := imported(t, `create trigger x after insert on public.t for each row execute function supabase_functions.http_request(`+
		`E'https://e.com/\x41\101\u0042\U00000043\'\q\xC3\xA9/\x', 'POST', '{}', '{}', '1000')`)
	require.Len(t, r.Triggers, 1)
	require.Equal(t, "https://e.com/AABC'q\u00e9/x", r.Triggers[0].Webhook.URL)
}

func FuzzSQL(f *testing.F) {
	f.Add("create trigger a after insert or update of b on c for each row when (new.a = 'x') execute function supabase_functions.http_request('https://e.com', 'POST', '{}', '{}', '1');")
	f.Add("do $$ begin create trigger x before delete on y.z for each row execute procedure supabase_functions.http_request(E'a\\'b'); end $$; alter table y.z disable trigger all")
	f.Add("\xfe")
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := supabase.Import("a test", []supabase.File{{Name: "f", Text: text}}).Finish(); err != nil {
			t.Fatal(err)
		}
	})
}

// likeSupabases is the function as Supabase has it, which keeps the body instead of sending it.
const likeSupabases = `
create schema supabase_functions;
create table supabase_functions.sent (id serial, body text);
create function supabase_functions.http_request() returns trigger language plpgsql security definer set search_path to 'supabase_functions' as $$
begin
  insert into sent (body) values (jsonb_build_object('old_record', old, 'record', new, 'type', tg_op, 'table', tg_table_name, 'schema', tg_table_schema)::text);
  return new;
end $$;
create table orders (id bigint primary key, "Total" numeric, note text, at timestamptz, tags jsonb, big bigint, flag boolean, d double precision);
create trigger "Orders to shop" after insert or update or delete on orders for each row
  execute function supabase_functions.http_request('https://shop.example/hook', 'POST', '{"Content-Type":"application/json"}', '{}', '1000');
create trigger watched after update on orders for each row when (new.note is distinct from old.note)
  execute function supabase_functions.http_request('https://shop.example/back\slash', 'POST', '{}', '{}', '1000');
alter table orders disable trigger watched;
alter table orders enable always trigger "Orders to shop";
`

// TestBodiesAreThoseOfSupabase compares what Rowhook sends with what the function builds in PostgreSQL, for
// the same changes: the members are the same, and in the same order. Space between them, and the order of the
// columns, are jsonb's there, and the table's here.
func TestBodiesAreThoseOfSupabase(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, likeSupabases)
	conn := db.Conn(t)
	files, err := supabase.Read(t.Context(), conn)
	require.NoError(t, err)
	r, err := supabase.Import("the database", files).Finish()
	require.NoError(t, err)
	require.Len(t, r.Triggers, 1)
	importertest.Told(t, r, importer.Skipped, "watched", "is disabled")
	spec := r.Triggers[0]
	require.Equal(t, "Orders_to_shop", spec.Name)
	require.Equal(t, "public.orders", spec.Table)

	got := make(chan *http.Request, 10)
	bodies := make(chan string, 10)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		got <- r
		bodies <- string(text)
	}))
	t.Cleanup(receiver.Close)
	spec.Webhook.URL, spec.Webhook.Timeout, spec.Retry.Limit = receiver.URL, trigger.DefaultTimeout, trigger.DefaultRetryLimit // a busy machine takes longer
	dispatchtest.Apply(t, db, spec)
	dispatchtest.Run(t, dispatcher.Config{DatabaseURL: db.URL()})
	for _, change := range []string{
		`insert into orders values (1, 1.10, 'Ada & "Co"', '2026-11-27 10:00:00.123456+02', '{"b": [1, 2.50], "a": null}', 9007199254740993, true, 0.1)`,
		`update orders set note = null, "Total" = 12345678901234567890.5 where id = 1`,
		`delete from orders`,
	} {
		_, err := conn.Exec(t.Context(), "set timezone = 'UTC'; "+change)
		require.NoError(t, err)
	}
	rows, err := conn.Query(t.Context(), "select body from supabase_functions.sent order by id")
	require.NoError(t, err)
	sent := map[string]string{}
	for rows.Next() {
		var body string
		require.NoError(t, rows.Scan(&body))
		sent[typeOf(t, body)] = body
	}
	require.NoError(t, rows.Err())
	require.Len(t, sent, 3)
	for range 3 {
		var body string
		var request *http.Request
		select {
		case body = <-bodies:
			request = <-got
		case <-time.After(time.Minute):
			require.Fail(t, "an event did not arrive")
		}
		require.Equal(t, http.MethodPost, request.Method)
		require.Equal(t, "application/json", request.Header.Get("Content-Type"))
		want := sent[typeOf(t, body)]
		require.JSONEq(t, want, body)
		require.Equal(t, keysOf(t, want), keysOf(t, body))
		require.Contains(t, body, "9007199254740993")
	}
}

func typeOf(t *testing.T, body string) string {
	t.Helper()
	var of struct{ Type string }
	require.NoError(t, json.Unmarshal([]byte(body), &of), body)
	return of.Type
}

// keysOf returns the outer members of an object in their order.
func keysOf(t *testing.T, body string) (keys []string) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(body))
	_, err := d.Token()
	require.NoError(t, err)
	for d.More() {
		key, err := d.Token()
		require.NoError(t, err)
		keys = append(keys, key.(string))
		var skipped json.RawMessage
		require.NoError(t, d.Decode(&skipped))
	}
	return keys
}
