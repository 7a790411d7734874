package sqlschema

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
)

// IncompleteError says that the schema rowhook lacks the rows that Rowhook itself writes. A copy of
// the structure alone is such a schema, as pg_dump --schema-only and --exclude-table-data make it.
// Apply and Migrate complete it.
type IncompleteError struct {
	Database int32    // version of the structure
	Missing  []string // tables of the schema rowhook whose rows are missing
}

// Error names the empty tables and the command that completes the schema.
func (e *IncompleteError) Error() string {
	return fmt.Sprintf("this database has the schema rowhook without its rows (no rows in %s): it is a copy of the structure, as pg_dump --schema-only makes it: "+
		"run \"rowhook apply\", which completes it", strings.Join(e.Missing, " and "))
}

// readVersion returns the schema version. If the schema lacks its rows, it also returns an
// *IncompleteError, and the version is that of the structure. A migration writes the version into
// the comment on rowhook.schema_version. Without comments, the tables and functions that exist
// show it.
func readVersion(ctx context.Context, conn *pgx.Conn) (int32, error) {
	var table, events bool
	var structure int32
	var comment *string
	err := conn.QueryRow(ctx, `
with c as (
  select c.oid, c.relname from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid operator(pg_catalog.=) c.relnamespace where n.nspname operator(pg_catalog.=) 'rowhook')
select exists (select from c where relname operator(pg_catalog.=) 'schema_version'), exists (select from c where relname operator(pg_catalog.=) 'event_log'),
       case when exists (select from c where relname operator(pg_catalog.=) 'event_log_handed') then 8
            when exists (select from c where relname operator(pg_catalog.=) 'replay') then 7
            when exists (select from c where relname operator(pg_catalog.=) 'activity_error') then 6
            when exists (select from c where relname operator(pg_catalog.=) 'lane') then 5
            when exists (select from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid operator(pg_catalog.=) p.pronamespace
                          where n.nspname operator(pg_catalog.=) 'rowhook' and p.proname operator(pg_catalog.=) 'recorded') then 4
            when exists (select from c where relname operator(pg_catalog.=) 'audit') then 3
            when exists (select from c where relname operator(pg_catalog.=) 'activity') then 2 else 1 end,
       (select pg_catalog.obj_description(oid, 'pg_class') from c where relname operator(pg_catalog.=) 'schema_version')`).
		Scan(&table, &events, &structure, &comment)
	if err != nil {
		return 0, fmt.Errorf("read the schema rowhook: %w", err)
	}
	if comment != nil {
		if n, err := strconv.ParseInt(strings.TrimPrefix(*comment, versionComment), 10, 32); err == nil {
			structure = int32(n)
		}
	}
	if !table && !events {
		return 0, nil
	}
	if err := queue.CheckVisible(ctx, conn); err != nil {
		return 0, err
	}
	var version int32
	var settings bool
	if table {
		err := conn.QueryRow(ctx, "select version from rowhook.schema_version").Scan(&version)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return 0, fmt.Errorf("read the schema version: %w", err)
		}
	}
	if !events {
		return version, nil
	}
	if err := conn.QueryRow(ctx, "select exists (select from rowhook.setting where name operator(pg_catalog.=) 'generation')").Scan(&settings); err != nil {
		return 0, fmt.Errorf("read rowhook.setting: %w", err)
	}
	var missing []string
	if version == 0 {
		version = structure
		missing = append(missing, "rowhook.schema_version")
	}
	if !settings {
		missing = append(missing, "rowhook.setting")
	}
	if missing != nil {
		return version, &IncompleteError{Database: version, Missing: missing}
	}
	return version, nil
}

// versionComment is the comment that a migration writes on rowhook.schema_version. The version
// follows.
const versionComment = "Version of the schema rowhook: "

// orphan is a trigger with capture triggers in this database and no row in rowhook.trigger. A copy
// of the structure has such triggers.
type orphan struct {
	ID         int32
	Name       string // from the names of the SQL triggers, which may be cut
	Relation   uint32
	SchemaName string
	TableName  string
	RelationID *int32 // rowhook.relation.id that its captures write; nil: none
	Highest    *int32 // the highest one, if it has captures on several tables
}

func (o orphan) String() string { return o.Name + " on " + pg.PlainName(o.SchemaName, o.TableName) }

