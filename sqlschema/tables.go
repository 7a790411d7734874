package sqlschema

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/trigger"
)

// candidate is a table that a pattern may match.
type candidate struct {
	OID          uint32
	Schema, Name string
	Kind         string // pg_class.relkind
	Extension    string // it belongs to this extension; "": to none
	Partition    bool   // it is a partition of Parent, or a chunk
	Parent       uint32 // 0: none
}

func (c *candidate) String() string { return pg.PlainName(c.Schema, c.Name) }

// candidates selects the tables that patterns may match, in these schemas ($1); null: in all. The
// triggers of a partitioned table and of a hypertable are also those of their partitions and
// chunks.
const candidates = `
select c.oid, n.nspname::text as schema, c.relname::text as name, c.relkind::text as kind,
       coalesce((select e.extname::text from pg_catalog.pg_depend d join pg_catalog.pg_extension e on e.oid = d.refobjid
                  where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = c.oid and d.objsubid = 0 and d.deptype = 'e'
                    and d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass limit 1), '') as extension,
       c.relispartition as partition,
       case when c.relispartition then coalesce((select i.inhparent from pg_catalog.pg_inherits i where i.inhrelid = c.oid limit 1), 0::oid) else 0::oid end as parent
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where c.relkind in ('r', 'p', 'f') and c.relpersistence <> 't' and ($1::text[] is null or n.nspname = any($1::text[]::name[]))
   and n.nspname not in ('rowhook', 'information_schema') and n.nspname !~ '^pg_' and n.nspname !~ '^_timescaledb_'
 order by n.nspname, c.relname`

// patterns are the entries of Spec.Tables or Spec.Except.
type patterns []pg.Pattern

func parsePatterns(texts []string) (patterns, error) {
	out := make(patterns, len(texts))
	for i, text := range texts {
		p, err := pg.ParsePattern(text)
		if err != nil {
			return nil, fmt.Errorf("%s %w", text, err)
		}
		out[i] = p
	}
	return out, nil
}

// matches returns which entry matches a table; -1: none.
func (ps patterns) matches(c *candidate) int {
	return slices.IndexFunc(ps, func(p pg.Pattern) bool { return p.Match(c.Schema, c.Name) })
}

// wild returns the entries that are patterns. The others match nothing.
func (ps patterns) wild() patterns {
	out := slices.Clone(ps)
	for i := range out {
		if out[i].Exact() {
			out[i] = pg.Pattern{}
		}
	}
	return out
}

// schemas returns the schemas in which matches may be; nil: any.
func (ps patterns) schemas() []string {
	schemas := []string{}
	for _, p := range ps {
		schema, ok := p.Schema()
		if !ok && !p.Exact() {
			return nil
		}
		if ok && !slices.Contains(schemas, schema) {
			schemas = append(schemas, schema)
		}
	}
	return schemas
}

// matched is what the patterns of a trigger match.
type matched struct {
	tables   []candidate       // to watch
	entries  []int             // of each of them, which pattern matches it
	foreign  []candidate       // foreign tables, and tables of extensions, which are left out
	excepted map[int]int       // how many tables each entry of Except leaves out
	parts    map[int]candidate // by entry of Except: a table that is captured all the same
	known    []candidate       // all that was read
}

// matchTables finds the tables that the patterns of a trigger match. It leaves out those that are
// partitions of another one. Exact names are the caller's to find.
func matchTables(ctx context.Context, db pg.Queryer, spec *trigger.Spec) (*matched, error) {
	tables, err := parsePatterns(spec.Tables)
	if err != nil {
		return nil, err
	}
	except, err := parsePatterns(spec.Except)
	if err != nil {
		return nil, err
	}
	m := &matched{excepted: map[int]int{}, parts: map[int]candidate{}}
	wild := tables.wild()
	if !slices.ContainsFunc(wild, func(p pg.Pattern) bool { return !p.IsZero() }) {
		return m, nil
	}
	if m.known, err = pg.Collect[candidate](ctx, db, candidates, wild.schemas()); err != nil {
		return nil, fmt.Errorf("list the tables that patterns may match: %w", err)
	}
	within, left := map[uint32]bool{}, map[int]int{} // left: entries of Except, by index in known
	for i := range m.known {
		c := &m.known[i]
		entry := wild.matches(c)
		if entry < 0 || tables.names(c) {
			continue
		}
		if n := except.matches(c); n >= 0 {
			m.excepted[n]++
			left[i] = n
			continue
		}
		if c.Kind == "f" || c.Extension != "" {
			m.foreign = append(m.foreign, *c)
			continue
		}
		m.tables, m.entries = append(m.tables, *c), append(m.entries, entry)
		within[c.OID] = true
	}
	m.withoutPartitions(within, left)
	return m, nil
}

