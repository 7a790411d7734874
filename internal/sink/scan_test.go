package sink

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// randomJSON writes a value with white space, escapes, bytes that are not UTF-8, and keys that are
// there twice.
func randomJSON(r *rand.Rand, depth int) string {
	space := func() string { return strings.Repeat([]string{" ", "\n", "\t", "\r"}[r.IntN(4)], r.IntN(3)/2) }
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	if depth == 0 || r.IntN(4) == 0 {
		return space() + pick("null", "true", "false", "0", "-7", "7.0", "1e3", `""`, `"7"`, `"a\\"`, `"\""`, `"\\\""`, `"},{"`, `"\u00e9\ud83d\ude00"`, "\"\xff\"", `"é"`, "[]", "{ }", "[ ]") + space()
	}
	var parts []string
	object := r.IntN(3) > 0
	for range r.IntN(5) {
		part := randomJSON(r, depth-1)
		if object {
			part = space() + pick(`"a"`, `"b"`, `"\u0061"`, `"a\"b"`, `"\\"`, `""`, `"0"`, `"é"`, `"\u00e9"`, "\"\xff\"", `"{"`) + space() + ":" + part
		}
		parts = append(parts, part)
	}
	text := strings.Join(parts, ",")
	if object {
		return space() + "{" + text + space() + "}" + space()
	}
	return space() + "[" + text + space() + "]" + space()
}

// slowStep is step by encoding/json.
func slowStep(value json.RawMessage, key string) (json.RawMessage, bool) {
	var object map[string]json.RawMessage
	var array []json.RawMessage
	switch {
	case json.Unmarshal(value, &object) == nil && object != nil:
		next, ok := object[key]
		return next, ok
	case json.Unmarshal(value, &array) == nil && isIndex(key):
		var i int
		_, _ = fmt.Sscan(key, &i)
		if i < len(array) {
			return array[i], true
		}
	}
	return nil, false
}

// slowEqual compares as equalJSON does, of two decoded values.
func slowEqual(a, b any) bool {
	switch a := a.(type) {
	case json.Number:
		b, ok := b.(json.Number)
		return ok && equalNumbers(string(a), string(b))
	case []any:
		b, ok := b.([]any)
		for i := 0; ok && len(a) == len(b) && i < len(a); i++ {
			ok = slowEqual(a[i], b[i])
		}
		return ok && len(a) == len(b)
	case map[string]any:
		b, ok := b.(map[string]any)
		for key := range a {
			_, there := b[key]
			ok = ok && there && slowEqual(a[key], b[key])
		}
		return ok && len(a) == len(b)
	}
	return a == b
}

func TestScanningFindsWhatEncodingJSONFinds(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 1))
	keys := []string{"a", "b", `a"b`, `\`, "", "0", "1", "3", "é", "\uFFFD", "\xff", "{", "x", "01", "99999999999"}
	found, equal := 0, 0
	for range 20_000 {
		text := json.RawMessage(randomJSON(r, 4))
		require.True(t, json.Valid(text), "%s", text)
		for _, key := range keys {
			got, ok := step(text, key)
			want, there := slowStep(text, key)
			require.Equal(t, there, ok, "%q in %s", key, text)
			require.Equal(t, string(want), string(got), "%q in %s", key, text)
			if ok {
				found++
			}
		}
		other := json.RawMessage(randomJSON(r, 2))
		if r.IntN(2) == 0 {
			other = bytes.Clone(text)
		}
		a, err := decodeJSON(text)
		require.NoError(t, err)
		b, err := decodeJSON(other)
		require.NoError(t, err)
		require.Equal(t, slowEqual(a, b), equalJSON(bytes.TrimSpace(text), b), "%s and %s", text, other)
		if slowEqual(a, b) {
			equal++
		}
		require.Equal(t, compact(text), brief(text, len(text)))
		damaged := bytes.Clone(text) // a rejected body: any answer is good, if there is one
		damaged[r.IntN(len(damaged))] = `"\{}[],: x`[r.IntN(10)]
		for _, part := range []json.RawMessage{damaged, text[:r.IntN(len(text)+1)]} {
			step(part, "a")
			step(part, "1")
			equalJSON(part, b)
			brief(part, 3)
		}
	}
	require.Greater(t, found, 10_000)
	require.Greater(t, equal, 5000)
}