// findOrphans returns the orphans. The session must be pinned. A name that was cut holds ~, so it
// is no configured name.
func findOrphans(ctx context.Context, db pg.Queryer) ([]orphan, error) {
	found, err := pg.Collect[orphan](ctx, db, `
select distinct on (x.id) x.id, regexp_replace(regexp_replace(x.tgname, '^rowhook_', ''), '_[a-z]+$', '') as name, x.relation, x.schema_name, x.table_name, x.relation_id,
       max(x.relation_id) over (partition by x.id) as highest
  from (`+captureArguments+`) as x
 where not exists (select from rowhook.trigger r where r.id = x.id)
 order by x.id, x.tgname, x.relation`)
	if err != nil {
		return nil, fmt.Errorf("look for captures of unknown triggers: %w", err)
	}
	return found, nil
}

// captureArguments selects the capture triggers with what their arguments say.
const captureArguments = `
    select split_part(a.args, E'\\000', 1)::integer as id, t.tgname::text as tgname, c.oid as relation, n.nspname::text as schema_name, c.relname::text as table_name,
           substring(split_part(a.args, E'\\000', 3) from '^[0-9]{1,9}$')::integer as relation_id
      from pg_catalog.pg_trigger t
     cross join lateral (select q.proname, q.pronamespace from pg_catalog.pg_proc q where q.oid = t.tgfoid offset 0) as p
      join pg_catalog.pg_namespace f on f.oid = p.pronamespace
      join pg_catalog.pg_class c on c.oid = t.tgrelid
      join pg_catalog.pg_namespace n on n.oid = c.relnamespace
     cross join lateral (select encode(t.tgargs, 'escape') as args) as a
     where f.nspname = 'rowhook' and p.proname ~ '^capture(_[0-9]+)?$' and t.tgparentid = 0 and not t.tgisinternal and a.args ~ E'^[0-9]{1,9}\\\\000'`

// behind is a sequence whose next value is already used in a table. After an upgrade by logical
// replication every sequence is behind, since rows are replicated and sequences are not.
type behind struct {
	Sequence string // in the schema rowhook
	Last     int64  // its last value; 0: it has given out none
	Highest  int64  // the highest value in use
}

func (b behind) String() string {
	return fmt.Sprintf("rowhook.%s is at %d, and %d is in use", b.Sequence, b.Last, b.Highest)
}

// highestOf returns where the values of a sequence are used, beside the column that owns it. Each
// query uses an index, or reads a table of few rows.
func highestOf(ordered bool) map[string][]string {
	highest := map[string][]string{
		"instance_id":    {"select max(id) from rowhook.instance"},
		"trigger_id_seq": {"select max(trigger_id) from rowhook.event_log", "select max(trigger_id) from rowhook.dead_letter"},
	}
	if ordered {
		// A new dispatcher must not get the number of an owner in the database that was copied.
		highest["instance_id"] = append(highest["instance_id"], "select max(owner) from rowhook.lane")
		const newest = "select max(e.seq) from (select distinct trigger_id from rowhook.lane) l " +
			"cross join lateral (select seq from rowhook.%s where trigger_id = l.trigger_id order by id desc limit 1) e"
		highest["event_seq"] = []string{
			"select max(e.seq) from rowhook.lane l cross join lateral (select max(seq) as seq from rowhook.event_log where trigger_id = l.trigger_id and lane = l.lane) e",
			fmt.Sprintf(newest, "dead_letter"), fmt.Sprintf(newest, "event_archive"),
		}
	}
	return highest
}

