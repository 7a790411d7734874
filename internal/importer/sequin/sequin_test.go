package sequin_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/importer"
	"github.com/rowhook/rowhook/internal/importer/importertest"
	"github.com/rowhook/rowhook/internal/importer/sequin"
	"github.com/rowhook/rowhook/trigger"
)

func imported(t *testing.T, text string) *importer.Result {
	t.Helper()
	imp, err := sequin.Read("sequin.yaml", strings.NewReader(text), sequin.Options{})
	return importertest.Finish(t, imp, err, "s3cr3t")
}

func byName(r *importer.Result) map[string]trigger.Spec {
	all := map[string]trigger.Spec{}
	for _, s := range r.Triggers {
		all[s.Name] = s
	}
	return all
}

const endpoints = `
http_endpoints:
  - name: shop
    url: "${SHOP_URL:-https://shop.example}/hooks/"
    headers: {Authorization: "Bearer s3cr3t", Content-Type: application/json}
    encrypted_headers:
      - {key: X-Token, value: s3cr3t-2}
  - name: plain
    url: https://shop.example/in
    headers:
      - {key: X-Key, value: "${KEY}"}
  - name: tunnel
    local: "true"
    path: /webhook
`

func TestAnEndpointMayBeWrittenInParts(t *testing.T) {
	t.Parallel()
	r := imported(t, `
http_endpoints:
  - {name: whole, scheme: http, host: hooks.internal, port: 8443, path: in}
  - {name: least, host: "${HOST}"}
sinks:
  - {name: a, table: public.a, actions: [insert], destination: {type: webhook, http_endpoint: whole, http_endpoint_path: /more}}
  - {name: b, table: public.b, actions: [insert], destination: {type: webhook, http_endpoint: least}}
`)
	all := byName(r)
	require.Equal(t, "http://hooks.internal:8443/in/more", all["a"].Webhook.URL)
	require.Equal(t, "https://${HOST}", all["b"].Webhook.URL)
	for _, f := range r.Report.Findings {
		require.NotContains(t, f.Message, "tunnel")
		require.NotContains(t, f.Message, "not known")
	}
}

func TestASinkBecomesATriggerForEachAction(t *testing.T) {
	t.Parallel()
	r := imported(t, endpoints+`
databases:
  - {name: app-db, password: s3cr3t, slot: {name: sequin_slot}, publication: {name: sequin_pub}}
users: [{email: a@b.c, password: s3cr3t}]
sinks:
  - name: images to search
    database: app-db
    table: public.Images
    batch_size: 25
    max_retry_count: 3
    annotations: {team: a$b}
    destination: {type: webhook, http_endpoint: shop, http_endpoint_path: /images}
`)
	all := byName(r)
	require.Len(t, all, 3)
	insert, update, gone := all["images_to_search_insert"], all["images_to_search_update"], all["images_to_search_delete"]
	require.Equal(t, `public."Images"`, insert.Table)
	require.Equal(t, "${SHOP_URL}/hooks/images", insert.Webhook.URL)
	require.Equal(t, map[string]string{"Authorization": "Bearer ${AUTHORIZATION}", "X-Token": "${X_TOKEN}"}, withoutPrefix(insert.Webhook.Headers))
	require.JSONEq(t, `{"data":[{"record":"$new","changes":null,"action":"insert","metadata":{"table_schema":"$table.schema","table_name":"$table.name","idempotency_key":"$id",
		"commit_timestamp":"$created_at","consumer":{"name":"images to search","annotations":{"team":"a$$b"}},"database":{"name":"app-db"}}}]}`, string(insert.Webhook.Body))
	require.Contains(t, string(update.Webhook.Body), `"record":"$new","changes":"$old","action":"update"`)
	require.Equal(t, trigger.OldChanged, update.Payload.Old, "changes has the old values of changed columns alone")
	require.True(t, update.Order.ByRow())
	require.Contains(t, string(gone.Webhook.Body), `"record":"$old","changes":null,"action":"delete"`)
	require.Equal(t, 3, gone.Retry.Limit)
	require.Equal(t, trigger.Duration(3*time.Minute), gone.Retry.MaxInterval)
	importertest.Told(t, r, importer.Differs, "images_to_search_insert", "actions", "3 triggers here")
	importertest.Told(t, r, importer.Differs, "metadata", "commit_lsn")
	importertest.Told(t, r, importer.Differs, "batch_size", "is 25 there")
	importertest.Told(t, r, importer.Differs, "has a default for SHOP_URL")
	importertest.Told(t, r, importer.Note, "needs neither the slot sequin_slot nor the publication sequin_pub")
	importertest.Told(t, r, importer.Note, "users")
}

// withoutPrefix removes the name of the trigger from the names of variables.
func withoutPrefix(headers map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range headers {
		for _, name := range []string{"AUTHORIZATION", "X_TOKEN"} {
			if i := strings.Index(v, "${"); i >= 0 && strings.HasSuffix(v, name+"}") {
				v = v[:i] + "${" + name + "}"
			}
		}
		out[k] = v
	}
	return out
}

