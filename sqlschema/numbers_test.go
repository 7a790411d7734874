package sqlschema_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/trigger"
)

// numberTypes are the types of the tests beside those of Postgres itself.
const numberTypes = `create domain amount as numeric check (value > 0); create type mood as enum ('so-so', 'good'); create type pair as (n numeric, t text);
	create type floatrange as range (subtype = float8); create domain moods as mood[]; create type nested as (p pair, a int[]);
	create domain amounts as amount[]; create type loose as (j json, k jsonb, ks json[], f float8, i int); create type deep as (ps pair[], big int8[], l loose, as_ amounts);
	create domain twice as amount; create table other (id int8, gone int, v pair); alter table other drop gone`

func textNumbers(columns ...string) func(*trigger.Spec) {
	return payloadWith(trigger.Payload{Numbers: trigger.NumbersText, Columns: columns})
}

// TestNumbersOfEveryTypeAreTexts has a value of each type, in whole rows and in chosen columns.
func TestNumbersOfEveryTypeAreTexts(t *testing.T) {
	t.Parallel()
	texts := map[string]string{
		"int8": `"9223372036854775807"`, "numeric": `"0.10"`, "numeric(20,5)": `"1.00000"`, "numeric[]": `["1.10"]`, "amount": `"1.10"`,
		"pair": `{"n":"1.10","t":"a b"}`, "pair[]": `[{"n":"1","t":null}]`, "nested": `{"p":{"n":"1.10","t":"x"},"a":[1]}`,
	}
	samples := append(sampleValues[:len(sampleValues):len(sampleValues)], [][3]string{
		{"numeric", "NaN", `"NaN"`}, {"numeric", "-Infinity", `"-Infinity"`}, {"int8[][]", "{{1,2},{3,NULL}}", `[["1","2"],["3",null]]`}, {"int8[]", "[5:6]={1,2}", `["1","2"]`},
		{"numeric[]", "{}", `[]`}, {"amounts", "{1.50}", `["1.50"]`}, {"amount[]", "{{1.50},{2}}", `[["1.50"],["2"]]`}, {"amounts[]", `{"{1.50,2}",NULL}`, `[["1.50","2"],null]`},
		{"twice", "1.0", `"1.0"`}, {"pair", "(,)", `{"n":null,"t":null}`}, {"pair[][]", `{{"(1.10,\"[1]\")",NULL}}`, `[[{"n":"1.10","t":"[1]"},null]]`},
		{"deep", `("{""(1.0,\\""1\\"")""}","{1,2}","(""[1, 2.0]"",""{""""a"""": 1.0}"",""{""""[1, 2]""""}"",0.5,7)",{3.0})`,
			`{"ps":[{"n":"1.0","t":"1"}],"big":["1","2"],"l":{"j":[1, 2.0],"k":{"a": 1.0},"ks":[[1, 2]],"f":0.5,"i":7},"as_":["3.0"]}`},
		{"other", `(9007199254740993,"(1.0,x)")`, `{"id":"9007199254740993","v":{"n":"1.0","t":"x"}}`}, {"other[]", `{"(1,)"}`, `[{"id":"1","v":null}]`},
		{"pg_catalog.pg_sequence", `(1,2,3,4,5,6,7,f)`, `{"seqrelid":"1","seqtypid":"2","seqstart":"3","seqincrement":"4","seqmax":"5","seqmin":"6","seqcache":"7","seqcycle":false}`},
	}...)
	define, literals, nulls := "create table t (id int", "insert into t values (1", "insert into t (id) values (2)"
	chosen, want, wantNull := []string{"id"}, `{"id":1`, `{"id":2`
	for i, v := range samples {
		name := fmt.Sprintf("c%d", i)
		define += fmt.Sprintf(", %s %s", name, v[0])
		literals += ", '" + strings.ReplaceAll(v[1], "'", "''") + "'"
		chosen = append(chosen, name)
		text := v[2]
		if i < len(sampleValues) && texts[v[0]] != "" {
			text = texts[v[0]]
		}
		want += fmt.Sprintf(",%q:%s", name, text)
		wantNull += fmt.Sprintf(",%q:null", name)
	}
	w := newWatched(t, numberTypes+";"+define+")", all("whole", "t", textNumbers()), all("chosen", "t", textNumbers(chosen...)))
	w.do(t, literals+")", nulls)
	require.ElementsMatch(t, []string{"whole I null " + want + "}", "chosen I null " + want + "}", "whole I null " + wantNull + "}", "chosen I null " + wantNull + "}"}, w.take(t))
}

