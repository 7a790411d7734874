package config_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/trigger"
)

// fileOf returns a valid file with one trigger. Lines with a known key replace its lines, and other
// lines are added at the end.
func fileOf(lines ...string) string {
	keys := map[string]string{
		"name": "name: a", "table": "table: public.orders", "on": "on: {insert: true}", "webhook": "webhook: {url: https://e.com/x}",
	}
	var more []string
	for _, line := range lines {
		key, _, _ := strings.Cut(line, ":")
		if _, ok := keys[key]; ok {
			keys[key] = line
		} else {
			more = append(more, line)
		}
	}
	all := append([]string{keys["name"], keys["table"], keys["on"], keys["webhook"]}, more...)
	return "triggers:\n  - " + strings.ReplaceAll(strings.Join(all, "\n"), "\n", "\n    ") + "\n"
}

func parse(t *testing.T, text string) *config.Config {
	t.Helper()
	c, err := config.Parse("rowhook.yaml", []byte(text))
	require.NoError(t, err)
	return c
}

// problemsOf returns the problems of a file, each in one line.
func problemsOf(t *testing.T, text string) []string {
	t.Helper()
	c, err := config.Parse("rowhook.yaml", []byte(text))
	require.Error(t, err, "%s", text)
	require.Nil(t, c)
	configErr, ok := errors.AsType[*config.Error](err)
	require.True(t, ok)
	require.NotEmpty(t, configErr.Problems)
	require.True(t, slices.IsSortedFunc(configErr.Problems, func(a, b config.Problem) int { return a.Line - b.Line }))
	var lines []string
	for _, p := range configErr.Problems {
		lines = append(lines, p.String())
	}
	return lines
}

func TestParseReadsEveryKey(t *testing.T) {
	t.Parallel()
	c := parse(t, `
triggers:
  - name: order_placed
    table: public.orders
    on:
      insert: true
      update: {columns: [status, amount]}
      delete: true
      manual: true
    when: new.amount > 100
    payload: {columns: [id, status, amount]}
    webhook:
      url: ${ORDERS_URL}/hooks/orders
      headers: {Authorization: "Bearer ${ORDERS_TOKEN}"}
      timeout: 10s
      secret: ${ORDERS_SECRET}
    retry: {limit: 7, interval: 1m, backoff: exponential, max_interval: 2h}
    order: {by: [customer_id, region], strict: true, on_dead: block, latest: true}
    batch: {max: 100, bytes: 2MiB, wait: 200ms}
    rate: {limit: 600/m, burst: 20}
    concurrency: {each: 20, total: 50}
    breaker: off
    notify: never
    on_replication: true
retention: {delivered: 1d12h, attempts: 0}
alerts:
  - {on: [failing, backlog], url: "${SLACK_URL}", format: slack, secret: "${ALERT_SECRET}", backlog: {older_than: 1h}}
  - url: https://e.com/alerts
  - {url: "https://e.com/dead", on: [dead]}
  - {heartbeat: "${PING_URL}", every: 30s}
`)
	require.Equal(t, []trigger.Spec{{
		Name: "order_placed", Table: "public.orders",
		On: trigger.On{
			Insert: true, Update: trigger.UpdateOn{Enabled: true, Columns: []string{"status", "amount"}}, Delete: true, Manual: true,
		},
		When:    "new.amount > 100",
		Payload: trigger.Payload{Columns: []string{"id", "status", "amount"}},
		Webhook: trigger.Webhook{
			URL: "${ORDERS_URL}/hooks/orders", Headers: map[string]string{"Authorization": "Bearer ${ORDERS_TOKEN}"},
			Timeout: trigger.Duration(10 * time.Second), Secret: "${ORDERS_SECRET}",
		},
		Retry: trigger.Retry{
			Limit: 7, Interval: trigger.Duration(time.Minute), Backoff: "exponential", MaxInterval: trigger.Duration(2 * time.Hour),
		},
		Order:       trigger.Order{By: []string{"customer_id", "region"}, Strict: true, OnDead: trigger.OnDeadBlock, Latest: true},
		Batch:       trigger.Batch{Max: 100, Bytes: 2 << 20, Wait: trigger.Duration(200 * time.Millisecond)},
		Rate:        trigger.Rate{Limit: trigger.PerTime{N: 600, Time: time.Minute}, Burst: 20},
		Concurrency: 20, ConcurrencyTotal: 50, Breaker: trigger.BreakerOff, Notify: "never", OnReplication: true,
	}}, c.Triggers)
	require.Equal(t, trigger.Settings{Retention: trigger.Retention{Delivered: trigger.Duration(36 * time.Hour)}, Network: trigger.DefaultSettings().Network, Alerts: []trigger.Alert{
		{On: []string{"failing", "backlog"}, URL: "${SLACK_URL}", Format: "slack", Secret: "${ALERT_SECRET}", Backlog: trigger.Backlog{OlderThan: trigger.Duration(time.Hour)}},
		{URL: "https://e.com/alerts", Format: "json", Backlog: trigger.Backlog{OlderThan: trigger.DefaultBacklog}},
		{On: []string{"dead"}, URL: "https://e.com/dead", Format: "json"},
		{Heartbeat: "${PING_URL}", Every: trigger.Duration(30 * time.Second)},
	}}, c.Settings)
	require.Empty(t, c.Warnings)
	variables, files := config.References(c.Triggers[0])
	require.Equal(t, []string{"ORDERS_SECRET", "ORDERS_TOKEN", "ORDERS_URL"}, variables)
	require.Empty(t, files)
}

func TestParseFillsInDefaultsAndKeepsAnExplicitZero(t *testing.T) {
	t.Parallel()
	want := trigger.DefaultSpec()
	want.Name, want.Table, want.On.Insert, want.Webhook.URL = "a", "public.orders", true, "https://e.com/x"
	c := parse(t, fileOf())
	require.Equal(t, []trigger.Spec{want}, c.Triggers)
	require.Equal(t, trigger.DefaultSettings(), c.Settings)

	c = parse(t, fileOf("retry: {limit: 0, interval: 0, max_interval: 0s}")+"retention: {delivered: 0}\n")
	require.Equal(t, trigger.Retry{Backoff: trigger.BackoffExponential}, c.Triggers[0].Retry)
	require.Zero(t, c.Settings.Retention.Delivered)
	require.Equal(t, trigger.DefaultSettings().Retention.Attempts, c.Settings.Retention.Attempts)
}

func TestParseTakesUpdateAsTrueFalseOrColumns(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]trigger.UpdateOn{
		"true":           {Enabled: true},
		"false":          {},
		"{columns: [a]}": {Enabled: true, Columns: []string{"a"}},
	} {
		require.Equal(t, want, parse(t, fileOf("on: {insert: true, update: "+text+"}")).Triggers[0].On.Update)
	}
}

