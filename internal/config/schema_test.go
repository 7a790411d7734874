package config_test

import (
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/config"
)

var update = flag.Bool("update", false, "rewrite docs/rowhook.schema.json")

const schemaFile = "../../docs/rowhook.schema.json"

func TestCommittedJSONSchemaIsUpToDate(t *testing.T) {
	t.Parallel()
	want, err := config.JSONSchema()
	require.NoError(t, err)
	if *update {
		require.NoError(t, os.WriteFile(schemaFile, want, 0o644))
	}
	got, err := os.ReadFile(schemaFile)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got), "rewrite it: go test ./internal/config -update")
}

// validator returns a function that checks a file against the JSON Schema.
func validator(t *testing.T) func(text string) error {
	t.Helper()
	data, err := config.JSONSchema()
	require.NoError(t, err)
	document, err := jsonschema.UnmarshalJSON(strings.NewReader(string(data)))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	require.NoError(t, c.AddResource("rowhook.schema.json", document))
	schema, err := c.Compile("rowhook.schema.json")
	require.NoError(t, err)
	return func(text string) error {
		asJSON, err := yaml.YAMLToJSON([]byte(text))
		require.NoError(t, err, "%s", text)
		instance, err := jsonschema.UnmarshalJSON(strings.NewReader(string(asJSON)))
		require.NoError(t, err, "%s", asJSON)
		return schema.Validate(instance)
	}
}