// TestNumbersOfRandomRowsAreTexts compares with the JSON that Postgres makes of the same row. Where a
// type says number, the token of a number has become a string, and all else is as it was.
func TestNumbersOfRandomRowsAreTexts(t *testing.T) {
	t.Parallel()
	w := newWatched(t, numberTypes+`; create table t (i int, b int8, n numeric, f float8, j json, bs int8[], ns numeric[], a amount, p pair, ps pair[], d deep, o other[], am amounts[])`,
		all("plain", "t"), all("whole", "t", textNumbers()), all("chosen", "t", textNumbers("i", "b", "n", "f", "j", "bs", "ns", "a", "p", "ps", "d", "o", "am")))
	pair := shape{"n": number, "t": other}
	row := shape{"i": other, "b": number, "n": number, "f": other, "j": other, "bs": number, "ns": number, "a": number, "p": pair, "ps": pair, "am": number,
		"d": shape{"ps": pair, "big": number, "l": other, "as_": number}, "o": shape{"id": number, "v": pair}}
	rapid.Check(t, func(r *rapid.T) {
		g := sqlValues{r}
		_, err := w.conn.Exec(t.Context(), "insert into t values ("+strings.Join([]string{
			g.null(g.small), g.null(g.big), g.null(g.numeric), g.null(g.float), g.null(g.json), g.array("int8", g.big), g.array("numeric", g.numeric), g.null(g.amount),
			g.null(g.pair), g.array("pair", g.pair), g.null(g.deep), g.array("other", g.other), g.array("amounts", g.amounts),
		}, ", ")+")")
		require.NoError(r, err)
		events := w.take(t)
		require.Len(r, events, 3)
		bodies := map[string]string{}
		for _, e := range events {
			name, body, _ := strings.Cut(e, " I null ")
			bodies[name] = body
		}
		require.Equal(r, asText(t, row, bodies["plain"]), asText(t, other, bodies["whole"]))
		require.Equal(r, asText(t, other, bodies["whole"]), asText(t, other, bodies["chosen"]))
	})
}

// shape says of the keys of an object what they hold. The elements of an array have the shape of
// the array.
type shape map[string]shape

var (
	number = shape{"": nil}
	other  shape
)

// asText writes JSON anew, without space, and with the numbers of a shape as strings.
func asText(t *testing.T, s shape, text string) string {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var out bytes.Buffer
	var write func(s shape)
	write = func(s shape) {
		token, err := d.Token()
		require.NoError(t, err, text)
		switch token := token.(type) {
		case json.Delim:
			out.WriteString(token.String())
			for i := 0; d.More(); i++ {
				if i > 0 {
					out.WriteByte(',')
				}
				inner := s
				if token == '{' {
					key, err := d.Token()
					require.NoError(t, err)
					fmt.Fprintf(&out, "%q:", key)
					inner = s[key.(string)]
				}
				write(inner)
			}
			end, err := d.Token()
			require.NoError(t, err)
			out.WriteString(end.(json.Delim).String())
		case json.Number:
			if _, is := s[""]; is {
				fmt.Fprintf(&out, "%q", token.String())
			} else {
				out.WriteString(token.String())
			}
		case string:
			fmt.Fprintf(&out, "%q", token)
		case nil:
			out.WriteString("null")
		default:
			fmt.Fprint(&out, token)
		}
	}
	write(s)
	return out.String()
}

// sqlValues draws SQL for values.
type sqlValues struct{ *rapid.T }

func (g sqlValues) null(value func() string) string {
	if rapid.IntRange(0, 4).Draw(g.T, "null") == 0 {
		return "null"
	}
	return value()
}

func (g sqlValues) small() string { return fmt.Sprint(rapid.Int32().Draw(g.T, "int")) }
func (g sqlValues) big() string   { return fmt.Sprintf("'%d'::int8", rapid.Int64().Draw(g.T, "bigint")) }
func (g sqlValues) float() string {
	return fmt.Sprintf("'%g'::float8", rapid.Float64().Draw(g.T, "float"))
}