func TestParseAcceptsWhatLooksOdd(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"json":                       `{"triggers": [{"name": "a", "table": "t", "on": {"insert": true}, "webhook": {"url": "http://x"}}]}`,
		"no triggers on purpose":     "triggers: []",
		"document markers":           "---\n" + fileOf() + "...\n---\n# the end\n",
		"windows line ends":          strings.ReplaceAll(fileOf("when: |\n  new.a\n    > 1"), "\n", "\r\n"),
		"old mac line ends":          strings.ReplaceAll(fileOf(), "\n", "\r"),
		"quoted names":               fileOf(`table: '"My Schema"."a""b.c"'`),
		"names of other alphabets":   fileOf("table: läden.größe", "payload: {columns: [größe, '日本']}"),
		"yes and on as columns":      fileOf("payload: {columns: [yes, on, y, n, no, off]}"),
		"brackets in quotes":         fileOf(`when: "new.a = '(' and new.\"x)\" = E'\\'(' and new.b = $q$ ( ; -- $q$ /* ( /* ; */ -- */"`),
		"a slice and a call":         fileOf("when: new.tags[1] = lower(old.tags[2])"),
		"the port from a variable":   fileOf(`webhook: {url: "http://${HOST}:${PORT}/x?y=${Z}"}`),
		"a whole URL from a name":    fileOf("webhook:\n  url: ${URL}"),
		"capitals in the scheme":     fileOf("webhook: {url: HTTPS://E.com}"),
		"an address":                 fileOf(`webhook: {url: "http://[::1]:8080/x"}`),
		"a dollar that is a dollar":  fileOf(`webhook: {url: "https://e.com/$a$${b}"}`),
		"an empty header":            fileOf(`webhook: {url: https://e.com, headers: {X-A: ""}}`),
		"several signing secrets":    fileOf(`webhook: {url: https://e.com, secret: "whsec_c2VjcmV0 whsec_YWI_YWI- other"}`),
		"a long wait, both raised":   fileOf("retry: {interval: 2d, max_interval: 1w}"),
		"empty groups":               fileOf("retry: {}", "payload: {}") + "retention: {}\n",
		"the name at its longest":    fileOf("name: " + strings.Repeat("x", 42)),
		"a condition of many lines":  fileOf("when: |\n  new.a > 1\n  and /* why */ new.b"),
		"a condition, folded":        fileOf("when: >-\n  new.a > 1\n  and new.b"),
		"a comment after everything": fileOf("concurrency: 5 # five"),
	} {
		_, err := config.Parse("rowhook.yaml", []byte(text))
		require.NoError(t, err, name)
	}
}

func TestParseReportsEveryProblemOfAFileAtOnceSortedByLine(t *testing.T) {
	t.Parallel()
	require.Equal(t, []string{
		`rowhook.yaml:2:11: triggers[0].name: "1a" is not a name for a trigger; use 1 to 42 letters, digits, _ and -, starting with a letter or _`,
		`rowhook.yaml:3:5: triggers[0].tabel: unknown key; did you mean table?`,
		`rowhook.yaml:4:18: triggers[0].on.insert: "yes" is text; write insert: true, without quotes`,
		`rowhook.yaml:6:12: triggers[0].webhook.url: the scheme ftp:// is not supported; use http:// or https://`,
		`rowhook.yaml:7:17: triggers[0].webhook.headers["X Y"]: "X Y" is not a header name; use letters, digits and dashes, as in X-Team`,
		`rowhook.yaml:8:20: triggers[0].retry.limit: -1 is too small; write 0 or more`,
		`rowhook.yaml:8:34: triggers[0].retry.interval: 10 has no unit; write 10s for seconds, or use ms, m, h, d or w`,
		`rowhook.yaml:8:47: triggers[0].retry.backoff: "linear" is not a valid value; write fixed or exponential`,
		`rowhook.yaml:9:1: retentoin: unknown key; did you mean retention?`,
	}, problemsOf(t, `triggers:
  - name: 1a
    tabel: public.orders
    on: {insert: yes}
    webhook:
      url: ftp://e.com
      headers: {"X Y": a}
    retry: {limit: -1, interval: 10, backoff: linear}
retentoin: {}
`))
}

