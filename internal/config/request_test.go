package config_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/trigger"
)

func TestATemplateIsStoredAsItIsWritten(t *testing.T) {
	t.Parallel()
	for yaml, want := range map[string]trigger.Body{
		"{order: $new.id, text: \"Order ${new.id}\"}": `{"order":"$new.id","text":"Order ${new.id}"}`,
		"\n    z: 1.10\n    a:\n      - -0\n      - 12345678901234567890123\n      - 1e5\n    m: |\n      two\n      lines\n    n: null\n    t: ~\n    yes: on\n    q: '1'\n    b: true\n    1: x\n": `{"z":1.10,"a":[-0,12345678901234567890123,1e5],"m":"two\nlines\n","n":null,"t":null,"yes":"on","q":"1","b":true,"1":"x"}`,
		"[$new, '$$']": `["$new","$$"]`, "$new": `"$new"`, "'${event.data ?? {}}'": `"${event.data ?? {}}"`, "{}": `{}`, "form": trigger.BodyForm, "none": "",
		`{"a b": {$set: "$new.\"Order Id\""}}`: `{"a b":{"$set":"$new.\"Order Id\""}}`,
	} {
		c := parse(t, fileOf("webhook:\n  url: https://e.com/x\n  body: "+yaml))
		require.Equal(t, want, c.Triggers[0].Webhook.Body, yaml)
	}
}

func TestRequestsAreRefusedWithTheirPlace(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{ // all of them fail alone
		"body: {a: 1, text: \"Order $nwe.id\"}": `5:63: triggers[0].webhook.body.text: $nwe is no data of an event; did you mean $new?`,
		"body: {a: [x, '${new.a ?? b}']}":       `5:63: triggers[0].webhook.body.a[1]: the default of $new is not JSON`,
		"body: {a: '${NAME'}":                   `triggers[0].webhook.body.a: ${ has no closing }`,
		"body: {a: 0x10}":                       `5:47: triggers[0].webhook.body.a: "0x10" is not a number of JSON`,
		"body: {a: .inf}":                       `".inf" is not a number of JSON`,
		"body: {a: 1, a: 2}":                    `5:50: triggers[0].webhook.body.a: is given twice`,
		"body: {a: }":                           `triggers[0].webhook.body.a: has no value; write null`,
		"body: {a: &x 1}":                       `YAML anchors are not supported`,
		"body: {$new.id: 1}":                    `5:44: triggers[0].webhook.body["$new.id"]: data of the event can't name a key`,
		"body: hello":                           `"hello" is text without data of the event`,
		"body: \"a\\0$id\"":                     `a character that Postgres can't store`,
		"body: {a: 1}, form: {b: c}":            `form and body both say what a request holds`,
		"body: {a: 1}, method: GET":             `a GET has no body; remove body`,
		"form: {a: b}, method: GET":             `a GET has no body; write query`,
		"method: post":                          `"post" is not a valid value; write POST or PUT or PATCH or DELETE or GET`,
		"query: {a: [1]}":                       `triggers[0].webhook.query.a: is a list where text is needed`,
		"query: [a]":                            `names with their values are needed`,
		"query: {a: 'x $id.y'}":                 `5:51: triggers[0].webhook.query.a: $id has no members`,
		"headers: {X: '${new.a b}'}":            `triggers[0].webhook.headers.X: the placeholder of $new goes on with something unknown`,
		"headers: {X: \"$new.a\\n\"}":           `contains a line break`,
		"headers: {X-$new.a: b}":                `5:47: triggers[0].webhook.headers["X-$new.a"]: data of the event can't name a header`,
		"headers: {host: $new.a}":               `5:53: triggers[0].webhook.headers.host: data of the event can't say for which host a request is`,
	} {
		found := problemsOf(t, fileOf("webhook: {url: https://e.com/x, "+in+"}"))
		require.Len(t, found, 1, "%s: %v", in, found)
		require.Contains(t, found[0], want, in)
	}
	for url, want := range map[string]string{
		"https://$new.host/x": "5:29: triggers[0].webhook.url: data of the event stands in the scheme, user name, host or port", "https://e.com:$new.p/": "data of the event stands in",
		"https://$new.u@e.com/": "data of the event stands in", "${BASE}$new.x": "data of the event stands in", "$new.url": "data of the event stands in", "https://e.com$new.x/": "data of the event stands in",
		"https://e.com/#$new.x": "contains a # part", "https://e.com/$nwe.x": "did you mean $new?", "https://e.com/${new.x": "has no closing }",
	} {
		found := problemsOf(t, fileOf("webhook: {url: '"+url+"'}"))
		require.Len(t, found, 1, "%s: %v", url, found)
		require.Contains(t, found[0], want, url)
	}
	for _, url := range []string{"https://e.com/$new.x/${new.\"a b\" ?? \"/?#\"}?a=$new.y", "${BASE}/$new.x", "https://e.com?a=$new.x", "https://${HOST}:${PORT}/$id"} {
		parse(t, fileOf("webhook: {url: '"+url+"'}"))
	}
	require.Contains(t, problemsOf(t, fileOf()+"alerts: [{url: 'https://e.com/$new.id'}]\n")[0], "has data of an event, and is called for none")
}

