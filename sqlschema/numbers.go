package sqlschema

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/pg"
)

// numberKind says how a column holds values of the types bigint and numeric.
type numberKind string

// The kinds of columns.
const (
	noNumber      numberKind = ""       // it holds none
	plainNumber   numberKind = "plain"  // it is one, or of a domain over it
	arrayOfNumber numberKind = "array"  // it is an array of them
	deepNumber    numberKind = "within" // they are within composite types, or arrays of other types
)

// as returns SQL for the value, x, with those numbers as texts.
func (k numberKind) as(x string) string {
	switch k {
	case plainNumber:
		return x + "::pg_catalog.text"
	case arrayOfNumber:
		return x + "::pg_catalog.text[]"
	case deepNumber:
		return numbersAsText("pg_catalog.to_json("+x+")", x)
	}
	return x
}

// numbersAsText returns SQL for the JSON of a value, x, with its numbers as texts. The function looks
// the types up when it runs, so it is right as soon as a column or a part of a type is added. But it
// costs some tens of microseconds.
func numbersAsText(json, x string) string {
	return "rowhook.numbers_as_text(" + json + ", pg_catalog.pg_typeof(" + x + ")::pg_catalog.oid)"
}

// readNumbers finds, for all of these tables at once, the columns that hold values of the types bigint
// and numeric. A column whose type has a cast to json of its own is not among them, and neither are
// ranges: their JSON is text.
func readNumbers(ctx context.Context, conn *pgx.Conn, rels []*relation) error {
	byOID, oids := make(map[uint32]*relation, len(rels)), make([]uint32, len(rels))
	for i, rel := range rels {
		rel.numbers = map[string]numberKind{}
		byOID[rel.OID], oids[i] = rel, rel.OID
	}
	found, err := pg.Collect[struct {
		Relation   uint32
		Name, Kind string
	}](ctx, conn, `
with recursive part as (
  select a.attrelid as relation, a.attname::text as name, a.atttypid as oid, 'plain' as kind
    from pg_catalog.pg_attribute a where a.attrelid = any($1) and a.attnum > 0 and not a.attisdropped
  union
  select part.relation, part.name, x.oid, x.kind
    from part
    join pg_catalog.pg_type y on y.oid = part.oid
    join lateral (
      select y.typbasetype as oid, part.kind as kind where y.typtype = 'd'
      union all select y.typelem, case part.kind when 'plain' then 'array' else 'within' end
        where y.typelem <> 0 and y.typsubscript = 'pg_catalog.array_subscript_handler'::pg_catalog.regproc
      union all select b.atttypid, 'within' from pg_catalog.pg_attribute b where b.attrelid = y.typrelid and y.typrelid <> 0 and b.attnum > 0 and not b.attisdropped
    ) x on true)
select relation, name, max(kind) as kind from part
 where oid in ('pg_catalog.int8'::pg_catalog.regtype, 'pg_catalog.numeric'::pg_catalog.regtype) group by relation, name`, oids)
	if err != nil {
		return fmt.Errorf("look for numbers in tables: %w", err)
	}
	for _, f := range found {
		if rel := byOID[f.Relation]; rel != nil {
			rel.numbers[f.Name] = numberKind(f.Kind)
		}
	}
	return nil
}
