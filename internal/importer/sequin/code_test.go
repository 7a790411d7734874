package sequin_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/importer"
	"github.com/rowhook/rowhook/internal/importer/importertest"
	"github.com/rowhook/rowhook/internal/importer/sequin"
	"github.com/rowhook/rowhook/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// coded imports a sink with these functions, which are the lines of what they return.
func coded(t *testing.T, functions map[string]string) *importer.Result {
	t.Helper()
	text, uses := "functions:\n", ""
	for _, kind := range []string{"filter", "transform", "routing"} {
		if body, ok := functions[kind]; ok {
			text += fmt.Sprintf("  - name: %s_of\n    type: %s\n    code: |-\n      def %[2]s(action, record, changes, metadata) do\n        %[3]s\n      end\n", kind, kind, strings.ReplaceAll(body, "\n", "\n        "))
			uses += fmt.Sprintf("    %s: %s_of\n", kind, kind)
		}
	}
	return imported(t, endpoints+text+"sinks:\n  - name: s\n    table: shop.orders\n    database: app\n"+uses+"    destination: {type: webhook, http_endpoint: plain, batch: false}\n")
}

// passing returns the numbers of the rows of a query.
func passing(t *testing.T, conn *pgx.Conn, from, when string) (ids string) {
	t.Helper()
	require.NoError(t, conn.QueryRow(t.Context(), "select coalesce(string_agg(new.id::text, ' ' order by new.id), '') from "+from+" where "+when).Scan(&ids), when)
	return ids
}

// TestFiltersPassTheSameRows runs the conditions in PostgreSQL. The rows that pass are those that pass
// in Sequin.
func TestFiltersPassTheSameRows(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	conn := db.Conn(t)
	db.Exec(t, `create type status as enum ('open', 'paid');
		create table orders (id int, status status, amount numeric, vip boolean, note text, meta jsonb, raw json);
		insert into orders values
			(1, 'open', 50, true, 'it''s "a"', '{"a": {"b": 1, "c d": null}, "s": "x"}', '{"s": "x"}'),
			(2, 'paid', 10, false, null, '{"a": {"b": "1"}}', null),
			(3, null, null, null, '', null, '{"s": 5}')`)
	for code, want := range map[string]string{
		`record["amount"] > 40`:                                                    "1",
		`40 < record["amount"]`:                                                    "1",
		`record["amount"] >= 1_0`:                                                  "1 2",
		`record["status"] == "paid"`:                                               "2",
		`"paid" == Map.get(record, "status")`:                                      "2",
		`record["status"] != "paid"`:                                               "1 3",
		`not (record["status"] == "paid")`:                                         "1 3",
		`!(record["status"] == "paid" or record["amount"] == 50)`:                  "3",
		`record["status"] in ["open", "paid"] and record["vip"]`:                   "1",
		`record["status"] not in ["open"]`:                                         "2 3",
		`not record["status"] in ["open"]`:                                         "2 3",
		`record["status"] in [nil, "open"]`:                                        "1 3",
		`is_nil(record["note"])`:                                                   "2",
		`record["note"] != nil && record["note"] != ""`:                            "1",
		`record["note"] == "it's \"a\""`:                                           "1",
		`record["vip"] == false`:                                                   "2",
		`not record["vip"] || record["id"] == 3`:                                   "2 3",
		`record["meta"]["a"]["b"] == 1`:                                            "1",
		`record["meta"]["a"]["b"] == "1"`:                                          "2",
		`record["meta"]["a"]["b"] > 0`:                                             "1",
		`record["meta"]["a"]["c d"] == nil`:                                        "1 2 3",
		`record["meta"]["s"] != nil`:                                               "1",
		`record["raw"]["s"] in ["x", "y"]`:                                         "1",
		`action == "insert"`:                                                       "1 2 3",
		`action in ["insert", "update"] and record["id"] == 2`:                     "2",
		`action == "delete" or record["id"] == 1`:                                  "1",
		`metadata.table_name == "orders" and record["id"] != 1`:                    "2 3",
		`metadata["table_schema"] != "shop" or (record["id"] == 1)`:                "1",
		`changes == nil and true`:                                                  "1 2 3",
		`is_nil(changes["status"]) and record["id"] < 3`:                           "1 2",
		"# only VIPs\nrecord[\"vip\"] == true # a row\n":                           "1",
		`record["amount"] > 20 or record["vip"] == false and record["note"] == ""`: "1",
	} {
		r := coded(t, map[string]string{"filter": code})
		when := byName(r)["s_insert"].When
		for _, f := range r.Report.Findings {
			require.NotEqual(t, importer.NotCarried, f.Kind, "%s: %s", code, f)
		}
		if when == "" {
			when = "true"
		}
		require.Equal(t, want, passing(t, conn, "orders new", when), "%s: %s", code, when)
	}
}

