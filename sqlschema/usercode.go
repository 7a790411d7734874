package sqlschema

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/trigger"
)

// jsonCast is a function of a user that Postgres runs to convert a column to JSON. It is the cast
// to json of the column's type, or of a type within it. Every other type is converted by its output
// function, which is written in C.
type jsonCast struct {
	Column   string
	Type     string
	Function uint32
	// Held are the names of the types that a value of Type holds, such as timestamptz for a range
	// of times.
	Held []string
}

// jsonCasts returns the casts to json that the columns of a table use and that are not written in
// C. Postgres uses the cast of a type that is not an array, a domain or a composite type. In those
// it uses the casts of the types within.
func jsonCasts(ctx context.Context, conn *pgx.Conn, rel *relation) ([]jsonCast, error) {
	return pg.Collect[jsonCast](ctx, conn, `
with recursive part as (
  select a.attname::text as "column", a.attnum, a.atttypid as oid
    from pg_catalog.pg_attribute a where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped
  union
  select part."column", part.attnum, x.oid
    from part
    join pg_catalog.pg_type y on y.oid = part.oid
    join lateral (
      select y.typbasetype as oid where y.typtype = 'd'
      union all select y.typelem where y.typelem <> 0 and y.typsubscript = 'pg_catalog.array_subscript_handler'::pg_catalog.regproc
      union all select b.atttypid from pg_catalog.pg_attribute b where b.attrelid = y.typrelid and y.typrelid <> 0 and b.attnum > 0 and not b.attisdropped
    ) x on true)
select part."column", part.oid::pg_catalog.regtype::text as type, f.oid as function,
       array(select s.typname::text from pg_catalog.pg_range r join pg_catalog.pg_type s on s.oid = r.rngsubtype where r.rngtypid = part.oid or r.rngmultitypid = part.oid) as held
  from part
  join pg_catalog.pg_type t on t.oid = part.oid and t.typtype not in ('d', 'c')
  join pg_catalog.pg_cast c on c.castsource = part.oid and c.casttarget = 'pg_catalog.json'::pg_catalog.regtype and c.castmethod = 'f'
  join pg_catalog.pg_proc f on f.oid = c.castfunc
  join pg_catalog.pg_language l on l.oid = f.prolang
 where t.oid >= 16384 and l.lanname not in ('c', 'internal')
 order by part.attnum, 2`, rel.OID)
}

// checkCasts rejects columns whose JSON is made by code that depends on the search_path, the
// settings or the role of captures. There a write would fail, or the JSON would differ from that in
// a session of the user. It returns a problem for each such column that is captured.
func checkCasts(ctx context.Context, conn *pgx.Conn, rel *relation, spec *trigger.Spec) (map[string]string, error) {
	if len(rowOperations(spec)) == 0 {
		return nil, nil
	}
	if !slices.ContainsFunc(rel.columns, func(c column) bool { return c.Made }) {
		return nil, nil // other types have no casts of their own
	}
	chosen, whole := capturedColumns(spec)
	casts, err := jsonCasts(ctx, conn, rel)
	if err != nil {
		return nil, fmt.Errorf("look for casts to json of %s: %w", rel, err)
	}
	problems := map[string]string{}
	runner, err := runnerOf(ctx, conn, rel, spec)
	if err != nil {
		return nil, err
	}
	for _, c := range casts {
		if problems[c.Column] != "" || !whole && !slices.Contains(chosen, c.Column) {
			continue
		}
		root, err := readFunction(ctx, conn, c.Function)
		if err != nil {
			return nil, err
		}
		s := &scan{conn: conn, runner: runner, seen: map[uint32]bool{}, lacks: map[string]bool{}}
		for _, held := range c.Held {
			s.settings(bodyWord{text: held}, root.fixed())
		}
		if err := s.function(ctx, root, map[string]bool{}); err != nil {
			return nil, err
		}
		if s.reason == "" {
			continue
		}
		problems[c.Column] = fmt.Sprintf("the column %s holds the type %s, its cast to json runs %s, and that function %s. Captures run it with their own search_path, settings and role, "+
			"so a write could fail or record other values: run \"%s\", or leave the column out by payload: {columns: [...]}",
			pg.PlainName(c.Column), c.Type, root.Signature, s.reason, s.remedy(root))
	}
	return problems, nil
}

// runnerOf returns the role as which captures of the table run.
func runnerOf(ctx context.Context, conn *pgx.Conn, rel *relation, spec *trigger.Spec) (role string, err error) {
	if guarded(spec, rel) {
		return rel.Owner, nil
	}
	err = conn.QueryRow(ctx, "select coalesce((select pg_catalog.pg_get_userbyid(nspowner) from pg_catalog.pg_namespace where nspname = 'rowhook'), current_user)::text").Scan(&role)
	if err != nil {
		return "", fmt.Errorf("read as which role captures run: %w", err)
	}
	return role, nil
}

