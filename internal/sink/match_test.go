package sink

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

const nested = `{"id":"0199abcd-ef01-7abc-8def-0123456789ab","table":{"schema":"public","name":"orders"},"event":{"op":"INSERT",
 "data":{"old":null,"new":{"id":7,"big":50755254975729665123,"price":1.10,"note":"7","empty":"","gone":null,"ok":true,
 "items":[{"sku":"a"},{"sku":"b"}],"a.b":{"c\"d":1},"0":"zero","[x]":2}},"session_variables":{"x-user":"ada"},"trace_context":null}}`

func TestPathsReachIntoTheEvent(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"id":                       `"0199abcd-ef01-7abc-8def-0123456789ab"`,
		"op":                       `"INSERT"`,
		"table.name":               `"orders"`,
		"new.id":                   `7`,
		"old":                      `null`,
		"new.items[1].sku":         `"b"`,
		"new.items.1.sku":          `"b"`,
		`new["items"][1]["sku"]`:   `"b"`,
		`new."a.b"."c\"d"`:         `1`,
		`new.a\.b.c\"d`:            `1`,
		`new["a.b"]["c\"d"]`:       `1`,
		"new.0":                    `"zero"`,
		`new.\[x\]`:                `2`,
		"session_variables.x-user": `"ada"`,
		"trace_context":            `null`,
		"event.data.new.id":        `7`,
	} {
		p, err := parsePath(text)
		require.NoError(t, err, text)
		got, lack := p.find(json.RawMessage(nested))
		require.Nil(t, lack, text)
		require.Equal(t, want, string(got), text)
	}
	for _, text := range []string{"new.nothing", "new.items[2]", "new.items.x", "new.items[0].sku.x", "old.id", "new.ID", "new.id.0", "new.gone.x", "test"} {
		p, err := parsePath(text)
		require.NoError(t, err, text)
		_, lack := p.find(json.RawMessage(nested))
		require.NotNil(t, lack, text)
	}
}

func TestTablesAreNamedAsInSQL(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][]bool{ // whether it fits public."Guest Notes", public.orders, "My.Schema"."a""b", and Public."Orders"
		"Guest Notes":            {true, false, false, false},
		"public.Guest Notes":     {true, false, false, false},
		`"Guest Notes"`:          {true, false, false, false},
		`public."Guest Notes"`:   {true, false, false, false},
		`"public"."Guest Notes"`: {true, false, false, false},
		`PUBLIC."Guest Notes"`:   {true, false, false, false},
		`"PUBLIC"."Guest Notes"`: {false, false, false, false},
		`"guest notes"`:          {false, false, false, false},
		"orders":                 {false, true, false, false},
		"Orders":                 {false, true, false, true},
		`"Orders"`:               {false, false, false, true},
		"Public.Orders":          {false, true, false, true},
		`"a""b"`:                 {false, false, true, false},
		`"My.Schema"."a""b"`:     {false, false, true, false},
		"notes":                  {false, false, false, false},
		"other.orders":           {false, false, false, false},
	} {
		require.NoError(t, CheckTable(name), name)
		var got []bool
		for _, d := range []Delivery{{Schema: "public", Table: "Guest Notes"}, {Schema: "public", Table: "orders"}, {Schema: "My.Schema", Table: `a"b`}, {Schema: "Public", Table: "Orders"}} {
			got = append(got, new(Match{Table: name}).fitsTable(&d))
		}
		require.Equal(t, want, got, name)
	}
	for name, want := range map[string]string{
		`"Guest Notes`:   "a double quote is not closed",
		`public.`:        "a name is empty",
		`"".x`:           "a name is empty",
		`"a"b`:           "a dot is missing before b",
		"db.public.text": "has 3 parts",
	} {
		require.ErrorContains(t, CheckTable(name), want, name)
	}
	d := Delivery{Schema: "public", Table: "Guest Notes", Op: "INSERT"}
	require.Contains(t, new(Match{}).arrival(&d).Text, `INSERT public."Guest Notes"`)
}

func TestABadPathIsExplained(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":               "a key is empty",
		"customer":       "in new.customer",
		"$.new.id":       "write new.id",
		"neww.id":        "did you mean new?",
		"new..id":        "a key is empty",
		"new.":           "a key is empty",
		"new.items[":     "a key is empty",
		"new.items[0":    "a bracket is not closed",
		"new.items[-1]":  "neither an index",
		"new.items[x]":   "neither an index",
		"new.items[0]id": "a dot is missing",
		`new."a`:         "not a JSON string",
		`new.a\`:         "nothing follows the last backslash",
	} {
		_, err := parsePath(text)
		require.ErrorContains(t, err, want, text)
	}
}

func TestValuesAreComparedAsJSONWithEveryDigit(t *testing.T) {
	t.Parallel()
	typed := func(v any) value {
		out, err := typedValue(v)
		require.NoError(t, err)
		return out
	}
	for _, c := range []struct {
		want  value
		got   string
		equal bool
	}{
		{typed(7), "7", true},
		{typed(7), "7.0", true},
		{typed(7), "70e-1", true},
		{typed(7), "0.7E+1", true},
		{typed(7), "-7", false},
		{typed(7), `"7"`, false},
		{typed(7), `""`, false},
		{typed("7"), "7", false},
		{typed("7"), `"\u0037"`, true},
		{typed(json.Number("50755254975729665123")), "50755254975729665123", true},
		{typed(json.Number("50755254975729665123")), "50755254975729665124", false},
		{typed(json.Number("0.1")), "0.10000000000000000001", false},
		{typed(0), "-0.0e5", true},
		{typed(json.Number("1e9999999999999999999999")), "1e9999999999999999999999", true},
		{typed(json.Number("1e9999999999999999999999")), "10e9999999999999999999998", false}, // beyond what is computed
		{typed(1.1), "1.10", true},
		{typed(nil), "null", true},
		{typed(nil), `"null"`, false},
		{typed(true), "true", true},
		{typed(true), `"true"`, false},
		{typed(map[string]any{"a": 1, "b": []int{1, 2}}), `{"b":[1.0,2],"a":1}`, true},
		{typed(map[string]any{"a": 1}), `{"a":1,"b":1}`, false},
		{typed([]int{1, 2}), `[2,1]`, false},
		{typed([]int{1, 2}), `[1]`, false},
		{typed("<&>"), `"<&>"`, true},
		{looseValue("7"), "7.0", true},
		{looseValue("7"), `"7"`, true},
		{looseValue("7.0"), `"7"`, false},
		{looseValue("null"), "null", true},
		{looseValue("null"), `"null"`, true},
		{looseValue(""), `""`, true},
		{looseValue(""), "null", false},
		{looseValue("paid"), `"paid"`, true},
		{looseValue(`"paid"`), `"paid"`, true},
		{looseValue(`{"a": 1}`), `{"a":1.0}`, true},
		{looseValue("{} {}"), "{}", false},
	} {
		require.Equal(t, c.equal, c.want.equals(json.RawMessage(c.got)), "%s and %s", c.want.text, c.got)
	}
	_, err := Where("new.id", func() {})
	require.ErrorContains(t, err, "the value for new.id can't be written as JSON")
}
