package mask

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestApplyMasksByPath(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		paths []string
		text  string
		want  string
	}{
		{"a column", []string{"email"}, `{"id": 7, "email":"ann@example.com" ,"n":1.10}`, `{"id": 7, "email":"<masked>" ,"n":1.10}`},
		{"a column that is null", []string{"email"}, `{"email":null}`, `{"email":"<masked>"}`},
		{"a column that is an object", []string{"address"}, `{"address":{"city":"x","more":[1,{"a":"]"}]},"b":2}`, `{"address":"<masked>","b":2}`},
		{"a member", []string{"address.city"}, `{"address":{"city":"x","zip":"1"}}`, `{"address":{"city":"<masked>","zip":"1"}}`},
		{"all members", []string{"address.*"}, `{"address":{"city":"x","zip":null,"at":{"a":1}},"c":1}`, `{"address":{"city":"<masked>","zip":"<masked>","at":"<masked>"},"c":1}`},
		{"a member of all members", []string{"a.*.b"}, `{"a":{"x":{"b":1,"c":2},"y":{"b":3}}}`, `{"a":{"x":{"b":"<masked>","c":2},"y":{"b":"<masked>"}}}`},
		{"all elements", []string{"tags.*"}, `{"tags":["a",["b"],{"c":1}],"x":["y"]}`, `{"tags":["<masked>","<masked>","<masked>"],"x":["y"]}`},
		{"a member of each element", []string{"lines.price"}, `{"lines":[{"price":1,"n":2},[{"price":3}]]}`, `{"lines":[{"price":"<masked>","n":2},[{"price":"<masked>"}]]}`},
		{"a member of all elements", []string{"lines.*.price"}, `{"lines":[{"price":1,"n":"x"}]}`, `{"lines":[{"price":"<masked>","n":"x"}]}`},
		{"every column", []string{"*"}, `{"a":1,"b":[2]}`, `{"a":"<masked>","b":"<masked>"}`},
		{"duplicates", []string{"email"}, `{"email":"a","email":"b"}`, `{"email":"<masked>","email":"<masked>"}`},
		{"an escaped name", []string{"email"}, `{"\u0065mail":"a","em\u0061il":1}`, `{"\u0065mail":"<masked>","em\u0061il":"<masked>"}`},
		{"another case", []string{"email"}, `{"Email":"a"}`, `{"Email":"a"}`},
		{"quotes and braces in strings", []string{"a"}, `{"x":"\"a\":1}{","a":"]}\"","y":1}`, `{"x":"\"a\":1}{","a":"<masked>","y":1}`},
		{"the name as a value", []string{"email"}, `{"x":"email","y":["email"],"email":1}`, `{"x":"email","y":["email"],"email":"<masked>"}`},
		{"the name deeper", []string{"email"}, `{"x":{"email":"kept"}}`, `{"x":{"email":"kept"}}`},
		{"a scalar where a member is", []string{"address.city"}, `{"address":"Main street","b":1}`, `{"address":"<masked>","b":1}`},
		{"null where a member is", []string{"address.city"}, `{"address":null}`, `{"address":null}`},
		{"a name with a dot", []string{`"a.b".c`}, `{"a.b":{"c":1},"a":{"b":{"c":2}}}`, `{"a.b":{"c":"<masked>"},"a":{"b":{"c":2}}}`},
		{"a name with a quote", []string{`"a""b"`}, `{"a\"b":1}`, `{"a\"b":"<masked>"}`},
		{"a name that is a star", []string{`"*"`}, `{"*":1,"a":2}`, `{"*":"<masked>","a":2}`},
		{"white space", []string{"b"}, " {\n \"a\" : 1 ,\t\"b\" : [ 1 , 2 ] \r\n} ", " {\n \"a\" : 1 ,\t\"b\" : \"<masked>\" \r\n} "},
		{"digits", []string{"b"}, `{"a":123456789012345678901234567890.000,"b":1e400,"c":-0.0}`, `{"a":123456789012345678901234567890.000,"b":"<masked>","c":-0.0}`},
		{"null", []string{"a"}, `null`, `null`},
		{"a scalar", []string{"a"}, `"ann@example.com"`, `"<masked>"`},
		{"an array of rows", []string{"a"}, `[{"a":1},{"b":2}]`, `[{"a":"<masked>"},{"b":2}]`},
		{"nothing", []string{"a"}, ``, ``},
		{"an empty object", []string{"a"}, `{ }`, `{ }`},
		{"an empty array", []string{"a.b"}, `{"a":[ ]}`, `{"a":[ ]}`},
		{"no JSON", []string{"a"}, `{"a":1 "b":2}`, `"<masked>"`},
		{"JSON that is cut off", []string{"a"}, `{"b":"x`, `"<masked>"`},
		{"something behind it", []string{"a"}, `{"b":1} {"a":2}`, `"<masked>"`},
		{"half of a pair", []string{"a"}, `{"\ud800":1,"a":"\ud800"}`, `{"\ud800":1,"a":"<masked>"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m, err := New(c.paths)
			require.NoError(t, err)
			given := []byte(c.text)
			require.Equal(t, c.want, string(m.Apply(given)))
			require.Equal(t, c.text, string(given), "the text itself was changed")
		})
	}
}

func TestApplyMasksLargeAndDeepValues(t *testing.T) {
	t.Parallel()
	m, err := New([]string{"a", "b.c"})
	require.NoError(t, err)
	large := strings.Repeat("x", 1<<20)
	require.Equal(t, `{"a":"<masked>","z":"`+large+`"}`, string(m.Apply([]byte(`{"a":"`+large+`","z":"`+large+`"}`))))
	deep := strings.Repeat("[", 1<<20) + strings.Repeat("]", 1<<20)
	require.Equal(t, `{"a":"<masked>","z":`+deep+`}`, string(m.Apply([]byte(`{"a":`+deep+`,"z":`+deep+`}`))))
	require.Equal(t, JSON, string(m.Apply([]byte(`{"b":`+deep+`}`))), "paths are not looked for that deep, so all is masked")
	nested := strings.Repeat("[", 50_000) + `{"c":1,"d":2}` + strings.Repeat("]", 50_000)
	require.Equal(t, `{"b":`+strings.Replace(nested, `"c":1`, `"c":"<masked>"`, 1)+`}`, string(m.Apply([]byte(`{"b":`+nested+`}`))))
}

func TestNewRefusesPathsThatMeanNothing(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"":         "without a name",
		"a.":       "without a name",
		".a":       "without a name",
		"a..b":     "without a name",
		`""`:       "without a name",
		"a*":       "* within a name",
		"a.b*":     "* within a name",
		`a"b`:      "quote within a name",
		`"a`:       "not closed",
		`"a"b`:     "behind a closing quote",
		"tags.0":   "no element of an array; write * for every element",
		"tags.0.a": "no element of an array",
	} {
		_, err := New([]string{"id", path})
		require.ErrorContains(t, err, want, path)
		require.Contains(t, err.Error(), "; ", path)
	}
}