// userFunction is a function with what decides on what it depends.
type userFunction struct {
	OID       uint32
	Signature string
	Schema    string
	Language  string
	Body      string
	Bound     bool // its names were looked up when it was created
	Definer   bool // it runs as its owner
	Config    []string
	Arguments []string
}

// fixed returns the names, in lower case, of the settings that the function sets for itself.
func (f *userFunction) fixed() map[string]bool {
	fixed := map[string]bool{}
	if f.Definer {
		fixed[roleName] = true
	}
	for _, c := range f.Config {
		name, value, _ := strings.Cut(c, "=")
		// "$user" is the role as which captures run.
		if !strings.Contains(value, "$user") {
			fixed[strings.ToLower(name)] = true
		}
	}
	return fixed
}

func readFunction(ctx context.Context, conn *pgx.Conn, oid uint32) (*userFunction, error) {
	found, err := pg.Collect[userFunction](ctx, conn, `
select p.oid, p.oid::pg_catalog.regprocedure::text as signature, n.nspname::text as schema, l.lanname::text as language,
       coalesce(pg_catalog.pg_get_function_sqlbody(p.oid), p.prosrc) as body, p.prosqlbody is not null as bound, p.prosecdef as definer,
       coalesce(p.proconfig, '{}') as config, coalesce(p.proargnames, '{}') as arguments
  from pg_catalog.pg_proc p
  join pg_catalog.pg_namespace n on n.oid = p.pronamespace
  join pg_catalog.pg_language l on l.oid = p.prolang
 where p.oid = $1`, oid)
	if err != nil || len(found) == 0 {
		return nil, fmt.Errorf("read the function %d: %w", oid, err)
	}
	return &found[0], nil
}

// scan follows what a function runs, by the names in its body. It collects the settings on which
// the result depends, and keeps the first reason.
type scan struct {
	conn   *pgx.Conn
	runner string // role as which captures run
	seen   map[uint32]bool
	reason string          // the first reason, for people
	lacks  map[string]bool // settings that the function should set
}

func (s *scan) found(setting, format string, args ...any) {
	s.lacks[setting] = true
	if s.reason == "" {
		s.reason = fmt.Sprintf(format, args...)
	}
}

// remedy returns the statement that makes the function independent of its caller.
func (s *scan) remedy(f *userFunction) string {
	var b strings.Builder
	b.WriteString("alter function " + f.Signature)
	for _, name := range slices.Sorted(maps.Keys(s.lacks)) {
		switch name {
		case roleName:
			b.WriteString(" security definer")
		case pathName:
			fmt.Fprintf(&b, " set search_path = %s, pg_temp", pg.PlainName(f.Schema))
		default:
			fmt.Fprintf(&b, " set %s from current", name)
		}
	}
	return b.String()
}

const (
	pathName = "search_path"
	// roleName stands for the role as which a function runs. It is not a setting.
	roleName = "the role"
)

// isSetting reports whether captures set it.
func isSetting(name string) bool {
	switch name {
	case pathName, "timezone", "datestyle", "intervalstyle", "bytea_output", "extra_float_digits", "lc_monetary", "quote_all_identifiers":
		return true
	}
	return false
}

// settingsOf returns the settings on which a type or a function of Postgres itself may depend.
func settingsOf(word string) []string {
	switch word {
	case "timestamptz", "timestamp", "date", "time", "timetz", "to_char", "to_timestamp", "to_date", "now", "current_date", "current_time",
		"current_timestamp", "localtime", "localtimestamp", "clock_timestamp", "statement_timestamp", "transaction_timestamp", "timeofday",
		"date_trunc", "date_part", "extract", "age", "make_timestamptz", "tstzrange", "tsrange", "daterange", "tstzmultirange", "tsmultirange", "datemultirange", "zone":
		return []string{"datestyle", "timezone"}
	case "interval", "make_interval", "justify_interval":
		return []string{"intervalstyle"}
	case "bytea", "decode", "convert_to":
		return []string{"bytea_output"}
	case "real", "float", "float4", "float8", "double":
		return []string{"extra_float_digits"}
	case "money":
		return []string{"lc_monetary"}
	case "quote_ident":
		return []string{"quote_all_identifiers"}
	case "current_schema", "current_schemas":
		return []string{pathName}
	case "current_user", "current_role", "user", "pg_has_role", "row_security_active", "has_any_column_privilege", "has_column_privilege", "has_database_privilege",
		"has_function_privilege", "has_schema_privilege", "has_sequence_privilege", "has_table_privilege", "has_type_privilege":
		return []string{roleName}
	}
	return nil
}