// names reports whether an exact entry names a table.
func (ps patterns) names(c *candidate) bool {
	return slices.ContainsFunc(ps, func(p pg.Pattern) bool { return p.Exact() && p.Match(c.Schema, c.Name) })
}

// withoutPartitions removes tables whose changes another one of the tables captures. left are the
// tables, by their index in known, that an entry of Except is to leave out.
func (m *matched) withoutPartitions(within map[uint32]bool, left map[int]int) {
	parents := map[uint32]uint32{}
	for i := range m.known {
		parents[m.known[i].OID] = m.known[i].Parent
	}
	covered := func(c *candidate) bool {
		for up := c.Parent; up != 0; up = parents[up] {
			if within[up] {
				return true
			}
		}
		return false
	}
	tables, entries := m.tables[:0], m.entries[:0]
	for i := range m.tables {
		if !covered(&m.tables[i]) {
			tables, entries = append(tables, m.tables[i]), append(entries, m.entries[i])
		}
	}
	m.tables, m.entries = tables, entries
	for i, entry := range left {
		if covered(&m.known[i]) {
			m.parts[entry] = m.known[i]
		}
	}
}

// faults collects what is wrong with one spec. A trigger with several tables may have the same
// fault on many of them: that is said once, with their number.
type faults struct {
	spec  *trigger.Spec
	index int
	found []fault
}

type fault struct {
	trigger.SpecError
	table string // "": it is not of one table
}

// of returns a function that reports faults of a table.
func (f *faults) of(rel *relation) func(missing, message string, path ...string) {
	return func(missing, message string, path ...string) {
		if message == "" {
			return
		}
		if f.spec.Many() && rel != nil && !strings.Contains(message, rel.String()) {
			message = "for " + rel.String() + ": " + message
		}
		table := ""
		if rel != nil {
			table = rel.String()
		}
		f.found = append(f.found, fault{trigger.SpecError{Index: f.index, Trigger: f.spec.Name, Path: path, Message: message, Missing: missing}, table})
	}
}

// errors returns the faults. Of those of many tables with the same path it returns the first one.
func (f *faults) errors() (out trigger.SpecErrors) {
	first := map[string]int{}
	others := map[int][]string{}
	for i := range f.found {
		at := strings.Join(f.found[i].Path, "\x00")
		n, again := first[at]
		if !again || !f.spec.Many() || f.found[i].table == "" {
			first[at] = len(out)
			out = append(out, f.found[i].SpecError)
			continue
		}
		others[n] = append(others[n], f.found[i].table)
		if f.found[i].Missing == "" {
			out[n].Missing = ""
		}
	}
	for n, tables := range others {
		out[n].Message += " (and likewise for " + someOf(tables) + ")"
	}
	return out
}