func (g sqlValues) numeric() string {
	return "'" + rapid.OneOf(rapid.StringMatching(`-?[0-9]{1,30}(\.[0-9]{0,20})?(e-?[0-9]{1,2})?`), rapid.SampledFrom([]string{"NaN", "0.0", "1e40"})).Draw(g.T, "numeric") + "'::numeric"
}

func (g sqlValues) amount() string {
	return "'" + rapid.StringMatching(`[1-9][0-9]{0,10}(\.[0-9]{0,5})?`).Draw(g.T, "amount") + "'::amount"
}

func (g sqlValues) text() string {
	text := rapid.SampledFrom([]string{"", "1", `"1.0"`, "[1, 2]", `{"n": 1}`, `,"n":5`, `a\b`, "\n", "ü", "null"}).Draw(g.T, "text")
	return "'" + text + "'"
}

func (g sqlValues) json() string {
	return "'" + rapid.SampledFrom([]string{"1", "1.0", "[1, 2.0]", `{"n": 1.0, "b": [5]}`, `"1"`, "null", `[[1.0]]`, " [ 1 ] "}).Draw(g.T, "json") + "'"
}

func (g sqlValues) pair() string {
	return "row(" + g.null(g.numeric) + ", " + g.null(g.text) + ")::pair"
}

func (g sqlValues) loose() string {
	return "row(" + g.null(g.json) + ", " + g.null(g.json) + ", " + g.array("json", g.json) + ", " + g.null(g.float) + ", " + g.null(g.small) + ")::loose"
}

func (g sqlValues) amounts() string { return g.array("amount", g.amount) + "::amounts" }

func (g sqlValues) deep() string {
	return "row(" + g.array("pair", g.pair) + ", " + g.array("int8", g.big) + ", " + g.null(g.loose) + ", " + g.null(g.amounts) + ")::deep"
}

func (g sqlValues) other() string { return "row(" + g.null(g.big) + ", " + g.null(g.pair) + ")::other" }

// array draws an array of one or two dimensions.
func (g sqlValues) array(of string, value func() string) string {
	list := func(value func() string, n int) string {
		parts := make([]string, n)
		for i := range parts {
			parts[i] = value()
		}
		return "array[" + strings.Join(parts, ", ") + "]"
	}
	n := rapid.IntRange(0, 3).Draw(g.T, "length")
	if rapid.IntRange(0, 4).Draw(g.T, "null array") == 0 {
		return "null"
	}
	element := func() string { return g.null(value) }
	if n > 0 && rapid.Bool().Draw(g.T, "two dimensions") {
		return list(func() string { return list(element, n) }, n) + "::" + of + "[]"
	}
	return list(element, n) + "::" + of + "[]"
}

// TestNumbersOfWhatIsAlteredLaterAreTextsAtOnce alters a table after the apply.
func TestNumbersOfWhatIsAlteredLaterAreTextsAtOnce(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create type pair as (n numeric, t text); create table t (id int, p pair)", all("w", "t", textNumbers()))
	for _, c := range [][3]string{
		{"alter table t add big int8", "insert into t values (1, (1.0, 'x'), 2)", `{"id":1,"p":{"n":"1.0","t":"x"},"big":"2"}`},
		{"alter table t alter id type int8", "insert into t values (1)", `{"id":"1","p":null,"big":null}`},
		{"alter table t rename big to \"l\"\"arge\"", "insert into t (\"l\"\"arge\") values (7)", `{"id":null,"p":null,"l\"arge":"7"}`},
		{"alter type pair add attribute more int8", "insert into t (p) values ((1, 'x', 2))", `{"id":null,"p":{"n":"1","t":"x","more":"2"},"l\"arge":null}`},
		{"alter table t alter id type text", "insert into t (id) values (5)", `{"id":"5","p":null,"l\"arge":null}`},
		{"alter table t drop id", "insert into t values (null, 1)", `{"p":null,"l\"arge":"1"}`},
		{"alter table t drop p", "insert into t values (2)", `{"l\"arge":"2"}`},
	} {
		w.do(t, c[0], c[1])
		require.Equal(t, []string{"w I null " + c[2]}, w.take(t), c[0])
	}
	require.True(t, w.plan(t, all("w", "t", textNumbers())).Empty())
}

