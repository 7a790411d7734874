package hasura_test

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/importer"
	"github.com/rowhook/rowhook/internal/importer/hasura"
	"github.com/rowhook/rowhook/internal/importer/importertest"
)

// directory writes files below a new directory.
func directory(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	return dir
}

// said requires a line of the report with all of these words.
func said(t *testing.T, result *importer.Result, kind importer.Kind, words ...string) {
	t.Helper()
	require.True(t, slices.ContainsFunc(result.Report.Findings, func(f importer.Finding) bool {
		return f.Kind == kind && !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(f.String(), w) })
	}), "%s %q is not in\n%s", kind, words, printed(result))
}

func TestDirectoriesOfOddShapesAreRead(t *testing.T) {
	t.Parallel()
	dir := directory(t, map[string]string{
		"project/config.yaml":           "version: 3\nmetadata_directory: meta\n",
		"project/meta/version.yaml":     "version: 3\n",
		"project/meta/actions.yaml":     "actions: []\n",
		"project/meta/databases/d.yaml": "not: read\n",
		"project/meta/databases/databases.yaml": "- name: main\n  kind: postgres\n  tables: \"!include main/tables/tables.yaml\"\n  functions: \"!include main/functions.yaml\"\n" +
			"- {name: logs, kind: postgres, tables: !include logs.yaml}\n- {name: old, kind: mssql, tables: [{table: {schema: dbo, name: t}, event_triggers: [{name: in_old, definition: {insert: {columns: '*'}}, webhook: 'http://x'}]}]}\n",
		"project/meta/databases/logs.yaml": "[{table: {name: log, schema: public}, event_triggers: [{name: logged, definition: {insert: {columns: '*'}}, webhook: 'http://logs.example/{{STAGE}}'}]}]\n",
		"project/meta/databases/main/tables/tables.yaml": "- \"!include public_users.yaml\"\n- \"!include '../my tables/Odd Name.yaml'\"\n- \"!include  ./empty.yaml\"\n- '!include null.yaml'\n" +
			"- !include \"../my tables/second.yaml\"\n",
		"project/meta/databases/main/tables/public_users.yaml": `table: {name: users, schema: public}
object_relationships: []
event_triggers:
  - name: UserCreated
    definition:
      delete: null
      enable_manual: true
      insert: {columns: '*', payload: null}
      update: null
    retry_conf: &retry
      num_retries: 3
      interval_sec: 15
      timeout_sec: 30
    webhook: '{{EVENTS_HOST}}/users/{{ STAGE }}?src=hasura&x={{X}}'
    headers: &headers
      - name: x-api-key
        value_from_env: ACTION_SECRET
    cleanup_config: null
    request_transform: null
  - name: users_updated
    definition:
      update: {columns: [email, "full name", Größe, 'a"b'], payload: '*'}
    retry_conf: {<<: *retry, num_retries: 0}
    webhook_from_env: EVENTS_URL
    headers: []
    comment: |
      What happens when a user's
      e-mail changes
  - name: users_gone
    definition: {delete: {columns: [id], payload: [id]}}
    headers: null
    retry_conf: null
    webhook: https://user:pa55w0rd@api.example.com:8443/hook#frag
`,
		"project/meta/databases/main/my tables/Odd Name.yaml":  "table: {name: Odd Name, schema: My-Schema}\nevent_triggers: \"!include ../tables/odd_triggers.yaml\"\n",
		"project/meta/databases/main/my tables/second.yaml":    "table: [shop, items]\nevent_triggers:\n- !include one.yaml\n",
		"project/meta/databases/main/my tables/one.yaml":       "name: item-sold\ndefinition: {insert: {columns: '*'}}\nwebhook: \"{{HOST}}:{{PORT}}/x\"\n",
		"project/meta/databases/main/tables/odd_triggers.yaml": "- {name: Odd, definition: {insert: {columns: '*'}}, webhook: '{{A}}{{B}}', retry_conf: {num_retries: '3', interval_sec: 1.0}}\n",
		"project/meta/databases/main/tables/empty.yaml":        "table: {name: empty, schema: public}\nevent_triggers: []\n",
		"project/meta/databases/main/tables/null.yaml":         "table: {name: 'null', schema: public}\nevent_triggers:\n",
	})
	var files []string
	for _, at := range []string{"project", "project/meta", "project/meta/databases", "project/meta/databases/databases.yaml"} {
		imp, err := hasura.Path(filepath.Join(dir, at), hasura.Options{})
		result := importertest.Finish(t, imp, err)
		require.Len(t, result.Triggers, 5, at)
		_, body, _ := strings.Cut(string(result.File), "triggers:\n")
		files = append(files, body)
		said(t, result, importer.Skipped, "logged", "logs.yaml:1", "--source logs")
		said(t, result, importer.Skipped, "in_old", "kind mssql")
		said(t, result, importer.Note, "users_gone", "definition.delete.columns", "no effect")
		said(t, result, importer.Note, "users_gone", "webhook", "behind a #")
		require.NotContains(t, string(result.File)+printed(result), "pa55w0rd")
	}
	require.Equal(t, files[0], files[3])
	imp, err := hasura.Path(filepath.Join(dir, "project"), hasura.Options{})
	all := importertest.Finish(t, imp, err).Triggers
	require.Equal(t, []any{"UserCreated", "public.users", "${EVENTS_HOST}/users/${STAGE}?src=hasura&x=${X}", "${ACTION_SECRET}", 3}, []any{all[0].Name, all[0].Table, all[0].Webhook.URL, all[0].Webhook.Headers["x-api-key"], all[0].Retry.Limit})
	require.True(t, all[0].On.Manual && all[0].On.Insert && !all[0].On.Delete)
	require.Equal(t, []any{0, "15s", "30s", []string{"email", "full name", "Größe", `a"b`}}, []any{all[1].Retry.Limit, all[1].Retry.Interval.String(), all[1].Webhook.Timeout.String(), all[1].On.Update.Columns})
	require.Equal(t, []any{"Odd", `"My-Schema"."Odd Name"`, "${A}${B}", 3, "1s"}, []any{all[3].Name, all[3].Table, all[3].Webhook.URL, all[3].Retry.Limit, all[3].Retry.Interval.String()})
	require.Equal(t, []any{"item-sold", "shop.items", "${HOST}:${PORT}/x"}, []any{all[4].Name, all[4].Table, all[4].Webhook.URL})
}

