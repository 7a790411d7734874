package sqlschema

import (
	"slices"

	"github.com/rowhook/rowhook/internal/moving"
)

// theirs reports whether the changes of a trigger are Hasura's again, so that nothing is made for it.
func (p *planner) theirs(name string) bool {
	m := p.in.moves[name]
	return m.Theirs() && (m.Step != moving.BackDone || !slices.Contains(p.returning, name))
}

// stays reports whether a trigger is left as it is, since it is being moved between Hasura and Rowhook,
// and adds a warning. configured says that the configuration has it. To make its captures again would
// have both record its changes, and to remove it while it is being moved would have nobody do that.
func (p *planner) stays(id int32, configured bool) bool {
	row := p.in.row(id)
	if row == nil || row.Removed {
		return false
	}
	m := p.in.moves[row.Name]
	if configured && !p.theirs(row.Name) || !configured && !m.UnderWay() {
		return false
	}
	what := "this apply does not touch it"
	if !configured {
		what = "this apply does not remove it"
	}
	p.plan.Warnings = append(p.plan.Warnings, row.Name+": "+m.Problem()+", so "+what+": "+m.Remedy())
	return true
}
