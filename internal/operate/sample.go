package operate

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/pg"
)

// sampler makes up rows of a table, in the JSON that Postgres would write. It runs none of the
// database's code: an input function, a CHECK of a domain or a cast to json could do anything, with
// the rights of the role that asks.
type sampler struct {
	columns []sampleColumn
	types   map[uint32]sampleType
	fields  map[uint32][]sampleColumn // of composite types, by the oid of their relation
	now     time.Time

	textNumbers bool // bigint and numeric are written as strings
}

// sampleColumn is a column of a table or of a composite type.
type sampleColumn struct {
	Relation uint32
	Name     string
	Type     uint32
	Modifier int32
	Key      bool // part of the primary key
}

// sampleType is a row of pg_type.
type sampleType struct {
	OID      uint32
	Name     string
	Kind     string // typtype
	Category string
	Element  uint32 // of an array; 0: it is none
	Base     uint32 // of a domain
	Modifier int32  // of a domain
	Relation uint32 // of a composite type
	Labels   []string
}

const sampleColumns = `
select a.attrelid as relation, a.attname::text as name, a.atttypid as type, a.atttypmod as modifier,
       exists (select from pg_catalog.pg_index i where i.indrelid = a.attrelid and i.indisprimary and a.attnum = any (i.indkey)) as key
  from pg_catalog.pg_attribute a
 where a.attrelid = any ($1::oid[]) and a.attnum > 0 and not a.attisdropped
 order by a.attrelid, a.attnum`

// sampleTypes has the types of columns and whatever these are made of.
const sampleTypes = `
with recursive need (oid) as (
  select unnest($1::oid[])
  union
  select part.oid
    from need join pg_catalog.pg_type t on t.oid = need.oid
   cross join lateral (
     select t.typbasetype union all select t.typelem union all
     select a.atttypid from pg_catalog.pg_attribute a where a.attrelid = t.typrelid and t.typrelid <> 0 and a.attnum > 0 and not a.attisdropped) as part (oid)
   where part.oid <> 0)
select t.oid, t.typname::text as name, t.typtype::text as kind, t.typcategory::text as category, case when t.typcategory = 'A' then t.typelem else 0::oid end as element,
       t.typbasetype as base, t.typtypmod as modifier, t.typrelid as relation,
       array(select e.enumlabel::text from pg_catalog.pg_enum e where e.enumtypid = t.oid order by e.enumsortorder limit 2) as labels
  from need join pg_catalog.pg_type t on t.oid = need.oid`

func readSampler(ctx context.Context, tx pgx.Tx, relation uint32, now time.Time) (*sampler, error) {
	s := &sampler{types: map[uint32]sampleType{}, fields: map[uint32][]sampleColumn{}, now: now.UTC().Truncate(time.Second)}
	var err error
	if s.columns, err = pg.Collect[sampleColumn](ctx, tx, sampleColumns, []uint32{relation}); err != nil {
		return nil, fmt.Errorf("read the columns: %w", err)
	}
	var needed, relations []uint32
	for _, c := range s.columns {
		needed = append(needed, c.Type)
	}
	types, err := pg.Collect[sampleType](ctx, tx, sampleTypes, needed)
	if err != nil {
		return nil, fmt.Errorf("read the types of the columns: %w", err)
	}
	for _, t := range types {
		s.types[t.OID] = t
		if t.Relation != 0 {
			relations = append(relations, t.Relation)
		}
	}
	fields, err := pg.Collect[sampleColumn](ctx, tx, sampleColumns, relations)
	if err != nil {
		return nil, fmt.Errorf("read the fields of composite types: %w", err)
	}
	for _, f := range fields {
		s.fields[f.Relation] = append(s.fields[f.Relation], f)
	}
	return s, nil
}

// row returns a row as JSON. chosen are the columns of the payload; none: all. changed names those
// that get another value than in a row without them.
func (s *sampler) row(chosen, changed []string) json.RawMessage {
	columns := s.columns
	if len(chosen) > 0 {
		columns = nil
		for _, name := range chosen {
			// An event keeps the configured name of a column that was renamed since.
			column := sampleColumn{Name: name}
			if i := slices.IndexFunc(s.columns, func(c sampleColumn) bool { return c.Name == name }); i >= 0 {
				column = s.columns[i]
			}
			columns = append(columns, column)
		}
	}
	return json.RawMessage(s.object(columns, func(c sampleColumn) int {
		if slices.Contains(changed, c.Name) {
			return 2
		}
		return 1
	}, 0))
}