// withTransform returns metadata with a trigger for each request_transform.
func withTransform(t *testing.T, transforms map[string]string) *importer.Result {
	t.Helper()
	var triggers []string
	for _, name := range slices.Sorted(maps.Keys(transforms)) {
		triggers = append(triggers, `{"name": "`+name+`", "definition": {"insert": {"columns": "*"}}, "webhook": "{{BASE}}", "request_transform": `+transforms[name]+`}`)
	}
	imp, err := hasura.Read("metadata.json", strings.NewReader(`{"version": 3, "sources": [{"name": "default", "kind": "postgres", "tables": [{"table": {"schema": "public", "name": "orders"}, "event_triggers": [`+
		"\n"+strings.Join(triggers, ",\n")+`]}]}]}`), hasura.Options{})
	result := importertest.Finish(t, imp, err)
	require.Len(t, result.Triggers, len(transforms))
	return result
}

func TestTemplatesBeyondReachAreNamedWithTheirTrigger(t *testing.T) {
	t.Parallel()
	quote := func(template string) string {
		text, err := json.Marshal(template)
		require.NoError(t, err)
		return `{"version": 2, "template_engine": "Kriti", "body": {"action": "transform", "template": ` + string(text) + `}}`
	}
	templates := map[string]string{
		"if": `{"a": {{ if $body.event.op == "INSERT" }} 1 {{ else }} 2 {{ end }}}`, "range": `{{ range i, x := $body.event.data.new.tags }} {{x}} {{ end }}`,
		"tojson": `{"t": {{ toJson($body.event.data.new) }} }`, "lower": `{"t": {{ toLower($body.event.data.new.a) }} }`, "nulls": `{{removeNulls($body.event.data.new)}}`,
		"equal": `{{ $body.event.data.new.a == 1 }}`, "not": `{"d": {{ not $body.event.data.new.x }} }`, "other": `{"a": {{$body.event.data.new.id ?? $body.event.data.old.id}}}`,
		"empty": ``, "form": `a={{$body.event.data.new.id}}&b=c`, "escape": `{"a": {{ escapeUri($body.event.data.new.a) }} }`, "lists": `{{ concat([$body.event.data.new.a, $body.event.data.new.b]) }}`,
	}
	transforms := map[string]string{}
	for name, template := range templates {
		transforms[name] = quote(template)
	}
	result := withTransform(t, transforms)
	for name := range templates {
		said(t, result, importer.NotCarried, name+": metadata.json:", "request_transform.body.template", "placeholders can't do", "the usual body is sent")
	}
	for _, s := range result.Triggers {
		require.Empty(t, s.Webhook.Body, s.Name)
	}
	require.Equal(t, len(templates), strings.Count(string(result.File), "# request_transform.body.template has"))
}