// TestApplyNoticesThatANumberIsWrittenOtherwise has a column that Postgres lets nobody retype, since
// the payload reads it, but the type within can change.
func TestChosenNumbersFollowTheirTypes(t *testing.T) {
	t.Parallel()
	spec := all("w", "t", textNumbers("id", "p"))
	w := newWatched(t, "create type pair as (n int, t text); create table t (id int, p pair)", spec)
	w.do(t, "insert into t values (1, (2, 'x'))")
	require.Contains(t, w.fails(t, "alter table t alter id type int8"), "cannot alter type of a column used by")
	w.do(t, "alter type pair add attribute more int8", "insert into t values (1, (2, 'x', 3))")
	w.apply(t, spec)
	w.do(t, "insert into t values (1, (2, 'x', 3))")
	require.Equal(t, []string{`w I null {"id":1,"p":{"n":2,"t":"x"}}`, `w I null {"id":1,"p":{"n":2,"t":"x","more":3}}`, `w I null {"id":1,"p":{"n":2,"t":"x","more":"3"}}`}, w.take(t))
}

// TestNumbersOfPartitionsAreTexts has rows of a partition whose columns are in another order.
func TestNumbersOfPartitionsAreTexts(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (id int, b int8, n numeric[]) partition by list (id); create table part (n numeric[], gone int, b int8, id int); alter table part drop gone; alter table t attach partition part for values in (1)",
		all("whole", "t", textNumbers()), all("chosen", "t", textNumbers("n", "b")))
	w.do(t, "insert into t values (1, 2, '{3.0}')", "update part set b = 4")
	require.ElementsMatch(t, []string{`whole I null {"id":1,"b":"2","n":["3.0"]}`, `chosen I null {"n":["3.0"],"b":"2"}`,
		`whole U {"id":1,"b":"2","n":["3.0"]} {"id":1,"b":"4","n":["3.0"]}`, `chosen U {"n":["3.0"],"b":"2"} {"n":["3.0"],"b":"4"}`}, w.take(t))
}

// TestNumbersOfVirtualColumnsAreTexts is about columns that a trigger's row does not hold.
func TestNumbersOfVirtualColumnsAreTexts(t *testing.T) {
	t.Parallel()
	if pgtest.Version(t) < 18 {
		t.Skip("PostgreSQL 18 has virtual generated columns")
	}
	w := newWatched(t, "create table t (id int, b int8, v numeric generated always as (b * 1.50) virtual)", all("whole", "t", textNumbers()), all("chosen", "t", textNumbers("v", "id", "b")),
		all("differs", "t", payloadWith(trigger.Payload{Columns: []string{"id"}, Update: of("v"), Delete: of("b", "v")})))
	w.do(t, "insert into t values (1, 2)", "update t set b = 3", "delete from t")
	require.ElementsMatch(t, []string{`whole I null {"id":1,"b":"2","v":"3.00"}`, `chosen I null {"v":"3.00","id":1,"b":"2"}`, `differs I null {"id":1}`,
		`whole U {"id":1,"b":"2","v":"3.00"} {"id":1,"b":"3","v":"4.50"}`, `chosen U {"v":"3.00","id":1,"b":"2"} {"v":"4.50","id":1,"b":"3"}`, `differs U {"v":3.00} {"v":4.50}`,
		`whole D {"id":1,"b":"3","v":"4.50"} null`, `chosen D {"v":"4.50","id":1,"b":"3"} null`, `differs D {"b":3,"v":4.50} null`}, w.take(t))
}

// TestTheOwnerOfATableMayWriteItsNumbers takes the right from the owner, and has apply give it back.
func TestTheOwnerOfATableMayWriteItsNumbers(t *testing.T) {
	t.Parallel()
	spec := all("w", "t", textNumbers())
	w := newWatched(t, "create table t (id int8)")
	role, _ := w.Role(t)
	w.do(t, "alter table t owner to "+role)
	w.apply(t, spec)
	w.do(t, "revoke all on function rowhook.numbers_as_text(json, oid) from "+role)
	require.Len(t, w.apply(t, spec).Changes(), 1)
	w.do(t, "insert into t values (1)")
	require.Equal(t, []string{`w I null {"id":"1"}`}, w.take(t))
}
