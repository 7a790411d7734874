package sqlschema

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// RowSource reads the rows that a watched table has now, in the order of its primary key, as the trigger's events would
// hold them.
type RowSource struct {
	Trigger int32
	Table   string   // for people
	Key     []string // columns of the primary key, or of another unique key without nulls

	from    string // relation and alias, for SQL
	key     []keyColumn
	related bool   // events say which table they are of
	body    string // the payload, null for rows that are not wanted
}

// RowsError says why a table's rows can't be read as events, and what to do about it.
type RowsError struct{ Message string }

func (e *RowsError) Error() string { return e.Message }

// keyColumn is a column of the key, with the operators and the collation by which its index holds it to be unique. What the search_path
// or the type's default would give instead may order it otherwise, or hold two keys to be one, and rows would be passed over.
type keyColumn struct {
	Name, Type                          string
	Less, AtMost, Same, AtLeast, Beyond string // operators of the index's operator class: <, <=, =, >=, >
	Collation                           string // "": the type has none
}

// as writes the column, under this name, as the index compares it.
func (k *keyColumn) as(name string) string {
	if k.Collation == "" {
		return name
	}
	return name + " collate " + k.Collation
}

// compared says that the key of a row is behind the one in a parameter, an array of text, or, where last says so, is it or before it.
func compared(key []keyColumn, param string, last bool) string {
	if row := comparedAsRow(key, param, last); row != "" {
		return row
	}
	condition := ""
	for i := len(key) - 1; i >= 0; i-- {
		k := &key[i]
		column, given := k.as("new."+quoteName(k.Name)), fmt.Sprintf("(%s::text[])[%d]::%s", param, i+1, k.Type)
		strict, bound := k.Beyond, k.Less
		if last {
			strict = k.Less
		} else {
			bound = k.Beyond
		}
		switch {
		case condition == "" && last:
			condition = column + " " + k.AtMost + " " + given
		case condition == "":
			condition = column + " " + strict + " " + given
		default:
			condition = "(" + column + " " + bound + " " + given + " or " + column + " " + k.Same + " " + given + " and " + condition + ")"
		}
	}
	if len(key) == 1 {
		return condition
	}
	// The index is entered by its first column: a condition with "or" says nothing to it.
	first := &key[0]
	column, given := first.as("new."+quoteName(first.Name)), "("+param+"::text[])[1]::"+first.Type
	if last {
		return column + " " + first.AtMost + " " + given + " and " + condition
	}
	return column + " " + first.AtLeast + " " + given + " and " + condition
}

// comparedAsRow is the same as a comparison of rows, which the index answers by all its columns. "": their operators differ.
func comparedAsRow(key []keyColumn, param string, last bool) string {
	columns, given := make([]string, len(key)), make([]string, len(key))
	for i := range key {
		k := &key[i]
		if k.AtMost != key[0].AtMost || k.Beyond != key[0].Beyond {
			return ""
		}
		columns[i], given[i] = k.as("new."+quoteName(k.Name)), fmt.Sprintf("(%s::text[])[%d]::%s", param, i+1, k.Type)
	}
	operator := key[0].Beyond
	if last {
		operator = key[0].AtMost
	}
	return "row(" + strings.Join(columns, ", ") + ") " + operator + " row(" + strings.Join(given, ", ") + ")"
}

// ordered is an ORDER BY of columns that name makes of those of the key.
func (s *RowSource) ordered(name func(i int) string, descending bool) string {
	parts := make([]string, len(s.key))
	for i := range s.key {
		operator := s.key[i].Less
		if descending {
			operator = s.key[i].Beyond
		}
		parts[i] = s.key[i].as(name(i)) + " using " + operator
	}
	return strings.Join(parts, ", ")
}

func (s *RowSource) column(i int) string { return "new." + quoteName(s.key[i].Name) }

