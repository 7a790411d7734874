package template_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/template"
)

// event is a Source.
type event struct{ old, new, session, trace string }

func (e event) Rows() (old, new, session, trace []byte) {
	return []byte(e.old), []byte(e.new), []byte(e.session), []byte(e.trace)
}

func (e event) AppendDatum(dst []byte, d template.Datum) []byte {
	return append(dst, map[template.Datum]string{
		template.ID: `"0199"`, template.CreatedAt: `"2026-11-26"`, template.Sequence: "null", template.Attempt: "1", template.Trigger: `"a\"b"`,
		template.Table: `"public.orders"`, template.TableSchema: `"public"`, template.TableName: `"orders"`, template.Op: `"INSERT"`, template.Changed: `["id","n"]`,
		template.Data: `{"new":1}`, template.Whole: `{"op":"INSERT"}`,
	}[d]...)
}

func environment(reference string) (string, error) {
	if reference != "${NAME}" {
		return "", fmt.Errorf("%s is not set", reference)
	}
	return "a \"secret\"", nil
}

func render(t testing.TB, body string, e event) string {
	t.Helper()
	var set template.Set
	compiled, err := set.Body(json.RawMessage(body), environment)
	require.NoError(t, err)
	var v template.Values
	require.NoError(t, set.Read(&v, e))
	return string(compiled.Append(nil, &v))
}

func TestAPlaceholderAloneIsTheJSONAndInATextTheText(t *testing.T) {
	t.Parallel()
	row := event{
		old:     `{"a": 1}`,
		new:     `{"id":  9007199254740993 , "amount":1.10,"huge":1e999999,"s":"a\"b\\ \u0000 \ud800 é","n":null,"t":true,"o":{"x":[1,{"y":"z"}], "x y":2},"Order Id":5,"a\u0062c":7,"d":{"e":1,"e":2},"d":{"f":3}}`,
		session: `{"x-hasura-user-id":"7","x-hasura-role":"user"}`,
		trace:   `{"trace_id":"1"}`,
	}
	for in, want := range map[string]string{
		`$new.id`: `9007199254740993`, `$new.amount`: `1.10`, `$new.huge`: `1e999999`, `$new.s`: `"a\"b\\ \u0000 \ud800 é"`, `$new.n`: `null`, `$new.t`: `true`,
		`$new.o.x[1].y`: `"z"`, `${new.o."x y"}`: `2`, `$new."Order Id"`: `5`, `$new.nothing`: `null`, `$new.o.x[7]`: `null`, `$new.id.x`: `null`, `$new.s[0]`: `null`,
		`$new.abc`: `7`, `$new.d.e`: `null`, `$new.d.f`: `3`, `$old`: `{"a": 1}`, `$old.a`: `1`,
		`<$new.s>`: `"<a\"b\\ \u0000 \ud800 é>"`, `no. $new.id.`: `"no. 9007199254740993."`, `[${new.o}]`: `"[{\"x\":[1,{\"y\":\"z\"}], \"x y\":2}]"`, `-$new.n-`: `"--"`, `${new.t}!`: `"true!"`,
		`${new.n ?? "-"}`: `"-"`, `${new.nothing ?? 'it is'}`: `"it is"`, `x ${new.n ?? "\"q\""}`: `"x \"q\""`, `${new.n??{"a":[]}}`: `{"a":[]}`, `${ new.n ?? 1.50 }`: `1.50`, `${new.id ?? 0}`: `9007199254740993`,
		`${new.id as text}`: `"9007199254740993"`, `${ new.n as text ?? "-" }`: `"-"`, `${new.n as text}`: `""`, `${new.t as text??1}`: `"true"`, `${new.s as text}`: `"a\"b\\ \u0000 \ud800 é"`,
		`${new.o as text}`: `"{\"x\":[1,{\"y\":\"z\"}], \"x y\":2}"`, `no. ${new.id as text}`: `"no. 9007199254740993"`, `${new.nothing as text ?? 1.50}`: `"1.50"`,
		`$session.x-hasura-role`: `"user"`, `${session.x-hasura-user-id}`: `"7"`, `$event.session_variables.x-hasura-role.`: `"user."`, `$session.x-hasura-role-`: `"user-"`,
		`$event`: `{"op":"INSERT"}`, `$event.op`: `"INSERT"`, `$event.changed`: `["id","n"]`, `$event.data`: `{"new":1}`, `$event.data.old.a`: `1`, `$event.trace_context.trace_id`: `"1"`,
		`$id`: `"0199"`, `$attempt`: `1`, `$sequence`: `null`, `${sequence ?? 0}`: `0`, `$created_at`: `"2026-11-26"`, `$trigger`: `"a\"b"`, `$table`: `"public.orders"`, `$table.name`: `"orders"`,
		`$$new.id`: `"$new.id"`, `$$$new.id`: `"$9007199254740993"`, `$5 and $X`: `"$5 and $X"`, `$${NAME}`: `"${NAME}"`, `$`: `"$"`, `${NAME}`: `"a \"secret\""`, `a-$id-b`: `"a-0199-b"`, `$idle`: `"$idle"`,
	} {
		text, err := json.Marshal(in)
		require.NoError(t, err)
		require.Equal(t, want, render(t, string(text), row), in)
	}
}