func TestSourcesFiltersAndTransforms(t *testing.T) {
	t.Parallel()
	r := imported(t, endpoints+`
functions:
  - {name: record-only, type: path, path: record}
  - {name: the-email, function: {type: path, path: record.address.e mail}}
  - {name: code, type: transform, code: "def transform(a) do a end"}
transforms:
  - {name: old-style, transform: {type: path, path: changes}}
sinks:
  - name: by_schema
    source: {include_schemas: [public, Billing], exclude_tables: [public.jobs]}
    actions: [insert]
    transform: record-only
    status: disabled
    destination: {type: webhook, http_endpoint: plain, batch: false}
  - name: filtered
    tables: [{name: orders, group_column_names: [account_id]}]
    actions: [insert, delete]
    filters:
      - {column_name: status, operator: "=", comparison_value: it's}
      - {column_name: Meta, field_path: a.b, field_type: number, operator: ">", comparison_value: 5}
      - {column_name: kind, operator: not in, comparison_value: [a, b]}
      - {column_name: gone_at, operator: is null}
    transform: the-email
    initial_backfill: [{table: orders}]
    destination: {type: webhook, http_endpoint: tunnel}
  - {name: everything, actions: [update], transform: old-style, message_grouping: false, filter: code, enrichment: none, destination: {type: webhook, http_endpoint: plain}}
  - {name: coded, table: a.b, actions: [update], transform: code, timestamp_format: unix_microsecond, odd: 1, destination: {type: webhook, http_endpoint: plain, more: 2}}
  - {name: to_kafka, table: a.b, destination: {type: kafka, password: s3cr3t}}
  - {name: nowhere, table: a.b, destination: {type: webhook, http_endpoint: missing}}
change_retentions: [{name: audit}]
newer_thing: [1]
`)
	all := byName(r)
	bySchema := all["by_schema"]
	require.Equal(t, []string{`"Billing".*`, "public.*"}, bySchema.Tables)
	require.Equal(t, []string{"public.jobs"}, bySchema.Except)
	require.True(t, bySchema.Follow)
	require.Equal(t, `"$new"`, string(bySchema.Webhook.Body), "batch: false sends the message itself")
	require.Equal(t, "${KEY}", bySchema.Webhook.Headers["X-Key"])
	importertest.Told(t, r, importer.NotCarried, "by_schema", "status", "is disabled there")

	require.Equal(t, `new.status = 'it''s' and (case when jsonb_typeof((new."Meta" #> '{a,b}')::jsonb) = 'number' then ((new."Meta" #> '{a,b}')::jsonb #>> '{}')::numeric end) > '5' and new.kind not in ('a', 'b') and new.gone_at is null`, all["filtered_insert"].When)
	require.Contains(t, all["filtered_delete"].When, "old.status = ")
	require.Equal(t, `{"data":["${old.address.\"e mail\"}"]}`, string(all["filtered_delete"].Webhook.Body))
	require.Equal(t, []string{"account_id"}, all["filtered_insert"].Order.By)
	require.Equal(t, "${TUNNEL_URL}/webhook", all["filtered_insert"].Webhook.URL)
	importertest.Told(t, r, importer.Differs, "has no URL (tunnel)", "set TUNNEL_URL")
	importertest.Told(t, r, importer.NotCarried, "initial_backfill", "rowhook backfill")

	require.Equal(t, []string{"*.*"}, all["everything"].Tables)
	require.True(t, all["everything"].Order.IsZero())
	require.Equal(t, `{"data":["$old"]}`, string(all["everything"].Webhook.Body))
	importertest.Told(t, r, importer.NotCarried, "everything", "filter", "until then every change is sent")
	importertest.Told(t, r, importer.NotCarried, "coded", "transform", "is the function code")
	importertest.Told(t, r, importer.NotCarried, "coded", "timestamp_format")
	importertest.Told(t, r, importer.NotCarried, "coded", "odd")
	importertest.Told(t, r, importer.NotCarried, "coded", "destination.more")
	importertest.Told(t, r, importer.Skipped, "to_kafka", "goes to kafka")
	importertest.Told(t, r, importer.Skipped, "nowhere", `no endpoint "missing"`)
	importertest.Told(t, r, importer.Skipped, "audit", "into a table")
	importertest.Told(t, r, importer.NotCarried, "newer_thing")
	require.Len(t, all, 5)
}

func TestWhatIsNoConfigurationOfSequinIsRefused(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "a: 1", "- 1", "x", "sinks: [", "sinks: *a"} {
		_, err := sequin.Read("f.yaml", strings.NewReader(text), sequin.Options{})
		var fault *sequin.FaultError
		require.ErrorAs(t, err, &fault, text)
		require.Contains(t, err.Error(), "f.yaml")
	}
	for _, text := range []string{"sinks: " + strings.Repeat("[", 100_000), strings.Repeat("- ", 50_000)} {
		_, err := sequin.Read("f.yaml", strings.NewReader(text), sequin.Options{})
		require.ErrorContains(t, err, "f.yaml:1: is nested more than 100 levels deep; export")
	}
	for _, text := range []string{"sinks:", "sinks: 1", "sinks: [1, null, {}]", "sinks: [{destination: {type: webhook}}]", "databases: {a: 1}\nsinks: {name: x, destination: 7}"} {
		require.Empty(t, imported(t, text).Triggers, text)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(endpoints + "sinks: [{name: a, table: b, filters: [{column_name: c, operator: in, comparison_value: [1]}], destination: {type: webhook, http_endpoint: shop}}]")
	f.Fuzz(func(t *testing.T, text string) {
		imp, err := sequin.Read("f", strings.NewReader(text), sequin.Options{})
		if err != nil {
			return
		}
		if _, err := imp.Finish(); err != nil {
			t.Fatal(err)
		}
	})
}