// OpenRows prepares to read the rows of a trigger's table that meet its "when" and the condition, SQL over the table's
// columns; "": every row. What is wrong with these is a *RowsError. It has to be called in a transaction.
func OpenRows(ctx context.Context, conn *pgx.Conn, trigger int32, spec Spec, relation uint32, condition string) (*RowSource, error) {
	rel, err := readRelation(ctx, conn, relation)
	if err != nil {
		return nil, err
	}
	if rel == nil {
		return nil, &RowsError{fmt.Sprintf("the table %s of the trigger %s is gone", spec.Table, spec.Name)}
	}
	if !rel.Trusted {
		return nil, &RowsError{fmt.Sprintf("%s belongs to %s, whose code could run as this role while its rows are turned into JSON: "+
			"make this role, or one that it trusts, the owner for the time of the backfill, or have %[2]s update the rows, for which a trigger on updates is enough", rel, plainName(rel.Owner))}
	}
	key, err := collect[keyColumn](ctx, conn, `
select a.attname as name, pg_catalog.format_type(a.atttypid, a.atttypmod) as type, o.less, o.at_most, o.same, o.at_least, o.beyond,
       coalesce((select pg_catalog.format('%I.%I', s.nspname, c.collname) from pg_catalog.pg_collation c
                   join pg_catalog.pg_namespace s on s.oid = c.collnamespace where c.oid = i.indcollation[k.n - 1]), '') as collation
  from (select i.indrelid, i.indkey, i.indnkeyatts, i.indclass, i.indcollation from pg_catalog.pg_index i
         where i.indrelid = $1 and i.indisunique and i.indisvalid and i.indimmediate and i.indpred is null and i.indexprs is null
           and not exists (select from pg_catalog.pg_attribute n where n.attrelid = i.indrelid and n.attnum = any(i.indkey[0:i.indnkeyatts - 1]) and not n.attnotnull)
         order by i.indisprimary desc, i.indnkeyatts, i.indexrelid limit 1) as i
  cross join lateral unnest(i.indkey) with ordinality as k(attnum, n)
  join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
  join pg_catalog.pg_opclass x on x.oid = i.indclass[k.n - 1]
 cross join lateral (
   select max(f.op) filter (where f.strategy = 1) as less, max(f.op) filter (where f.strategy = 2) as at_most,
          max(f.op) filter (where f.strategy = 3) as same, max(f.op) filter (where f.strategy = 4) as at_least, max(f.op) filter (where f.strategy = 5) as beyond
     from (select m.amopstrategy as strategy, pg_catalog.format('operator(%I.%s)', s.nspname, p.oprname) as op
             from pg_catalog.pg_amop m
             join pg_catalog.pg_operator p on p.oid = m.amopopr
             join pg_catalog.pg_namespace s on s.oid = p.oprnamespace
            where m.amopfamily = x.opcfamily and m.amoplefttype = x.opcintype and m.amoprighttype = x.opcintype and m.amoppurpose = 's') as f) as o
 where k.n <= i.indnkeyatts order by k.n`, rel.OID)
	if err != nil {
		return nil, fmt.Errorf("look for the key of %s: %w", rel, err)
	}
	if len(key) == 0 {
		return nil, &RowsError{fmt.Sprintf("%s has no primary key, by which its rows are read in order and the reading goes on after an interruption: add one", rel)}
	}
	s := &RowSource{Trigger: trigger, Table: rel.String()}
	if s.related, err = hasRelations(ctx, conn); err != nil {
		return nil, err
	}
	s.from = rel.sql() + " as new"
	if rel.Kind != "p" {
		s.from = "only " + s.from // rows of tables that inherit are not this trigger's
	}
	s.key = key
	for _, k := range key {
		s.Key = append(s.Key, k.Name)
	}
	if _, err := conn.Exec(ctx, ownPath); err != nil {
		return nil, fmt.Errorf("set search_path: %w", err)
	}
	if err := s.choose(ctx, conn, rel, &spec, condition); err != nil {
		return nil, err
	}
	if _, err := conn.Exec(ctx, pinnedPath); err != nil {
		return nil, fmt.Errorf("set search_path back: %w", err)
	}
	return s, nil
}

// ownPath has what follows in the transaction see the search_path of the session's user, whose own SQL comes next, and pinnedPath
// takes it away.
const (
	ownPath = "select pg_catalog.set_config('search_path', coalesce(pg_catalog.substr(nullif(pg_catalog.current_setting('" + pathSetting + "', true), ''), 2), " +
		"pg_catalog.current_setting('search_path')), true)"
	pinnedPath = "set local search_path = pg_catalog, pg_temp"
)

// choose prepares the payload of the rows that are wanted.
func (s *RowSource) choose(ctx context.Context, conn *pgx.Conn, rel *relation, spec *Spec, condition string) error {
	wanted := []string{}
	for _, c := range []struct{ sql, wrong string }{
		{spec.When, "the trigger's when can't be asked of a row that exists (which has no old one): give the backfill a trigger of its own. It says: "},
		{condition, "the condition: "},
	} {
		if strings.TrimSpace(c.sql) == "" {
			continue
		}
		// No text is balanced within parentheses and within brackets unless it is so by itself.
		for _, around := range [][2]string{{"(\n", "\n)"}, {"(array[\n", "\n])[1]"}} {
			message, err := parseWhen(ctx, conn, "select from "+s.from+" where "+around[0], c.sql, around[1], rel)
			if err != nil {
				return err
			}
			if message != "" {
				return &RowsError{c.wrong + message}
			}
		}
		wanted = append(wanted, "(\n"+c.sql+"\n)")
	}
	s.body = "pg_catalog.row_to_json(new.*)"
	if spec.ownFunction(rel) {
		s.body = payloadName(s.Trigger) + "(new.*)"
	}
	if len(wanted) > 0 {
		s.body = "case when " + strings.Join(wanted, " and ") + " then " + s.body + " end"
	}
	return nil
}

// capturedAs are the settings under which rowhook.capture makes a payload.
const capturedAs = "set local timezone to 'UTC'; set local datestyle to 'ISO, YMD'; set local intervalstyle to 'postgres'; set local bytea_output to 'hex'; " +
	"set local extra_float_digits to 1; set local lc_monetary to 'C'; set local quote_all_identifiers to off"

