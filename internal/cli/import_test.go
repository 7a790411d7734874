package cli_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
)

// metadata is exported metadata with a trigger that is retried twice, at once.
const metadata = `{"resource_version": 3, "metadata": {"version": 3, "sources": [{"name": "default", "kind": "postgres", "tables": [
  {"table": {"schema": "public", "name": "orders"}, "event_triggers": [
    {"name": "order_changed", "definition": {"enable_manual": false, "insert": {"columns": "*"}, "update": {"columns": ["amount"], "payload": ["id", "amount"]}},
     "retry_conf": {"num_retries": 2, "interval_sec": 0, "timeout_sec": 10}, "webhook": "{{SHOP_URL}}/changed",
     "headers": [{"name": "X-Shop", "value": "s3cr3t-of-the-shop"}],
     "response_transform": {"version": 2}}]}]}]}}`

func TestAnImportedTriggerMakesItsAttemptsAndDeliversHasurasBody(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	db.Exec(t, orders)
	var mu sync.Mutex
	var bodies []string
	done := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.URL.Path != "/changed" || r.Header.Get("X-Shop") != "s3cr3t-of-the-shop" {
			t.Errorf("%s %v: %v", r.URL.Path, r.Header, err)
		}
		mu.Lock()
		defer mu.Unlock()
		bodies = append(bodies, string(body))
		if strings.Contains(string(body), `"op":"INSERT"`) { // each attempt fails
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		close(done)
	}))
	defer server.Close()
	file := filepath.Join(t.TempDir(), "rowhook.yaml")
	code, stdout, stderr := rowhookReading(t, metadata, nil, "import", "hasura", "-", "--out", file)
	require.Zero(t, code, stderr)
	require.Empty(t, stdout)
	require.Contains(t, stderr, "ORDER_CHANGED_X_SHOP: copy the value from <stdin>:5")
	require.Contains(t, stderr, "order_changed: <stdin>:6: response_transform: ")
	require.NotContains(t, stderr, "s3cr3t")
	env := append(database(db.URL()), "SHOP_URL="+server.URL, "ORDER_CHANGED_X_SHOP=s3cr3t-of-the-shop")
	code, stdout, stderr = rowhook(t, env, "check", "--env", "--strict", file)
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "no problem")
	p := start(t, env, "run", "-f", file)
	p.stderr.waitFor(t, "ready")
	db.Exec(t, "insert into orders values (1, 1.10, 'a')")
	p.stderr.waitFor(t, "dead letter")
	db.Exec(t, "update orders set note = 'b'")
	db.Exec(t, "update orders set amount = 2")
	<-done
	mu.Lock()
	defer mu.Unlock()
	require.Len(t, bodies, 4, "num_retries and one, and the update")
	var body struct {
		Event json.RawMessage `json:"event"`
		Info  json.RawMessage `json:"delivery_info"`
	}
	for i, body := range bodies[:3] {
		require.Contains(t, body, `"delivery_info":{"current_retry":`+string(rune('0'+i))+`,"max_retries":2}`)
	}
	require.NoError(t, json.Unmarshal([]byte(bodies[3]), &body))
	require.Equal(t, `{"op":"UPDATE","data":{"old":{"id":1,"amount":1.10},"new":{"id":1,"amount":2}},"session_variables":null,"trace_context":null}`, string(body.Event))
}