func TestFiltersOnChangesCompareTheOldRow(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	conn := db.Conn(t)
	db.Exec(t, `create table o (id int, a text, b text, c text); create table n (like o);
		insert into o values (1, 'x', 'y'), (2, null, 'y'), (3, 'x', 'y'); insert into n values (1, 'z', 'y'), (2, 'z', 'y'), (3, 'x', 'w')`)
	for code, want := range map[string]string{
		`changes["a"] != nil`:                               "1",
		`changes["a"] == nil`:                               "2 3",
		`not is_nil(changes["a"])`:                          "1",
		`changes["a"] == "x" and record["a"] == "z"`:        "1",
		`changes["a"] != "x"`:                               "2 3",
		`Map.has_key?(changes, "a")`:                        "1 2",
		`changes["a"] in ["x", "w"]`:                        "1",
		`action == "update" and changes["b"] == "y"`:        "3",
		`not (changes["b"] == "y")`:                         "1 2",
		`Map.has_key?(changes, "b") or changes["a"] == "x"`: "1 3",
		`changes != nil and is_nil(record["c"])`:            "1 2 3",
		`!Map.has_key?(changes, "a") and is_nil(nil)`:       "",
	} {
		r := coded(t, map[string]string{"filter": code})
		update := byName(r)["s_update"]
		if want == "" {
			importertest.Told(t, r, importer.NotCarried, "filter", "only comparisons of columns with constants")
			require.Empty(t, update.When)
			continue
		}
		require.Equal(t, want, passing(t, conn, "n new join o old on old.id = new.id", update.When), "%s: %s", code, update.When)
	}
	r := coded(t, map[string]string{"filter": `changes["a"] == "x" and action != "delete"`})
	require.Len(t, r.Triggers, 1, "changes of an insert is nil")
	importertest.Told(t, r, importer.Note, "filter", "lets no insert pass")
	importertest.Told(t, r, importer.Note, "filter", "lets no delete pass")
	r = coded(t, map[string]string{"filter": "false"})
	require.Empty(t, r.Triggers)
	importertest.Told(t, r, importer.Skipped, "no change passes")
}

func TestCodeThatIsNoExpressionIsNamed(t *testing.T) {
	t.Parallel()
	for _, code := range []string{
		"", "if record[\"a\"] do true else false end", "x = record[\"a\"]\nx == 1", `String.starts_with?(record["a"], "b")`, `record["a"] =~ ~r/x/`, `record["a"] == record["b"]`,
		`record["a"] > "m"`, `record[key] == 1`, `record["a"] |> is_nil()`, `record["a"] == 1 record`, `metadata.commit_lsn == 1`, `record == nil`, `record["a"] ==`, `"a`, `record["a"] == 'a'`, `other["a"] == 1`,
		`length(record["a"]) == 1`, `record["a"] + 1 == 2`, `record.a == `, `(record["a"] == 1`, `nil`, `"text"`, `record["a"] not 1`, `record["a"] in record["b"]`,
	} {
		r := coded(t, map[string]string{"filter": code})
		require.Len(t, r.Triggers, 3, code)
		require.Empty(t, r.Triggers[0].When, code)
		importertest.Told(t, r, importer.NotCarried, "filter", "filter_of")
		require.Contains(t, string(r.File), "until then every change is sent", "%s: each trigger says so", code)
	}
}

