package sqlschema

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/trigger"
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
	watched, byID, replicas, err := readWatched(ctx, db)
	if err != nil {
		return nil, err
	}
	out := []SQLTrigger{}
	i := slices.IndexFunc(watched, func(w watchedTable) bool { return w.Name == name })
	if i < 0 {
		return out, nil
	}
	w := &watched[i]
	found := byID[w.ID]
	whole, err := w.uncaptured(found, replicas)
	if err != nil {
		return nil, err
	}
	spec, was := trigger.DefaultSpec(), captured{}
	if err := json.Unmarshal(w.Spec, &spec); err != nil {
		return nil, fmt.Errorf("read the spec of %s: %w", w.Name, err)
	}
	if err := json.Unmarshal(w.Captured, &was); err != nil {
		return nil, fmt.Errorf("read rowhook.trigger.captured of %s: %w", w.Name, err)
	}
	table := w.CalledNow
	if table == nil {
		table = w.RecordedAs
	}
	for _, made := range slices.Sorted(maps.Keys(was.SQL)) {
		c, fault := w.fault(made, &spec, &was, found)
		t := SQLTrigger{Table: pg.PlainName(table...), Name: made, Guard: c.Guard}
		if fault != captureGone {
			t.Name, t.Present, t.Enabled = c.Name, true, c.Enabled == "O" || c.Enabled == "A"
		}
		switch {
		case fault != "":
			t.Problem, t.Remedy = string(fault), applyAgain
		case !c.Guard && whole.Problem != "" && w.sqlTriggers(&spec, &was, found) == "":
			t.Problem, t.Remedy = whole.Problem, whole.Remedy // of the table, or of the database
		}
		out = append(out, t)
	}
	return out, nil
}
