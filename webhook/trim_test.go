package webhook_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

func TestAnUpdateIsTrimmedToWhatItsTriggerSends(t *testing.T) {
	t.Parallel()
	const old, fresh = `{"id":1,"a":"x","b":1.10,"j":{"k": [1, "}"]}}`, `{"id":1,"a":"x\"","b":1.1,"j":{"k": [1, "}"]}}`
	for name, c := range map[string]struct {
		payload         trigger.Payload
		op              byte
		old, fresh      string
		want, wantNames string
	}{
		"all":                                {trigger.Payload{}, 'U', old, fresh, old, ""},
		"changed":                            {trigger.Payload{Old: trigger.OldChanged}, 'U', old, fresh, `{"a":"x","b":1.10}`, ""},
		"none":                               {trigger.Payload{Old: trigger.OldNone}, 'U', old, fresh, "", ""},
		"the names":                          {trigger.Payload{Changed: true}, 'U', old, fresh, old, `["a","b"]`},
		"the names and what changed":         {trigger.Payload{Changed: true, Old: trigger.OldChanged}, 'U', old, fresh, `{"a":"x","b":1.10}`, `["a","b"]`},
		"the names alone":                    {trigger.Payload{Changed: true, Old: trigger.OldNone}, 'U', old, fresh, "", `["a","b"]`},
		"nothing that is sent has changed":   {trigger.Payload{Changed: true, Old: trigger.OldChanged}, 'U', `{"id":1}`, `{"id":1}`, `{}`, `[]`},
		"an insert":                          {trigger.Payload{Changed: true, Old: trigger.OldNone}, 'I', "", fresh, "", ""},
		"a delete":                           {trigger.Payload{Changed: true, Old: trigger.OldNone}, 'D', old, "", old, ""},
		"an old row that was not stored":     {trigger.Payload{Changed: true, Old: trigger.OldChanged}, 'U', "", fresh, "", "null"},
		"what is no row":                     {trigger.Payload{Changed: true, Old: trigger.OldChanged}, 'U', `[1]`, `{}`, `[1]`, "null"},
		"columns that only one row has":      {trigger.Payload{Changed: true, Old: trigger.OldChanged}, 'U', `{"gone":1,"id":1}`, `{"id":1,"added":null}`, `{"gone":1}`, `["gone","added"]`},
		"columns in another order":           {trigger.Payload{Changed: true, Old: trigger.OldChanged}, 'U', `{"a":1,"b":2,"c":3}`, `{"c":3,"a":1,"b":4}`, `{"b":2}`, `["b"]`},
		"space between":                      {trigger.Payload{Changed: true, Old: trigger.OldChanged}, 'U', " { \"a\" :\n1 , \"b\": [ ] }\t", `{"a":2,"b":[ ]}`, `{"a":1}`, `["a"]`},
		"names that are escaped":             {trigger.Payload{Changed: true, Old: trigger.OldChanged}, 'U', `{"a\"}\\":1,"":2}`, `{"a\"}\\":2,"":2}`, `{"a\"}\\":1}`, `["a\"}\\"]`},
		"a key within a value has no effect": {trigger.Payload{Changed: true}, 'U', `{"a":{"b":1},"b":2}`, `{"a":{"b":3},"b":2}`, `{"a":{"b":1},"b":2}`, `["a"]`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := webhook.Event{Op: c.op, Old: []byte(c.old), New: []byte(c.fresh)}
			for range 2 {
				e.Trim(c.payload)
				require.Equal(t, c.want, string(e.Old))
				require.Equal(t, c.wantNames, string(e.Changed))
				require.Equal(t, c.fresh, string(e.New))
				require.Len(t, webhook.AppendBody(nil, &e), e.BodySize())
			}
			if c.wantNames != "" {
				require.Contains(t, string(webhook.AppendCloudEventData(nil, &e)), `{"op":"UPDATE","changed":`+c.wantNames+`,"table":{`)
				require.Contains(t, string(webhook.AppendBody(nil, &e)), `"event":{"op":"UPDATE","changed":`+c.wantNames+`,"data":{"old":`)
			}
		})
	}
}

