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

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/trigger"
)

// RowSource reads the rows that a watched table has now, in the order of its primary key, as the
// trigger's events would hold them. "rowhook backfill" is made of it. OpenRows makes a RowSource,
// and a row of rowhook.backfill holds how far it has read.
type RowSource struct {
	Trigger int32  // rowhook.trigger.id
	Table   string // for people
	// RelationID is rowhook.relation.id of the table, if the trigger has several; else 0.
	RelationID int32
	Key        []string // columns of the primary key, or of another unique key without nulls

	oid    uint32
	from   string // relation and alias, for SQL
	whole  bool   // it has partitions or chunks
	key    []keyColumn
	wanted string // SQL condition: the row is wanted
	body   string // SQL expression: the payload, or null for rows that are not wanted
}

// RowsError says why the rows of a table can't be read as events, and what to do.
type RowsError struct {
	Message string // what is wrong, where, and what to do
}

// Error returns the message.
func (e *RowsError) Error() string { return e.Message }

// keyColumn is a column of the key, with the operators and the collation of its index. The
// operators of the search_path or the default collation of the type may order keys differently, or
// take two keys for one. Then rows would be skipped.
type keyColumn struct {
	Name, Type string
	// The operators <, <=, =, >= and > of the index's operator class.
	Less, AtMost, Same, AtLeast, Beyond string
	Collation                           string // "": the type has none
}

// as returns the column under this name with the collation of the index.
func (k *keyColumn) as(name string) string {
	if k.Collation == "" {
		return name
	}
	return name + " collate " + k.Collation
}