func TestRequestsOfOddTransforms(t *testing.T) {
	t.Parallel()
	result := withTransform(t, map[string]string{
		"concat":   `{"version": 2, "template_engine": "Kriti", "body": {"action": "transform", "template": "{\"t\": {{ concat([\"Order \", $body.event.data.new.no, \"!\"]) }}, \"u\": \"<{{ concat([$body.event.op, ' by ', 'us']) }}>\"}"}, "url": "{{$base_url}}/{{concat(['x-', $body.event.data.new.id])}}"}`,
		"get":      `{"version": 2, "method": "get", "body": {"action": "remove"}, "request_headers": {"remove_headers": ["content-type", "User-Agent", "X-Nope"], "add_headers": {"X-A": "{{$body.event.data.new.id}}"}}}`,
		"text":     `{"version": 2, "query_params": "?a=1&b={{$body.event.data.new.id}}&c={{ if true }}x{{ end }}"}`,
		"map":      `{"version": 2, "query_params": {"a": "1", "n": null, "num": 5, "{{$body.x}}": "y"}}`,
		"computed": `{"version": 2, "query_params": "{{$body.event.data.new.q}}"}`,
		"fields":   `{"version": 2, "body": {"action": "x_www_form_urlencoded", "form_template": {"id": "{{$body.event.data.new.id}}", "x": "{{ if true }}1{{end}}", "y": "a b & c"}}}`,
		"v1form":   `{"content_type": "application/x-www-form-urlencoded", "body": "{\"a\": {{$body.event.data.new.id}}}"}`,
		"nulls":    `{"version": 2, "template_engine": "Kriti", "method": null, "url": null, "query_params": {}, "body": null, "content_type": null, "request_headers": {"add_headers": {}, "remove_headers": []}}`,
		"head":     `{"version": 2, "method": "HEAD"}`,
		"engine":   `{"version": 2, "template_engine": "Jinja", "url": "{{$base_url}}/a"}`,
		"newer":    `{"version": 3, "new_key": 1, "body": {"action": "compress", "level": 3}}`,
	})
	all := map[string]int{}
	for i, s := range result.Triggers {
		all[s.Name] = i
	}
	concat := result.Triggers[all["concat"]].Webhook
	require.Equal(t, `{"t":"Order ${new.no ?? \"null\"}!","u":"<${event.op} by us>"}`, string(concat.Body))
	require.Equal(t, "${BASE}/x-${new.id}", concat.URL)
	get := result.Triggers[all["get"]].Webhook
	require.Equal(t, []any{"GET", "", map[string]string{"X-A": `${new.id ?? "null"}`}}, []any{get.Method, string(get.Body), get.Headers})
	said(t, result, importer.Note, "get", "content-type", "does not send without a body")
	said(t, result, importer.NotCarried, "get", "User-Agent")
	require.Equal(t, map[string]string{"a": "1", "b": "$new.id"}, result.Triggers[all["text"]].Webhook.Query)
	said(t, result, importer.NotCarried, "text", "query_params", "condition")
	require.Equal(t, map[string]string{"a": "1", "n": "", "num": "5"}, result.Triggers[all["map"]].Webhook.Query)
	said(t, result, importer.Differs, "map", "query_params.n", "is null")
	said(t, result, importer.NotCarried, "map", "a name that is computed")
	said(t, result, importer.NotCarried, "computed", "computed as a whole")
	require.Equal(t, map[string]string{"id": `${new.id ?? "null"}`, "y": "a b & c"}, result.Triggers[all["fields"]].Webhook.Form)
	said(t, result, importer.NotCarried, "fields", "form_template.x")
	require.Empty(t, result.Triggers[all["v1form"]].Webhook.Headers, "JSON is not sent as a form")
	said(t, result, importer.NotCarried, "v1form", "content_type", "asks for a form")
	said(t, result, importer.NotCarried, "head", `"HEAD"`)
	said(t, result, importer.NotCarried, "engine", `"Jinja"`)
	said(t, result, importer.NotCarried, "newer", "new_key")
	said(t, result, importer.NotCarried, "newer", `action "compress"`)
	said(t, result, importer.Differs, "newer", "version")
	require.False(t, slices.ContainsFunc(result.Report.Findings, func(f importer.Finding) bool { return f.Trigger == "nulls" }), "nothing is lost of a transform without settings")
}

