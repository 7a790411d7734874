package sqlschema

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/trigger"
)

// trigger plans what one spec needs. rels are its tables: one, unless it has Tables.
func (p *planner) trigger(ctx context.Context, spec *trigger.Spec, rels []*relation) error {
	row := p.in.triggers[spec.Name]
	work := &installation{spec: spec, definition: p.in.definition, owner: p.in.owner}
	if work.rel = firstOf(spec, row, rels); work.rel == nil {
		work.rel = &relation{} // its tables are to come
	}
	var was captured
	work.newcomer = row == nil || row.Removed
	pauses, err := queue.ParsePauses(p.in.settings[queue.PausedSetting])
	if err != nil {
		return err
	}
	paused := ""
	if work.newcomer && pauses.All != nil {
		paused = "; it starts paused, since all triggers are paused"
	}
	first := len(p.plan.steps)
	if row == nil {
		p.do(step{Change: Change{Action: Create, Object: "trigger", Name: spec.Name, Detail: "on " + on(spec, rels) + paused}, phase: writeRow, run: work.writeRow})
	} else {
		work.id, work.moved = row.ID, row.Relation != work.rel.OID && !spec.Many()
		if row.Relation == work.rel.OID {
			work.relationID = row.RelationID
		}
		if err := json.Unmarshal(row.Captured, &was); err != nil {
			return fmt.Errorf("read rowhook.trigger.captured of %s: %w", spec.Name, err)
		}
		change, differs, err := rowChange(row, spec, work.rel)
		if err == nil && work.moved && !row.Removed {
			err = p.leftTable(ctx, row, spec, &change)
		}
		if err != nil {
			return err
		}
		if differs {
			if !row.Orphan {
				if change.Events, err = p.waiting(ctx, row.ID); err != nil {
					return err
				}
			}
			change.Detail += paused
			if change.Events > 0 {
				if err := orderOfWaiting(row, spec, &change); err != nil {
					return err
				}
			}
		}
		if !differs {
			change = Change{} // another one of its tables is the first one
		}
		if differs || row.Relation != work.rel.OID {
			p.do(step{Change: change, phase: writeRow, run: work.writeRow})
		}
	}
	p.lanes(work)
	if spec.Many() {
		p.own(work, first)
		return p.tables(work, row, rels, was)
	}
	p.ownFunctions(work, was)
	p.captureTriggers(work, was)
	if len(p.plan.steps) == first {
		return nil
	}
	p.do(step{phase: recordCaptured, run: work.writeCaptured})
	p.own(work, first)
	return nil
}

// own makes the steps from the first one on those of an installation, in one transaction.
func (p *planner) own(work *installation, first int) {
	own := p.plan.steps[first:]
	var unit unitKey
	if slices.ContainsFunc(own, func(s *step) bool { return s.Lock != "" }) {
		unit.relation = work.rel.OID
	}
	p.installations++
	for _, s := range own {
		s.unit, s.work, s.installs = unit, p.installations, work
	}
}

// tables plans what a spec needs on each of several tables.
func (p *planner) tables(head *installation, row *triggerRow, rels []*relation, was captured) error {
	for _, rel := range rels {
		work := &installation{spec: head.spec, rel: rel, head: head, id: head.id, definition: head.definition, owner: head.owner, first: rel == head.rel}
		had := captured{}
		known := p.in.member(head.id, rel.OID)
		switch {
		case head.id == 0:
		case known != nil:
			work.relationID = known.RelationID
			if err := json.Unmarshal(known.Captured, &had); err != nil {
				return fmt.Errorf("read rowhook.trigger_table.captured of %s: %w", head.spec.Name, err)
			}
		default:
			work.relationID = p.in.relations[rel.OID]
			if row.Relation == rel.OID && !row.Removed {
				had = was // until now it was the only table
			}
		}
		first := len(p.plan.steps)
		p.ownFunctions(work, had)
		p.captureTriggers(work, had)
		if known != nil && len(p.plan.steps) == first && (!work.first || row.Relation == rel.OID) {
			continue
		}
		p.do(step{phase: joinTable, run: work.join})
		p.do(step{phase: recordCaptured, run: work.writeCaptured})
		p.own(work, first)
	}
	return nil
}

// firstOf returns the table that rowhook.trigger names: the only one, or of several the one that it
// names already, or the first by name.
func firstOf(spec *trigger.Spec, row *triggerRow, rels []*relation) *relation {
	if len(rels) == 0 {
		return nil
	}
	if spec.Many() && row != nil && !row.Removed {
		if i := slices.IndexFunc(rels, func(rel *relation) bool { return rel.OID == row.Relation }); i >= 0 {
			return rels[i]
		}
	}
	return rels[0]
}