func TestABatchHasNoDataOfOneEventBesideItsBody(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"url: 'https://e.com/$new.id'": "the url has data of one", "query: {a: $id}": "webhook.query.a: a batch is one request for several events", "headers: {X-A: $id}": "the header has data of one",
		"form: {a: b}": "a form holds one event", "body: form": "a form holds one event", "method: GET": "a GET has none", "method: DELETE": "a DELETE has none",
	} {
		if in[:4] != "url:" {
			in = "url: https://e.com, " + in
		}
		found := problemsOf(t, fileOf("webhook: {"+in+"}", "batch: {max: 10}"))
		require.Len(t, found, 1, "%s: %v", in, found)
		require.Contains(t, found[0], want)
		require.Contains(t, found[0], "write batch: none, or ")
	}
	parse(t, fileOf("webhook: {url: https://e.com, body: {a: $new.id}, query: {a: b}, method: PUT}", "batch: {max: 10}"))
}

func TestATriggersOwnBodyReplacesThatOfDefaults(t *testing.T) {
	t.Parallel()
	const shared = "defaults: {webhook: {form: {a: b}, query: {a: b, c: d}}}\n"
	c := parse(t, fileOf("webhook: {url: https://e.com, body: {x: y}, query: {a: z}}")+shared)
	require.Equal(t, trigger.Body(`{"x":"y"}`), c.Triggers[0].Webhook.Body)
	require.Nil(t, c.Triggers[0].Webhook.Form)
	require.Equal(t, map[string]string{"a": "z", "c": "d"}, c.Triggers[0].Webhook.Query)
	c = parse(t, fileOf("webhook: {url: https://e.com, body: none}")+shared)
	require.Zero(t, c.Triggers[0].Webhook.Body)
	require.Nil(t, c.Triggers[0].Webhook.Form)
	c = parse(t, fileOf("webhook: {url: https://e.com, form: {x: y}}")+"defaults: {webhook: {body: {a: 1}}}\n")
	require.Zero(t, c.Triggers[0].Webhook.Body)
	require.Equal(t, map[string]string{"x": "y"}, c.Triggers[0].Webhook.Form)
}

func TestNumbersInAQueryAreTheTextThatIsWritten(t *testing.T) {
	t.Parallel()
	c := parse(t, fileOf("webhook: {url: https://e.com, query: {a: 1.10, b: true, c: '1'}, form: {a: 007}}"))
	require.Equal(t, map[string]string{"a": "1.10", "b": "true", "c": "1"}, c.Triggers[0].Webhook.Query)
	require.Equal(t, map[string]string{"a": "007"}, c.Triggers[0].Webhook.Form)
}

func TestReferencesInTemplatesAreKnown(t *testing.T) {
	t.Parallel()
	c := parse(t, fileOf("webhook: {url: 'https://e.com/${A}/${new.id}', query: {a: '${B}'}, headers: {X: '${C} $new.x', X-Token: $new.token}, body: {a: ['${D} $new.x', '$${E}']}}"))
	variables, _ := config.References(c.Triggers[0])
	require.Equal(t, []string{"A", "B", "C", "D"}, variables)
	require.Empty(t, c.Warnings)
}