// findBehind returns the sequences that are behind. The session must be pinned. It skips tables
// that the role may not read.
func findBehind(ctx context.Context, db pg.Queryer, orphans []orphan) ([]behind, error) {
	var readable, ordered bool
	err := db.QueryRow(ctx, `
select coalesce(bool_and(has_column_privilege(c.oid, w.col, 'SELECT')), true),
       coalesce((select bool_and(has_table_privilege(o.oid, 'SELECT')) from pg_catalog.pg_class o
                  where o.relname in ('event_log', 'event_archive', 'dead_letter', 'lane') and o.relnamespace = (select oid from pg_catalog.pg_namespace where nspname = 'rowhook')
                 having bool_or(o.relname = 'lane')), false)
  from (values ('instance', 'id'), ('event_log', 'trigger_id'), ('dead_letter', 'trigger_id'), ('trigger', 'id')) as w (name, col)
  join pg_catalog.pg_class c on c.relname = w.name::name
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace and n.nspname = 'rowhook'`).Scan(&readable, &ordered)
	if err != nil || !readable {
		return nil, err
	}
	sequences, err := pg.Collect[struct{ Sequence, Own string }](ctx, db, `
select s.relname::text as sequence, coalesce('select max(' || quote_ident(a.attname) || ') from rowhook.' || quote_ident(c.relname), '') as own
  from pg_catalog.pg_sequence q
  join pg_catalog.pg_class s on s.oid = q.seqrelid
  join pg_catalog.pg_namespace n on n.oid = s.relnamespace
  left join pg_catalog.pg_depend d on d.classid = 'pg_class'::regclass and d.objid = s.oid and d.refclassid = 'pg_class'::regclass and d.deptype in ('a', 'i') and d.refobjsubid > 0
  left join pg_catalog.pg_class c on c.oid = d.refobjid
  left join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum = d.refobjsubid
 where n.nspname = 'rowhook' and has_schema_privilege(n.oid, 'USAGE') and has_sequence_privilege(q.seqrelid, 'USAGE, SELECT')
   and (c.oid is null or has_column_privilege(c.oid, a.attnum, 'SELECT'))
 order by 1`)
	if err != nil {
		return nil, fmt.Errorf("list the sequences of the schema rowhook: %w", err)
	}
	used := map[string]int64{}
	for _, o := range orphans {
		used["trigger_id_seq"] = max(used["trigger_id_seq"], int64(o.ID))
		if o.Highest != nil {
			used["relation_id_seq"] = max(used["relation_id_seq"], int64(*o.Highest))
		}
	}
	var found []behind
	for _, s := range sequences {
		highest := highestOf(ordered)[s.Sequence]
		if s.Own != "" {
			highest = append(highest, s.Own)
		}
		if len(highest) == 0 {
			continue
		}
		b := behind{Sequence: s.Sequence}
		err := db.QueryRow(ctx, "select coalesce(pg_sequence_last_value($1::text::regclass), 0), coalesce(greatest(("+strings.Join(highest, "), (")+")), 0)::bigint",
			pg.QuoteName("rowhook", s.Sequence)).Scan(&b.Last, &b.Highest)
		if err != nil {
			return nil, fmt.Errorf("compare rowhook.%s with the values in use: %w", s.Sequence, err)
		}
		if b.Highest = max(b.Highest, used[s.Sequence]); b.Highest > b.Last {
			found = append(found, b)
		}
	}
	return found, nil
}

// lack is what the schema rowhook lacks.
type lack struct {
	incomplete *IncompleteError
	orphans    []orphan
	behind     []behind
	stale      []stale
	strays     strays
	version    int32
	noCapture  bool // rowhook.capture was dropped, with the capture triggers
}

// captureOf returns the statements that make rowhook.capture as in a schema version.
func captureOf(version int32) (string, error) {
	files, err := migrations()
	if err != nil {
		return "", err
	}
	for ; version > 0; version-- {
		names, err := fs.Glob(files, fmt.Sprintf("%03d_*.sql", version))
		if err != nil || len(names) == 0 {
			continue
		}
		text, err := fs.ReadFile(files, names[0])
		if err != nil {
			return "", err
		}
		up, _, _ := strings.Cut(string(text), "---- create above / drop below ----")
		at := strings.Index(up, "function rowhook.capture() returns trigger")
		if at < 0 {
			continue
		}
		rest := up[at:]
		comment := strings.Index(rest, "comment on function rowhook.capture() ")
		end := strings.Index(rest[max(comment, 0):], "\n")
		if comment < 0 || end < 0 {
			return "", fmt.Errorf("%s does not define rowhook.capture as expected", names[0])
		}
		return "create " + rest[:comment+end] + "\n" + revokeFunctions("rowhook.capture()"), nil
	}
	return "", fmt.Errorf("no migration defines rowhook.capture")
}

// strays are the ids of triggers with waiting events, without a row in rowhook.trigger and without
// a capture trigger, as after a restore of some tables only. Their names are lost.
type strays []int32

