package webhook_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/webhook"
)

const (
	traceID = "4bf92f3577b34da6a3ce929d0e0e4736"
	spanID  = "00f067aa0ba902b7"
	parent  = "00-" + traceID + "-" + spanID + "-01"
)

func TestATraceContextIsReadFromWhatWritersSet(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 250)
	for _, c := range []struct {
		name, raw string
		want      webhook.TraceContext
	}{
		{"a text", `"` + parent + `"`, webhook.TraceContext{Parent: parent}},
		{"an object", `{"traceparent":"` + parent + `","tracestate":"a=1, b@c=x y"}`, webhook.TraceContext{Parent: parent, State: "a=1,b@c=x y"}},
		{"upper case and blanks", `" ` + strings.ToUpper(parent) + `"`, webhook.TraceContext{Parent: parent}},
		{"other flags", `"` + parent[:53] + `03"`, webhook.TraceContext{Parent: parent[:53] + "03"}},
		{"a later version", `"0a` + parent[2:53] + `ff-more"`, webhook.TraceContext{Parent: parent}},
		{"a later version, not sampled", `"0a` + parent[2:53] + `a2"`, webhook.TraceContext{Parent: parent[:53] + "00"}},
		{"Hasura", `{"trace_id":"` + traceID + `","span_id":"` + spanID + `","sampling_state":"1"}`, webhook.TraceContext{Parent: parent, B3: true}},
		{"Hasura, not sampled", `{"trace_id":"` + traceID + `","span_id":"` + spanID + `","sampling_state":"0"}`, webhook.TraceContext{Parent: parent[:53] + "00", B3: true}},
		{"Hasura, undecided", `{"trace_id":"` + traceID + `","span_id":"` + spanID + `"}`, webhook.TraceContext{Parent: parent, B3: true, Undecided: true}},
		{"Hasura, short ids", `{"trace_id":"a3ce929d0e0e4736","span_id":"f067aa0ba902b7","sampling_state":"1"}`,
			webhook.TraceContext{Parent: "00-0000000000000000a3ce929d0e0e4736-" + spanID + "-01", B3: true}},

		{"nothing", ``, webhook.TraceContext{}},
		{"null", `null`, webhook.TraceContext{}},
		{"an empty object", `{}`, webhook.TraceContext{}},
		{"another text", `"checkout"`, webhook.TraceContext{}},
		{"a number", `7`, webhook.TraceContext{}},
		{"no JSON", `{"traceparent`, webhook.TraceContext{}},
		{"too short", `"` + parent[:54] + `"`, webhook.TraceContext{}},
		{"too long", `"` + parent + `-00"`, webhook.TraceContext{}},
		{"a later version without a dash", `"01` + parent[2:] + `x"`, webhook.TraceContext{}},
		{"the version that is none", `"ff` + parent[2:] + `"`, webhook.TraceContext{}},
		{"not hexadecimal", `"` + strings.Replace(parent, "4b", "4g", 1) + `"`, webhook.TraceContext{}},
		{"zero", `"00-` + strings.Repeat("0", 32) + `-` + spanID + `-01"`, webhook.TraceContext{}},
		{"no span", `"00-` + traceID + `-` + strings.Repeat("0", 16) + `-01"`, webhook.TraceContext{}},
		{"a line break", `"` + parent[:50] + `\r\nX-A: 1"`, webhook.TraceContext{}},
		{"a line break behind it", `"` + parent + `\r\n\r\n"`, webhook.TraceContext{Parent: parent}},
		{"a header behind it", `"` + parent + `\r\nX-A: 1"`, webhook.TraceContext{}},
		{"other characters", `"` + strings.Replace(parent, "4b", "\u212a", 1) + `"`, webhook.TraceContext{}},
		{"Hasura, long ids", `{"trace_id":"` + traceID + `0","span_id":"` + spanID + `"}`, webhook.TraceContext{}},
		{"Hasura, numbers", `{"trace_id":1000000000000000000,"span_id":4083814875249555000}`, webhook.TraceContext{}},
		{"Hasura, no span", `{"trace_id":"` + traceID + `"}`, webhook.TraceContext{}},
		{"Hasura, a line break", `{"trace_id":"1\r\nX-A: 1","span_id":"1"}`, webhook.TraceContext{}},
		{"very long", `{"traceparent":"` + parent + `","x":"` + strings.Repeat("a", 10_000) + `"}`, webhook.TraceContext{}},

		{"a long state", stateOf("a=" + long + ",b=" + long + ",c=" + long), webhook.TraceContext{Parent: parent}},
		{"too many members", stateOf(strings.Repeat("a=1,", 33)), webhook.TraceContext{Parent: parent}},
		{"a key that comes twice", stateOf("a=1,a=2"), webhook.TraceContext{Parent: parent}},
		{"a key in upper case", stateOf("A=1"), webhook.TraceContext{Parent: parent}},
		{"no value", stateOf("a="), webhook.TraceContext{Parent: parent}},
		{"two values", stateOf("a=1=2"), webhook.TraceContext{Parent: parent}},
		{"a line break in the state", stateOf("a=1\r\nX-A: 1"), webhook.TraceContext{Parent: parent}},
		{"umlauts", stateOf("a=ä"), webhook.TraceContext{Parent: parent}},
		{"empty members", stateOf(",a=1,,"), webhook.TraceContext{Parent: parent, State: "a=1"}},
		{"a state alone", `{"tracestate":"a=1"}`, webhook.TraceContext{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, c.want, webhook.ParseTraceContext([]byte(c.raw)))
		})
	}
}

func stateOf(state string) string {
	text, _ := json.Marshal(map[string]string{"traceparent": parent, "tracestate": state})
	return string(text)
}

func FuzzTraceContext(f *testing.F) {
	for _, seed := range []string{`"` + parent + `"`, stateOf("a=1,b@c=2"), `{"trace_id":"1","span_id":"2","sampling_state":"0"}`, "\"00-\r\n\"", stateOf("a=1\r\nb: c")} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		c := webhook.ParseTraceContext(raw)
		if c.Parent == "" {
			require.Equal(t, webhook.TraceContext{}, c)
			return
		}
		require.Regexp(t, `^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$`, c.Parent)
		require.LessOrEqual(t, len(c.State), 512)
		require.NotRegexp(t, `[^ -~]`, c.State)
		text, err := json.Marshal(map[string]string{"traceparent": c.Parent, "tracestate": c.State})
		require.NoError(t, err)
		again := webhook.ParseTraceContext(text)
		require.Equal(t, [2]string{c.Parent, c.State}, [2]string{again.Parent, again.State})
	})
}