// someOf lists at most three names, and how many more there are.
func someOf(names []string) string {
	const most = 3
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// findTables finds the tables that a spec with Tables watches, by name.
func (p *planner) findTables(ctx context.Context, spec *trigger.Spec, user string, f *faults) ([]*relation, error) {
	report := f.of(nil)
	entry := func(key string, i int) []string { return []string{key, strconv.Itoa(i)} }
	if spec.Table != "" {
		report("", "a trigger has either a table or tables: remove one of the two", "tables")
		return nil, nil
	}
	tables, err := parsePatterns(spec.Tables)
	if err == nil {
		_, err = parsePatterns(spec.Except)
	}
	if err != nil {
		report("", err.Error(), "tables")
		return nil, nil
	}
	entries := map[uint32]int{}
	for i, name := range spec.Tables {
		if !tables[i].Exact() {
			continue
		}
		rel, err := findRelation(ctx, p.conn, name)
		if message, ok := invalidName(err); ok {
			report("", message, entry("tables", i)...)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look for the table %s: %w", name, err)
		}
		if rel == nil {
			message, err := missingTable(ctx, p.conn, name, nil)
			if err != nil {
				return nil, err
			}
			report("the table "+name, message, entry("tables", i)...)
			continue
		}
		if refusal := rel.refusal(user, *spec); refusal != "" {
			report("", refusal, entry("tables", i)...)
			continue
		}
		entries[rel.OID] = i
	}
	m, err := matchTables(ctx, p.conn, spec)
	if err != nil {
		return nil, err
	}
	for i := range m.tables {
		if _, named := entries[m.tables[i].OID]; !named {
			entries[m.tables[i].OID] = m.entries[i]
		}
	}
	rels, err := p.readEntries(ctx, spec, entries, user, m)
	if err != nil {
		return nil, err
	}
	if err := p.refusePartitions(ctx, rels, report); err != nil {
		return nil, err
	}
	p.unmatched(spec, tables, rels, m, report)
	return rels, nil
}

// readEntries reads the tables, and leaves out those of patterns that can't be watched.
func (p *planner) readEntries(ctx context.Context, spec *trigger.Spec, entries map[uint32]int, user string, m *matched) ([]*relation, error) {
	oids := make([]uint32, 0, len(entries))
	for oid := range entries {
		oids = append(oids, oid)
	}
	rels, err := readRelations(ctx, p.conn, oids)
	if err != nil {
		return nil, err
	}
	var reasons []string
	for i := range m.foreign {
		reason := "it is a foreign table"
		if m.foreign[i].Extension != "" {
			reason = "it belongs to the extension " + m.foreign[i].Extension
		}
		reasons = append(reasons, m.foreign[i].String()+" ("+reason+")")
	}
	rels = slices.DeleteFunc(rels, func(rel *relation) bool {
		rel.entry = entries[rel.OID]
		refusal := rel.refusal(user, *spec)
		if refusal != "" {
			reasons = append(reasons, refusal)
		}
		return refusal != ""
	})
	if len(reasons) > 0 {
		const most = 3
		text := strings.Join(reasons[:min(most, len(reasons))], "; ")
		if more := len(reasons) - most; more > 0 {
			text += fmt.Sprintf("; and %d more", more)
		}
		p.plan.Warnings = append(p.plan.Warnings, fmt.Sprintf("%s: %d of the tables that its patterns match are not watched: %s: name them in except if that is right", spec.Name, len(reasons), text))
	}
	return rels, nil
}

// refusePartitions reports tables whose changes would be captured twice.
func (p *planner) refusePartitions(ctx context.Context, rels []*relation, report func(missing, message string, path ...string)) error {
	within := map[uint32]*relation{}
	var oids []uint32
	for _, rel := range rels {
		within[rel.OID] = rel
		if rel.Descends {
			oids = append(oids, rel.OID)
		}
	}
	if len(oids) == 0 {
		return nil
	}
	found, err := pg.Collect[struct{ Part, Whole uint32 }](ctx, p.conn, `
with recursive up as (
  select c.oid as part, i.inhparent as whole from pg_catalog.pg_class c join pg_catalog.pg_inherits i on i.inhrelid = c.oid where c.oid = any($1) and c.relispartition
  union all
  select up.part, i.inhparent from up join pg_catalog.pg_class c on c.oid = up.whole and c.relispartition join pg_catalog.pg_inherits i on i.inhrelid = c.oid)
select part, whole from up order by part`, oids)
	if err != nil {
		return fmt.Errorf("look for partitions: %w", err)
	}
	for _, pair := range found {
		if whole := within[pair.Whole]; whole != nil {
			report("", fmt.Sprintf("%s is a partition of %s, which the trigger watches, too, and its changes would be captured twice: remove one of the two", within[pair.Part], whole),
				"tables", strconv.Itoa(within[pair.Part].entry))
		}
	}
	return nil
}

// unmatched reports entries that mean nothing. With Follow, they may come to mean something.
func (p *planner) unmatched(spec *trigger.Spec, tables patterns, rels []*relation, m *matched, report func(missing, message string, path ...string)) {
	for i, pattern := range tables {
		// A table that two patterns match counts for both.
		matches := slices.ContainsFunc(rels, func(rel *relation) bool { return pattern.Match(rel.Schema, rel.Name) })
		if matches || pattern.Exact() || spec.Follow {
			continue
		}
		report("a table that matches "+spec.Tables[i], fmt.Sprintf("%s matches no table that can be watched: correct it, or write follow: true to wait for tables that match", spec.Tables[i]), "tables", strconv.Itoa(i))
	}
	for i, name := range spec.Except {
		if part, captured := m.parts[i]; captured {
			report("", fmt.Sprintf("%s is a partition of a table that the trigger watches, and what is captured of that is captured of its partitions: leave out the whole table, or use when", part.String()), "except", strconv.Itoa(i))
			continue
		}
		if m.excepted[i] > 0 {
			continue
		}
		pattern, _ := pg.ParsePattern(name)
		exists := slices.ContainsFunc(m.known, func(c candidate) bool { return pattern.Match(c.Schema, c.Name) })
		switch {
		case exists:
			p.plan.Warnings = append(p.plan.Warnings, fmt.Sprintf("%s: except has %s, which no pattern of tables matches", spec.Name, name))
		case pattern.Exact() && !spec.Follow:
			report("the table "+name, fmt.Sprintf("there is no table %s in a schema of tables, so it leaves out nothing: correct the name, or remove it", name), "except", strconv.Itoa(i))
		default:
			p.plan.Warnings = append(p.plan.Warnings, fmt.Sprintf("%s: except has %s, which leaves out nothing at present", spec.Name, name))
		}
	}
}

// member is a row of rowhook.trigger_table: a table that a trigger with several watches.
type member struct {
	TriggerID   int32
	RelationID  int32
	Relation    uint32   // the oid of the table, as it is known here; it may have been dropped
	RecordedAs  []string // schema and name at the last apply
	CalledNow   []string // schema and name; nil: the table was dropped
	Replacement *uint32  // the table that has the recorded name now, if that is another one
	Captured    []byte   // captured, as JSON
}

// name returns the present name of the table, or its last one.
func (m *member) name() string {
	if m.CalledNow != nil {
		return pg.PlainName(m.CalledNow...)
	}
	return pg.PlainName(m.RecordedAs...)
}

// members selects the tables of triggers with several. In a database that was loaded from a dump,
// the oid of a table is that of the other database until an apply, but watched was dumped by name.
const members = `
select m.trigger_id, m.relation_id, w.oid as relation, array[r.schema_name, r.table_name] as recorded_as,
       case when c.oid is not null then array[n.nspname::text, c.relname::text] end as called_now, m.captured,
       (select k.oid from pg_catalog.pg_class k join pg_catalog.pg_namespace s on s.oid = k.relnamespace
         where s.nspname = r.schema_name::name and k.relname = r.table_name::name and k.relkind in ('r', 'p') and k.oid <> w.oid) as replacement
  from rowhook.trigger_table m
  join rowhook.relation r on r.id = m.relation_id
 cross join lateral (
   select case when r.home = 'rowhook.relation'::regclass then r.oid
               when m.watched::oid <> r.oid or exists (
                 select from pg_catalog.pg_class k join pg_catalog.pg_namespace s on s.oid = k.relnamespace
                  where k.oid = m.watched::oid and s.nspname = r.schema_name::name and k.relname = r.table_name::name) then m.watched::oid
               else 0::oid end as oid) as w
  left join pg_catalog.pg_class c on c.oid = w.oid and c.relkind in ('r', 'p')
  left join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 order by m.trigger_id, r.schema_name, r.table_name`

// readMembers returns the tables of triggers with several, by rowhook.trigger.id. Version 6 of the
// schema has them only after a way down from version 7, which has rowhook.replay. A role that was
// granted its rights there may not read them.
func readMembers(ctx context.Context, db pg.Queryer) (map[int32][]member, error) {
	var has bool
	if err := db.QueryRow(ctx, `
select case when r.oid is null then false
            else pg_catalog.has_table_privilege(r.oid, 'SELECT') or pg_catalog.to_regclass('rowhook.replay') is not null end
  from pg_catalog.to_regclass('rowhook.trigger_table') as r (oid)`).Scan(&has); err != nil {
		return nil, fmt.Errorf("look for rowhook.trigger_table: %w", err)
	}
	if !has {
		return nil, nil
	}
	found, err := pg.Collect[member](ctx, db, members)
	if err != nil {
		return nil, fmt.Errorf("read rowhook.trigger_table: %w", err)
	}
	out := map[int32][]member{}
	for _, m := range found {
		out[m.TriggerID] = append(out[m.TriggerID], m)
	}
	return out, nil
}

// Member is a table that a trigger with several watches.
type Member struct {
	Relation      uint32 // oid
	RelationID    int32  // rowhook.relation.id
	Schema, Table string // its present name
}

// FindMembers returns the tables of a trigger with several that exist, by name.
func FindMembers(ctx context.Context, db pg.Queryer, trigger int32) ([]Member, error) {
	all, err := readMembers(ctx, db)
	if err != nil {
		return nil, err
	}
	var out []Member
	for _, m := range all[trigger] {
		if m.CalledNow != nil {
			out = append(out, Member{m.Relation, m.RelationID, m.CalledNow[0], m.CalledNow[1]})
		}
	}
	return out, nil
}

// join makes the table one of those that the trigger watches.
func (w *installation) join(ctx context.Context, tx *pipeline) error {
	if w.id = w.head.id; w.id == 0 {
		return errors.New("its row was not written: apply again")
	}
	err := tx.QueryRow(ctx, "select rowhook.watch_table($1, $2::oid, $3, $4)", w.id, w.rel.OID, w.rel.Schema, w.rel.Name).Scan(&w.relationID)
	if err != nil {
		return fmt.Errorf("record that %s watches %s: %w", w.spec.Name, w.rel, err)
	}
	return nil
}

// leave ends that a trigger watches a table. What waits of the table is still sent.
func leave(trigger, relation int32) func(context.Context, *pipeline) error {
	return func(ctx context.Context, tx *pipeline) error {
		_, err := tx.Exec(ctx, "delete from rowhook.trigger_table where trigger_id = $1 and relation_id = $2", trigger, relation)
		if err != nil {
			return fmt.Errorf("record that a table is no longer watched: %w", err)
		}
		return nil
	}
}