// large is a body whose new row has a text, an object and many keys; of about 12 bytes times n.
func large(n int) json.RawMessage {
	return json.RawMessage(`{"id":"00000000-0000-0000-0000-000000000001","created_at":"2026-01-01T00:00:00Z","table":{"schema":"public","name":"orders"},` +
		`"trigger":{"name":"order_placed"},"event":{"op":"INSERT","data":{"old":null,"new":{"text":"` + strings.Repeat(`\"ab`, n) + `","list":[0` + strings.Repeat(",{}", n) + `],"many":{"k":0` +
		strings.Repeat(`,"l":1`, n) + `},"id":7}}},"delivery_info":{"current_retry":0,"max_retries":5}}`)
}

func TestAConditionOnALargeBodyAllocatesNothing(t *testing.T) { //nolint:paralleltest // it counts allocations
	d := &Delivery{Sequence: 1, Op: "INSERT", Body: large(10_000)}
	for path, v := range map[string]any{"new.id": 7, "new.list.9": map[string]any{}, "new.many.k": 1, "new.gone.x": 1, "new.text": "x", "new": 1, "new.list": 1} {
		m := Match{Where: where(t, path, v)}
		require.LessOrEqual(t, testing.AllocsPerRun(10, func() { m.fits(d) }), 1.0, path)
	}
}

func TestARejectedBodyFitsNoCondition(t *testing.T) {
	t.Parallel()
	m := Match{Where: where(t, "id", 7)}
	require.False(t, m.fits(&Delivery{Body: json.RawMessage(`{"id":7,`)}))
	require.True(t, m.fits(&Delivery{Body: json.RawMessage(`{"id":7}`)}))
}

func TestAMissOverLargeBodiesIsShort(t *testing.T) {
	t.Parallel()
	s := &Sink{KeepBytes: 1 << 30}
	for range 3 {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/x", bytes.NewReader(large(10_000)))
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		require.Equal(t, 200, w.Code, w.Body)
	}
	for _, at := range []string{"new.id", "new.text", "new.list", "new.many", "new.many.x", "new.text.x", "new.list.x"} {
		_, miss := s.Await(over(), Match{Where: where(t, at, 1)}, 1)
		require.NotNil(t, miss, at)
		require.Less(t, len(miss.String()), 5000, at)
		require.Contains(t, miss.String(), "nearest: "+at+" is ", at)
	}
}

func TestFewQuestionsLookAtATimeAndThoseOfClientsThatLeaveEnd(t *testing.T) {
	t.Parallel()
	s := &Sink{}
	to := start(t, s)
	to.send("/", order(7, "Ada"))
	var ends []func()
	for range mostTurns {
		end, err := s.turns.begin(t.Context())
		require.NoError(t, err)
		ends = append(ends, end)
	}
	client, leave := context.WithCancel(t.Context())
	gone := context.WithValue(t.Context(), clientKey{}, client)
	answers := make(chan *Miss, 2)
	ask := func(ctx context.Context) {
		_, miss := s.Await(ctx, Match{Where: where(t, "new.id", 7)}, 1)
		answers <- miss
	}
	go ask(gone)
	go ask(t.Context())
	require.Empty(t, answers)
	leave()
	require.NotNil(t, <-answers, "it is not answered")
	require.Empty(t, answers, "the other one waits for its turn")
	ends[0]()
	require.Nil(t, <-answers)
	require.Nil(t, new(Match).nearest(client, s.journal.all().deliveries, true))
	require.Empty(t, new(Match).counted(client, s.journal.all().deliveries))
}

// BenchmarkWhere measures one condition on one delivery.
func BenchmarkWhere(b *testing.B) {
	body := `{"id":"00000000-0000-0000-0000-000000000001","event":{"op":"INSERT","data":{"old":null,"new":{"id":7` + strings.Repeat(`,"another_column":"a value of the column"`, 100) + `}}}}`
	c, err := loosely("new.id", "7")
	if err != nil {
		b.Fatal(err)
	}
	m, d := Match{Where: []Condition{c}}, &Delivery{Sequence: 1, Op: "INSERT", Body: json.RawMessage(body)}
	b.ReportAllocs()
	for b.Loop() {
		if !m.fits(d) {
			b.Fatal("it does not fit")
		}
	}
}