func TestATemplateKeepsTheOrderOfItsKeysAndItsNumbers(t *testing.T) {
	t.Parallel()
	require.Equal(t, `{"z":1.10,"a":[true,null,{"$new.id":"x"}],"m":12345678901234567890123,"":"${"}`,
		render(t, ` {"z": 1.10, "a": [true, null, {"$new.id": "x"}], "m": 12345678901234567890123, "": "$${"}`, event{}))
}

func TestWhatIsWrongWithAPlaceholderIsToldWithItsPlace(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"a $nwe.id":                       "2 did you mean $new?",
		"$neww.id":                        "0 did you mean $new?",
		"${nwe.id}":                       "0 did you mean ${new.",
		"$orders.id":                      "0 the words are $new",
		"$triger":                         "0 did you mean $trigger?",
		"$id.x":                           "0 $id has no members",
		"$table.nmae":                     "0 did you mean $table.name?",
		"$table.name.x":                   "0 has no members",
		"$event.date":                     "0 did you mean $event.data?",
		"$event.data.x":                   "0 old and new",
		"$event.op.x":                     "0 is a text",
		"$new[0]":                         "0 has no elements",
		"$new.a[x]":                       "6 not followed by a number",
		"$new.a[-1]":                      "6 not followed by a number",
		"${new.a":                         "0 no closing }",
		"${new.}":                         "5 not followed by a name",
		"${new.a b}":                      "8 goes on with something unknown",
		"${new.a as texts}":               "8 goes on with something unknown",
		"${new.a as text as text}":        "16 goes on with something unknown",
		"${new.a:-x}":                     "7 goes on with something unknown",
		"${new.a ?? x}":                   "11 is not JSON",
		"${new.a ?? 01}":                  "11 is not JSON",
		"${new.a ?? 'x}":                  "11 no closing '",
		`$new."a`:                         `4 no closing "`,
		`$new.""`:                         `4 is empty`,
		"$new.a[99999999]":                "6 not followed by a number",
		"$new" + strings.Repeat(".a", 40): "70 deeper than 32",
	} {
		_, err := template.Parse(in, template.Always)
		e, ok := errors.AsType[*template.Error](err)
		require.True(t, ok, in)
		require.Contains(t, strconv.Itoa(e.At)+" "+e.Message, strings.SplitN(want, " ", 2)[0]+" ", in)
		require.Contains(t, e.Message, strings.SplitN(want, " ", 2)[1], in)
	}
}

func TestTextsOfEarlierVersionsMeanWhatTheyDid(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]bool{
		"https://e.com/${NAME}/x?a=$b&c=$$": false, "pa$$word": false, "$${NAME}": false, "$5": false, "$idx": false, "$ids": false, "$filter=x": false, "Bearer ${TOKEN}": false,
		"/$new.id": true, "/${new.id}": true, "$id": true, "${id}": true, "${ id }": true, "$$new.id": true, "${ID}": false, "${newer}": false, "${id_x}": false,
	} {
		parts, err := template.Parse(in, template.Mixed)
		require.NoError(t, err)
		require.Equal(t, want, parts != nil, in)
	}
}

func TestTextsAreEscapedForTheirPlace(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		place template.Place
		in    string
		want  string
	}{
		{template.InURL, "a b&c=d/é?#%+\x00..;~-_", "a%20b%26c%3Dd%2F%C3%A9%3F%23%25%2B%00..%3B~-_"},
		{template.InForm, "a b+c", "a+b%2Bc"},
		{template.InHeader, "a\r\nB: c\x00\x7f\té", "a  B: c  \té"},
	} {
		require.Equal(t, c.want, string(c.place.Append(nil, []byte(c.in))))
	}
}

func TestAFormHasTheColumnsOfTheRow(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`{"id": 1.10, "a b": "x&y=\u00e9 \ud83d\udc18 \ud800", "n": null, "o": {"a":[1]}, "t":true}`: "id=1.10&a+b=x%26y%3D%C3%A9+%F0%9F%90%98+%EF%BF%BD&n=&o=%7B%22a%22%3A%5B1%5D%7D&t=true",
		``: "", `null`: "", `{}`: "", ` [1] `: "value=%5B1%5D", `"x y"`: "value=x+y",
	} {
		require.Equal(t, want, string(template.AppendForm(nil, []byte(in))), in)
	}
}

// hostile has each kind of placeholder.
const hostile = `{"id":"$new.id","text":"<${new.s}> $new.o ${new.a[1] ?? \"-\"}","list":["$new","$old.s","$session.x-hasura-role",{"deep":"${new.o.p.q ?? {}}"}],` +
	`"both":"$event.data.new.s$new.s","n":1}`