func TestOverlapsFindsWhatFiltersCouldTell(t *testing.T) {
	t.Parallel()
	m, err := New([]string{"email", "address.city", "lines.*.price", "tags.*"})
	require.NoError(t, err)
	for path, want := range map[string]bool{
		"email": true, "email.x": true, "id": false, "address": true, "address.city": true, "address.zip": false, "address.city.part": true,
		"lines": true, "lines.price": true, "lines.x.price": true, "lines.n": true, "tags": true, "tags.x": true,
	} {
		if path == "lines.n" {
			want = true // n may stand for an element
		}
		require.Equal(t, want, m.Overlaps(strings.Split(path, ".")), path)
	}
	require.False(t, (*Mask)(nil).Overlaps([]string{"a"}))
	require.True(t, All().Reaches("anything"))
}

// FuzzApply holds Apply to encoding/json: what is masked is what a walk over the decoded value finds,
// and all else is there byte by byte.
func FuzzApply(f *testing.F) {
	for _, seed := range []string{
		`{"a":1,"b":{"c":[{"d":1}]}}`, `{"\u0061":"x","a":"y"}`, `{"b":[[{"c":1}],{"c":2},3]}`, `{"a":{"x":1},"a":2}`, ` [ {"a" : "]"} , 1 ] `, `{"":1}`,
		`{"a":1e400,"b":{"c":-0.00},"e":"\ud800"}`, `{"a\u0000":1}`, `{"b":null}`, `"x"`, `{"a":"\\\""}`, `{"b":{"c":{"c":1}}}`, `{"a":1 "a":2}`, `[`, `{"a":`,
	} {
		f.Add([]byte(seed))
	}
	m, err := New([]string{"a", "b.c", "d.*", "e.*.f"})
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, text []byte) {
		given := string(text)
		got := m.Apply(text)
		if string(text) != given {
			t.Fatal("the text itself was changed")
		}
		if !json.Valid(text) {
			return
		}
		if !json.Valid(got) {
			t.Fatalf("%q became %q, which is not JSON", text, got)
		}
		pieces := strings.Split(string(got), JSON)
		rest := given
		for i, piece := range pieces { // what is left stands in the text, in its order
			at := strings.Index(rest, piece)
			if at < 0 || i == 0 && at != 0 {
				t.Fatalf("%q became %q: %q is not of it", text, got, piece)
			}
			rest = rest[at+len(piece):]
		}
		if again := m.Apply(got); string(again) != string(got) {
			t.Fatalf("%q became %q, and that %q", text, got, again)
		}
		var value any
		if err := json.Unmarshal(got, &value); err != nil {
			return // nested too deeply for encoding/json
		}
		if left := leak(value, m.root); left != nil {
			t.Fatalf("%q became %q, which shows %v", text, got, left)
		}
	})
}

// leak returns what of a decoded value is not masked although a path leads to it.
func leak(v any, n *node) any {
	if n.whole && v != any(Text) {
		return v
	}
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			if in := n.named[name]; in != nil {
				if left := leak(member, in); left != nil {
					return left
				}
			}
			if n.any != nil {
				if left := leak(member, n.any); left != nil {
					return left
				}
			}
		}
	case []any:
		for _, element := range v {
			if n.any != nil {
				if left := leak(element, n.any); left != nil {
					return left
				}
			}
			if left := leak(element, &node{named: n.named}); len(n.named) > 0 && left != nil {
				return left
			}
		}
	case nil:
	default:
		if (n.any != nil || len(n.named) > 0) && v != any(Text) {
			return v
		}
	}
	return nil
}
