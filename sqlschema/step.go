package sqlschema

import (
	"cmp"
	"context"

	"github.com/rowhook/rowhook/internal/sorting"
)

// step is one thing that an apply does: the printed change, the lock that it takes, and the
// function that does it. A plan is a list of steps, so nothing can be printed that is not done.
type step struct {
	Change // zero: the step records the steps before it, and is not printed

	unit  unitKey
	work  int32 // number of the trigger; steps with the same number stay together
	phase phase // order of the steps with the same work
	run   func(ctx context.Context, tx *pipeline) error

	installs *installation // the trigger that it helps to install; nil: none
}

// phase is the order in which the steps of a trigger run. They are printed in another order.
type phase int

const (
	writeRow phase = iota
	makeLanes
	joinTable // of a trigger with several
	dropCaptures
	makeFunctions
	makeCaptures
	enableCaptures
	dropOwnFunctions // after the triggers that call them are dropped
	removeRow
	recordCaptured
)

// stage is the order of transactions. A trigger that moves is removed from its old table before it
// is installed on the new one.
type stage int

const (
	installing stage = iota // and settings
	removing
	clearing // functions of several tables, once no trigger calls them
	granting
)

// unitKey identifies a transaction: the changes of one table. relation 0 stands for changes that
// lock no table.
type unitKey struct {
	stage    stage
	relation uint32
}

// unit is what one transaction does.
type unit struct {
	unitKey
	table string // name of the table; "": none
	lock  string // the strongest lock that it takes on the table
	steps []*step
}

// units groups the steps of a plan into transactions, in the order of the first step of each. That
// without a table comes first, and those that clear and those that grant come last.
func (p *Plan) units() []*unit {
	var units []*unit
	byKey := map[unitKey]*unit{}
	for _, s := range p.steps {
		u := byKey[s.unit]
		if u == nil {
			u = &unit{unitKey: s.unit}
			byKey[s.unit] = u
			units = append(units, u)
		}
		if s.unit.relation != 0 && u.table == "" {
			u.table = s.Table
		}
		if s.Lock != "" && u.lock != everyoneWaits {
			u.lock = s.Lock
		}
		u.steps = append(u.steps, s)
	}
	late := func(u *unit) int {
		switch {
		case u.unitKey == (unitKey{}): // with the rows of triggers with several tables, which units of tables need
			return -1
		case u.stage < clearing:
			return 0
		}
		return int(u.stage)
	}
	sorting.By(units, func(a, b *unit) int { return cmp.Compare(late(a), late(b)) })
	for _, u := range units {
		first := map[int32]int{}
		for i, s := range u.steps {
			if _, known := first[s.work]; !known {
				first[s.work] = i
			}
		}
		sorting.By(u.steps, func(a, b *step) int {
			return cmp.Or(cmp.Compare(first[a.work], first[b.work]), cmp.Compare(a.phase, b.phase))
		})
	}
	return units
}