// TestTrimmingMakesJSONOfJSON draws rows. What is left of the old row are its values that differ.
func TestTrimmingMakesJSONOfJSON(t *testing.T) {
	t.Parallel()
	value := rapid.Custom(func(t *rapid.T) any {
		return rapid.SampledFrom([]any{nil, true, 1.5, "", `a"}{,:[`, "\\", []any{1.0, "]"}, map[string]any{"a": "}", "b": []any{}}}).Draw(t, "value")
	})
	row := rapid.MapOfN(rapid.SampledFrom([]string{"a", "b", "c", `"`, `\`, "{", "}", "ü", ":"}), value, 0, 8)
	rapid.Check(t, func(t *rapid.T) {
		from, to := row.Draw(t, "old"), row.Draw(t, "new")
		old, err := json.Marshal(from)
		require.NoError(t, err)
		fresh, err := json.Marshal(to)
		require.NoError(t, err)
		e := webhook.Event{Op: 'U', Old: old, New: fresh}
		e.Trim(trigger.Payload{Old: trigger.OldChanged, Changed: true})
		changed, names := map[string]any{}, []string{}
		for k, v := range from {
			if w, has := to[k]; !has || !equalJSON(v, w) {
				changed[k] = v
				names = append(names, k)
			}
		}
		for k := range to {
			if _, has := from[k]; !has {
				names = append(names, k)
			}
		}
		var got map[string]any
		require.NoError(t, json.Unmarshal(e.Old, &got))
		require.Equal(t, changed, got)
		var gotNames []string
		require.NoError(t, json.Unmarshal(e.Changed, &gotNames))
		require.ElementsMatch(t, names, gotNames)
		require.True(t, json.Valid(webhook.AppendBody(nil, &e)))
	})
}

func equalJSON(a, b any) bool {
	x, err := json.Marshal(a)
	y, errToo := json.Marshal(b)
	return err == nil && errToo == nil && string(x) == string(y)
}

// FuzzTrim has rows that are no JSON, as a database could only hold them when it is damaged.
func FuzzTrim(f *testing.F) {
	for _, s := range [][2]string{{"{", "}"}, {`{"a`, `{"a":`}, {`{"a":1`, `{"a":[}`}, {`{"a":}`, `{"a":,}`}, {`{"a":"\`, `{"a" 1}`}, {`{a:1}`, `{}`}, {`{}x`, `{}`}, {`{"a":1}`, `{"a":2}`}} {
		f.Add([]byte(s[0]), []byte(s[1]))
	}
	f.Fuzz(func(t *testing.T, old, fresh []byte) {
		e := webhook.Event{Op: 'U', Old: old, New: fresh}
		e.Trim(trigger.Payload{Old: trigger.OldChanged, Changed: true})
		if json.Valid(old) && json.Valid(fresh) {
			require.True(t, json.Valid(e.Changed), "%s", e.Changed)
			require.True(t, json.Valid(e.Old), "%s", e.Old)
		}
	})
}

func BenchmarkTrim(b *testing.B) {
	old := []byte(`{"id":1,"status":"placed","amount":19.90,"customer":"Ada Lovelace","note":null,"created_at":"2026-11-26T14:03:10.123456+00:00","a":1,"b":2,"c":3,"d":4}`)
	fresh := []byte(`{"id":1,"status":"paid","amount":19.90,"customer":"Ada Lovelace","note":null,"created_at":"2026-11-26T14:03:10.123456+00:00","a":1,"b":2,"c":3,"d":4}`)
	b.ReportAllocs()
	for b.Loop() {
		e := webhook.Event{Op: 'U', Old: old, New: fresh}
		e.Trim(trigger.Payload{Old: trigger.OldChanged, Changed: true})
	}
}