// manyOf is fileOf without a table.
func manyOf(lines ...string) string {
	text := strings.Replace(fileOf(), "    table: public.orders\n", "", 1)
	for _, line := range lines {
		text += "    " + line + "\n"
	}
	return text
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	cases := []struct{ name, text, want string }{
		// the file
		{"an empty file", "", "rowhook.yaml: contains no configuration; start with triggers: and an entry, or write triggers: [] for none"},
		{"only comments", "# none\n---\n", "rowhook.yaml: contains no configuration; "},
		{"a list", "- a\n", "1:1: the file is a list, not keys; start with triggers:"},
		{"a text", "hello\n", "1:1: the file is text, not keys; start with triggers:"},
		{"latin-1", "triggers: [] # \xe4\n", "1:16: byte 0xe4 is not UTF-8; save the file as UTF-8"},
		{"UTF-16", "\xff\xfet\x00", "1:1: is UTF-16 text; save it as UTF-8"},
		{"a byte order mark", "\ufefftriggers: []\n", "1:1: starts with a byte order mark; save the file as UTF-8 without one"},
		{"a NUL", fileOf("when: a\x00"), `6:12: control character U+0000 is not allowed; `},
		{"an escaped NUL", fileOf(`when: "a\0"`), `triggers[0].when: contains a character that Postgres can't store`},
		{"an escape sequence", fileOf("when: \x1b[31m"), `6:11: control character U+001B is not allowed; `},
		{"two documents", fileOf() + "---\n" + fileOf(), "6:1: a second YAML document starts here; keep one"},
		{"a directive", "%YAML 1.2\n---\n" + fileOf(), "1:1: YAML directives (lines that start with %) are not supported; remove the line"},
		{"deep nesting", strings.Repeat("[", 100000), "1:51: is nested more than 50 levels deep; check the brackets"},
		{"deep nesting by dashes", strings.Repeat("- ", 100000), "1:101: is nested more than 50 levels deep; check"},
		// YAML
		{"a tab", "triggers:\n\t- name: a\n", "2:1: a tab is used to indent; indent with spaces"},
		{"an anchor", fileOf("payload: &p {columns: [a]}"), "6:14: triggers[0].payload: YAML anchors are not supported; "},
		{"an alias", fileOf("payload: *p"), "6:14: triggers[0].payload: YAML aliases are not supported; "},
		{"a merge", fileOf("<<: *p"), "6:5: triggers[0]: YAML merge keys (<<) are not supported; "},
		{"a tag", fileOf("when: !new.paid"), "6:11: triggers[0].when: YAML tags are not supported; "},
		{"a complex key", "? a\n: b\n", "1:1: a key that starts with ? is not supported; "},
		{"a duplicate key", fileOf("retry: {limit: 1, limit: 2}"), "6:23: triggers[0].retry.limit: is given twice; keep one (the first is on line 6)"},
		{"text after a quote", fileOf(`when: "new"."a" > 1`), "6:16: there is more text after the closing quote; put the whole value in single quotes"},
		{"a colon in a value", fileOf("when: new.a = 'b: c'"), "6:11: a colon makes this a key where no key can be; check the indentation, and put a value that contains a colon"},
		{"a bare reference in braces", fileOf("webhook: {url: ${U}}"), "5:21: inside { } and [ ] a value that contains ${NAME} needs quotes; "},
		{"a brace that stays open", fileOf("webhook: {url: x"), "5:14: this { is never closed; add the }"},
		{"a bracket that stays open", "triggers: [", "1:11: this [ is never closed; add the ]"},
		{"a line after an open bracket", "triggers: [a\nb: 1", "2:1: inside [ ] a comma or the closing ] is missing; check"},
		{"a wrong indent", fileOf() + "   x: 1\n", "6:4: the indentation matches no line above; align"},
		{"no colon", fileOf() + "    foo bar\n", "6:5: this is not a key with a value; write key: value"},
		{"a quote that stays open", fileOf(`when: "x`), `this double quote is never closed; add the closing "`},
		{"a reserved character", fileOf("when: @x"), "a value can't start with @ or `; put the value in quotes"},
		// keys
		{"no triggers", "retention: {delivered: 1d}\n", "1:1: triggers: is missing; start each entry under it with a dash"},
		{"triggers without a value", "triggers:\n", "1:1: triggers: has no value; start each entry under it with a dash"},
		{"a key without a value", fileOf("retry:"), "6:5: triggers[0].retry: has no value; write it like retry: {limit: 5}, or remove it"},
		{"a dash without a value", "triggers:\n  -\n", "2:3: triggers[0]: has no value; "},
		{"no space after the dash", "triggers:\n  -name: a\n", "2:3: triggers: is a group of keys where a list is needed; start each entry under it with a dash and a space"},
		{"a key of another level", fileOf("url: x"), "6:5: triggers[0].url: unknown key in triggers[0]; it belongs in nats or webhook, indent it under that"},
		{"a trigger's key at the top", fileOf() + "table: x\n", "6:1: table: unknown key here; it belongs to an entry of triggers"},
		{"a top key in a trigger", fileOf("network: {}"), "6:5: triggers[0].network: unknown key in triggers[0]; it belongs at the top of the file"},
		{"a key of another group", fileOf("concurrency: {max: 3}"), "triggers[0].concurrency.max: unknown key; the keys in triggers[0].concurrency are each, total; if max of batch is meant, indent it under that"},
		{"a webhook's key in an alert", fileOf() + "alerts: [{url: 'https://e.com', headers: {A: b}}]\n", "alerts[0].headers: unknown key; the keys in alerts[0] are on, url, "},
		{"a key of an alert's group", fileOf() + "alerts: [{url: 'https://e.com', older_than: 5m}]\n", "alerts[0].older_than: unknown key in alerts[0]; it belongs in backlog, indent it under that"},
		{"an alert's secret that is not base64", fileOf() + "alerts: [{url: 'https://e.com', secret: whsec_%%}]\n", "alerts[0].secret: the part after whsec_ is not base64; "},
		{"bytes without a unit", fileOf("batch: {max: 5, bytes: 10}"), `triggers[0].batch.bytes: "10" is not a size; write a whole number with the unit KiB or MiB and no space between, from 1KiB to 64MiB, as in 256KiB or 1MiB`},
		{"another engine's key", fileOf("filter: x"), "6:5: triggers[0].filter: unknown key; Rowhook calls it when: ..."},
		{"a key in capitals", fileOf("When: x"), "6:5: triggers[0].When: unknown key; did you mean when?"},
		{"a key like no other", fileOf("enabled: true"), "6:5: triggers[0].enabled: unknown key; the keys in triggers[0] are name, table, tables, except, follow, for, on, "},
		// values
		{"the same name twice", fileOf() + strings.TrimPrefix(fileOf(), "triggers:\n"), `6:11: triggers[1].name: "a" is the name of another trigger, on line 2; `},
		{"a name with a space", fileOf("name: order placed"), `2:11: triggers[0].name: "order placed" is not a name for a trigger; `},
		{"a long name", fileOf("name: " + strings.Repeat("x", 43)), "2:11: triggers[0].name: "},
		{"an empty name", fileOf(`name: ""`), "2:11: triggers[0].name: is empty; "},
		{"a number for a name", fileOf("name: 7"), `2:11: triggers[0].name: is the number 7 where text is needed; put it in quotes: "7"`},
		{"a table of three parts", fileOf("table: db.public.orders"), `3:12: triggers[0].table: "db.public.orders" is not the name of a table; `},
		{"a table with a space", fileOf("table: Order Items"), `3:12: triggers[0].table: "Order Items" is not the name of a table; write schema.table`},
		{"table and tables", fileOf(`tables: ["s.*"]`), "6:13: triggers[0].tables: is beside table, and a trigger has one of the two; move the table into the list, or remove one of the keys"},
		{"except beside table", fileOf("except: [s.t]"), "triggers[0].except: is of use with tables alone, and this trigger watches one table; remove it, or write tables: [...] instead of table"},
		{"follow beside table", fileOf("follow: true"), "triggers[0].follow: is of use with tables alone"},
		{"follow of names", manyOf("tables: [s.t]", "follow: true"), "triggers[0].follow: is of use with a pattern in tables, and these are names; remove it, or write a pattern such as \"billing.*\""},
		{"a table that is left out", manyOf(`tables: [s.t, "s.*"]`, "except: [s.t]"), "triggers[0].except[0]: is in tables, too; remove one of the two"},
		{"an exception without a schema", manyOf(`tables: ["s.*"]`, "except: [t]"), "triggers[0].except[0]: has no schema, so it could be any; write it as in billing.drafts"},
		{"a pattern without a schema", manyOf(`tables: ["order_*"]`), `triggers[0].tables[0]: "order_*" is not the name of a table or a pattern; write schema.table, or a pattern with its schema, as in "billing.*"`},
		{"a pattern in quotes of SQL", manyOf(`tables: ['"s"x.*']`), `triggers[0].tables[0]: "\"s\"x.*" is not the name of a table or a pattern`},
		{"Rowhook's own tables", manyOf(`tables: ["rowhook.*"]`), "triggers[0].tables[0]: this is one of Rowhook's own tables"},
		{"no tables", manyOf("tables: []"), "triggers[0].tables: is empty; write it like tables: [public.orders, \"billing.*\"]"},
		{"tables as text", manyOf("tables: s.t"), "triggers[0].tables: is text where a list is needed"},
		{"a table twice", manyOf("tables: [s.t, s.t]"), `triggers[0].tables[1]: "s.t" is listed twice; keep one`},
		{"neither table nor tables", manyOf(), "2:5: triggers[0].table: is missing; write it like table: public.orders"},
		{"patterns of others", fileOf("exclude: [s.t]"), "unknown key; Rowhook calls it except: [...], beside tables"},
		{"a table from a variable", fileOf("table: ${T}"), "3:12: triggers[0].table: ${NAME} is not read here, only in a webhook's url, query, headers, body, form and secret"},
		{"a table of Rowhook's", fileOf("table: RowHook.event_log"), "3:12: triggers[0].table: this is one of Rowhook's own tables"},
		{"a table name too long", fileOf("table: " + strings.Repeat("ü", 32)), "has 64 bytes, and Postgres keeps only 63"},
		{"on as a word", fileOf("on: insert"), "4:9: triggers[0].on: is text where keys are needed; write on: {insert: true}"},
		{"on as a list", fileOf("on: [insert, DELETE]"), "4:9: triggers[0].on: is a list where keys are needed; write on: {insert: true, delete: true}"},
		{"on with nothing set", fileOf("on: {insert: false, update: false}"), "4:9: triggers[0].on: captures nothing; set insert, update, delete, truncate or manual to true"},
		{"update as a list", fileOf("on: {update: [a, b]}"), "4:18: triggers[0].on.update: is a list; write update: {columns: [a, b]}"},
		{"update without columns", fileOf("on: {update: {}}"), "triggers[0].on.update.columns: is missing; write it like columns: [status, amount]"},
		{"update with no columns", fileOf("on: {update: {columns: []}}"), "4:28: triggers[0].on.update.columns: is empty; write it like columns: [status, amount]"},
		{"a column twice", fileOf("on: {update: {columns: [a, b, a]}}"), `4:35: triggers[0].on.update.columns[2]: "a" is listed twice; keep one`},
		{"a column in SQL quotes", fileOf(`payload: {columns: ['"A"']}`), `triggers[0].payload.columns[0]: "\"A\"" has SQL quotes around it; write the name of the column alone, as in A`},
		{"payload with no columns", fileOf("payload: {columns: []}"), "6:24: triggers[0].payload.columns: is empty; write it like columns: [id, status]"},
		{"a mask of nothing", fileOf("payload: {mask: []}"), "6:21: triggers[0].payload.mask: is empty; write it like mask: [email, \"address.*\"]"},
		{"a mask of an element", fileOf("payload: {mask: [id, tags.0]}"), `6:26: triggers[0].payload.mask[1]: "0" is no element of an array; write * for every element, or "0" in double quotes for a member of that name`},
		{"a mask with a star in a name", fileOf(`payload: {mask: ["e*"]}`), `triggers[0].payload.mask[0]: "e*" has a * within a name; write * alone for every member, or the name in double quotes`},
		{"a mask that ends in a dot", fileOf("payload: {mask: [a.]}"), "triggers[0].payload.mask[0]: has a part without a name; write a column, or a column and a member of it, as in email or address.city"},
		{"a number for a column", fileOf("payload: {columns: [1]}"), `triggers[0].payload.columns[0]: is the number 1 where text is needed; put it in quotes: "1"`},
		{"no columns of an operation", fileOf("payload: {insert: {}}"), "6:23: triggers[0].payload.insert: names no columns; write it like insert: {columns: [id, status]}, or remove it"},
		{"a list for an operation", fileOf("payload: {insert: [id]}"), "6:23: triggers[0].payload.insert: is a list where keys are needed; write it like insert: {columns: [id, status]}"},
		{"columns of what is not captured", fileOf("payload: {delete: {columns: [id]}}"), "6:23: triggers[0].payload.delete: is for deletes, which the trigger does not capture; add delete: true to on, or remove it"},
		{"an old row without updates", fileOf("payload: {old: none}"), "6:20: triggers[0].payload.old: is for updates, which the trigger does not capture; add update: true to on, or remove it"},
		{"changed columns without updates", fileOf("payload: {changed: true}"), "6:24: triggers[0].payload.changed: is for updates, which the trigger does not capture; add update: true to on, or remove it"},
		{"an old row of another kind", fileOf("on: {update: true}", "payload: {old: some}"), `6:20: triggers[0].payload.old: "some" is not a valid value; write all or changed or none`},
		{"numbers of another kind", fileOf("payload: {numbers: string}"), `6:24: triggers[0].payload.numbers: "string" is not a valid value; write json or text`},
		{"changes of several operations sent as one", fileOf("on: {insert: true, update: true}", "payload: {update: {columns: [id]}}", "order: {by: row, latest: true}"),
			"6:23: triggers[0].payload.update: order.latest sends changes of several operations as one, so all operations need the same columns; write payload: {columns: [...]}, or remove latest"},
		{"a condition on the rows of a TRUNCATE", fileOf("on: {truncate: true}", "when: new.a > 1"), "6:11: triggers[0].when: has no row to look at, since a TRUNCATE has none and the trigger captures no other change; remove it"},
		{"an order of TRUNCATE", fileOf("on: {truncate: true}", "order: row"), "6:12: triggers[0].order: has nothing to order: the trigger captures no rows, whose events have keys; write order: none"},
		{"no url", fileOf("webhook: {timeout: 1s}"), "5:5: triggers[0].webhook.url: is missing; write it like url: https://example.com/hooks/orders"},
		{"an empty url", fileOf(`webhook: {url: ""}`), "5:20: triggers[0].webhook.url: is empty; write it like url: https://example.com/hooks/orders"},
		{"a url for a webhook", fileOf("webhook: https://e.com"), `5:14: triggers[0].webhook: is text where keys are needed; write it like webhook: {url: "https://example.com/hooks/orders"}`},
		{"a url without a scheme", fileOf("webhook: {url: 'localhost:80/x'}"), "triggers[0].webhook.url: has no http:// or https:// before the host; "},
		{"another scheme", fileOf("webhook: {url: 'amqp://e.com'}"), "triggers[0].webhook.url: the scheme amqp:// is not supported; use http:// or https://"},
		{"a url without a host", fileOf("webhook: {url: 'https:///x'}"), "triggers[0].webhook.url: has no host; "},
		{"a url with a space", fileOf("webhook: {url: 'https://e.com/a b'}"), "triggers[0].webhook.url: contains white space; "},
		{"a url with a port too high", fileOf("webhook: {url: 'https://e.com:65536'}"), "triggers[0].webhook.url: port 65536 does not exist; use one from 1 to 65535"},
		{"a url with a fragment", fileOf("webhook: {url: 'https://e.com/#a'}"), "triggers[0].webhook.url: contains a # part, which is never sent; "},
		{"a url with a bad escape", fileOf("webhook: {url: 'https://e.com/%zz'}"), `triggers[0].webhook.url: is not a URL (invalid URL escape "%zz"); `},
		{"a bad path after a reference", fileOf("webhook: {url: '${U}/%zz'}"), `triggers[0].webhook.url: is not a URL (invalid URL escape "%zz"); `},
		{"a reference without braces", fileOf("webhook: {url: $URL/x}"), "triggers[0].webhook.url: $URL is not read from the environment; write ${URL}/x"},
		{"a reference that stays open", fileOf("webhook: {url: 'http://${U/x'}"), "triggers[0].webhook.url: ${ at character 8 has no closing }; write ${NAME}, or $${ for a literal ${"},
		{"a reference with a default", fileOf("webhook: {url: '${U:-x}'}"), "(defaults are not supported); write ${U}, or $${ for a literal ${"},
		{"a reference to nothing", fileOf("webhook: {url: https://e.com, secret: '${}'}"), "triggers[0].webhook.secret: ${ at character 1 names no variable; "},
		{"headers as a list", fileOf("webhook: {url: https://e.com, headers: [a]}"), "triggers[0].webhook.headers: is a list where header names with their values are needed; "},
		{"a header with a number", fileOf("webhook: {url: https://e.com, headers: {A: 1}}"), "triggers[0].webhook.headers.A: is not text where text is needed; put it in quotes"},
		{"a header name with a space", fileOf("webhook: {url: https://e.com, headers: {A B: x}}"), `triggers[0].webhook.headers["A B"]: "A B" is not a header name; `},
		{"a header with a line break", fileOf(`webhook: {url: https://e.com, headers: {A: "x\ny"}}`), "triggers[0].webhook.headers.A: contains a line break or another control character"},
		{"a header twice", fileOf("webhook: {url: https://e.com, headers: {x-a: x, X-A: y}}"), "triggers[0].webhook.headers.X-A: repeats the header x-a, because header names ignore case; keep one"},
		{"a header of the connection", fileOf("webhook: {url: https://e.com, headers: {content-length: x}}"), "triggers[0].webhook.headers.content-length: the header content-length is set by Rowhook itself; remove it"},
		{"a header of the signature", fileOf("webhook: {url: https://e.com, secret: '${S}', headers: {Webhook-ID: x}}"), "triggers[0].webhook.headers.Webhook-ID: secret makes Rowhook set the header Webhook-ID itself; "},
		{"a bad reference in a header", fileOf("webhook: {url: https://e.com, headers: {A: '${1}'}}"), "triggers[0].webhook.headers.A: ${ at character 1 is not followed by a variable name"},
		{"a secret that is not base64", fileOf("webhook: {url: https://e.com, secret: whsec_%%}"), "triggers[0].webhook.secret: the part after whsec_ is not base64; "},
		{"a secret as it stands in a signature", fileOf("webhook: {url: https://e.com, secret: 'v1,whsec_c2VjcmV0'}"), "triggers[0].webhook.secret: begins with v1, like a signature; remove that"},
		{"a secret in quotes", fileOf(`webhook: {url: https://e.com, secret: "'whsec_c2VjcmV0'"}`), "triggers[0].webhook.secret: stands in quotes, which would be part of the key; remove them"},
		{"a reference in quotes", fileOf(`webhook: {url: https://e.com, secret: "'${S}'"}`), "triggers[0].webhook.secret: stands in quotes"},
		{"an Ed25519 key", fileOf("webhook: {url: https://e.com, secret: whsk_c2VjcmV0}"), "triggers[0].webhook.secret: is not a key of Ed25519 behind whsk_, which has 32 or 64 bytes; copy it again"},
		{"a variable without braces", fileOf("webhook: {url: https://e.com, secret: $SECRET}"), "triggers[0].webhook.secret: is the name of a variable without braces; write ${NAME}"},
		{"an empty secret", fileOf("webhook: {url: https://e.com, secret: ''}"), "triggers[0].webhook.secret: is empty; "},
		{"no timeout at all", fileOf("webhook: {url: https://e.com, timeout: 0}"), "triggers[0].webhook.timeout: 0 would fail every attempt; "},
		{"a negative duration", fileOf("webhook: {url: https://e.com, timeout: -1s}"), `triggers[0].webhook.timeout: "-1s" is negative; `},
		{"a duration without a unit", fileOf("retry: {interval: 10}"), "triggers[0].retry.interval: 10 has no unit; write 10s for seconds"},
		{"a duration in words", fileOf("retry: {interval: 7 days}"), `triggers[0].retry.interval: "7 days" is not a duration; `},
		{"a duration too long", fileOf("retry: {interval: 999999d}"), `triggers[0].retry.interval: "999999d" is too long; `},
		{"a list for a duration", fileOf("retry: {interval: [1s]}"), "triggers[0].retry.interval: is a list where a duration is needed; "},
		{"a negative limit", fileOf("retry: {limit: -1}"), "6:20: triggers[0].retry.limit: -1 is too small; write 0 or more"},
		{"a limit in quotes", fileOf(`retry: {limit: "3"}`), `triggers[0].retry.limit: "3" is text; write limit: 3, without quotes`},
		{"half a limit", fileOf("retry: {limit: 3.5}"), "triggers[0].retry.limit: is the number 3.5 where a whole number is needed; "},
		{"a hexadecimal limit", fileOf("retry: {limit: 0x10}"), "triggers[0].retry.limit: 0x10 is not a plain whole number; "},
		{"a limit too high", fileOf("retry: {limit: 2147483647}"), "triggers[0].retry.limit: 2147483647 is too large; the largest is 2147483646"},
		{"a limit beyond 64 bits", fileOf("retry: {limit: 99999999999999999999}"), "triggers[0].retry.limit: 99999999999999999999 is too large; "},
		{"an unknown backoff", fileOf("retry: {backoff: linear}"), `triggers[0].retry.backoff: "linear" is not a valid value; write fixed or exponential`},
		{"an interval over the default bound", fileOf("retry: {interval: 2h}"), "6:23: triggers[0].retry.interval: max_interval bounds every wait and is 1h by default, but interval is 2h; write max_interval: 2h or more"},
		{"an interval over its bound", fileOf("retry: {interval: 2m, max_interval: 1m}"), "6:41: triggers[0].retry.max_interval: max_interval bounds every wait and is 1m, but interval is 2m; "},
		{"a schedule beside an interval", fileOf("retry: {interval: 5s, schedule: [1s]}"), "6:37: triggers[0].retry.schedule: schedule has every wait, and interval has others; remove one of the two"},
		{"a schedule beside a backoff", fileOf("retry: {schedule: [1s], backoff: fixed}"), "6:23: triggers[0].retry.schedule: schedule has every wait, and backoff has others; remove one of the two"},
		{"a schedule longer than the limit", fileOf("retry: {schedule: [1s, 2s], limit: 1}"), "triggers[0].retry.schedule: schedule has 2 waits, but limit allows 1 retries; write limit: 2, or remove some of the waits"},
		{"a wait without a unit", fileOf("retry: {schedule: [1s, 5]}"), "6:28: triggers[0].retry.schedule[1]: 5 has no unit; write 5s for seconds, or use ms, m, h, d or w"},
		{"no waits", fileOf("retry: {schedule: []}"), "triggers[0].retry.schedule: is empty; write it like schedule: [5s, 1m, 10m, 1h]"},
		{"a status of success", fileOf("retry: {statuses: {200: retry}}"), "6:24: triggers[0].retry.statuses[200]: a status from 200 to 299 always means that the event is delivered; name statuses from 300 on"},
		{"an unknown status", fileOf("retry: {statuses: {4xx: dead}}"), `6:24: triggers[0].retry.statuses.4xx: "4xx" is neither a status nor a range of statuses; write 404, or 400-499 with the lower one first, from 300 to 999`},
		{"a range from its end", fileOf("retry: {statuses: {499-400: dead}}"), `triggers[0].retry.statuses.499-400: "499-400" is neither a status nor a range`},
		{"an unknown word for a status", fileOf("retry: {statuses: {404: drop}}"), `6:29: triggers[0].retry.statuses[404]: "drop" is not a valid value; write dead or retry or pause`},
		{"ranges that overlap", fileOf("retry: {statuses: {400-450: dead, 404: retry, 440-499: retry}}"), "triggers[0].retry.statuses.440-499: the ranges 400-450 and 440-499 overlap; divide them, or name single statuses, which have precedence over ranges"},
		{"a pause for one event", fileOf("webhook: {url: https://e.com/$new.id}", "retry: {statuses: {410: pause}}"), "triggers[0].retry.statuses[410]: pause would stop all events for one, since the URL has data of the event; write dead, or take the data from url and query"},
		{"statuses as a list", fileOf("retry: {statuses: [404]}"), "triggers[0].retry.statuses: is a list where statuses with what they mean are needed; write it like statuses: {400-499: dead, 408: retry, 429: retry}"},
		{"an age of nothing", fileOf("retry: {max_age: 0}"), "triggers[0].retry.max_age: 0 is too short; write max_age: 1s or more"},
		{"a delay of years", fileOf("delay: 400d"), "6:12: triggers[0].delay: 400d is too long; the longest is 365d"},
		{"a delay of microseconds", fileOf("delay: 5us"), "6:12: triggers[0].delay: 5µs is finer than Postgres counts; write whole milliseconds, as in 250ms"},
		{"a number for a group", fileOf("retry: 5"), "6:12: triggers[0].retry: is the number 5 where keys are needed; write it like retry: {limit: 5}"},
		{"a negative concurrency", fileOf("concurrency: -1"), "6:18: triggers[0].concurrency: -1 is too small; write 0 or more"},
		{"an order of a column", fileOf("order: customer_id"), `6:12: triggers[0].order: "customer_id" is not an order; write order: row, order: {by: [customer_id]} if that is a column, or order: none`},
		{"an order of columns", fileOf("order: [a, b]"), "6:12: triggers[0].order: is a list; write order: {by: [a, b]}"},
		{"no order in the wrong word", fileOf("order: false"), "6:12: triggers[0].order: is false where row, none or keys are needed; write it like order: row, or order: {by: [customer_id]}"},
		{"an order without a key", fileOf("order: {latest: true}"), "6:5: triggers[0].order.by: is missing; write it like by: row, or by: [customer_id]"},
		{"an order by a word", fileOf("order: {by: customer_id}"), `6:17: triggers[0].order.by: "customer_id" is text; write by: [customer_id] for a column, or by: row for the primary key`},
		{"an order by a column named row", fileOf("order: {by: [row]}"), "6:17: triggers[0].order.by: a column with the name row can't be the whole key, because by: row means the primary key; "},
		{"an order by a column twice", fileOf("order: {by: [a, a]}"), `6:21: triggers[0].order.by[1]: "a" is listed twice; keep one`},
		{"an order with an unknown end", fileOf("order: {by: row, on_dead: stop}"), `6:31: triggers[0].order.on_dead: "stop" is not a valid value; write skip or block`},
		{"a batch in a word", fileOf("batch: all"), "6:12: triggers[0].batch: is text where keys are needed; write it like batch: {max: 100}"},
		{"a batch of one", fileOf("batch: {max: 1}"), "6:18: triggers[0].batch.max: 1 is too small; write 2 or more"},
		{"a batch too large", fileOf("batch: {max: 2001}"), "6:18: triggers[0].batch.max: 2001 is too large; the largest is 2000"},
		{"a batch without a size", fileOf("batch: {wait: 1s}"), "6:5: triggers[0].batch.max: is missing; write it like max: 100, here or for all triggers in defaults"},
		{"a batch of too many bytes", fileOf("batch: {max: 2, bytes: 1GiB}"), "6:28: triggers[0].batch.bytes: 1GiB is out of bounds; write a size from 1KiB to 64MiB"},
		{"a batch that waits too long", fileOf("batch: {max: 2, wait: 2m}"), "6:27: triggers[0].batch.wait: 2m is too long; the longest is 20s"},
		{"a rate without a unit", fileOf("rate: {limit: 50}"), "6:19: triggers[0].rate.limit: 50 has no unit; write 50/s for each second, or use /m or /h"},
		{"a rate in words", fileOf("rate: {limit: 50 per second}"), `6:19: triggers[0].rate.limit: "50 per second" is not a rate; write a whole number from 1 to 1000000, a slash, and s, m or h, as in 50/s`},
		{"a rate for keys", fileOf("rate: 50/s"), "6:11: triggers[0].rate: is text where keys are needed; write it like rate: {limit: 50/s}"},
		{"a burst of none", fileOf("rate: {limit: 50/s, burst: 0}"), "6:32: triggers[0].rate.burst: 0 is too small; write 1 or more"},
		{"more attempts each than in all", fileOf("concurrency: {each: 20, total: 10}"), "6:25: triggers[0].concurrency.each: each is 20, but all dispatchers together may have only 10; write each: 10 or less, or raise total"},
		{"a concurrency in a word", fileOf("concurrency: all"), "6:18: triggers[0].concurrency: is text where a whole number is needed; write it like concurrency: 20"},
		{"an unknown breaker", fileOf("breaker: auto"), `6:14: triggers[0].breaker: "auto" is not a valid value; write on or off`},
		{"an alert to nowhere", fileOf() + "alerts:\n  - on: [dead]\n", "7:5: alerts[0]: has no url and no heartbeat; write url: and where alerts are sent, or heartbeat: and a URL to call"},
		{"an alert with a heartbeat", fileOf() + "alerts: [{url: http://e, heartbeat: http://e/h}]\n", "alerts[0].heartbeat: heartbeat is an entry of its own; write it under a dash of its own, without url"},
		{"a heartbeat of trouble", fileOf() + "alerts: [{heartbeat: http://e, on: [dead]}]\n", "alerts[0].on: on belongs to an entry with a url; remove it here, since a heartbeat tells nothing"},
		{"an alert each minute", fileOf() + "alerts: [{url: http://e, every: 1m}]\n", "alerts[0].every: every belongs to an entry with a heartbeat; remove it"},
		{"a backlog that is not told", fileOf() + "alerts: [{url: http://e, on: [dead], backlog: {older_than: 1h}}]\n", "alerts[0].backlog: backlog has no effect, since on does not have backlog; add it there, or remove this"},
		{"a backlog at once", fileOf() + "alerts: [{url: http://e, backlog: {older_than: 1s}}]\n", "alerts[0].backlog.older_than: 1s is too short; write older_than: 10s or more"},
		{"a heartbeat too often", fileOf() + "alerts: [{heartbeat: http://e, every: 1s}]\n", "alerts[0].every: 1s is too short; write every: 10s or more"},
		{"an unknown trouble", fileOf() + "alerts: [{url: http://e, on: [slow]}]\n", `alerts[0].on[0]: "slow" is not a valid value; write failing or recovered or dead or paused or backlog or uncaptured`},
		{"an alert twice", fileOf() + "alerts: [{url: http://e, on: [dead]}, {url: http://e}]\n", "alerts[1]: has the URL of entry 1; put both into one"},
		{"alerts as a group", fileOf() + "alerts: {url: http://e}\n", "6:9: alerts: is a group of keys where a list is needed; "},
		{"an alert with a bad url", fileOf() + "alerts: [{url: localhost}]\n", "alerts[0].url: has no http:// or https:// before the host; "},
		{"alerts in a trigger", fileOf("alerts: []"), "6:5: triggers[0].alerts: unknown key in triggers[0]; it belongs at the top of the file"},
		{"an unknown notify", fileOf("notify: sometimes"), `6:13: triggers[0].notify: "sometimes" is not a valid value; write auto or never`},
		{"text for true", fileOf(`on_replication: "true"`), `6:21: triggers[0].on_replication: "true" is text; write on_replication: true, without quotes`},
		{"a number for true", fileOf("on_replication: 1"), "6:21: triggers[0].on_replication: is the number 1 where true or false is needed; "},
		{"retention as text", fileOf() + "retention: 7d\n", "6:12: retention: is text where keys are needed; write it like retention: {delivered: 7d}"},
		{"a negative retention", fileOf() + "retention: {attempts: -1d}\n", `6:23: retention.attempts: "-1d" is negative; `},
		// when
		{"an empty condition", fileOf(`when: " "`), "6:11: triggers[0].when: is empty; write it like when: new.amount > 100, or remove it"},
		{"a condition that is no text", fileOf("when: true"), `6:11: triggers[0].when: is true where text is needed; put it in quotes: "true"`},
		{"a bracket not closed", fileOf("when: new.a > (1 + [2]"), "triggers[0].when: the ( at character 9 is never closed; add the )"},
		{"a bracket not opened", fileOf("when: new.a > 1)"), "triggers[0].when: the ) at character 10 has no opening bracket; "},
		{"brackets crossed", fileOf("when: new.a[(1])"), "triggers[0].when: the ] at character 9 should be the ) of the ( at character 7; "},
		{"a quote not closed", fileOf("when: new.a = 'ä"), "triggers[0].when: the ' at character 9 is never closed; "},
		{"a quoted name not closed", fileOf(`when: new."a = 1`), `triggers[0].when: the " at character 5 is never closed; `},
		{"an escaped quote", fileOf(`when: new.a = E'\'`), "triggers[0].when: the ' at character 10 is never closed; "},
		{"a dollar quote not closed", fileOf("when: new.a = $x$ y $z$"), "triggers[0].when: the $x$ at character 9 is never closed; "},
		{"a comment not closed", fileOf("when: new.a /* /* */"), "triggers[0].when: the comment at character 7 is never closed; add */"},
		{"a comment to the end of the line", fileOf("when: new.a -- b"), "triggers[0].when: the -- at character 7 starts a comment; write comments as /* ... */"},
		{"a second statement", fileOf("when: new.a; drop table b"), "triggers[0].when: the ; at character 6 ends the statement; "},
		{"a reference in a condition", fileOf("when: new.a > ${MIN}"), "triggers[0].when: ${NAME} is not read here, only in a webhook's url, query, headers, body, form and secret; "},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			found := problemsOf(t, c.text)
			require.Len(t, found, 1, "one mistake makes one message")
			require.Contains(t, found[0], c.want)
			_, remedy, _ := strings.Cut(found[0], "; ")
			if !strings.HasSuffix(found[0], "?") {
				require.NotEmpty(t, remedy, "%s says what to do", found[0])
			}
		})
	}
}