func TestAnImportOverwritesNothingAndItsCodesTellScripts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, report := filepath.Join(dir, "rowhook.yaml"), filepath.Join(dir, "report.json")
	from := write(t, "metadata.json", metadata)
	code, stdout, stderr := rowhook(t, nil, "import", "hasura", from)
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "  - name: order_changed\n")
	require.Contains(t, stderr, "Not carried over:")
	yaml := stdout

	code, stdout, stderr = rowhook(t, nil, "import", "hasura", from, "--out", file, "--report", report, "--json", "--strict")
	require.Equal(t, 1, code, stderr)
	require.Empty(t, stdout+stderr)
	written, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, yaml, string(written))
	var document struct {
		Configuration string
		Report        struct {
			Triggers  int
			Variables []struct {
				Name string
				Copy bool
			}
			Findings []struct {
				Kind, Trigger, File, Setting, Message, Remedy string
				Line                                          int
			}
		}
	}
	text, err := os.ReadFile(report)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &document))
	require.Empty(t, document.Configuration)
	require.Equal(t, 1, document.Report.Triggers)
	require.Len(t, document.Report.Findings, 1)
	require.Equal(t, []any{"not_carried_over", "order_changed", from, 6, "response_transform"},
		[]any{document.Report.Findings[0].Kind, document.Report.Findings[0].Trigger, document.Report.Findings[0].File, document.Report.Findings[0].Line, document.Report.Findings[0].Setting})

	code, stdout, stderr = rowhook(t, nil, "import", "hasura", from, "--json")
	require.Zero(t, code, stderr)
	require.Empty(t, stderr)
	require.NoError(t, json.Unmarshal([]byte(stdout), &document))
	require.Equal(t, yaml, document.Configuration)

	for _, args := range [][]string{{"--out", file}, {"--report", report}, {"--out", dir}, {"--out", filepath.Join(dir, "no", "file")}, {"--out", "x", "--report", "x"}, {"--source", "other"}} {
		code, _, stderr = rowhook(t, nil, append([]string{"import", "hasura", from}, args...)...)
		require.Equal(t, 2, code, stderr)
	}
	require.Contains(t, stderr, `has no source "other"; it has default`)
	code, _, stderr = rowhook(t, nil, "import", "hasura", from, "--out", file, "--force")
	require.Zero(t, code, stderr)
	for _, what := range []string{filepath.Join(dir, "nothing"), write(t, "up.sql", "create table a ();")} {
		code, _, stderr = rowhook(t, nil, "import", "hasura", what)
		require.Equal(t, 2, code, stderr)
	}
	require.Contains(t, stderr, "is not Hasura's metadata")
}

