package sqlschema

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/rowhook/rowhook/internal/sorting"
	"github.com/rowhook/rowhook/trigger"
)

// removals plans to remove triggers that are no longer configured, and what others have left on
// other tables.
func (p *planner) removals(ctx context.Context, specs []trigger.Spec) error {
	wanted := map[int32]map[uint32]bool{}
	many := map[int32]bool{}
	for i := range specs {
		if row := p.in.triggers[specs[i].Name]; row != nil {
			wanted[row.ID], many[row.ID] = map[uint32]bool{}, specs[i].Many()
			for _, rel := range p.relations[i] {
				wanted[row.ID][rel.OID] = true
			}
		}
	}
	for _, id := range p.in.byID() {
		if p.stays(id, wanted[id] != nil) {
			continue
		}
		if err := p.removal(ctx, id, wanted[id], many[id]); err != nil {
			return err
		}
	}
	return nil
}

// removal plans what is removed of one trigger: everything, or if it is still configured, so that
// keep is not nil, only what is on other tables than those. many says that it has several.
func (p *planner) removal(ctx context.Context, id int32, keep map[uint32]bool, many bool) error {
	row := p.in.row(id)
	name := fmt.Sprint(id)
	if row != nil {
		name = row.Name
	}
	left := slices.DeleteFunc(slices.Clone(p.in.captures[id]), func(c captureFound) bool { return keep[c.Relation] })
	sorting.By(left, func(a, b captureFound) int { return cmp.Compare(a.Relation, b.Relation) })
	// Each table has its own transaction. Functions and row are removed in the last one.
	last := unitKey{stage: removing}
	if n := len(left); n > 0 {
		last.relation = left[n-1].Relation
	}
	if active := row != nil && !row.Removed; active && keep == nil {
		waiting, err := p.waiting(ctx, id)
		if err != nil {
			return err
		}
		p.do(step{
			Change: Change{Action: Remove, Object: "trigger", Name: name, Detail: "no longer configured", Events: waiting},
			unit:   last, work: id, phase: removeRow, run: markRemoved(id),
		})
	}
	for _, c := range left {
		p.do(step{
			Change: Change{Action: Remove, Object: c.object(), Name: c.Name, Table: c.Table, Trigger: name, Lock: everyoneWaits},
			unit:   unitKey{removing, c.Relation}, work: id, phase: dropCaptures, run: dropCapture(c),
		})
	}
	if keep != nil {
		p.leave(id, name, keep, many, left)
	}
	// A trigger that moves to another table takes its functions with it. One with several tables
	// keeps those of the tables that stay: see leftovers.
	if keep != nil && (len(left) == 0 || many) {
		return nil
	}
	if slices.ContainsFunc(left, func(c captureFound) bool { return c.Relation != last.relation }) {
		last = unitKey{stage: clearing}
	}
	for _, f := range p.in.functions[id] {
		if keep == nil || f.Relation == 0 {
			p.dropLater(f, name, last)
		}
	}
	return nil
}

// leave plans the end of what is recorded of tables that a trigger no longer watches.
func (p *planner) leave(id int32, name string, keep map[uint32]bool, many bool, left []captureFound) {
	for _, m := range p.in.members[id] {
		if many && keep[m.Relation] {
			continue
		}
		s := step{unit: unitKey{stage: removing}, work: id, phase: removeRow, run: leave(id, m.RelationID)}
		if slices.ContainsFunc(left, func(c captureFound) bool { return c.Relation == m.Relation }) {
			s.unit.relation = m.Relation
		}
		if m.CalledNow == nil {
			s.Change = Change{Action: Remove, Object: "table", Name: m.name(), Trigger: name, Detail: "was dropped"}
		}
		p.do(s)
	}
}

// leftovers plans to drop the functions of tables that their trigger no longer watches, and those
// of a trigger that has several tables now, or no longer. The SQL triggers that called them are
// gone by then, or call others.
func (p *planner) leftovers(specs []trigger.Spec) {
	for i := range specs {
		row := p.in.triggers[specs[i].Name]
		if row == nil || p.theirs(specs[i].Name) {
			continue
		}
		wanted := map[int32]bool{0: !specs[i].Many()}
		for _, rel := range p.relations[i] {
			if id := p.in.relations[rel.OID]; id != 0 && specs[i].Many() {
				wanted[id] = true
			}
		}
		for _, f := range p.in.functions[row.ID] {
			if !wanted[f.Relation] && !p.removed(f.Signature) {
				p.dropLater(f, row.Name, unitKey{stage: clearing})
			}
		}
	}
}

func (p *planner) dropLater(f functionFound, name string, unit unitKey) {
	p.do(step{
		Change: Change{Action: Remove, Object: "function", Name: f.Signature, Trigger: name},
		unit:   unit, work: f.ID, phase: dropOwnFunctions, run: dropFunction(f),
	})
}

// waiting returns the number of events of a trigger that are still owed.
func (p *planner) waiting(ctx context.Context, id int32) (n int64, err error) {
	if err := p.conn.QueryRow(ctx, "select count(*) from rowhook.event_log where trigger_id = $1", id).Scan(&n); err != nil {
		return 0, fmt.Errorf("count waiting events: %w", err)
	}
	return n, nil
}

// removed reports whether the removal of a function is planned already.
func (p *planner) removed(signature string) bool {
	return slices.ContainsFunc(p.plan.steps, func(s *step) bool {
		return s.Action == Remove && s.Object == "function" && s.Name == signature
	})
}
