package sqlschema

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/trigger"
)

// Plan is what an apply would do, or has done.
type Plan struct {
	Warnings []string // what may not work as expected, and what to do

	// From is the version of the schema that the plan was made for, 0 if there was none. To is the
	// version after an apply.
	From, To int32

	setup []Change // changes of a migration; until it is done, the steps are a forecast
	newer bool     // the schema is newer than this program
	steps []*step
}

// Changes returns the changes in the order in which they are printed.
func (p *Plan) Changes() []Change {
	changes := slices.Clone(p.setup)
	for _, s := range p.steps {
		if s.Action != 0 {
			changes = append(changes, s.Change)
		}
	}
	return changes
}

// Empty reports whether nothing is to be changed.
func (p *Plan) Empty() bool { return len(p.Changes()) == 0 }

// String returns one line for each change and warning. A change begins with the sign of its action,
// and its differences follow, one a line. A warning begins with !.
func (p *Plan) String() string { return p.text(math.MaxInt) }

// Summary is String, but of a trigger with many changes it has a line for each kind of them: a trigger of
// 500 tables has some 2,000. shortened says that there is such a trigger.
func (p *Plan) Summary() (text string, shortened bool) {
	text = p.text(mostLines)
	return text, strings.Count(text, "\n") < strings.Count(p.String(), "\n")
}

// text returns a line for each change, and of a trigger with more than most of them one for each kind.
func (p *Plan) text(most int) string {
	changes, of := p.Changes(), map[string][]Change{}
	for _, c := range changes {
		if c.Trigger != "" {
			of[c.Trigger] = append(of[c.Trigger], c)
		}
	}
	var lines []string
	for _, c := range changes {
		indent := ""
		if c.Trigger != "" {
			indent = "  "
		}
		if all := of[c.Trigger]; c.Trigger != "" && len(all) > most {
			for _, line := range countAlike(all) {
				lines = append(lines, indent+line)
			}
			of[c.Trigger] = []Change{} // said
			continue
		} else if c.Trigger != "" && len(all) == 0 {
			continue
		}
		lines = append(lines, indent+c.line())
		for _, d := range c.Differences {
			lines = append(lines, indent+"    "+d.String())
		}
	}
	for _, w := range p.Warnings {
		lines = append(lines, "! "+w)
	}
	return strings.Join(lines, "\n")
}

// MakePlan returns what Apply would do. It changes nothing and takes no lock that a writer would
// notice. It also works before the first migration. If specs have faults, it returns all of them as
// [trigger.SpecErrors].
func MakePlan(ctx context.Context, conn *pgx.Conn, specs []trigger.Spec, settings trigger.Settings) (plan *Plan, err error) {
	return Applier{}.Plan(ctx, conn, specs, settings)
}

// Plan is MakePlan with the options of the Applier, such as GrantTo.
func (a Applier) Plan(ctx context.Context, conn *pgx.Conn, specs []trigger.Spec, settings trigger.Settings) (plan *Plan, err error) {
	err = pg.Pinned(ctx, conn, func() (err error) {
		plan, err = a.makePlan(ctx, conn, specs, settings)
		return err
	})
	return plan, err
}

func (a Applier) makePlan(ctx context.Context, conn *pgx.Conn, specs []trigger.Spec, settings trigger.Settings) (*Plan, error) {
	in, err := readInstalled(ctx, conn)
	if err != nil {
		return nil, err
	}
	p := &planner{conn: conn, in: in, plan: &Plan{}, relations: make([][]*relation, len(specs)), returning: a.Returning}
	if err := p.rowSecurity(ctx); err != nil {
		return nil, err
	}
	if err := p.check(ctx, specs); err != nil {
		return nil, err
	}
	switch {
	case in.database == 0:
		p.plan.setup = append(p.plan.setup, Change{Action: Create, Object: "schema", Name: "rowhook"})
	case in.database < in.program:
		p.plan.setup = append(p.plan.setup, Change{Action: Replace, Object: "schema", Name: "rowhook", Detail: fmt.Sprintf("version %d becomes %d", in.database, in.program)})
	}
	p.plan.From, p.plan.To = in.database, max(in.database, in.program)
	p.plan.newer = in.database > in.program
	if err := p.warnOfPublications(ctx); err != nil {
		return nil, err
	}
	p.plan.setup = append(p.plan.setup, in.lack.changes()...)
	foreign, err := ForeignGrants(ctx, conn)
	if err != nil {
		return nil, err
	}
	for i := range foreign {
		p.plan.Warnings = append(p.plan.Warnings, foreign[i].Problem()+": "+foreign[i].Remedy())
	}
	if err := p.settings(settings, specs); err != nil {
		return nil, err
	}
	if err := p.removals(ctx, specs); err != nil {
		return nil, err
	}
	for i := range specs {
		if p.theirs(specs[i].Name) {
			continue
		}
		if err := p.trigger(ctx, &specs[i], p.relations[i]); err != nil {
			return nil, err
		}
	}
	p.leftovers(specs)
	if err := p.mayApply(ctx); err != nil {
		return nil, err
	}
	if err := p.grants(ctx, a.GrantTo); err != nil {
		return nil, err
	}
	return p.plan, nil
}

type planner struct {
	conn      *pgx.Conn
	in        *installed
	plan      *Plan
	relations [][]*relation // by index of the spec; one, unless it has Tables
	returning []string      // see Applier.Returning

	installations int32           // planned so far
	sound         map[string]bool // a when, with the shape of a table on which it is valid
}

// do adds a step.
func (p *planner) do(s step) { p.plan.steps = append(p.plan.steps, &s) }

func (p *planner) settings(settings trigger.Settings, specs []trigger.Spec) error {
	byDefault := trigger.DefaultSettings()
	for _, rules := range []*[]string{&settings.Network.Deny, &settings.Network.Allow} {
		if *rules == nil {
			*rules = []string{}
		}
	}
	if settings.Alerts == nil {
		settings.Alerts = []trigger.Alert{}
	}
	for _, s := range []struct {
		name            string
		want, byDefault any
	}{
		{"retention", trigger.StoredRetention(settings.Retention, specs), byDefault.Retention},
		{"network", settings.Network, byDefault.Network},
		{"alerts", settings.Alerts, byDefault.Alerts},
	} {
		want, err := json.Marshal(s.want)
		if err != nil {
			return fmt.Errorf("encode the setting %s: %w", s.name, err)
		}
		have := p.in.settings[s.name]
		if have == nil && reflect.DeepEqual(s.want, s.byDefault) || sameJSON(have, want) {
			continue
		}
		change := Change{Action: Replace, Object: "setting", Name: s.name}
		if have == nil {
			change.Action, change.Detail = Create, string(want)
			if s.name == "alerts" { // a URL may be a secret
				change.Detail = fmt.Sprintf("%d entries", len(settings.Alerts))
			}
		} else if change.Differences, err = differences(have, want); err != nil {
			return err
		} else if len(change.Differences) == 0 {
			change.Detail = "programs of the version before keep history as long as the trigger that keeps it longest"
		}
		p.do(step{Change: change, run: writeSetting(s.name, want)})
	}
	return nil
}

// sameJSON compares the values, not the texts.
func sameJSON(a, b []byte) bool {
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return bytes.Equal(a, b)
	}
	return reflect.DeepEqual(x, y)
}