func TestTransformsAndRoutesBecomeTheRequest(t *testing.T) {
	t.Parallel()
	r := coded(t, map[string]string{
		"transform": `%{
  id: record["id"], # the key
  "a b" => [action, 1.50, true, nil, "$5"],
  text: "No. #{record["id"]} of \"#{metadata.table_name}\"\n",
  from: metadata.table_schema, of: metadata.database_name,
  key: metadata["idempotency_key"], at: metadata.commit_timestamp,
  before: changes["status"], zip: record["address"]["zip code"], all: record, meta: metadata,
}`,
		"routing": `%{method: "put", endpoint_path: "/orders/#{record["id"]}/#{action}?a=1", headers: %{"X-Id" => "#{record["id"]}", "X-Action" => action, "Authorization" => "Bearer s3cr3t-x"}}`,
	})
	all := byName(r)
	const metadata = `{"table_schema":"$table.schema","table_name":"$table.name","idempotency_key":"$id","commit_timestamp":"$created_at","consumer":{"name":"s","annotations":{}},"database":{"name":"app"}}`
	body := func(row, action, before string) string {
		return `{"id":"$` + row + `.id","a b":["` + action + `",1.50,true,null,"$$5"],"text":"No. ${` + row + `.id} of \"orders\"\n","from":"shop","of":"app","key":"$id","at":"$created_at",` +
			`"before":` + before + `,"zip":"${` + row + `.address.\"zip code\"}","all":"$` + row + `","meta":` + metadata + `}`
	}
	require.Equal(t, body("new", "insert", "null"), string(all["s_insert"].Webhook.Body))
	require.Equal(t, body("new", "update", `"$old.status"`), string(all["s_update"].Webhook.Body))
	require.Equal(t, body("old", "delete", "null"), string(all["s_delete"].Webhook.Body))
	require.Equal(t, "changed", all["s_update"].Payload.Old)
	w := all["s_delete"].Webhook
	require.Equal(t, []any{"PUT", "https://shop.example/in/orders/${old.id}/delete?a=1"}, []any{w.Method, w.URL})
	require.Equal(t, map[string]string{"X-Id": "$old.id", "X-Action": "delete", "X-Key": "${KEY}", "Authorization": "Bearer ${AUTHORIZATION}"}, withoutPrefix(w.Headers))
	for _, f := range r.Report.Findings {
		require.NotEqual(t, importer.NotCarried, f.Kind, f.String())
	}
	for _, code := range []string{`%{a: String.upcase(record["b"])}`, `Map.put(record, "a", 1)`, `%{record | a: 1}`, `%{a: record["b"] > 1}`, `%{a: metadata.commit_lsn}`, `%{a => 1}`} {
		r = coded(t, map[string]string{"transform": code})
		importertest.Told(t, r, importer.NotCarried, "transform", "transform_of")
		require.Contains(t, string(byName(r)["s_insert"].Webhook.Body), `"record":"$new"`, code)
	}
	for _, code := range []string{`%{path: "/x"}`, `%{method: record["m"]}`, `%{method: "BREW"}`, `"x"`, `%{endpoint_path: nil}`} {
		r = coded(t, map[string]string{"routing": code})
		importertest.Told(t, r, importer.NotCarried, "routing", "routing_of")
		require.Equal(t, "https://shop.example/in", byName(r)["s_insert"].Webhook.URL, code)
	}
}

func TestTheDatabaseIsChosenAndAURLKeepsItsQuery(t *testing.T) {
	t.Parallel()
	const text = `
http_endpoints:
  - {name: a, url: "https://shop.example:8443/in/?shop=1#part", headers: {Bad Key: x, Connection: close, X-Good: "true"}}
functions: [{name: spare, type: filter, code: "true"}]
sinks:
  - {name: one, database: app, table: t, actions: [insert], destination: {type: webhook, http_endpoint: a, http_endpoint_path: "/x?y=2"}}
  - {name: two, database: other, table: t, actions: [insert], status: disabled, destination: {type: webhook, http_endpoint: a, http_endpoint_path: x}}
`
	r := imported(t, text)
	all := byName(r)
	require.Equal(t, "https://shop.example:8443/in/x?y=2&shop=1", all["one"].Webhook.URL)
	require.Equal(t, "https://shop.example:8443/in/x?shop=1", all["two"].Webhook.URL)
	require.Equal(t, map[string]string{"X-Good": "true"}, all["one"].Webhook.Headers)
	importertest.Told(t, r, importer.NotCarried, "one", "headers.Bad Key", "rowhook.yaml can't have")
	importertest.Told(t, r, importer.NotCarried, "one", "headers.Connection")
	importertest.Told(t, r, importer.Note, "one", "http_endpoints.url", "behind a #")
	importertest.Told(t, r, importer.Differs, "database", "(app, other)", "--source NAME")
	importertest.Told(t, r, importer.Note, "spare", "no imported sink uses")
	require.Contains(t, string(r.File), "# status is disabled there")
	imp, err := sequin.Read("f", strings.NewReader(text), sequin.Options{Database: "other"})
	require.NoError(t, err)
	r, err = imp.Finish()
	require.NoError(t, err)
	require.Len(t, r.Triggers, 1)
	require.Equal(t, "two", r.Triggers[0].Name)
	importertest.Told(t, r, importer.Skipped, "one", "by --source app")
	_, err = sequin.Read("f", strings.NewReader(text), sequin.Options{Database: "none"})
	require.ErrorContains(t, err, `no sinks of a database "none"; it has those of app, other`)
}
