package webhook

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/rowhook/rowhook/internal/template"
)

func orderPlaced() *Event {
	return &Event{
		ID:        [16]byte{0x01, 0x99, 0xAB, 0xCD, 0xEF, 0x01, 0x7a, 0xbc, 0x8d, 0xef, 0x01, 0x23, 0x45, 0x67, 0x89, 0xAB},
		CreatedAt: time.Date(2026, 11, 23, 10, 41, 0, 123456789, time.FixedZone("", 3600)),
		Schema:    "public", Table: "orders", Trigger: "order_placed", Op: 'I',
		New:        []byte(`{"id":1,"amount":1.10,"big":50755254975729665123456789012}`),
		MaxRetries: 5,
	}
}

func TestBodyIsTheDocumentedOneByteForByte(t *testing.T) {
	t.Parallel()
	insert := orderPlaced()
	update := orderPlaced()
	update.Op, update.Old, update.CreatedAt = 'U', []byte(`{"b":"\u0000", "a": null}`), time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	update.Session, update.Trace = []byte(`{"x-hasura-role":"user"}`), []byte(`{"trace_id":"1"}`)
	update.CurrentRetry, update.MaxRetries = 12, 15
	for name, c := range map[string]struct {
		event *Event
		want  string
	}{
		"insert": {insert, `{"id":"0199abcd-ef01-7abc-8def-0123456789ab","created_at":"2026-11-23T09:41:00.123456Z",` +
			`"table":{"schema":"public","name":"orders"},"trigger":{"name":"order_placed"},` +
			`"event":{"op":"INSERT","data":{"old":null,"new":{"id":1,"amount":1.10,"big":50755254975729665123456789012}},` +
			`"session_variables":null,"trace_context":null},"delivery_info":{"current_retry":0,"max_retries":5}}`},
		"update": {update, `{"id":"0199abcd-ef01-7abc-8def-0123456789ab","created_at":"2026-01-02T03:04:05.000000Z",` +
			`"table":{"schema":"public","name":"orders"},"trigger":{"name":"order_placed"},` +
			`"event":{"op":"UPDATE","data":{"old":{"b":"\u0000", "a": null},"new":{"id":1,"amount":1.10,"big":50755254975729665123456789012}},` +
			`"session_variables":{"x-hasura-role":"user"},"trace_context":{"trace_id":"1"}},"delivery_info":{"current_retry":12,"max_retries":15}}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.NotContains(t, c.want, `"test"`)
			madeUp := *c.event
			madeUp.Test = true
			require.Equal(t, strings.TrimSuffix(c.want, "}")+`,"test":true}`, string(AppendBody(nil, &madeUp)))
			require.Equal(t, c.want, string(AppendBody(nil, c.event)))
			require.Equal(t, "kept"+c.want, string(AppendBody([]byte("kept"), c.event)))
		})
	}
}

func TestBodyNamesTheDatabaseWhereThereAreSeveral(t *testing.T) {
	t.Parallel()
	e := orderPlaced()
	alone := string(AppendBody(nil, e))
	e.Sequence, e.Source = 8, "eu"
	require.Equal(t, strings.Replace(alone, `Z",`, `Z","sequence":8,"source":"eu",`, 1), string(AppendBody(nil, e)))
	require.Contains(t, string(AppendCloudEvent(nil, e)), `"source":"/rowhook/eu/order_placed"`)
	require.Len(t, AppendCloudEvent(nil, e), e.cloudEventBodySize())
}

func TestBodyNamesEachOperation(t *testing.T) {
	t.Parallel()
	for op, want := range map[byte]string{'I': "INSERT", 'U': "UPDATE", 'D': "DELETE", 'M': "MANUAL"} {
		e := orderPlaced()
		e.Op = op
		require.Contains(t, string(AppendBody(nil, e)), `"op":"`+want+`"`)
	}
}

func TestNamesAreEscapedOnlyWhereJSONDemandsIt(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`a"b\c`:               `"a\"b\\c"`,
		"\b\f\n\r\t\x01\x1f":  `"\b\f\n\r\t\u0001\u001f"`,
		"Größe 表 🐘":           `"Größe 表 🐘"`,
		"<a&b>":               `"<a&b>"`,
		"\u2028":              "\"\u2028\"",
		"bad\xffbyte\xe2\x82": "\"bad\uFFFDbyte\uFFFD\uFFFD\"",
		"":                    `""`,
	} {
		require.Equal(t, want, string(template.AppendString(nil, in)))
	}
}

func TestAnyNamesGiveValidJSONThatDecodesToThem(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		e := orderPlaced()
		e.Schema, e.Table, e.Trigger = rapid.String().Draw(t, "schema"), rapid.String().Draw(t, "table"), rapid.String().Draw(t, "trigger")
		var got struct {
			Table   struct{ Schema, Name string }
			Trigger struct{ Name string }
		}
		require.NoError(t, json.Unmarshal(AppendBody(nil, e), &got))
		require.Equal(t, []string{e.Schema, e.Table, e.Trigger}, []string{got.Table.Schema, got.Table.Name, got.Trigger.Name})
	})
}

func TestBuildingABodyAllocatesNothing(t *testing.T) {
	e := orderPlaced()
	e.Table = "Größe\n"
	dst := make([]byte, 0, e.size())
	require.Zero(t, testing.AllocsPerRun(100, func() { dst = AppendBody(dst[:0], e) }))
}

func BenchmarkAppendBody(b *testing.B) {
	e := orderPlaced()
	dst := make([]byte, 0, e.size())
	b.ReportAllocs()
	for b.Loop() {
		dst = AppendBody(dst[:0], e)
	}
	b.SetBytes(int64(len(dst)))
}

func TestBodySizeIsTheLengthOfTheBody(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.String()
		e := Event{
			CreatedAt: time.Unix(rapid.Int64Range(0, 1e10).Draw(t, "at"), 0), Schema: text.Draw(t, "schema"), Table: text.Draw(t, "table"), Trigger: text.Draw(t, "trigger"),
			Op: rapid.SampledFrom([]byte("IUDM")).Draw(t, "op"), Old: []byte(text.Draw(t, "old")), New: []byte(text.Draw(t, "new")),
			Session: []byte(text.Draw(t, "session")), Trace: []byte(text.Draw(t, "trace")),
			Sequence: max(rapid.Int64().Draw(t, "sequence"), 0), Source: text.Draw(t, "source"),
			CurrentRetry: rapid.IntRange(-1, 1000).Draw(t, "retry"), MaxRetries: rapid.IntRange(0, 1000).Draw(t, "retries"), Test: rapid.Bool().Draw(t, "test"),
		}
		require.Equal(t, len(AppendBody(nil, &e)), e.BodySize())
	})
}
