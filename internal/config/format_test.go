package config_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/trigger"
)

func TestFormatsAndCompressionAreStoredInOneWay(t *testing.T) {
	t.Parallel()
	for keys, want := range map[string][2]string{
		"":                                     {"", ""},
		"format: hasura, compress: none":       {"", ""},
		"format: cloudevents":                  {trigger.FormatCloudEvents, ""},
		"format: cloudevents-binary":           {trigger.FormatCloudEventsBinary, ""},
		"compress: gzip, format: cloudevents":  {trigger.FormatCloudEvents, trigger.CompressGzip},
		"compress: gzip, headers: {X-A: gzip}": {"", trigger.CompressGzip},
		"format: cloudevents, headers: {Content-Type: application/cloudevents+json; charset=utf-8}": {trigger.FormatCloudEvents, ""},
		`format: cloudevents-binary, headers: {content-type: "application/json; charset=utf-8", ce-source: a, Ce-Tenant: b}`: {
			trigger.FormatCloudEventsBinary, ""},
	} {
		w := parse(t, fileOf("webhook: {url: https://e.com, "+keys+"}")).Triggers[0].Webhook
		require.Equal(t, want, [2]string{w.Format, w.Compress}, keys)
	}
	const shared = "defaults: {webhook: {format: cloudevents, compress: gzip}}\n"
	w := parse(t, fileOf("webhook: {url: https://e.com, format: hasura, compress: none}")+shared).Triggers[0].Webhook
	require.Equal(t, [2]string{}, [2]string{w.Format, w.Compress}, "a trigger takes back what defaults say")
	w = parse(t, fileOf()+shared).Triggers[0].Webhook
	require.Equal(t, [2]string{"cloudevents", "gzip"}, [2]string{w.Format, w.Compress})
}

func TestFormatsThatContradictOtherKeysAreRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, want string }{
		{fileOf("webhook: {url: https://e.com, format: xml}"),
			`5:43: triggers[0].webhook.format: "xml" is not a valid value; write hasura or cloudevents or cloudevents-binary`},
		{fileOf("webhook: {url: https://e.com, compress: true}"),
			`5:45: triggers[0].webhook.compress: is true where text is needed; put it in quotes: "true"`},
		{fileOf("webhook: {url: https://e.com, compress: br}"), `5:45: triggers[0].webhook.compress: "br" is not a valid value; write gzip or none`},
		{fileOf("webhook: {url: https://e.com, format: cloudevents-binary}", "batch: {max: 10}"),
			"5:43: triggers[0].webhook.format: cloudevents-binary sends one event in a request, because its attributes are headers, and batch asks for several; write format: cloudevents, or batch: none"},
		{fileOf("batch: {max: 10}") + "defaults: {webhook: {format: cloudevents-binary}}\n",
			`6:12: triggers[0].batch: cloudevents-binary sends one event in a request, because its attributes are headers, and batch asks for several; write format: cloudevents, or batch: none (the trigger "a"; webhook.format comes from defaults, on line 7)`},
		{fileOf("webhook: {url: https://e.com, format: cloudevents, headers: {Content-Type: application/json}}"),
			"triggers[0].webhook.headers.Content-Type: format: cloudevents is recognised by its Content-Type, which is application/cloudevents+json; remove the header"},
		{fileOf("webhook: {url: https://e.com, format: cloudevents, headers: {Content-Type: application/cloudevents+json}}", "batch: {max: 2}"),
			"Content-Type, which is application/cloudevents-batch+json; remove the header"},
		{fileOf("webhook: {url: https://e.com, format: cloudevents-binary, headers: {content-type: application/cloudevents+json}}"),
			"Content-Type, which is application/json; remove the header"},
		{fileOf("webhook: {url: https://e.com, format: cloudevents-binary, headers: {CE-ID: a}}"),
			"triggers[0].webhook.headers.CE-ID: format: cloudevents-binary makes Rowhook set the header CE-ID itself; remove the header"},
		{fileOf("webhook: {url: https://e.com, format: cloudevents, body: {a: $new.id}}"),
			"triggers[0].webhook.format: format: cloudevents and body both say what the body holds; write format: hasura, or body: none"},
		{fileOf("webhook: {url: https://e.com, format: cloudevents, form: {a: $new.id}}"),
			"triggers[0].webhook.format: format: cloudevents and form both say what the body holds; remove one of the two"},
		{fileOf("webhook: {url: https://e.com, format: cloudevents, method: GET}"),
			"triggers[0].webhook.format: format: cloudevents needs a body, and a GET has none; write method: POST or PUT, or format: hasura"},
		{fileOf("webhook: {url: https://e.com, compress: gzip, method: DELETE}"),
			"triggers[0].webhook.compress: compress needs a body, and a DELETE has none; write compress: none, or method: POST"},
		{fileOf("webhook: {url: https://e.com, compress: gzip, headers: {content-encoding: br}}"),
			"triggers[0].webhook.headers.content-encoding: compress makes Rowhook set the header Content-Encoding itself; remove one of the two"},
	} {
		problems := problemsOf(t, c.text)
		require.Len(t, problems, 1, "%s", c.text)
		require.True(t, strings.HasSuffix(problems[0], c.want), "%s\n%s", problems[0], c.want)
	}
}

func TestWrittenFormatsAreReadBack(t *testing.T) {
	t.Parallel()
	spec := parse(t, fileOf("webhook: {url: https://e.com, format: cloudevents, compress: gzip}")).Triggers[0]
	text, err := config.Write(spec)
	require.NoError(t, err)
	require.Contains(t, string(text), "format: cloudevents\n")
	require.Equal(t, spec, parse(t, string(text)).Triggers[0])
}