// on says which tables a trigger watches.
func on(spec *trigger.Spec, rels []*relation) string {
	switch {
	case !spec.Many():
		return rels[0].String()
	case len(rels) == 0:
		return "no table yet"
	}
	names := make([]string, len(rels))
	for i, rel := range rels {
		names[i] = rel.String()
	}
	if len(names) == 1 {
		return names[0]
	}
	return fmt.Sprintf("%d tables: %s", len(names), someOf(names))
}

// lanes plans the rows of rowhook.lane. They are mentioned only where nothing else of the trigger
// is changed, as in a copy without its rows.
func (p *planner) lanes(work *installation) {
	want := int64(0)
	if ordered(work.spec) {
		want = queue.Lanes
	}
	have := p.in.lanes[work.id]
	if work.id == 0 {
		have = 0
	}
	if have == want {
		return
	}
	s := step{phase: makeLanes, run: func(ctx context.Context, tx *pipeline) error { return writeLanes(ctx, tx, work.id, want > 0) }}
	if row := p.in.triggers[work.spec.Name]; row != nil && !slices.ContainsFunc(p.plan.steps, func(s *step) bool { return s.Object == "trigger" && s.Name == work.spec.Name }) {
		s.Change = Change{Action: Replace, Object: "lanes", Name: "of " + work.spec.Name, Detail: fmt.Sprintf("%d become %d", have, want)}
	}
	p.do(s)
}

// orderOfWaiting adds to the change what another order means for the events that wait.
func orderOfWaiting(row *triggerRow, spec *trigger.Spec, change *Change) error {
	var was trigger.Spec
	if err := json.Unmarshal(row.Spec, &was); err != nil {
		return fmt.Errorf("read the spec of %s: %w", spec.Name, err)
	}
	note := ""
	switch {
	case was.Order.IsZero() && !spec.Order.IsZero():
		note = "what waits by now is sent without order"
	case !was.Order.IsZero() && spec.Order.IsZero():
		note = "what waits is sent without order, now"
	case !slices.Equal(was.Order.By, spec.Order.By):
		note = "what waits keeps the key that it has, and is in order with later events only by chance"
	}
	if note != "" && change.Detail != "" {
		note = "; " + note
	}
	change.Detail += note
	return nil
}

// rowChange returns the difference between a row of rowhook.trigger and the spec. differs is false
// if there is none.
func rowChange(row *triggerRow, spec *trigger.Spec, rel *relation) (change Change, differs bool, err error) {
	change = Change{Action: Replace, Object: "trigger", Name: spec.Name}
	if row.Removed {
		change.Detail = "comes back"
		return change, true, nil
	}
	if row.Relation != rel.OID && !spec.Many() {
		change.Detail = "moves to another table, " + rel.String()
	}
	want, err := json.Marshal(spec)
	if err != nil {
		return change, false, fmt.Errorf("encode the spec of %s: %w", spec.Name, err)
	}
	if change.Differences, err = differences(row.Spec, want); err != nil {
		return change, false, fmt.Errorf("read the spec of %s: %w", spec.Name, err)
	}
	return change, change.Detail != "" || len(change.Differences) > 0, nil
}

// leftTable adds to the change what becomes of the table that the trigger has watched, if the
// configured name now belongs to another table.
func (p *planner) leftTable(ctx context.Context, row *triggerRow, spec *trigger.Spec, change *Change) error {
	var was trigger.Spec
	if err := json.Unmarshal(row.Spec, &was); err != nil {
		return fmt.Errorf("read the spec of %s: %w", spec.Name, err)
	}
	if was.Table != spec.Table {
		return nil
	}
	left, err := readRelation(ctx, p.conn, row.Relation)
	switch {
	case err != nil:
		return err
	case left == nil:
		change.Detail += ", since the table that it watched was dropped"
	default:
		change.Detail += fmt.Sprintf(", which has the name now: %s is no longer watched", left)
	}
	return nil
}