// everySetting is metadata whose every value says something.
const everySetting = `{"version": 3, "sources": [{"name": "default", "kind": "postgres", "tables": [{"table": {"schema": "sales", "name": "orders"}, "event_triggers": [
{"name": "full", "comment": "why",
 "definition": {"enable_manual": true, "insert": {"columns": "*", "payload": ["id", "a"]}, "update": {"columns": ["id", "b"], "payload": ["id"]}, "delete": {"columns": "*", "payload": ["id", "c"]}},
 "webhook": "https://{{HOST}}/in/{{STAGE}}", "trigger_on_replication": true,
 "headers": [{"name": "X-Env", "value_from_env": "TOKEN"}, {"name": "X-Mixed", "value": "a-{{B}}"}, {"name": "Accept", "value": "text/plain"}],
 "retry_conf": {"num_retries": 4, "interval_sec": 11, "timeout_sec": 22, "tolerance_seconds": 33},
 "cleanup_config": {"schedule": "0 0 * * *", "batch_size": 1000, "clear_older_than": 48, "timeout": 60, "clean_invocation_logs": true, "paused": false},
 "request_transform": {"version": 2, "template_engine": "Kriti", "method": "PUT", "url": "{{$base_url}}/o/{{$body.event.data.new.id}}", "query_params": {"q": "1", "r": "{{$body.event.op}}"},
   "request_headers": {"add_headers": {"Accept-Language": "de"}, "remove_headers": ["X-Other"]}, "content_type": "application/json",
   "body": {"action": "transform", "template": "{\"id\": {{$body.event.data.new.id}}}"}},
 "response_transform": {"version": 2, "body": {"action": "transform", "template": "{{$body}}"}}},
{"name": "form", "definition": {"insert": {"columns": "*"}}, "webhook_from_env": "URL",
 "request_transform": {"version": 2, "template_engine": "Kriti", "body": {"action": "x_www_form_urlencoded", "form_template": {"a": "1", "b": "{{$body.event.data.new.id}}"}}}}
]}]}]}`

// leaves calls each with the path of every single value, and a function that puts another one there.
func leaves(tree any, path string, set func(any), each func(path string, value any, set func(any))) {
	switch tree := tree.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(tree)) {
			leaves(tree[key], path+"."+key, func(v any) { tree[key] = v }, each)
		}
	case []any:
		for i := range tree {
			leaves(tree[i], path+"[]", func(v any) { tree[i] = v }, each)
		}
	default:
		each(path, tree, set)
	}
}

// TestNoSettingIsDroppedInSilence changes each value of metadata by itself. The file or the report
// must change, too; otherwise the value was neither carried over nor named.
func TestNoSettingIsDroppedInSilence(t *testing.T) {
	t.Parallel()
	whole := func(tree any) string {
		text, err := json.MarshalIndent(tree, "", " ")
		require.NoError(t, err)
		imp, err := hasura.Read("f", strings.NewReader(string(text)), hasura.Options{})
		if err != nil {
			return err.Error()
		}
		result := importertest.Finish(t, imp, err)
		return string(result.File) + printed(result)
	}
	var tree any
	require.NoError(t, json.Unmarshal([]byte(everySetting), &tree))
	before := whole(tree)
	// The report names these settings, and not their values: when and in what steps Hasura deletes, what
	// it does with answers, and the headers that it does not send. content_type is that of the body.
	named := []string{".cleanup_config.schedule", ".cleanup_config.batch_size", ".cleanup_config.timeout", ".retry_conf.tolerance_seconds", ".response_transform."}
	changed := 0
	leaves(tree, "", nil, func(path string, value any, set func(any)) {
		if !strings.Contains(path, ".table.") && !strings.Contains(path, ".event_triggers") {
			return
		}
		var other any = "other"
		switch v := value.(type) {
		case bool:
			other = !v
		case float64:
			other = v + 1
		case string:
			if other = v + "X"; v == "*" {
				other = []any{"id"}
			}
		}
		set(other)
		after := whole(tree)
		set(value)
		if slices.ContainsFunc(named, func(n string) bool { return strings.Contains(path, n) }) {
			return
		}
		if before == after {
			t.Errorf("%s: %v is neither carried over nor named", path, value)
		}
		changed++
	})
	require.Greater(t, changed, 45)
	for _, setting := range []string{"cleanup_config.schedule, batch_size, timeout", "retry_conf.tolerance_seconds", "response_transform"} {
		require.Contains(t, before, setting)
	}
	require.Equal(t, before, whole(tree), "every value is back")
}