func findStrays(ctx context.Context, db pg.Queryer, orphans []orphan) (strays, error) {
	var readable bool
	err := db.QueryRow(ctx, "select has_column_privilege('rowhook.event_log', 'trigger_id', 'SELECT') and has_column_privilege('rowhook.trigger', 'id', 'SELECT')").Scan(&readable)
	if err != nil || !readable {
		return nil, err
	}
	var found strays
	if err := db.QueryRow(ctx, "select array_agg(id order by id) from ("+queue.StrayTriggers+") s").Scan(&found); err != nil {
		return nil, fmt.Errorf("look for events of unknown triggers: %w", err)
	}
	return slices.DeleteFunc(found, func(id int32) bool { return slices.ContainsFunc(orphans, func(o orphan) bool { return o.ID == id }) }), nil
}

func (s strays) String() string {
	const most = 10
	var names []string
	for _, id := range s[:min(len(s), most)] {
		names = append(names, fmt.Sprintf("#%d", id))
	}
	if len(s) > most {
		names = append(names, fmt.Sprintf("and %d more", len(s)-most))
	}
	return strings.Join(names, ", ")
}

// findLack returns what is missing, or nil. The session must be pinned, and the schema installed.
func findLack(ctx context.Context, conn *pgx.Conn) (*lack, error) {
	var l lack
	version, err := readVersion(ctx, conn)
	if err != nil && !errors.As(err, &l.incomplete) || version == 0 {
		return nil, err
	}
	l.version = version
	if err := conn.QueryRow(ctx, "select to_regprocedure('rowhook.capture()') is null").Scan(&l.noCapture); err != nil {
		return nil, fmt.Errorf("look for rowhook.capture: %w", err)
	}
	if l.orphans, err = findOrphans(ctx, conn); err != nil {
		return nil, err
	}
	if l.behind, err = findBehind(ctx, conn, l.orphans); err != nil {
		return nil, err
	}
	if l.stale, err = findStale(ctx, conn); err != nil {
		return nil, err
	}
	if l.strays, err = findStrays(ctx, conn, l.orphans); err != nil {
		return nil, err
	}
	if l.incomplete == nil && !l.noCapture && len(l.orphans)+len(l.behind)+len(l.stale)+len(l.strays) == 0 {
		return nil, nil
	}
	return &l, nil
}

// rows returns the rows of rowhook.trigger that makeWhole will write.
func (l *lack) rows() []triggerRow {
	if l == nil {
		return nil
	}
	rows := make([]triggerRow, len(l.orphans))
	for i, o := range l.orphans {
		rows[i] = triggerRow{ID: o.ID, Name: o.Name, Relation: o.Relation, Spec: []byte("{}"), Captured: []byte("{}"), Removed: true, Orphan: true}
	}
	return rows
}

// changes returns what makeWhole will do.
func (l *lack) changes() []Change {
	if l == nil {
		return nil
	}
	var changes []Change
	if l.incomplete != nil {
		changes = append(changes, Change{Action: Replace, Object: "schema", Name: "rowhook", Detail: fmt.Sprintf(
			"it is a copy of the structure without its rows, and is completed as version %d", l.incomplete.Database)})
	}
	if l.noCapture {
		changes = append(changes, Change{Action: Create, Object: "function", Name: "rowhook.capture", Detail: "it was dropped, and nothing is captured without it"})
	}
	for _, o := range l.orphans {
		changes = append(changes, Change{Action: Replace, Object: "trigger", Name: o.Name, Detail: "has captures on " + pg.PlainName(o.SchemaName, o.TableName) +
			" and no row: it gets a row, and the events that it has captured go to the dead letters"})
	}
	for _, b := range l.behind {
		changes = append(changes, Change{Action: Replace, Object: "sequence", Name: "rowhook." + b.Sequence, Detail: fmt.Sprintf("%d becomes %d, which is in use", b.Last, b.Highest)})
	}
	for _, s := range l.stale {
		changes = append(changes, s.change())
	}
	if len(l.strays) > 0 {
		changes = append(changes, Change{Action: Replace, Object: "events", Name: "of the triggers " + l.strays.String(), Detail: "these have no row in rowhook.trigger: the events go to the dead letters"})
	}
	return changes
}