func TestParseReportsEveryIndentedTab(t *testing.T) {
	t.Parallel()
	require.Len(t, problemsOf(t, "triggers:\n\t- name: a\n\t  table: b\n  \ton: {}\n\n\t# a comment\n"), 3)
}

func TestErrorShowsTheLineWithAMarkUnderThePlace(t *testing.T) {
	t.Parallel()
	_, err := config.Parse("rowhook.yaml", []byte(fileOf("retry: {limit: 1, limt: 3}", "notify: x")))
	require.EqualError(t, err, strings.TrimPrefix(`
rowhook.yaml:6:23: triggers[0].retry.limt: unknown key; did you mean limit?
     6 |     retry: {limit: 1, limt: 3}
       |                       ^
rowhook.yaml:7:13: triggers[0].notify: "x" is not a valid value; write auto or never
     7 |     notify: x
       |             ^`, "\n"))
}

func TestErrorCutsALongLineAroundThePlace(t *testing.T) {
	t.Parallel()
	_, err := config.Parse("rowhook.yaml", []byte(fileOf("payload: {columns: ["+strings.Repeat("column_of_ten, ", 50)+"1"+strings.Repeat(", x", 50)+"]}")))
	for line := range strings.Lines(err.Error()) {
		if strings.Contains(line, " | ") {
			require.LessOrEqual(t, len([]rune(line)), 120)
		}
	}
	require.Contains(t, err.Error(), "column_of_ten, 1, x")
}

