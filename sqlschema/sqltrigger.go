package sqlschema

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/sorting"
)

// SQLTrigger is a trigger on a watched table, as an apply has made it, and as it is now.
type SQLTrigger struct {
	Table   string `json:"table"` // schema.table
	Name    string `json:"name"`
	Present bool   `json:"present"`
	Enabled bool   `json:"enabled"` // it fires for ordinary sessions
	// Guard says that it captures nothing: it keeps the table from becoming a partition.
	Guard   bool   `json:"guard,omitempty"`
	Problem string `json:"problem,omitempty"` // "": it captures as it should
	Remedy  string `json:"remedy,omitempty"`
}

// FindSQLTriggers returns the SQL triggers of an active trigger by name. There are none for a trigger
// that takes manual events alone, and none for one that is not active. It needs the rights that
// [FindUncaptured] needs.
func FindSQLTriggers(ctx context.Context, db pg.Queryer, name string) ([]SQLTrigger, error) {
	all, err := readWatched(ctx, db)
	if err != nil {
		return nil, err
	}
	out := []SQLTrigger{}
	t := all.named(name)
	if t == nil {
		return out, nil
	}
	for i := range t.tables {
		if out, err = t.tables[i].appendSQLTriggers(out, all); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// named returns an active trigger, or nil.
func (all *watched) named(name string) *watchedTrigger {
	i := slices.IndexFunc(all.triggers, func(t watchedTrigger) bool { return t.name == name })
	if i < 0 {
		return nil
	}
	return &all.triggers[i]
}

// appendSQLTriggers appends the SQL triggers of one table.
func (w *watchedTable) appendSQLTriggers(out []SQLTrigger, all *watched) ([]SQLTrigger, error) {
	found, was := all.byID[w.ID], captured{}
	whole, err := w.uncaptured(found, all.replicas)
	if err != nil || w.gone {
		return out, err
	}
	if err := json.Unmarshal(w.Captured, &was); err != nil {
		return nil, fmt.Errorf("read rowhook.trigger.captured of %s: %w", w.Name, err)
	}
	for _, made := range slices.Sorted(maps.Keys(was.SQL)) {
		c, fault := w.fault(made, w.spec, &was, found)
		t := SQLTrigger{Table: w.name(), Name: made, Guard: c.Guard}
		if fault != captureGone {
			t.Name, t.Present, t.Enabled = c.Name, true, c.Enabled == "O" || c.Enabled == "A"
		}
		switch {
		case fault != "":
			t.Problem, t.Remedy = string(fault), applyAgain
		case !c.Guard && whole.Problem != "" && w.sqlTriggers(w.spec, &was, found) == "":
			t.Problem, t.Remedy = whole.Problem, whole.Remedy // of the table, or of the database
		}
		out = append(out, t)
	}
	return out, nil
}

// name returns the present name of the table, or its last one.
func (w *watchedTable) name() string {
	if w.CalledNow != nil {
		return pg.PlainName(w.CalledNow...)
	}
	return pg.PlainName(w.RecordedAs...)
}

// WatchedTable is a table of a trigger that watches several, or would watch it after an apply.
type WatchedTable struct {
	Table   string `json:"table"`   // schema.table, by its present name
	Watched bool   `json:"watched"` // its changes are captured
	// Problem says why its changes are not captured, or not all of them. "": there is none.
	Problem string `json:"problem,omitempty"`
	Note    string `json:"note,omitempty"` // what the next apply will do with it
}

// FindWatchedTables returns the tables of an active trigger by name: those that it watches, and
// those that its patterns match since the last apply. There are none for a trigger with one table.
// It needs the rights that [FindUncaptured] needs.
func FindWatchedTables(ctx context.Context, db pg.Queryer, name string) ([]WatchedTable, error) {
	all, err := readWatched(ctx, db)
	if err != nil {
		return nil, err
	}
	t := all.named(name)
	if t == nil || !t.spec.Many() {
		return nil, nil
	}
	m, err := matchTables(ctx, db, &t.spec)
	if err != nil {
		return nil, fmt.Errorf("find the tables of %s: %w", name, err)
	}
	named, err := parsePatterns(t.spec.Tables)
	if err != nil {
		return nil, err
	}
	out := []WatchedTable{}
	for i := range t.tables {
		w := &t.tables[i]
		u, err := w.uncaptured(all.byID[w.ID], all.replicas)
		if err != nil {
			return nil, err
		}
		shown := WatchedTable{Table: w.name(), Watched: w.CalledNow != nil && u.Problem == "", Problem: u.Problem}
		matches := slices.ContainsFunc(m.tables, func(c candidate) bool { return c.OID == w.Relation })
		switch {
		case w.gone:
			shown.Note = "it was dropped, and the next apply forgets it"
		case !matches && w.CalledNow != nil && !named.mayName(w.CalledNow):
			shown.Note = "its name matches no longer, and the next apply ends its captures"
		}
		out = append(out, shown)
	}
	yet, err := t.unwatched(ctx, db)
	if err != nil {
		return nil, err
	}
	for _, name := range yet {
		out = append(out, WatchedTable{Table: name, Note: "it is watched from the next apply on"})
	}
	sorting.By(out, func(a, b WatchedTable) int { return strings.Compare(a.Table, b.Table) })
	return out, nil
}

// mayName reports whether an exact entry names a table, perhaps without its schema.
func (ps patterns) mayName(table []string) bool {
	return slices.ContainsFunc(ps, func(p pg.Pattern) bool { return p.Exact() && p.Table() == table[1] })
}