func TestJSONSchemaAndParseAgree(t *testing.T) {
	t.Parallel()
	validate := validator(t)
	good := map[string]string{
		"the example":           readExample(t),
		"the example, in full":  uncommented(readExample(t)),
		"the least":             fileOf(),
		"tables":                manyOf(`tables: [a, "b.*", 'c_*."D"']`, "except: [b.x]", "follow: true"),
		"no triggers":           "triggers: []\n",
		"update any":            fileOf("on: {update: true}"),
		"update some":           fileOf("on: {insert: false, update: {columns: [a, b]}}"),
		"only delete":           fileOf("on: {delete: true}"),
		"only manual":           fileOf("on: {manual: true}"),
		"zeros":                 fileOf("retry: {limit: 0, interval: 0, max_interval: '0'}") + "retention: {delivered: 0, attempts: 0s}\n",
		"durations":             fileOf("webhook: {url: https://e.com, timeout: 1m30.5s}", "retry: {interval: 1w2d3h, max_interval: 2w}"),
		"a quoted table":        fileOf(`table: '"My Schema"."a""b"'`),
		"headers":               fileOf("webhook: {url: https://e.com, headers: {X-A: b, x_b: ''}}"),
		"a token":               fileOf("webhook: {url: https://e.com, oauth2: {token_url: '${A}/t', client_id: a, client_secret: '${file:/s}', scopes: [b, 'https://c'], audience: d}}"),
		"a private key":         fileOf("webhook: {url: https://e.com, secret: 'whsk_VEVTVFNJR05JTkdLRVlET05PVFVTRVRISVNGT1JBTlk= ${file:/s}'}"),
		"TLS files":             fileOf("webhook: {url: https://e.com, tls: {ca_file: /a, cert_file: '${DIR}/b', key_file: b}}"),
		"network":               fileOf() + "network: {deny: [private, 10.0.0.0/8], allow: ['::1']}\n",
		"empty defaults":        fileOf() + "defaults: {}\n",
		"defaults of a url":     "defaults: {webhook: {url: https://e.com}}\ntriggers: [{name: a, table: t, on: {insert: true}}]\n",
		"defaults of part":      "defaults: {webhook: {url: https://e.com}}\ntriggers: [{name: a, table: t, on: {insert: true}, webhook: {timeout: 1s}}]\n",
		"defaults of on":        "defaults: {on: {update: true}}\ntriggers: [{name: a, table: t, on: {insert: false}, webhook: {url: https://e.com}}]\n",
		"defaults of the rest":  fileOf() + "defaults: {when: new.a, payload: {columns: [a]}, retry: {limit: 1}, concurrency: 1, notify: never, capture: rows, on_replication: true}\n",
		"alerts":                fileOf() + "alerts: [{on: [dead], url: '${U}', format: slack, secret: '${S}'}, {url: http://e, backlog: {older_than: 10s}}, {heartbeat: http://e/h, every: 10s}]\n",
		"no alerts":             fileOf() + "alerts: []\n",
		"order by row":          fileOf("order: row"),
		"order of columns":      fileOf("order: {by: [a, b], strict: true, on_dead: block, latest: true}"),
		"no order":              fileOf("order: none", "batch: none", "rate: none"),
		"batches":               fileOf("batch: {max: 2, bytes: 64MiB, wait: 20s}"),
		"rates":                 fileOf("rate: {limit: 1000000/h, burst: 1}", "concurrency: {each: 1, total: 1}"),
		"only a total":          fileOf("concurrency: {total: 50}"),
		"a breaker":             fileOf("breaker: off"),
		"a breaker of YAML 1.1": fileOf("breaker: false"),
		"defaults of an order":  fileOf("order: {latest: true}", "batch: {wait: 1s}", "rate: {burst: 5}") + "defaults: {order: row, batch: {max: 3}, rate: {limit: 1/m}}\n",
		"parts of an order":     fileOf() + "defaults: {order: {on_dead: block}, batch: {bytes: 1KiB}, rate: {burst: 5}}\n",
		"parts put together":    fileOf("order: {by: [a]}", "batch: {max: 3}", "rate: {limit: 1/m}") + "defaults: {order: {on_dead: block}, batch: {bytes: 1KiB}, rate: {burst: 5}}\n",
		"nats":                  natsFile(`url: "nats://a:4222,tls://b", subject: "orders.$new.id"`),
		"all of nats":           natsFile(`url: "${U}", subject: "a.${new.b}.c", stream: S, creds: "${file:/c}", headers: {X: "$new.a"}, body: {a: $new.b}, secret: "${S}", timeout: 5s, tls: {ca_file: /a}`),
		"defaults of nats":      "defaults: {nats: {url: 'nats://a', user: a, password: '${P}'}}\n" + natsFile("subject: a.b, format: cloudevents-binary"),
		"defaults of both":      "defaults: {nats: {url: 'nats://a'}, webhook: {timeout: 5s}}\n" + natsFile("subject: a.b"),
		"defaults are nats":     "defaults: {nats: {url: 'nats://a', subject: a.$id}}\ntriggers: [{name: a, table: t, on: {insert: true}}]\n",
		"exponential and never": fileOf("retry: {backoff: exponential}", "notify: never", "capture: rows", "on_replication: true", "concurrency: 3"),
	}
	for name, text := range good {
		_, err := config.Parse("rowhook.yaml", []byte(text))
		require.NoError(t, err, name)
		require.NoError(t, validate(text), name)
	}
	bad := map[string]string{
		"no triggers key":        "retention: {delivered: 1d}\n",
		"unknown key at the top": fileOf() + "x: 1\n",
		"unknown key":            fileOf("x: 1"),
		"unknown inner key":      fileOf("retry: {x: 1}"),
		"table and tables":       fileOf("tables: [a.b]"),
		"except beside table":    fileOf("except: [a.b]"),
		"follow beside table":    fileOf("follow: false"),
		"a pattern with no name": manyOf(`tables: ["a_*"]`),
		"tables twice":           manyOf("tables: [a.b, a.b]"),
		"no tables":              manyOf("tables: []"),
		"no table":               "triggers: [{name: a, on: {insert: true}, webhook: {url: https://e.com}}]\n",
		"no url":                 fileOf("webhook: {timeout: 1s}"),
		"an empty url":           fileOf("webhook: {url: ''}"),
		"a bad name":             fileOf("name: 1a"),
		"a long name":            fileOf("name: " + strings.Repeat("x", 43)),
		"a number for a name":    fileOf("name: 1"),
		"a bad table":            fileOf("table: a.b.c"),
		"nothing on":             fileOf("on: {}"),
		"all off":                fileOf("on: {insert: false, update: false, delete: false}"),
		"a list of updates":      fileOf("on: {update: [a]}"),
		"numbers of a kind":      fileOf("payload: {numbers: string}"),
		"an old row of a kind":   fileOf("payload: {old: some}"),
		"no columns":             fileOf("on: {update: {columns: []}}"),
		"no column list":         fileOf("on: {update: {}}"),
		"a column twice":         fileOf("payload: {columns: [a, a]}"),
		"an empty payload":       fileOf("payload: {columns: []}"),
		"an empty mask":          fileOf("payload: {mask: []}"),
		"a path twice":           fileOf("payload: {mask: [a.b, a.b]}"),
		"an empty condition":     fileOf("when: ''"),
		"a bad header name":      fileOf("webhook: {url: https://e.com, headers: {'a b': c}}"),
		"a number in a header":   fileOf("webhook: {url: https://e.com, headers: {a: 1}}"),
		"a duration in seconds":  fileOf("retry: {interval: 10}"),
		"a negative duration":    fileOf("retry: {interval: -1s}"),
		"an empty duration":      fileOf("retry: {interval: ''}"),
		"a duration with space":  fileOf("retry: {interval: 1 h}"),
		"a duration backwards":   fileOf("retry: {interval: 1h2d}"),
		"no timeout":             fileOf("webhook: {url: https://e.com, timeout: 0}"),
		"no timeout, as text":    fileOf("webhook: {url: https://e.com, timeout: '0'}"),
		"a negative limit":       fileOf("retry: {limit: -1}"),
		"a limit as text":        fileOf("retry: {limit: '1'}"),
		"a limit too high":       fileOf("retry: {limit: 2147483647}"),
		"a bad backoff":          fileOf("retry: {backoff: Fixed}"),
		"a bad capture":          fileOf("capture: row"),
		"a bad notify":           fileOf("notify: x"),
		"negative concurrency":   fileOf("concurrency: -1"),
		"yes for true":           fileOf("on_replication: yes"),
		"an empty TLS file":      fileOf("webhook: {url: https://e.com, tls: {ca_file: ''}}"),
		"an empty scope":         fileOf("webhook: {url: https://e.com, oauth2: {token_url: https://a, client_id: a, client_secret: b, scopes: ['']}}"),
		"scopes twice":           fileOf("webhook: {url: https://e.com, oauth2: {token_url: https://a, client_id: a, client_secret: b, scopes: [a, a]}}"),
		"an unknown OAuth key":   fileOf("webhook: {url: https://e.com, oauth2: {token_url: https://a, client_id: a, client_secret: b, scope: a}}"),
		"an unknown TLS key":     fileOf("webhook: {url: https://e.com, tls: {insecure: true}}"),
		"network as a list":      fileOf() + "network: [private]\n",
		"a denial twice":         fileOf() + "network: {deny: [private, private]}\n",
		"a denial as text":       fileOf() + "network: {deny: private}\n",
		"retention as text":      fileOf() + "retention: 7d\n",
		"an alert to nowhere":    fileOf() + "alerts: [{on: [dead]}]\n",
		"an alert and heartbeat": fileOf() + "alerts: [{url: http://e, heartbeat: http://e}]\n",
		"a heartbeat of trouble": fileOf() + "alerts: [{heartbeat: http://e, on: [dead]}]\n",
		"an alert each minute":   fileOf() + "alerts: [{url: http://e, every: 1m}]\n",
		"an unknown trouble":     fileOf() + "alerts: [{url: http://e, on: [slow]}]\n",
		"an alert of nothing":    fileOf() + "alerts: [{url: http://e, on: []}]\n",
		"an unknown format":      fileOf() + "alerts: [{url: http://e, format: teams}]\n",
		"alerts as a group":      fileOf() + "alerts: {url: http://e}\n",
		"an order of a column":   fileOf("order: customer_id"),
		"an order as a list":     fileOf("order: [a]"),
		"an order without a key": fileOf("order: {strict: true}"),
		"an order by no column":  fileOf("order: {by: []}"),
		"an order by a name":     fileOf("order: {by: a}"),
		"no order, as false":     fileOf("order: false"),
		"a bad end":              fileOf("order: {by: row, on_dead: wait}"),
		"a batch as a number":    fileOf("batch: 100"),
		"a batch of one":         fileOf("batch: {max: 1}"),
		"a batch too large":      fileOf("batch: {max: 10001}"),
		"a batch of no events":   fileOf("batch: {bytes: 1MiB}"),
		"a batch of few bytes":   fileOf("batch: {max: 2, bytes: 0}"),
		"a batch of many bytes":  fileOf("batch: {max: 2, bytes: 65MiB}"),
		"a rate as a text":       fileOf("rate: 50/s"),
		"a rate as a number":     fileOf("rate: {limit: 50}"),
		"a rate of nothing":      fileOf("rate: {limit: 0/s}"),
		"a rate a day":           fileOf("rate: {limit: 5/d}"),
		"a burst without rate":   fileOf("rate: {burst: 5}"),
		"a burst of none":        fileOf("rate: {limit: 5/s, burst: 0}"),
		"an unknown concurrency": fileOf("concurrency: {all: 5}"),
		"a bad breaker":          fileOf("breaker: auto"),
		"a schedule of one wait": fileOf("retry: {schedule: 5s}"),
		"no schedule":            fileOf("retry: {schedule: []}"),
		"statuses as a list":     fileOf("retry: {statuses: [404]}"),
		"a status of success":    fileOf("retry: {statuses: {204: retry}}"),
		"an unknown status":      fileOf("retry: {statuses: {4xx: dead}}"),
		"a delivered status":     fileOf("retry: {statuses: {404: delivered}}"),
		"an age of nothing":      fileOf("retry: {max_age: 0}"),
		"a delay as a number":    fileOf("delay: 5"),
		"an own size":            fileOf("retention: {max_size: 1GiB}"),
		"a null":                 fileOf("retry: null"),
		"defaults null":          fileOf() + "defaults:\n",
		"defaults as a list":     fileOf() + "defaults: []\n",
		"a default name":         fileOf() + "defaults: {name: a}\n",
		"a default table":        fileOf() + "defaults: {table: a}\n",
		"an unknown default":     fileOf() + "defaults: {network: {}}\n",
		"a bad default":          fileOf() + "defaults: {retry: {limit: -1}}\n",
		"webhook and nats":       fileOf("nats: {url: 'nats://a', subject: b}"),
		"nats without a url":     natsFile("subject: b"),
		"nats without a subject": natsFile("url: 'nats://a'"),
		"an unknown key of nats": natsFile("url: 'nats://a', subject: b, bucket: c"),
		"a bad stream":           natsFile("url: 'nats://a', subject: b, stream: a.b"),
		"half of nats":           "defaults: {nats: {url: 'nats://a'}}\ntriggers: [{name: a, table: t, on: {insert: true}}]\n",
		"defaults without a url": "defaults: {webhook: {timeout: 1s}}\ntriggers: [{name: a, table: t, on: {insert: true}}]\n",
		"defaults without on":    "defaults: {webhook: {url: https://e.com}}\ntriggers: [{name: a, table: t}]\n",
	}
	for name, text := range bad {
		_, err := config.Parse("rowhook.yaml", []byte(text))
		require.Error(t, err, name)
		require.Error(t, validate(text), name)
	}
}

func TestJSONSchemaDescribesEveryKeyOnce(t *testing.T) {
	t.Parallel()
	data, err := config.JSONSchema()
	require.NoError(t, err)
	var schema any
	require.NoError(t, json.Unmarshal(data, &schema))
	seen := map[string]string{}
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			if properties, ok := v["properties"].(map[string]any); ok {
				for name, p := range properties {
					p, ok := p.(map[string]any)
					require.True(t, ok)
					doc, described := p["description"].(string)
					if !described {
						continue // an alternative in an anyOf; another one has the description
					}
					require.NotEmpty(t, doc, path+"."+name)
					require.Empty(t, seen[doc], "%s.%s has the description of another key", path, name)
					seen[doc] = path + "." + name
				}
			}
			for name, inner := range v {
				walk(path+"."+name, inner)
			}
		case []any:
			for _, inner := range v {
				walk(path+"[]", inner)
			}
		}
	}
	walk("", schema)
	require.Len(t, seen, 129)
}