func TestMessagesRepeatNoSecret(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		fileOf("webhook: {url: https://e.com, secret: hunter2, x: 1}"),
		fileOf("webhook:\n  url: https://e.com\n  secret: whsec_hunter2%"),
		fileOf("webhook:\n  url: https://e.com\n  secret: hunter2${"),
		fileOf("webhook:\n  url: https://e.com\n  headers:\n    Authorization: \"Bearer hunter2\\n\""),
		fileOf("webhook:\n  url: https://joe:hunter2@e.com:99999/"),
		fileOf("webhook:\n  url: https://e.com\n  headers: {X-Token: hunter2, X-Token: b}"),
		fileOf("webhook:\n  url: https://e.com\n  secret: hunter2: x"),
	} {
		_, err := config.Parse("rowhook.yaml", []byte(text))
		require.Error(t, err)
		require.NotContains(t, err.Error(), "hunter2")
	}
}

func TestPositionFindsEveryKey(t *testing.T) {
	t.Parallel()
	c := parse(t, `triggers:
  - name: a
    table: t
    on:
      update:
        columns: [status, größe, "x"]
    when: |
      new.a
    webhook:
      url: https://e.com
      headers:
        "X-A": b
      timeout: 5s
  - {name: b, table: u, on: {delete: true}, webhook: {url: https://e.com}}
retention:
  attempts: 1d
`)
	for _, at := range []struct {
		trigger int
		path    string
		want    string
	}{
		{-1, "", "1:1"},
		{-1, "triggers", "2:3"},
		{-1, "retention", "15:1"},
		{-1, "retention.attempts", "16:13"},
		{-1, "retention.delivered", "15:1"},
		{0, "", "2:5"},
		{0, "name", "2:11"},
		{0, "table", "3:12"},
		{0, "on", "4:5"},
		{0, "on.insert", "4:5"},
		{0, "on.update", "5:7"},
		{0, "on.update.columns", "6:18"},
		{0, "on.update.columns.0", "6:19"},
		{0, "on.update.columns.1", "6:27"},
		{0, "on.update.columns.2", "6:34"},
		{0, "when", "7:11"},
		{0, "webhook", "9:5"},
		{0, "webhook.url", "10:12"},
		{0, "webhook.headers.X-A", "12:16"},
		{0, "webhook.timeout", "13:16"},
		{0, "retry.limit", "2:5"},
		{1, "", "14:5"},
		{1, "on.delete", "14:38"},
		{7, "name", "2:3"},
	} {
		path := strings.FieldsFunc(at.path, func(r rune) bool { return r == '.' })
		require.Equal(t, "rowhook.yaml:"+at.want, c.Position(at.trigger, path...).String(), "%d %s", at.trigger, at.path)
	}
}