func TestExportPrintsWhatAppliesWithoutAChange(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	db.Exec(t, orders)
	db.Exec(t, `create schema "Sales"; create table "Sales"."Order Items" ("Item" int primary key, "the price" numeric)`)
	env := database(db.URL())
	applied := write(t, "rowhook.yaml", `
defaults:
  retry: {limit: 3, max_interval: 2h, statuses: {400-499: dead, 408: retry}}
  webhook: {headers: {X-Team: shop, Authorization: "Bearer ${TOKEN}"}}
triggers:
  - name: all_of_it
    table: public.orders
    on: {insert: true, update: {columns: [amount]}, delete: true, truncate: true, manual: true}
    payload: {columns: [id, amount], delete: {columns: [id]}, old: changed, changed: true, numbers: text, mask: [amount]}
    webhook:
      url: "${SHOP_URL}/x/${new.id as text}"
      method: PUT
      query: {source: shop, "odd key": "$$5 ${new.amount}"}
      body: {n: 1.50, big: 12345678901234567890123, list: [$new.amount, true, null], "a b": {"on": "yes"}}
      compress: gzip
      timeout: 5s
      secret: ${SHOP_SECRET}
    retry: {max_age: 24h, backoff: fixed}
    delay: 1s
    rate: {limit: 600/m, burst: 10}
    concurrency: {each: 2, total: 5}
    breaker: off
    notify: never
    retention: {delivered: 12h, attempts: 0}
    on_replication: true
  - name: many
    tables: ["Sales.*", '"Sales"."Order Items"', public.orders]
    except: ["Sales.tmp_*"]
    follow: true
    on: {insert: true}
    webhook: {url: https://shop.example/hooks, format: cloudevents}
    retry: {limit: 5, schedule: [1s, 1m]}
    order: {by: row, on_dead: block}
    batch: {max: 10, wait: 200ms}
    capture: rows
  - name: with_when
    table: public.orders
    on: {insert: true}
    when: "not (new.note = 'a: b # c')"
    webhook: {url: https://shop.example/hooks, body: form}
alerts:
  - {on: [dead, backlog], url: "${SLACK_URL}", format: slack, backlog: {older_than: 1m}}
  - {heartbeat: "${PING_URL}", every: 2m}
retention: {delivered: 3d, max_size: 20GiB}
network: {deny: [private], allow: [10.1.0.0/16]}
`)
	code, _, stderr := rowhook(t, env, "export")
	require.Equal(t, 1, code, "nothing is installed")
	require.NotEmpty(t, stderr)
	code, _, stderr = rowhook(t, env, "apply", "-f", applied)
	require.Zero(t, code, stderr)
	code, exported, stderr := rowhook(t, env, "export")
	require.Zero(t, code, stderr)
	require.Contains(t, exported, "${SHOP_SECRET}")
	code, asJSON, stderr := rowhook(t, env, "export", "--json")
	require.Zero(t, code, stderr)
	for name, text := range map[string]string{"exported.yaml": exported, "exported.json": asJSON} {
		code, stdout, stderr := rowhook(t, env, "apply", "--dry-run", "--exit-code", "-f", write(t, name, text))
		require.Zero(t, code, "%s%s\n%s", stdout, stderr, text)
		require.Contains(t, stdout, "Nothing to do: ")
	}
	file := filepath.Join(t.TempDir(), "rowhook.yaml")
	code, _, stderr = rowhook(t, env, "export", "--out", file)
	require.Zero(t, code, stderr)
	written, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, exported, string(written))
	for _, args := range [][]string{{"--out", file}, {"--out", file, "--json", "--force"}} {
		code, _, stderr = rowhook(t, env, append([]string{"export"}, args...)...)
		require.Equal(t, 2, code, stderr)
	}
	db.Exec(t, "select rowhook.emit('all_of_it', '{}')")
	code, stdout, stderr := rowhook(t, env, "apply", "-f", write(t, "none.yaml", "triggers: []\n"))
	require.Zero(t, code, stdout+stderr)
	code, stdout, stderr = rowhook(t, env, "export")
	require.Zero(t, code, stderr)
	require.Equal(t, "triggers: []\n", stdout)
}

func TestAnImportSaysWhatIsWrongWithItsArgument(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, c := range []struct{ from, at, want string }{
		{"hasura", "no-such-file", "no-such-file: does not exist"},
		{"hasura", dir, "is no directory of Hasura's metadata"},
		{"hasura", write(t, "x.json", "\x00\x01\xff"), "is not UTF-8 text"},
		{"supabase", "no-such-file", "no-such-file does not exist: correct the path"},
		{"supabase", dir, "has no *.sql"},
		{"supabase", write(t, "binary.sql", "\xfe\x00\xff"), "has zero bytes"},
		{"supabase", write(t, "empty.sql", " \n"), "is empty"},
		{"supabase", "-", "<stdin> is empty"},
		{"sequin", "no-such-file", "no-such-file does not exist: correct the path"},
		{"sequin", dir, "is a directory: name the file in it"},
		{"sequin", "-", "<stdin> has none of databases"},
	} {
		code, stdout, stderr := rowhook(t, nil, "import", c.from, c.at)
		require.Equal(t, 2, code, "%s %s: %s", c.from, c.at, stderr)
		require.Empty(t, stdout)
		require.Contains(t, stderr, c.want)
	}
	code, _, stderr := rowhook(t, nil, "import", "supabase", write(t, "latin1.sql", "-- \xe9t\xe9\nselect '\xfe';"))
	require.Zero(t, code, stderr)
	require.Contains(t, stderr, "Nothing to import is in it")
}