// settings records the settings on which a word of a body depends and that the function does not
// set.
func (s *scan) settings(w bodyWord, fixed map[string]bool) {
	name := strings.ToLower(w.text)
	depends := settingsOf(name)
	switch {
	case isSetting(name) && w.kind != operatorWord:
		depends = []string{name}
	case w.kind != identWord || w.schema != "" && w.schema != "pg_catalog":
		return
	}
	for _, setting := range depends {
		if !fixed[setting] {
			s.found(setting, "depends on %s (%s)", setting, w.text)
		}
	}
}

// function scans one function. callers are the settings that its callers have set.
func (s *scan) function(ctx context.Context, f *userFunction, callers map[string]bool) error {
	if s.seen[f.OID] || f.Language == "c" || f.Language == "internal" || f.Schema == "pg_catalog" {
		return nil
	}
	s.seen[f.OID] = true
	fixed := f.fixed()
	maps.Copy(fixed, callers)
	within := "in " + f.Signature
	if f.Language != "sql" && f.Language != "plpgsql" {
		if !fixed[pathName] {
			s.found(pathName, "is written in %s, so it is not known what it looks up by the search_path (%s)", f.Language, within)
		}
		return nil
	}
	words := words(f.Body)
	byPath := !f.Bound && !fixed[pathName]
	for _, w := range words {
		s.settings(w, fixed)
		if byPath && f.Language == "plpgsql" && w.kind == identWord && strings.EqualFold(w.text, "execute") {
			s.found(pathName, "runs SQL that it assembles (execute, %s)", within)
		}
	}
	named, err := s.lookUp(ctx, words, f.Arguments)
	if err != nil {
		return fmt.Errorf("look up the names in %s: %w", f.Signature, err)
	}
	for _, n := range named {
		if byPath && !n.Qualified {
			s.found(pathName, "looks up the %s %s through the search_path (%s)", n.Kind, n.Name, within)
			continue
		}
		if n.Denied && !fixed[roleName] {
			s.found(roleName, "needs rights on the %s %s that %s, the role as which captures run, does not have (%s)", n.Kind, n.Name, pg.PlainName(s.runner), within)
		}
		for _, oid := range n.Runs {
			next, err := readFunction(ctx, s.conn, oid)
			if err != nil {
				return err
			}
			if err := s.function(ctx, next, fixed); err != nil {
				return err
			}
		}
	}
	return nil
}

// namedObject is an object outside pg_catalog that a word in a body may mean.
type namedObject struct {
	Kind      string
	Name      string
	Qualified bool
	Denied    bool     // captures' role may not use it; false if its schema is not named
	Runs      []uint32 // oids of the functions that it may run
}

// namingFunctions are the functions of Postgres itself that take the name of an object as text.
func namingFunctions() []string {
	return []string{
		"nextval", "currval", "setval", "pg_get_serial_sequence", "to_tsvector", "to_tsquery", "plainto_tsquery", "phraseto_tsquery", "websearch_to_tsquery",
		"ts_headline", "ts_lexize", "json_to_tsvector", "jsonb_to_tsvector",
	}
}