func TestProblemReadsLikeTheOnesOfParse(t *testing.T) {
	t.Parallel()
	c := parse(t, fileOf("on: {update: {columns: [status, amuont]}}"))
	err := config.ErrorOf(
		c.Problem(0, `table public.orders has no column amuont; did you mean amount?`, "on", "update", "columns", "1"),
		c.Problem(0, `there is no table public.orders; create it, or correct the name`, "table"),
	)
	require.EqualError(t, err, strings.TrimPrefix(`
rowhook.yaml:3:12: triggers[0].table: there is no table public.orders; create it, or correct the name
     3 |     table: public.orders
       |            ^
rowhook.yaml:4:37: triggers[0].on.update.columns[1]: table public.orders has no column amuont; did you mean amount?
     4 |     on: {update: {columns: [status, amuont]}}
       |                                     ^`, "\n"))
	require.NoError(t, config.ErrorOf())
}

func TestLoadReadsAFileAndWarnsOfItsEnvironment(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "rowhook.yaml")
	text := fileOf(`webhook:
  url: ${BASE}/x
  headers: {X-A: "${UNSET} ${EMPTY}", X-B: "${FINE}"}
  secret: written-out`)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	environment := map[string]string{"BASE": "localhost:8080", "EMPTY": "", "FINE": "x"}
	c, err := config.Load(path, func(name string) (string, bool) { v, ok := environment[name]; return v, ok })
	require.NoError(t, err)
	var warnings []string
	for _, w := range c.Warnings {
		warnings = append(warnings, strings.TrimPrefix(w.String(), path))
	}
	require.Equal(t, []string{
		":6:12: triggers[0].webhook.url: with the value of BASE here this is not an http:// or https:// URL; check the value where the dispatcher runs",
		":7:22: triggers[0].webhook.headers.X-A: environment variable UNSET is not set here; set it where the dispatcher runs",
		":7:22: triggers[0].webhook.headers.X-A: environment variable EMPTY is empty here; give it a value where the dispatcher runs",
		":8:15: triggers[0].webhook.secret: is plain text here, so the database stores it, too; write ${NAME} instead, and set NAME where the dispatcher runs",
	}, warnings)

	c, err = config.Load(path, nil)
	require.NoError(t, err)
	require.Len(t, c.Warnings, 1, "without an environment only what the file shows")
}