// makeWhole restores what a copy lacks: the version, the settings, a row for each orphan, the
// sequences that are behind, and the partitions of these days. An orphan's row is marked as
// removed. An apply that configures a trigger of the same name takes over its id, so nothing is
// captured for another trigger. unknown says that there are orphans or strays. The session must be
// pinned and act as the owner.
func makeWhole(ctx context.Context, conn *pgx.Conn, log *slog.Logger) (unknown bool, err error) {
	l, err := findLack(ctx, conn)
	if err != nil || l == nil {
		return false, err
	}
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if l.incomplete != nil {
			if err := l.incomplete.fill(ctx, tx); err != nil {
				return err
			}
		}
		if l.noCapture {
			sql, err := captureOf(l.version)
			if err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, sql); err != nil {
				return fmt.Errorf("create rowhook.capture again: %w", err)
			}
		}
		for _, o := range l.orphans {
			if err := o.adopt(ctx, tx); err != nil {
				return err
			}
		}
		for _, b := range l.behind {
			if err := b.catchUp(ctx, tx); err != nil {
				return err
			}
		}
		if l.incomplete == nil {
			return repairRelations(ctx, tx)
		}
		return nil
	})
	if err != nil {
		return false, explainPrivilege(ctx, conn, fmt.Errorf("complete the schema rowhook: %w", err))
	}
	for _, c := range l.changes() {
		log.Info("completed the schema rowhook", "change", c.String())
	}
	return len(l.orphans)+len(l.strays) > 0, nil
}

// Lacking returns what is missing although the schema has its version and its settings, one line
// for each: triggers without a row in rowhook.trigger, sequences that are behind, or a dropped
// function. An apply repairs it. When the transaction has ended, the session has its old settings.
// So Lacking works through a pooler.
func Lacking(ctx context.Context, tx pgx.Tx) (lines []string, err error) {
	// The rollback to the savepoint undoes the settings. Setting them back would turn settings of
	// the transaction into settings of the session.
	within, err := tx.Begin(ctx)
	if err != nil {
		return nil, fmt.Errorf("look for what is missing: %w", err)
	}
	err = pg.Pinned(ctx, within.Conn(), func() error {
		l, err := findLack(ctx, within.Conn())
		if err != nil || l == nil {
			return err
		}
		lines = l.lines()
		return nil
	})
	return lines, errors.Join(err, within.Rollback(ctx))
}

func (l *lack) lines() []string {
	var lines []string
	if l.noCapture {
		lines = append(lines, "the function rowhook.capture was dropped: nothing is captured without it")
	}
	for _, o := range l.orphans {
		lines = append(lines, fmt.Sprintf("changes of %s are captured for the trigger %s, which has no row in rowhook.trigger: they are not delivered", pg.PlainName(o.SchemaName, o.TableName), o.Name))
	}
	for _, b := range l.behind {
		lines = append(lines, "the sequence "+b.String())
	}
	for _, s := range l.stale {
		lines = append(lines, s.String())
	}
	if len(l.strays) > 0 {
		lines = append(lines, "events wait for triggers that have no row in rowhook.trigger ("+l.strays.String()+"): they are not delivered")
	}
	return lines
}

// fill writes the rows without which Rowhook can't work. It drops partitions of past days that are
// empty in the copy.
func (e *IncompleteError) fill(ctx context.Context, tx pgx.Tx) error {
	var b pgx.Batch
	b.Queue("update rowhook.schema_version set version = $1 where version = 0", e.Database)
	b.Queue("insert into rowhook.schema_version (version) select $1 where not exists (select from rowhook.schema_version)", e.Database)
	b.Queue(`insert into rowhook.setting (name, value) values ('generation', to_jsonb(1 + (random() * 1000000000)::integer)), ('retention', '{"delivered": "7d", "attempts": "7d"}') on conflict do nothing`)
	if e.Database > 1 {
		b.Queue("insert into rowhook.setting (name, value) values ('compatible', to_jsonb($1::integer)) on conflict do nothing", e.Database-1)
	}
	b.Queue("select rowhook.ensure_partitions(now() - interval '1 day', now() + $1)", queue.PartitionsAhead)
	if err := tx.SendBatch(ctx, &b).Close(); err != nil {
		return fmt.Errorf("restore the settings: %w", err)
	}
	if e.Database < 2 {
		return nil
	}
	days, err := queue.Partitions(ctx, tx)
	if err != nil {
		return err
	}
	for _, p := range days {
		if p.Ended && !p.Filled {
			if _, err := p.Remove(ctx, tx); err != nil {
				return err
			}
		}
	}
	return nil
}