// lookUp returns the objects that the words may mean. It may return too many: it takes a column for
// a table of the same name.
func (s *scan) lookUp(ctx context.Context, words []bodyWord, arguments []string) ([]namedObject, error) {
	var schemas, names, kinds []string
	add := func(schema, name, kind string) {
		schemas, names, kinds = append(schemas, schema), append(names, name), append(kinds, kind)
	}
	regs := slices.ContainsFunc(words, func(w bodyWord) bool {
		return w.kind == identWord && (strings.HasPrefix(w.text, "reg") || strings.HasPrefix(w.text, "to_reg") || slices.Contains(namingFunctions(), w.text))
	})
	for _, w := range words {
		switch {
		case w.kind == operatorWord:
			add(w.schema, w.text, "operator")
		case w.kind == stringWord && regs:
			if parts := strings.Split(w.text, "."); len(parts) == 2 {
				add(parts[0], parts[1], "any")
			} else {
				add("", w.text, "any")
			}
		case w.kind == identWord && (w.schema != "" || !slices.Contains(arguments, w.text)):
			kind := "object"
			if w.called {
				kind = "any"
			}
			add(w.schema, w.text, kind)
		}
	}
	return pg.Collect[namedObject](ctx, s.conn, `
with word as (
  select distinct w.schema, w.name, w.kind from unnest($1::pg_catalog.text[], $2::pg_catalog.text[], $3::pg_catalog.text[]) as w(schema, name, kind)
), ours as (
  select oid, nspname::text as name from pg_catalog.pg_namespace where nspname not in ('pg_catalog', 'information_schema', 'rowhook') and nspname !~ '^pg_(toast|temp)'
)
select 'function' as kind, f.proname::text as name, w.schema <> '' as qualified,
       w.schema <> '' and not (has_schema_privilege($4, n.oid, 'USAGE') and has_function_privilege($4, f.oid, 'EXECUTE')) as denied, array[f.oid] as runs
  from word w join ours n on w.schema in ('', n.name) join pg_catalog.pg_proc f on f.pronamespace = n.oid and f.proname = w.name::pg_catalog.name
 where w.kind = 'any'
union all
select 'operator', o.oprname::text, w.schema <> '', w.schema <> '' and not has_schema_privilege($4, n.oid, 'USAGE'), array[o.oprcode::pg_catalog.oid]
  from word w join ours n on w.schema in ('', n.name) join pg_catalog.pg_operator o on o.oprnamespace = n.oid and o.oprname = w.name::pg_catalog.name
 where w.kind = 'operator' and o.oprcode <> 0
union all
select 'type', t.typname::text, w.schema <> '', w.schema <> '' and not has_schema_privilege($4, n.oid, 'USAGE'), array(
         select k.castfunc from pg_catalog.pg_cast k where t.oid in (k.castsource, k.casttarget) and k.castfunc <> 0
         union select d.refobjid from pg_catalog.pg_constraint c join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass and d.objid = c.oid
                and d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass where c.contypid = t.oid)
  from word w join ours n on w.schema in ('', n.name) join pg_catalog.pg_type t on t.typnamespace = n.oid and t.typname = w.name::pg_catalog.name
 where w.kind <> 'operator' and (t.typrelid = 0 or exists (select from pg_catalog.pg_class c where c.oid = t.typrelid and c.relkind = 'c'))
union all
select 'table', c.relname::text, w.schema <> '',
       w.schema <> '' and not (has_schema_privilege($4, n.oid, 'USAGE') and (case c.relkind when 'S' then has_sequence_privilege($4, c.oid, 'SELECT, USAGE, UPDATE')
         else has_table_privilege($4, c.oid, 'SELECT, INSERT, UPDATE, DELETE') or has_any_column_privilege($4, c.oid, 'SELECT, INSERT, UPDATE') end)), array(
         with recursive reach as (
           select c.oid as oid
           union
           select d.refobjid from reach
             join pg_catalog.pg_rewrite r on r.ev_class = reach.oid
             join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass and d.objid = r.oid and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass)
         , part as (
           select 'pg_catalog.pg_rewrite'::pg_catalog.regclass as class, r.oid from reach join pg_catalog.pg_rewrite r on r.ev_class = reach.oid
           union all select 'pg_catalog.pg_policy'::pg_catalog.regclass, p.oid from reach join pg_catalog.pg_policy p on p.polrelid = reach.oid
           union all select 'pg_catalog.pg_trigger'::pg_catalog.regclass, g.oid from reach join pg_catalog.pg_trigger g on g.tgrelid = reach.oid and not g.tgisinternal
           union all select 'pg_catalog.pg_attrdef'::pg_catalog.regclass, d.oid from reach join pg_catalog.pg_attrdef d on d.adrelid = reach.oid
           union all select 'pg_catalog.pg_constraint'::pg_catalog.regclass, k.oid from reach join pg_catalog.pg_constraint k on k.conrelid = reach.oid)
         select d.refobjid from part join pg_catalog.pg_depend d on d.classid = part.class and d.objid = part.oid and d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
          where not exists (select from pg_catalog.pg_proc f join pg_catalog.pg_namespace n on n.oid = f.pronamespace where f.oid = d.refobjid and n.nspname = 'rowhook'))
  from word w join ours n on w.schema in ('', n.name) join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = w.name::pg_catalog.name and c.relkind <> 'c'
 where w.kind <> 'operator'
union all
select 'collation', c.collname::text, w.schema <> '', false, '{}'
  from word w join ours n on w.schema in ('', n.name) join pg_catalog.pg_collation c on c.collnamespace = n.oid and c.collname = w.name::pg_catalog.name
 where w.kind <> 'operator'
union all
select 'text search configuration', c.cfgname::text, w.schema <> '', false, '{}'
  from word w join ours n on w.schema in ('', n.name) join pg_catalog.pg_ts_config c on c.cfgnamespace = n.oid and c.cfgname = w.name::pg_catalog.name
 where w.kind = 'any'
union all
select 'text search dictionary', d.dictname::text, w.schema <> '', false, '{}'
  from word w join ours n on w.schema in ('', n.name) join pg_catalog.pg_ts_dict d on d.dictnamespace = n.oid and d.dictname = w.name::pg_catalog.name
 where w.kind = 'any'
 order by 1, 2`, schemas, names, kinds, s.runner)
}

type wordKind byte

const (
	identWord wordKind = iota
	stringWord
	operatorWord
)

// bodyWord is a name, a string or an operator in the body of a function.
type bodyWord struct {
	kind   wordKind
	schema string // name before the dot, or ""
	text   string // in lower case unless it was quoted
	called bool   // a parenthesis follows
}