func TestParseWarnsOfCredentialsWrittenOut(t *testing.T) {
	t.Parallel()
	c := parse(t, fileOf(`webhook: {url: "https://joe:${PW}@e.com/${X}", headers: {X-Team: a, Cookie: "${C}"}, secret: "${S}"}`))
	require.Empty(t, c.Warnings)
	c = parse(t, fileOf(`webhook: {url: "https://joe:pw@e.com/${X}", headers: {Authorization: b, X-Api-Key: c}, secret: d}`))
	require.Len(t, c.Warnings, 4)
}

func TestLoadSaysWhyAFileCannotBeRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	missing := filepath.Join(dir, "none.yaml")
	_, err := config.Load(missing, nil)
	require.EqualError(t, err, missing+": the file does not exist; check the path, or write one with rowhook init")
	require.ErrorIs(t, err, fs.ErrNotExist)

	_, err = config.Load(dir, nil)
	require.EqualError(t, err, dir+": the directory has no file *.yaml or *.yml directly in it (it is empty); "+
		"put the configuration there, or give the path of another directory or of a file")
	require.NotErrorIs(t, err, fs.ErrNotExist)

	_, err = config.Load("", nil)
	require.EqualError(t, err, "no configuration file was given; give the path of one, such as rowhook.yaml")

	_, err = config.Load(filepath.Join(dir, "a\x00b"), nil)
	require.ErrorContains(t, err, "can't open the file (invalid argument); check the path")

	huge := filepath.Join(dir, "huge.yaml")
	require.NoError(t, os.WriteFile(huge, bytes.Repeat([]byte("#\n"), config.MaxSize/2+1), 0o600))
	_, err = config.Load(huge, nil)
	require.EqualError(t, err, huge+": is larger than 10 MB; is this the right file?")
}