// FuzzBody puts any row into a template. The output is JSON of the template's structure.
func FuzzBody(f *testing.F) {
	for _, seed := range []string{
		`{"id":1,"s":"x","o":{"p":{"q":1}},"a":[1,2]}`, `{"s":"\",\"admin\":true,\"x\":\""}`, `{"s":"\u0000\ud800\udc00\ud800","s":"b"}`, `{"id":1e400000,"s":-0.0}`,
		`{"o":{"p":{"q":1}},"o":{"p":1}}`, `{"o":[[[[[[[[{}]]]]]]]],"a":{"1":2}}`, `null`, `[]`, `"x"`, `{"":{"":""}}`, "{ \n\t\"id\" :\r [ ] , \"s\" : { } }", `{"s":"\\\\\\\""}`, `{"\u0073":"\\"}`,
		`{"id":` + strings.Repeat("[", 2000) + strings.Repeat("]", 2000) + `}`, `{"s":"` + strings.Repeat(`\\\"`, 500) + `"}`,
	} {
		f.Add(seed, seed, seed)
	}
	f.Fuzz(func(t *testing.T, old, new, session string) {
		for _, s := range []string{old, new, session} {
			if !json.Valid([]byte(s)) || !utf8.ValidString(s) {
				var set template.Set
				_, err := set.Body(json.RawMessage(hostile), environment)
				require.NoError(t, err)
				var v template.Values
				_ = set.Read(&v, event{old: old, new: new, session: session}) // it may find out; it does not panic
				_ = template.AppendForm(nil, []byte(s))
				return
			}
		}
		out := render(t, hostile, event{old: old, new: new, session: session})
		require.True(t, json.Valid([]byte(out)), out)
		var got struct {
			ID   json.RawMessage
			Text *string
			List []json.RawMessage
			Both *string
			N    json.Number
		}
		d := json.NewDecoder(bytes.NewReader([]byte(out)))
		d.DisallowUnknownFields()
		require.NoError(t, d.Decode(&got), out)
		require.NotNil(t, got.Text)
		require.NotNil(t, got.Both)
		require.Len(t, got.List, 4)
		require.Equal(t, "1", got.N.String())
		form := template.AppendForm(nil, []byte(new))
		for _, c := range form {
			require.True(t, c > ' ' && c < 0x7f && c != '"' && c != '#', "%q", form)
		}
	})
}

// FuzzParse reads any text. With each $ doubled it stands for itself.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"", "$new.id", "${new.a ?? \"-\"}", "$$", "$${A} ${B}", "$new.\"a\"\"b\"[0].c", "${session.x-y}", "$nwe.id", "${", "$é.ü", "${new", "${new.a ?? {\"b\":\"}\"}} $\xff", "$new[", "${ id }"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, mode := range []template.Mode{template.Always, template.Mixed} {
			parts, err := template.Parse(s, mode)
			if err != nil {
				e, ok := errors.AsType[*template.Error](err)
				require.True(t, ok)
				require.LessOrEqual(t, e.At, len(s))
				continue
			}
			for _, p := range parts {
				require.LessOrEqual(t, p.At, len(s))
				if p.Data != nil {
					require.Equal(t, p.Data.Source, s[p.At:p.At+len(p.Data.Source)])
				}
			}
			template.Sample(s, mode)
		}
		parts, err := template.Parse(strings.ReplaceAll(s, "$", "$$"), template.Always)
		require.NoError(t, err)
		text := ""
		for _, p := range parts {
			text += p.Text
		}
		require.Equal(t, s, text)
	})
}

// twentyFields is a template with twenty placeholders, and a row for it with five columns more.
func twentyFields() (body, row string) {
	var fields, columns []string
	for i := range 25 {
		value := []string{`"a text of the usual length"`, "123456", "1.10", "null", `"2026-11-26T14:03:10.123456+00:00"`}[i%5]
		columns = append(columns, fmt.Sprintf(`"column_%d":%s`, i, value))
		if i < 20 {
			fields = append(fields, fmt.Sprintf(`"field_%d":"%s"`, i, []string{"$new.column_%d", "No. ${new.column_%d}"}[i%2]))
			fields[i] = strings.ReplaceAll(fields[i], "%d", strconv.Itoa(i))
		}
	}
	return "{" + strings.Join(fields, ",") + "}", "{" + strings.Join(columns, ",") + "}"
}

// scanned is a Source that allocates nothing.
type scanned struct{ new []byte }

func (s *scanned) Rows() (old, new, session, trace []byte) { return nil, s.new, nil, nil }

func (s *scanned) AppendDatum(dst []byte, _ template.Datum) []byte { return append(dst, "null"...) }

func BenchmarkTwentyFields(b *testing.B) {
	body, row := twentyFields()
	var set template.Set
	compiled, err := set.Body(json.RawMessage(body), environment)
	require.NoError(b, err)
	var v template.Values
	var source template.Source = &scanned{new: []byte(row)}
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		if err := set.Read(&v, source); err != nil {
			b.Fatal(err)
		}
		out = compiled.Append(out[:0], &v)
	}
}