// selected returns the select list of a row with these columns; none: all. With textNumbers it casts
// columns of the types bigint and numeric, and arrays of them.
func (s *sampler) selected(chosen []string, textNumbers bool) string {
	if len(chosen) == 0 {
		if !textNumbers {
			return "*"
		}
		for _, c := range s.columns {
			chosen = append(chosen, c.Name)
		}
	}
	list := make([]string, len(chosen))
	for i, name := range chosen {
		list[i] = pg.QuoteName(name)
		at := slices.IndexFunc(s.columns, func(c sampleColumn) bool { return c.Name == name })
		if at < 0 || !textNumbers {
			continue
		}
		t, cast := s.types[s.columns[at].Type], "::text"
		for t.Kind == "d" || t.Element != 0 && cast == "::text" {
			if t.Element != 0 {
				cast = "::text[]"
				t = s.types[t.Element]
			} else {
				t = s.types[t.Base]
			}
		}
		if t.Name == "int8" || t.Name == "numeric" {
			list[i] += cast + " as " + list[i]
		}
	}
	return strings.Join(list, ", ")
}

// changing returns the columns that differ between old and new of an update: the configured ones,
// or else the first one that is not of the key and has two values.
func (s *sampler) changing(configured []string) []string {
	if len(configured) > 0 {
		return configured
	}
	for _, key := range []bool{false, true} {
		for _, c := range s.columns {
			if c.Key == key && s.value(c, 1, 0) != s.value(c, 2, 0) {
				return []string{c.Name}
			}
		}
	}
	return nil
}

