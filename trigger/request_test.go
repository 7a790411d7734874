package trigger_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/template"
	"github.com/rowhook/rowhook/trigger"
)

func TestWhatSendsAnotherRequestIsHiddenFromDispatchersOfTheVersionBefore(t *testing.T) {
	t.Parallel()
	for name, w := range map[string]trigger.Webhook{
		"a method": {Method: "PUT"}, "a query": {Query: map[string]string{"a": "b"}}, "a body": {Body: `{"a":1}`}, "a form": {Form: map[string]string{"a": "b"}},
		"data in the url": {URL: "https://e.com/${new.id}"}, "data in a header": {Headers: map[string]string{"X": "$new.id"}}, "an escaped placeholder": {Headers: map[string]string{"X": "$$new.id"}},
	} {
		if w.URL == "" {
			w.URL = "https://e.com"
		}
		spec := trigger.Spec{Webhook: w}
		require.True(t, spec.IsNew(), name)
		text, err := json.Marshal(spec)
		require.NoError(t, err)
		var old struct{ Webhook struct{ URL string } }
		require.NoError(t, json.Unmarshal(text, &old))
		require.Equal(t, "needs a newer rowhook", old.Webhook.URL, name)
		var back trigger.Spec
		require.NoError(t, json.Unmarshal(text, &back))
		require.Equal(t, spec, back, name)
	}
	plain := trigger.Spec{Webhook: trigger.Webhook{URL: "https://e.com/${A}$b$$", Headers: map[string]string{"X": "pa$$word"}}}
	require.False(t, plain.IsNew())
}

func TestTheStoredBodyKeepsTheOrderOfItsKeys(t *testing.T) {
	t.Parallel()
	spec := trigger.Spec{Webhook: trigger.Webhook{Body: `{"z":1.10,"a":2}`}}
	text, err := json.Marshal(spec)
	require.NoError(t, err)
	require.Contains(t, string(text), `"body":"{\"z\":1.10,\"a\":2}"`)
	require.Error(t, json.Unmarshal([]byte(`{"webhook":{"body":"{"}}`), &spec))
	require.Error(t, json.Unmarshal([]byte(`{"webhook":{"body":{}}}`), &spec))
	var shown map[string]any
	require.NoError(t, json.Unmarshal(text, &shown))
	trigger.ShowStored(shown)
	require.Equal(t, map[string]any{"z": 1.1, "a": 2.0}, shown["webhook"].(map[string]any)["body"])
}

func TestTextsWithPlaceholdersAreVisitedWithTheirPaths(t *testing.T) {
	t.Parallel()
	w := trigger.Webhook{
		URL: "u", Query: map[string]string{"b": "1", "a": "2"}, Headers: map[string]string{"X": "h"}, Body: `{"z":["t",{"y":"w"}],"n":1}`, Form: map[string]string{"f": "v"},
	}
	var found [][]string
	require.NoError(t, w.EachText(func(text string, _ template.Mode, path ...string) { found = append(found, append(path, text)) }))
	require.Equal(t, [][]string{
		{"webhook", "url", "u"}, {"webhook", "query", "a", "2"}, {"webhook", "query", "b", "1"}, {"webhook", "headers", "X", "h"}, {"webhook", "form", "f", "v"},
		{"webhook", "body", "z", "0", "t"}, {"webhook", "body", "z", "1", "y", "w"},
	}, found)
}