// adopt writes a row for the orphan. Its events are then buried like those of a removed trigger.
func (o orphan) adopt(ctx context.Context, tx pgx.Tx) error {
	var taken, relations bool
	err := tx.QueryRow(ctx, "select exists (select from rowhook.trigger where name = $1), to_regclass('rowhook.relation') is not null", o.Name).Scan(&taken, &relations)
	if err != nil {
		return fmt.Errorf("look for the trigger %s: %w", o.Name, err)
	}
	name := o.Name
	if taken {
		name = fmt.Sprintf("%s~%d", o.Name, o.ID) // no configured name has a ~
	}
	var b pgx.Batch
	if relations && o.RelationID != nil { // first, since the row of the trigger finds it by its oid
		b.Queue(`
insert into rowhook.relation (id, oid, schema_name, table_name) overriding system value
select distinct on (x.relation_id) x.relation_id, x.relation, x.schema_name, x.table_name
  from (`+captureArguments+`) as x where x.id = $1 and x.relation_id is not null
 order by x.relation_id, x.relation on conflict do nothing`, o.ID)
	}
	b.Queue(`
insert into rowhook.trigger (id, name, relation, schema_name, table_name, spec, removed_at) overriding system value
values ($1, $2, $3::oid, $4, $5, '{}', now()) on conflict do nothing`, o.ID, name, o.Relation, o.SchemaName, o.TableName)
	if err := tx.SendBatch(ctx, &b).Close(); err != nil {
		return fmt.Errorf("write a row for the captures of %s: %w", o, err)
	}
	return nil
}

// catchUp sets the sequence to the highest value in use. It also reads the columns without an
// index, once.
func (b behind) catchUp(ctx context.Context, tx pgx.Tx) error {
	all := map[string]string{
		"instance_id":     "select greatest((select max(claimed_by) from rowhook.event_log), (select max(instance_id) from rowhook.invocation_log))",
		"trigger_id_seq":  "select max(trigger_id) from rowhook.event_archive",
		"event_seq":       "select greatest((select max(seq) from rowhook.event_log), (select max(seq) from rowhook.event_archive), (select max(seq) from rowhook.dead_letter))",
		"relation_id_seq": "select greatest((select max(relation_id) from rowhook.event_log), (select max(relation_id) from rowhook.event_archive), (select max(relation_id) from rowhook.dead_letter))",
	}[b.Sequence]
	if all == "" {
		all = "select null::bigint"
	}
	if _, err := tx.Exec(ctx, "select setval($1::text::regclass, greatest($2::bigint, ("+all+")))", pg.QuoteName("rowhook", b.Sequence), b.Highest); err != nil {
		return fmt.Errorf("set rowhook.%s: %w", b.Sequence, err)
	}
	return nil
}

// wholeToApply is makeWhole before an apply without a migration.
func wholeToApply(ctx context.Context, conn *pgx.Conn, log *slog.Logger) error {
	l, err := findLack(ctx, conn)
	if err != nil || l == nil {
		return err
	}
	back, err := actAsOwner(ctx, conn)
	if err != nil {
		return err
	}
	defer back()
	unknown, err := makeWhole(ctx, conn, log)
	if err != nil || !unknown {
		return err
	}
	return buryUnknown(ctx, conn, log)
}

// buryUnknown moves events to the dead letters that were captured before their trigger had a row.
// Nobody has configured where to send them. In a copy for tests they may be rows of test data. It
// also moves the events of strays.
func buryUnknown(ctx context.Context, conn *pgx.Conn, log *slog.Logger) error {
	buried, err := queue.BuryOrphans(ctx, conn)
	if buried > 0 {
		log.Warn("moved events to the dead letters that were captured in this copy before this apply: rowhook redeliver sends them, rowhook discard deletes them", "events", buried)
	}
	if err != nil {
		return err
	}
	if buried, err = queue.BuryStrays(ctx, conn); buried > 0 {
		log.Warn("moved events to the dead letters whose triggers have no row in rowhook.trigger, as after a restore of some tables", "events", buried)
	}
	return err
}