func (s *sampler) object(columns []sampleColumn, variant func(sampleColumn) int, depth int) string {
	parts := make([]string, len(columns))
	for i, c := range columns {
		parts[i] = jsonText(c.Name) + ":" + s.value(c, variant(c), depth)
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// deepestSample bounds composite types within composite types.
const deepestSample = 4

// value returns the value of a column as JSON. The variants 1 and 2 differ, where the type has two
// values that are plausible.
func (s *sampler) value(c sampleColumn, variant, depth int) string {
	t, ok := s.types[c.Type]
	for ok && t.Kind == "d" {
		c.Type, c.Modifier = t.Base, t.Modifier
		t, ok = s.types[c.Type]
	}
	switch {
	case !ok:
		return jsonText(sampleText(c, variant))
	case t.Kind == "e" && len(t.Labels) > 0:
		return jsonText(t.Labels[min(variant, len(t.Labels))-1])
	case t.Kind == "c" && depth < deepestSample:
		return s.object(s.fields[t.Relation], func(sampleColumn) int { return variant }, depth+1)
	case t.Element != 0 && depth < deepestSample:
		c.Type = t.Element
		return "[" + s.value(c, variant, depth+1) + "]"
	case t.Kind == "r" || t.Kind == "m":
		return jsonText(sampleRange(t, variant))
	case t.Kind != "b":
		return "null"
	}
	return s.scalar(t, c, variant)
}

// scalar returns a value of a base type as JSON.
func (s *sampler) scalar(t sampleType, c sampleColumn, variant int) string {
	n := strconv.Itoa(variant)
	at := s.now.Add(time.Duration(variant-1) * time.Hour)
	switch t.Name {
	case "bool":
		return strconv.FormatBool(variant == 1)
	case "int8":
		return s.number(n)
	case "int2", "int4":
		return n
	case "float4", "float8":
		return n + ".5"
	case "numeric":
		return s.number(sampleNumeric(c.Modifier, variant))
	case "json":
		return `{"sample":` + n + `}`
	case "jsonb":
		return `{"sample": ` + n + `}`
	case "hstore": // it has a cast to json
		return `{"sample": "` + n + `"}`
	case "timestamptz":
		return jsonText(at.Format("2006-01-02T15:04:05+00:00"))
	case "timestamp":
		return jsonText(at.Format("2006-01-02T15:04:05"))
	case "date":
		return jsonText(s.now.AddDate(0, 0, variant-1).Format(time.DateOnly))
	case "bit":
		return jsonText(strings.Repeat(strconv.Itoa(variant%2), max(int(c.Modifier), 1)))
	case "bpchar":
		text := sampleText(c, variant)
		if length := int(c.Modifier) - 4; c.Modifier > 4 && len(text) < length {
			text += strings.Repeat(" ", length-len(text))
		}
		return jsonText(text)
	}
	if text, ok := sampleTexts(n)[t.Name]; ok {
		return jsonText(text)
	}
	if t.Category == "S" {
		return jsonText(sampleText(c, variant))
	}
	return "null" // of an extension, and with any form
}

// number returns a value of bigint or numeric as JSON.
func (s *sampler) number(text string) string {
	if s.textNumbers {
		return jsonText(text)
	}
	return text
}

// sampleTexts are values of types that JSON has as text, by the name of the type.
func sampleTexts(n string) map[string]string {
	return map[string]string{
		"uuid": "00000000-0000-4000-8000-00000000000" + n, "time": "12:00:0" + n, "timetz": "12:00:0" + n + "+00", "interval": "0" + n + ":00:00",
		"bytea": `\x0` + n, "inet": "192.0.2." + n, "cidr": "192.0.2." + n + "/32", "macaddr": "02:00:00:00:00:0" + n, "macaddr8": "02:00:00:00:00:00:00:0" + n,
		"money": "$" + n + ".00", "char": n, "varbit": "10" + n, "xml": "<sample>" + n + "</sample>", "oid": n, "pg_lsn": "0/" + n,
		"tsvector": "'sample" + n + "'", "tsquery": "'sample" + n + "'", "point": "(" + n + ",0)", "line": "{" + n + ",-1,0}", "lseg": "[(0,0),(" + n + ",1)]",
		"box": "(" + n + ",1),(0,0)", "path": "((0,0),(" + n + ",1))", "polygon": "((0,0),(" + n + ",1))", "circle": "<(0,0)," + n + ">",
	}
}

// sampleText is text that fits the column.
func sampleText(c sampleColumn, variant int) string {
	text := fmt.Sprintf("%s %d", strings.ReplaceAll(c.Name, "_", " "), variant)
	switch name := strings.ToLower(c.Name); {
	case strings.Contains(name, "email"):
		text = fmt.Sprintf("person%d@example.com", variant)
	case strings.Contains(name, "url"):
		text = fmt.Sprintf("https://example.com/%d", variant)
	}
	runes := []rune(text)
	if length := int(c.Modifier) - 4; c.Modifier > 4 && len(runes) > length {
		text = string(runes[len(runes)-length:]) // with its number
	}
	return text
}

// sampleNumeric is a number with the scale of its column, and no more digits than its precision.
func sampleNumeric(modifier int32, variant int) string {
	if modifier < 4 {
		return fmt.Sprintf("1%d.5", variant)
	}
	precision, scale := int(modifier-4)>>16&0xffff, int(modifier-4)&0x7ff
	if scale >= 1024 { // digits before the decimal point are rounded away
		return fmt.Sprint(variant) + strings.Repeat("0", 2048-scale)
	}
	whole, fraction := fmt.Sprint(variant), ""
	switch {
	case precision-scale >= 2:
		whole = "1" + whole
	case precision <= scale:
		whole = "0"
	}
	if scale > 0 {
		fraction = "." + strings.Repeat("0", max(scale-precision, 0))
		fraction += (strconv.Itoa(variant) + strings.Repeat("0", scale))[:scale+1-len(fraction)]
	}
	return whole + fraction
}

// sampleRange is a range, or a multirange of one. The range of a type that is not known is empty.
func sampleRange(t sampleType, variant int) string {
	between := map[string]string{
		"int4": fmt.Sprintf("[%d,10)", variant), "int8": fmt.Sprintf("[%d,10)", variant), "num": fmt.Sprintf("[%d.5,10.5)", variant),
		"date": fmt.Sprintf("[2026-01-0%d,2026-02-01)", variant), "ts": fmt.Sprintf(`["2026-01-0%d 00:00:00","2026-02-01 00:00:00")`, variant),
		"tstz": fmt.Sprintf(`["2026-01-0%d 00:00:00+00","2026-02-01 00:00:00+00")`, variant),
	}
	if t.Kind == "m" {
		return "{" + between[strings.TrimSuffix(t.Name, "multirange")] + "}"
	}
	if text := between[strings.TrimSuffix(t.Name, "range")]; text != "" {
		return text
	}
	return "empty"
}

// jsonText writes text as a JSON string, with no more escapes than JSON requires.
func jsonText(s string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		return `""` // a string can always be encoded
	}
	return strings.TrimSuffix(b.String(), "\n")
}
