package config_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/internal/configtest"
	"github.com/rowhook/rowhook/trigger"
)

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		fileOf(),
		fileOf("on: {update: {columns: [a, é]}}", "when: |\n  new.a > 1", "payload: &p {columns: [*q]}", "<<: {x: !!str y}"),
		"triggers:\n\t- name: [a\n---\n%x\n? a\n: b\n",
		`{"triggers": [{"name": "a", "on": {"update": {}}, "webhook": {"url": "${X}", "headers": {"\u0000": null}}}]}`,
		"\ufefftriggers: [{}, [], ~, 1, 1.5, .inf, 0x1, true, 'x', \"\\ud800\"]\r\nretention: {delivered: -1d}",
		"triggers:\n  - name: >-\n      a\n    webhook: {url: $X, timeout: 9999999w}\n",
		"defaults: {on: {update: {columns: [a]}}, webhook: {url: http://x, headers: {A: b}, tls: {key_file: k}, secret: s}, retry: {interval: 2h}}\n" +
			"triggers:\n  - {name: a, table: t, on: {update: {}}, webhook: {headers: {a: c, webhook-id: d}}}\n  - {name: a, table: t}\n",
		"defaults: {<<: *a, name: b, webhook: }\ntriggers: [{on: {insert: false}, webhook: {}}]\ndefault: {}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := config.Parse("f", data)
		if err == nil {
			for i := range c.Triggers {
				require.NotZero(t, c.Position(i, "webhook", "url").Line)
				config.References(c.Triggers[i])
			}
			return
		}
		configErr, ok := errors.AsType[*config.Error](err)
		require.True(t, ok)
		lines := strings.Count(strings.ReplaceAll(string(data), "\r\n", "\n"), "\n") + strings.Count(string(data), "\r") + 1
		for _, p := range configErr.Problems {
			require.NotEmpty(t, p.Message)
			require.LessOrEqual(t, p.Line, lines)
			require.NotContains(t, p.String(), "\n", "a problem is one line")
		}
	})
}

func FuzzParseDuration(f *testing.F) {
	for _, seed := range []string{"0", "7d", "1w2d3h4m5.5s", "250ms", "1.5h", "-1s", "", "d", "106752d", "10", "1h 2m", "9223372036854775807ns", "+1s", ".s"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := trigger.ParseDuration(s)
		if err != nil {
			return
		}
		require.GreaterOrEqual(t, d, trigger.Duration(0))
		again, err := trigger.ParseDuration(d.String())
		require.NoError(t, err)
		require.Equal(t, d, again, "what String writes reads back")
		// The file accepts what String writes.
		text, err := yaml.Marshal(map[string]any{"triggers": []string{}, "retention": map[string]string{"delivered": d.String()}})
		require.NoError(t, err)
		c, err := config.Parse("f", text)
		require.NoError(t, err)
		require.Equal(t, d, c.Settings.Retention.Delivered)
	})
}

// specs generates triggers of tables that need not exist.
func specs() *rapid.Generator[trigger.Spec] { return configtest.Specs(configtest.Anything()) }

func TestSpecAsYAMLParsesToItself(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		spec := specs().Draw(t, "spec")
		// The library writes some texts without quotes although it can't read them back so, such as
		// .inf and "? a".
		quoted := yaml.CustomMarshaler(func(s string) ([]byte, error) { return json.Marshal(s) })
		text, err := yaml.MarshalWithOptions(map[string]any{"triggers": []trigger.Spec{spec}}, quoted)
		require.NoError(t, err)
		c, err := config.Parse("f", text)
		require.NoError(t, err, "%s", text)
		require.Equal(t, []trigger.Spec{spec}, c.Triggers, "%s", text)
	})
}

func TestSpecAsJSONReadsBackAndParsesToItself(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		spec := specs().Draw(t, "spec")
		text, err := json.Marshal(spec)
		require.NoError(t, err)
		var back trigger.Spec
		require.NoError(t, json.Unmarshal(text, &back))
		require.Equal(t, spec, back, "%s", text)
		file, err := json.Marshal(plain(t, spec))
		require.NoError(t, err)
		c, err := config.Parse("f", []byte(`{"triggers": [`+string(file)+`]}`))
		require.NoError(t, err, "%s", text)
		require.Equal(t, []trigger.Spec{spec}, c.Triggers, "%s", text)
	})
}

func TestSettingsAsYAMLParseToThemselves(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		settings := configtest.Settings().Draw(t, "settings")
		text, err := yaml.Marshal(settings)
		require.NoError(t, err)
		c, err := config.Parse("f", []byte("triggers: []\n"+strings.TrimPrefix(string(text), "{}\n")))
		require.NoError(t, err, "%s", text)
		require.Equal(t, settings, c.Settings, "%s", text)
	})
}