// compared returns the condition that the key of a row is behind the key in a parameter, an array
// of text. If last is set, it is the condition that the key is at most that one.
func compared(key []keyColumn, param string, last bool) string {
	if row := comparedAsRow(key, param, last); row != "" {
		return row
	}
	condition := ""
	for i := len(key) - 1; i >= 0; i-- {
		k := &key[i]
		column, given := k.as("new."+pg.QuoteName(k.Name)), fmt.Sprintf("(%s::text[])[%d]::%s", param, i+1, k.Type)
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
	// The index is searched by its first column. It can't use a condition with "or".
	first := &key[0]
	column, given := first.as("new."+pg.QuoteName(first.Name)), "("+param+"::text[])[1]::"+first.Type
	if last {
		return column + " " + first.AtMost + " " + given + " and " + condition
	}
	return column + " " + first.AtLeast + " " + given + " and " + condition
}

// comparedAsRow returns the same condition as a comparison of rows, for which the index uses all
// its columns. It returns "" if the operators of the columns differ.
func comparedAsRow(key []keyColumn, param string, last bool) string {
	columns, given := make([]string, len(key)), make([]string, len(key))
	for i := range key {
		k := &key[i]
		if k.AtMost != key[0].AtMost || k.Beyond != key[0].Beyond {
			return ""
		}
		columns[i], given[i] = k.as("new."+pg.QuoteName(k.Name)), fmt.Sprintf("(%s::text[])[%d]::%s", param, i+1, k.Type)
	}
	operator := key[0].Beyond
	if last {
		operator = key[0].AtMost
	}
	return "row(" + strings.Join(columns, ", ") + ") " + operator + " row(" + strings.Join(given, ", ") + ")"
}

// ordered returns the terms of an ORDER BY of the key. name returns the name of a column.
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

func (s *RowSource) column(i int) string { return "new." + pg.QuoteName(s.key[i].Name) }

// OpenRows prepares a backfill: to read the rows of a trigger's table that meet its "when" and the
// condition. condition is SQL over the table's columns; "" is every row. If the rows can't be read
// as events, the error is a *RowsError. conn must be in a transaction.
//
// relation is the oid of the table, and relationID its rowhook.relation.id if the trigger has
// several tables; otherwise 0.
func OpenRows(ctx context.Context, conn *pgx.Conn, trigger int32, spec trigger.Spec, relation uint32, relationID int32, condition string) (*RowSource, error) {
	rel, err := readRelation(ctx, conn, relation)
	if err != nil {
		return nil, err
	}
	if rel == nil {
		return nil, &RowsError{fmt.Sprintf("the table %s of the trigger %s does not exist any more: apply again with another table", spec.Watches(), spec.Name)}
	}
	if !rel.Trusted {
		return nil, &RowsError{fmt.Sprintf("%s belongs to %s, whose code could run as this role while rows are converted to JSON: "+
			"make this role, or one that it trusts, the owner during the backfill, or let %[2]s update the rows, which a trigger on updates captures", rel, pg.PlainName(rel.Owner))}
	}
	key, err := pg.Collect[keyColumn](ctx, conn, `
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
		return nil, &RowsError{fmt.Sprintf("%s has no primary key, and a backfill needs one to read rows in order and to continue after an interruption: add one", rel)}
	}
	s := &RowSource{Trigger: trigger, Table: rel.String(), RelationID: relationID, oid: rel.OID}
	s.from = rel.sql() + " as new"
	if rel.Kind != "p" && !rel.Hypertable {
		s.from = "only " + s.from // the trigger does not capture inheriting tables
	}
	s.whole = rel.Kind == "p" || rel.Hypertable
	if err := s.checkCountable(ctx, conn, rel); err != nil {
		return nil, err
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
		return nil, fmt.Errorf("restore search_path: %w", err)
	}
	return s, nil
}

// ownPath sets the search_path of the session's user for the rest of the transaction, for SQL that
// the user wrote. pinnedPath undoes that.
const (
	ownPath = "select pg_catalog.set_config('search_path', coalesce(pg_catalog.substr(nullif(pg_catalog.current_setting('" + pg.PathSetting + "', true), ''), 2), " +
		"pg_catalog.current_setting('search_path')), true)"
	pinnedPath = "set local search_path = pg_catalog, pg_temp"
)

// choose prepares the condition and the payload of the wanted rows.
func (s *RowSource) choose(ctx context.Context, conn *pgx.Conn, rel *relation, spec *trigger.Spec, condition string) error {
	wanted := []string{}
	for _, c := range []struct{ sql, wrong string }{
		{spec.When, "the trigger's when can't be evaluated for an existing row, which has no old row: use another trigger for the backfill; the server says: "},
		{condition, "the condition: "},
	} {
		if strings.TrimSpace(c.sql) == "" {
			continue
		}
		// A text is balanced both within parentheses and within brackets only if it is balanced
		// itself.
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
	if ownFunction(spec, rel) {
		s.body = own{s.Trigger, s.RelationID}.payload() + "(new.*)"
	}
	s.wanted = "true"
	if len(wanted) > 0 {
		s.wanted = strings.Join(wanted, " and ")
		s.body = "case when " + s.wanted + " then " + s.body + " end"
	}
	return nil
}

// capturedAs are the settings with which rowhook.capture makes a payload.
const capturedAs = "set local timezone to 'UTC'; set local datestyle to 'ISO, YMD'; set local intervalstyle to 'postgres'; set local bytea_output to 'hex'; " +
	"set local extra_float_digits to 1; set local lc_monetary to 'C'; set local quote_all_identifiers to off"

// Extent is the content of a table when reading begins.
type Extent struct {
	Rows int64 // the number of rows, above 100,000 an estimate
	// Horizon is a transaction id. Every transaction below it has ended, so the rows that they
	// wrote are in the table, and none has a key above that of Last.
	Horizon string
}

// Extent reads the size of the table and the horizon. Last must be read after it, in the same
// transaction.
func (s *RowSource) Extent(ctx context.Context, tx pgx.Tx) (e Extent, err error) {
	if _, err := tx.Exec(ctx, capturedAs); err != nil {
		return e, fmt.Errorf("prepare to read %s: %w", s.Table, err)
	}
	// First: a row that is committed later may have a key behind the last one.
	if err := tx.QueryRow(ctx, "select pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text").Scan(&e.Horizon); err != nil {
		return e, fmt.Errorf("read which transactions have ended: %w", err)
	}
	const most = 100_000
	err = tx.QueryRow(ctx, "select count(*) from (select from "+s.from+" limit "+strconv.Itoa(most)+") as r").Scan(&e.Rows)
	if err == nil && e.Rows == most {
		name, _, _ := strings.Cut(strings.TrimPrefix(s.from, "only "), " as new")
		err = tx.QueryRow(ctx, `
select greatest($2::bigint, sum(case when c.reltuples >= 0 then c.reltuples else 0 end)::bigint)
  from pg_catalog.pg_class c where c.relkind = 'r' and (c.oid = $1::pg_catalog.regclass or c.oid in (select relid from pg_catalog.pg_partition_tree($1::pg_catalog.regclass)))`,
			name, int64(most)).Scan(&e.Rows)
	}
	if err != nil {
		return e, s.explain(fmt.Errorf("count the rows of %s: %w", s.Table, err))
	}
	return e, nil
}

// Last returns SQL for the highest key. Its value is an array of text, or null if the table is
// empty. Keys stay on the server, as not every key can be converted into the encoding of this
// session.
func (s *RowSource) Last() string {
	return "(select " + s.keyAsText("new.") + " from " + s.from + " order by " + s.ordered(s.column, true) + " limit 1)"
}

func (s *RowSource) keyAsText(prefix string) string {
	parts := make([]string, len(s.Key))
	for i, name := range s.Key {
		parts[i] = prefix + pg.QuoteName(name) + "::text"
	}
	return "array[" + strings.Join(parts, ", ") + "]"
}

// Recorded is the result of reading the next rows of a backfill.
type Recorded struct {
	Read  int64    // rows that were read; if fewer than the limit, there are no more
	Newer int64    // of these rows, those that may have been written since the horizon
	IDs   []string // of the recorded events
}

// Record reads the next rows of a backfill, at most limit of them, and records the wanted ones as
// INSERT events. It moves the position of the backfill to the last row that it read. With an empty
// horizon, Newer is 0.
func (s *RowSource) Record(ctx context.Context, tx pgx.Tx, backfill int64, limit int, horizon string) (r Recorded, err error) {
	err = s.page(ctx, tx, backfill, s.body+" as body, "+older("new", "$3")+" as older", `
recorded as (
  insert into rowhook.event_log (id, trigger_id, op, new, session, relation_id)
  select rowhook.uuid7(), $4, 'I', body, `+backfillSession+`, `+s.recordedOf()+` from page where body is not null returning id)
select (select count(*) from page), (select count(*) from page where not older), (select coalesce(array_agg(id::text), '{}') from recorded)`,
		[]any{limit, horizon, s.Trigger}, &r.Read, &r.Newer, &r.IDs)
	return r, err
}

// Bury reads the next row of a backfill, which can't be turned into an event. It records a dead
// letter instead, with the key of the row in its reason.
func (s *RowSource) Bury(ctx context.Context, tx pgx.Tx, backfill int64, horizon, why string) (r Recorded, err error) {
	key := make([]string, len(s.Key))
	for i, name := range s.Key {
		key[i] = fmt.Sprintf("%s, page.key_%d::text", pg.StringLiteral(name+" = "), i+1)
	}
	var buried int64
	err = s.page(ctx, tx, backfill, s.wanted+" as wanted, "+older("new", "$3")+" as older", `
buried as (
  insert into rowhook.dead_letter (id, created_at, died_at, trigger_id, tries, op, reason, session, relation_id)
  select rowhook.uuid7(), clock_timestamp(), clock_timestamp(), $4, 0, 'I', pg_catalog.concat('the row with ', `+strings.Join(key, ", ', ', ")+`, ' can''t be turned into an event: ', $5::text),
         `+backfillSession+`, `+s.recordedOf()+` from page where wanted returning id)
select (select count(*) from page), (select count(*) from page where not older), (select count(*) from buried)`,
		[]any{1, horizon, s.Trigger, why}, &r.Read, &r.Newer, &buried)
	return r, err
}

// backfillSession is the session variables of events that a backfill ($1) records.
const backfillSession = `pg_catalog.concat('{"rowhook_backfill":', $1::bigint, '}')::pg_catalog.json`

// recordedOf says of which table these events are.
func (s *RowSource) recordedOf() string {
	if s.RelationID != 0 {
		return strconv.Itoa(int(s.RelationID))
	}
	return "(select t.relation_id from rowhook.trigger t where t.id = $4)"
}

// page reads up to $2 of the next rows of the backfill $1, with these columns. It moves the
// position of the backfill, and runs the rest of the statement.
func (s *RowSource) page(ctx context.Context, tx pgx.Tx, backfill int64, columns, rest string, args []any, into ...any) error {
	var first bool
	if err := tx.QueryRow(ctx, "select position is null from rowhook.backfill where id = $1", backfill).Scan(&first); err != nil {
		return fmt.Errorf("read the position of the backfill: %w", err)
	}
	if _, err := tx.Exec(ctx, capturedAs+"; "+pg.InKeyOrder().Local()); err != nil {
		return fmt.Errorf("prepare to read %s: %w", s.Table, err)
	}
	behind := ""
	if !first {
		behind = compared(s.key, "(select position from at)", false) + " and "
	}
	if _, err := tx.Exec(ctx, ownPath); err != nil {
		return fmt.Errorf("set search_path: %w", err)
	}
	keys := make([]string, len(s.Key))
	named := make([]string, len(s.Key))
	for i, name := range s.Key {
		keys[i] = fmt.Sprintf("new.%s as key_%d", pg.QuoteName(name), i+1)
		named[i] = fmt.Sprintf("key_%d", i+1)
	}
	err := tx.QueryRow(ctx, `
with at as materialized (select position, until from rowhook.backfill where id = $1),
page as materialized (
  select `+strings.Join(keys, ", ")+`, `+columns+` from `+s.from+`
   where `+behind+compared(s.key, "(select until from at)", true)+`
   order by `+s.ordered(s.column, false)+` limit $2),
reached as (
  select array[`+strings.Join(named, "::text, ")+`::text] as key from page order by `+s.ordered(func(i int) string { return named[i] }, true)+` limit 1),
moved as (
  update rowhook.backfill b set position = reached.key from reached where b.id = $1),`+rest, append([]any{backfill}, args...)...).Scan(into...)
	if err == nil {
		_, err = tx.Exec(ctx, pinnedPath)
	}
	if err != nil {
		return s.explain(fmt.Errorf("record rows of %s: %w", s.Table, err))
	}
	return nil
}

// older returns the condition that this version of a row was visible at the horizon, a parameter:
// it was neither written nor moved since. It may be false for a row that was frozen long ago, since
// its transaction id may have been reused. It is never true for a newer row. That holds as long as
// fewer than horizonReach transactions have begun since: see Older.
func older(row, param string) string {
	return "(" + param + "::text = '' or pg_catalog.age(" + row + ".xmin) > pg_catalog.age(" + param + "::text::pg_catalog.xid8::pg_catalog.xid))"
}

// Older returns the number of rows that are older than the horizon. It uses neither the index of
// the key nor its operators, so it is a check of what Record has read.
func (s *RowSource) Older(ctx context.Context, tx pgx.Tx, horizon string) (rows int64, err error) {
	var known bool
	err = tx.QueryRow(ctx, "select (pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::numeric - $1::text::numeric) between 0 and $2::numeric", horizon, horizonReach).Scan(&known)
	if err != nil {
		return 0, fmt.Errorf("read the number of the next transaction: %w", err)
	}
	if !known {
		return 0, &RowsError{fmt.Sprintf("it can't be checked whether every row of %s was read: too many transactions have begun since the backfill began to recognize the rows of that time", s.Table)}
	}
	if _, err := tx.Exec(ctx, pg.WithoutIndex().Local()); err != nil {
		return 0, fmt.Errorf("prepare to count the rows of %s: %w", s.Table, err)
	}
	sql, args := "select count(*) from "+s.from+" where "+older("new", "$1"), []any{horizon}
	if s.whole { // rows of a partition that was attached since are not counted
		args = append(args, s.oid)
		sql = "with recursive part as (select $2::pg_catalog.oid as oid union all " +
			"select i.inhrelid from part join pg_catalog.pg_inherits i on i.inhparent = part.oid where " + older("i", "$1") + ") " +
			sql + " and new.tableoid in (select oid from part)"
	}
	if err := tx.QueryRow(ctx, sql, args...).Scan(&rows); err != nil {
		return 0, s.explain(fmt.Errorf("count the rows of %s: %w", s.Table, err))
	}
	return rows, nil
}

// horizonReach is the largest number of transactions that may begin after a horizon. It is half the
// range of 32 bits, less an allowance for the transactions that begin while rows are being counted.
const horizonReach = 1<<31 - 1<<27

// checkCountable returns an error for a table whose rows do not say which transaction wrote them.
// That is so for access methods other than Postgres' heap, and for chunks that TimescaleDB has
// compressed.
func (s *RowSource) checkCountable(ctx context.Context, conn *pgx.Conn, rel *relation) error {
	var foreign string
	err := conn.QueryRow(ctx, `
with recursive part as (
  select $1::pg_catalog.oid as oid
   union
  select i.inhrelid from part join pg_catalog.pg_inherits i on i.inhparent = part.oid where $2)
select coalesce(min(n.nspname || '.' || c.relname), '')
  from part join pg_catalog.pg_class c on c.oid = part.oid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where c.relkind <> 'p' and c.relam not in (select a.oid from pg_catalog.pg_am a where a.amname = 'heap')`, rel.OID, s.whole).Scan(&foreign)
	if err != nil {
		return fmt.Errorf("read how %s is stored: %w", rel, err)
	}
	const uncounted = "a backfill could not check at its end whether it read every row of %s, since the rows of %s do not say which transaction wrote them: " +
		"let the owner update the rows, which a trigger on updates captures"
	if foreign != "" {
		return &RowsError{fmt.Sprintf(uncounted, rel, foreign)}
	}
	if !rel.Hypertable {
		return nil
	}
	_, err = conn.Exec(ctx, "savepoint countable; explain select count(*) from "+s.from+" where new.xmin is not null")
	if err != nil {
		var pg *pgconn.PgError
		if !errors.As(err, &pg) || pg.Code == pgerrcode.InsufficientPrivilege {
			return s.explain(fmt.Errorf("read how %s is stored: %w", rel, err))
		}
		return &RowsError{fmt.Sprintf(uncounted+" (%s)", rel, "its compressed chunks", pg.Message)}
	}
	_, err = conn.Exec(ctx, "release savepoint countable")
	return err
}

// explain returns a *RowsError if row level security hides rows. Other errors stay unchanged.
// Rowhook's sessions turn row_security off, so that a statement fails instead of reading fewer
// rows.
func (s *RowSource) explain(err error) error {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.Code != pgerrcode.InsufficientPrivilege || pg.Routine != "check_enable_rls" {
		return err
	}
	return &RowsError{fmt.Sprintf("row level security keeps rows of %s from this role (%s): use a role with bypassrls, or the table's owner if it is not forced on the owner", s.Table, pg.Message)}
}