// Extent returns the highest key, nil where the table is empty, and about how many rows there are.
func (s *RowSource) Extent(ctx context.Context, tx pgx.Tx) (last []string, rows int64, err error) {
	if _, err := tx.Exec(ctx, capturedAs); err != nil {
		return nil, 0, fmt.Errorf("prepare to read %s: %w", s.Table, err)
	}
	found, err := tx.Query(ctx, "select "+s.keyAsText("new.")+" from "+s.from+" order by "+s.ordered(s.column, true)+" limit 1")
	if err != nil {
		return nil, 0, s.explain(fmt.Errorf("look for the last row of %s: %w", s.Table, err))
	}
	keys, err := pgx.CollectRows(found, pgx.RowTo[[]string])
	if err != nil {
		return nil, 0, s.explain(fmt.Errorf("look for the last row of %s: %w", s.Table, err))
	}
	if len(keys) == 0 {
		return nil, 0, nil
	}
	const most = 100_000
	err = tx.QueryRow(ctx, "select count(*) from (select from "+s.from+" limit "+strconv.Itoa(most)+") as r").Scan(&rows)
	if err == nil && rows == most {
		name, _, _ := strings.Cut(strings.TrimPrefix(s.from, "only "), " as new")
		err = tx.QueryRow(ctx, `
select greatest($2::bigint, sum(case when c.reltuples >= 0 then c.reltuples else 0 end)::bigint)
  from pg_catalog.pg_class c where c.relkind = 'r' and (c.oid = $1::pg_catalog.regclass or c.oid in (select relid from pg_catalog.pg_partition_tree($1::pg_catalog.regclass)))`,
			name, int64(most)).Scan(&rows)
	}
	if err != nil {
		return nil, 0, s.explain(fmt.Errorf("count the rows of %s: %w", s.Table, err))
	}
	return keys[0], rows, nil
}

func (s *RowSource) keyAsText(prefix string) string {
	parts := make([]string, len(s.Key))
	for i, name := range s.Key {
		parts[i] = prefix + quoteName(name) + "::text"
	}
	return "array[" + strings.Join(parts, ", ") + "]"
}

// Record reads the next rows after a key (nil: from the beginning) up to the last one, at most limit of them, and records the
// wanted ones as INSERT events with these session variables. It returns the key of the last row it read, how many it read, and the ids of
// the events; fewer read than limit means that there are no more.
func (s *RowSource) Record(ctx context.Context, tx pgx.Tx, after, last []string, limit int, session string) (reached []string, read int64, ids []string, err error) {
	if _, err := tx.Exec(ctx, capturedAs+"; set local enable_seqscan = off; set local enable_sort = off; set local jit = off"); err != nil {
		return nil, 0, nil, fmt.Errorf("prepare to read %s: %w", s.Table, err)
	}
	behind := compared(s.key, "$1", false) + " and "
	if after == nil {
		behind = "$1::text[] is null and "
	}
	if _, err := tx.Exec(ctx, ownPath); err != nil {
		return nil, 0, nil, fmt.Errorf("set search_path: %w", err)
	}
	keys := make([]string, len(s.Key))
	named := make([]string, len(s.Key))
	for i, name := range s.Key {
		keys[i] = fmt.Sprintf("new.%s as key_%d", quoteName(name), i+1)
		named[i] = fmt.Sprintf("key_%d", i+1)
	}
	into, relation := "", ""
	if s.related {
		into, relation = ", relation_id", ", (select t.relation_id from rowhook.trigger t where t.id = $4)"
	}
	text := "array[" + strings.Join(named, "::text, ") + "::text]"
	err = tx.QueryRow(ctx, `
with page as materialized (
  select `+strings.Join(keys, ", ")+`, `+s.body+` as body from `+s.from+`
   where `+behind+compared(s.key, "$2", true)+`
   order by `+s.ordered(s.column, false)+` limit $3),
recorded as (
  insert into rowhook.event_log (id, trigger_id, op, new, session`+into+`)
  select rowhook.uuid7(), $4, 'I', body, $5::text::json`+relation+` from page where body is not null returning id)
select (select `+text+` from page order by `+s.ordered(func(i int) string { return named[i] }, true)+` limit 1),
       (select count(*) from page), (select coalesce(array_agg(id::text), '{}') from recorded)`, after, last, limit, s.Trigger, session).Scan(&reached, &read, &ids)
	if err == nil {
		_, err = tx.Exec(ctx, pinnedPath)
	}
	if err != nil {
		return nil, 0, nil, s.explain(fmt.Errorf("record rows of %s: %w", s.Table, err))
	}
	return reached, read, ids, nil
}

// explain tells rows that are hidden from other errors: a session of ours fails rather than to read fewer.
func (s *RowSource) explain(err error) error {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.Code != pgerrcode.InsufficientPrivilege || pg.Routine != "check_enable_rls" {
		return err
	}
	return &RowsError{fmt.Sprintf("row level security keeps rows of %s from this role (%s): use a role with bypassrls, or the table's owner where it is not forced on the owner", s.Table, pg.Message)}
}