// ownFunctions plans the payload and capture functions that belong to one trigger.
func (p *planner) ownFunctions(work *installation, was captured) {
	if work.fresh() {
		if ownFunction(work.spec, work.rel) {
			p.makeFunctions(work, Create, "rowhook.payload", runner(work))
		}
		return
	}
	found := p.in.functionsOf(work.own())
	if !ownFunction(work.spec, work.rel) {
		for _, f := range found {
			if !p.removed(f.Signature) {
				p.dropFunction(work, f)
			}
		}
		return
	}
	fits := 0
	for _, f := range found {
		switch {
		case p.removed(f.Signature):
		case f.Key && !keyed(work.spec), f.PerOperation && !perOperation(work.spec), f.AtCommit && !atCommit(work.spec),
			f.Hands && !asksToHandOver(work.spec, work.rel, p.in.definition):
			p.dropFunction(work, f)
		case f.Hands: // its text shows whether it is there
		case f.Argument == 0 || f.Argument == work.rel.OID:
			fits++
		default:
			p.dropFunction(work, f)
		}
	}
	switch {
	case fits < functionsOf(work.spec):
		p.makeFunctions(work, Create, work.own().payload(), runner(work))
	case was.Function != fingerprint{functionDigest(work.spec, work.rel, work.own(), work.relationID, p.in.definition), madeOf(found, work.rel.OID)}:
		p.makeFunctions(work, Replace, work.own().payload(), runner(work))
	case slices.ContainsFunc(found, func(f functionFound) bool { return !f.Able }):
		p.makeFunctions(work, Replace, work.own().payload(), "gets back the rights of "+pg.PlainName(work.rel.Owner))
	}
}

// functionsOf returns how many functions of its own a trigger has, if it has some.
func functionsOf(spec *trigger.Spec) int {
	n := 2
	if keyed(spec) {
		n++ // one from a row to its key
	}
	if atCommit(spec) {
		n += 9 // see commitFunctions
	}
	if perOperation(spec) {
		n++
	}
	return n
}

func (p *planner) makeFunctions(work *installation, action Action, name, detail string) {
	p.do(step{
		Change: Change{Action: action, Object: "function", Name: name, Trigger: work.spec.Name, Detail: detail},
		phase:  makeFunctions, run: work.createFunctions,
	})
}

func (p *planner) dropFunction(work *installation, f functionFound) {
	p.do(step{
		Change: Change{Action: Remove, Object: "function", Name: f.Signature, Trigger: work.spec.Name},
		phase:  dropOwnFunctions, run: dropFunction(f),
	})
}

// runner says as which role the capture of a guarded trigger runs.
func runner(work *installation) string {
	if !guarded(work.spec, work.rel) {
		return ""
	}
	return "runs as " + pg.PlainName(work.rel.Owner) + ", who owns the table"
}

// madeOf returns one digest of both functions of a trigger as the catalog describes them.
func madeOf(found []functionFound, relation uint32) string {
	var parts []string
	for _, f := range found {
		if f.Argument == 0 || f.Argument == relation {
			parts = append(parts, f.Made)
		}
	}
	return digest(parts...)
}

// captureTriggers plans the SQL triggers of one trigger on its table.
func (p *planner) captureTriggers(work *installation, was captured) {
	spec, rel := work.spec, work.rel
	state := "O"
	if spec.OnReplication {
		state = "A"
	}
	found := map[string]captureFound{}
	if work.id != 0 {
		for _, c := range p.in.capturesOn(work.id, rel.OID) {
			found[c.Name] = c
		}
	}
	for _, op := range sqlTriggers(spec, rel) {
		name := sqlTriggerName(spec.Name, work.id, op)
		have, exists := found[name]
		delete(found, name)
		s := step{
			Change: Change{Object: op.object(), Name: name, Table: rel.String(), Trigger: spec.Name, Lock: writersWait},
			phase:  makeCaptures, run: func(ctx context.Context, tx *pipeline) error { return work.createTrigger(ctx, tx, op, exists) },
		}
		switch {
		case !exists:
			s.Action = Create
		case was.SQL[name] != fingerprint{triggerDigest(spec, rel, work.own(), work.relationID, op), have.Made}:
			s.Action = Replace
		case have.Enabled != state || have.Partition != nil && *have.Partition:
			s.Action, s.Detail, s.phase = Replace, "enabled as configured", enableCaptures
			s.run = func(ctx context.Context, tx *pipeline) error { return work.enableAll(ctx, tx, op) }
		default:
			continue
		}
		p.do(s)
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		p.do(step{
			Change: Change{Action: Remove, Object: found[name].object(), Name: name, Table: rel.String(), Trigger: spec.Name, Lock: everyoneWaits},
			phase:  dropCaptures, run: dropCapture(found[name]),
		})
	}
}