func TestASecretThatNoReceiverCanHaveIsWarnedOf(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "rowhook.yaml")
	require.NoError(t, os.WriteFile(file, []byte(fileOf(`webhook: {url: https://e.com, secret: "${S}"}`)), 0o600))
	for value, want := range map[string]string{
		"v1,whsec_hidden": "begins with v1,", `"hidden"`: "stands in quotes", "whsk_hidden": "Ed25519", "ab": "short enough to be guessed", "whsec_YWI=": "short enough to be guessed",
		"whsec_%hidden": "is not base64", "a plain text of some length": "",
	} {
		c, err := config.Load(file, func(string) (string, bool) { return value, true })
		require.NoError(t, err)
		if want == "" {
			continue
		}
		require.Len(t, c.Warnings, 1, value)
		require.Contains(t, c.Warnings[0].String(), want)
		require.NotContains(t, c.Warnings[0].String(), "hidden")
	}
	c := parse(t, fileOf(`webhook: {url: https://e.com, secret: ab}`))
	require.Len(t, c.Warnings, 1)
	require.Contains(t, c.Warnings[0].String(), "short enough to be guessed")
}

func TestWarningsOfAlertsNameTheirPlace(t *testing.T) {
	t.Parallel()
	text := fileOf() + "alerts:\n  - {url: 'https://hooks.slack.com/services/T/B/x', secret: hunter2}\n  - {url: '${ALERTS}', secret: '${EMPTY}'}\n  - {heartbeat: '${PING}'}\n"
	values := map[string]string{"EMPTY": "", "PING": "nowhere"}
	c, err := config.Load(directory(t, map[string]string{"a.yaml": text}), func(name string) (string, bool) { v, ok := values[name]; return v, ok })
	require.NoError(t, err)
	var found []string
	for _, w := range c.Warnings {
		found = append(found, w.Key+": "+w.Message)
		require.NotContains(t, w.Excerpt, "hunter2")
	}
	require.Len(t, found, 5, "%v", found)
	require.Contains(t, found[0], "alerts[0].url: is a secret, since whoever has it may post there")
	require.Contains(t, found[1], "alerts[0].secret: is plain text here, so the database stores it, too")
	require.Contains(t, found[2], "alerts[1].url: environment variable ALERTS is not set here")
	require.Contains(t, found[3], "alerts[1].secret: environment variable EMPTY is empty here")
	require.Contains(t, found[4], "alerts[2].heartbeat: with the value of PING here this is not an http:// or https:// URL")
}
