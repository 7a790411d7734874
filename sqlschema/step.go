package sqlschema

import (
	"cmp"
	"context"
	"slices"

	"github.com/jackc/pgx/v5"
)

// step is one thing that an apply does: what is printed of it, the lock that it takes, and what it
// does. A plan is a list of steps, so nothing can be printed that is not done.
type step struct {
	Change // zero: it keeps record of the steps before it, and is not printed

	unit  unitKey
	work  int32 // steps of the same work stay together: number of the trigger
	phase phase // order within a work
	run   func(ctx context.Context, tx pgx.Tx) error

	installs *installation // the trigger that it helps to make; nil: none
}

// phase orders the steps of a trigger, which are printed in another order.
type phase int

const (
	writeRow phase = iota
	dropCaptures
	makeFunctions
	makeCaptures
	enableCaptures
	dropOwnFunctions // after the triggers that call them
	removeRow
	recordCaptured
)

// stage orders transactions. A trigger that moves has left one table before it is made on another.
type stage int

const (
	installing stage = iota // settings, too
	removing
	granting
)

// unitKey names a transaction: the changes of one table. relation 0 stands for what locks no table.
type unitKey struct {
	stage    stage
	relation uint32
}

// unit is what is done in one transaction.
type unit struct {
	unitKey
	table string // for people; "": none
	lock  string // the strongest that it takes on the table
	steps []*step
}

// units puts the steps of a plan into transactions, in the order in which the first step of each was
// planned.
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
	for _, u := range units {
		first := map[int32]int{}
		for i, s := range u.steps {
			if _, known := first[s.work]; !known {
				first[s.work] = i
			}
		}
		slices.SortStableFunc(u.steps, func(a, b *step) int {
			return cmp.Or(cmp.Compare(first[a.work], first[b.work]), cmp.Compare(a.phase, b.phase))
		})
	}
	return units
}
