package webhook

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// FuzzCloudEvent makes events with any names and data. Both modes carry the same attributes, the
// JSON has the structure that it should have, and the headers have no character that ends a line.
func FuzzCloudEvent(f *testing.F) {
	for _, seed := range [][5]string{
		{"order_placed", "public", "orders", `{"id":1}`, `"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"`},
		{`a"b%20\`, "Große", "a\r\nX-A: 1", `null`, `{"traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01","tracestate":"a= \"%,b=2"}`},
		{"", "", "", ``, `x`}, {"\xff", "\x00\u0085\ufffe\U0001ffff", "\ud7ff😀", `[]`, `"` + strings.Repeat("a", 9000) + `"`},
	} {
		f.Add(seed[0], seed[1], seed[2], seed[3], seed[4], int64(8), true)
	}
	f.Fuzz(func(t *testing.T, trigger, schema, table, row, trace string, sequence int64, test bool) {
		e := orderPlaced()
		e.Trigger, e.Schema, e.Table, e.Sequence, e.Test = trigger, schema, table, max(sequence, 0), test
		if json.Valid([]byte(row)) {
			e.New = []byte(row)
		}
		if test {
			e.Changed = []byte(`["amount"]`)
		}
		if json.Valid([]byte(trace)) {
			e.Trace = []byte(trace)
		}
		structured := AppendCloudEvent(nil, e)
		require.Len(t, structured, e.cloudEventBodySize())
		require.Len(t, AppendCloudEventData(nil, e), e.cloudEventDataSize())
		var got map[string]any
		require.NoError(t, json.Unmarshal(structured, &got), "%s", structured)
		require.Equal(t, test, strings.Contains(string(structured), `"data":{"op":"INSERT","changed":["amount"],"table":`))
		attributes := map[string]string{}
		for name, value := range got {
			require.Regexp(t, `^[a-z0-9]{1,20}$`, name)
			if text, ok := value.(string); ok {
				require.False(t, strings.ContainsFunc(text, unicode.IsControl), "%s: %q", name, text)
				attributes[name] = text
			}
		}
		require.NotContains(t, strings.Join([]string{attributes["source"], attributes["type"], attributes["subject"]}, ""), "\n")
		source, err := url.Parse(attributes["source"])
		require.NoError(t, err)
		require.Equal(t, "/rowhook/"+trigger, source.Path)

		h := http.Header{}
		setCloudEvent(h, e)
		for name, values := range h {
			require.Equal(t, http.CanonicalHeaderKey(name), name)
			require.Regexp(t, `^[!#$%&-~]+$`, values[0], name)
			value, err := url.PathUnescape(values[0])
			require.NoError(t, err)
			require.True(t, utf8.ValidString(value))
			if name == "Ce-Rowhooktest" {
				continue
			}
			require.Equal(t, attributes[strings.ToLower(strings.TrimPrefix(name, "Ce-"))], value, name)
		}
		delete(attributes, "datacontenttype")
		require.Equal(t, test, len(h["Ce-Rowhooktest"]) == 1)
		delete(h, "Ce-Rowhooktest")
		require.Len(t, h, len(attributes))
	})
}
