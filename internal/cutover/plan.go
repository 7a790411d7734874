package cutover

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/moving"
	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/pg"
)

// Planned says what a cut-over would do with a trigger.
type Planned struct {
	Trigger string   `json:"trigger"`
	Table   string   `json:"table"`
	Steps   []string `json:"steps"` // what is still to be done, in order
}

// PlanForward returns what Forward would do, or why it refuses.
func (c *Cutover) PlanForward(ctx context.Context, names ...string) ([]Planned, error) {
	return c.plan(ctx, names, func(s *subject, st *State) ([]string, error) {
		switch {
		case st == nil || st.Step == moving.BackDone:
			if err := c.checkStart(ctx, s); err != nil {
				return nil, err
			}
			st = &State{}
		case st.Step.IsBack():
			return nil, isOnItsWayBack(s.Name)
		case st.Step == moving.Done && len(s.triggers) > 0:
			st = &State{Step: moving.Prepared}
		}
		return c.forwardSteps(s, st), nil
	})
}

// plan lists what steps returns for each trigger. A trigger without a cut-over has no state.
func (c *Cutover) plan(ctx context.Context, names []string, steps func(*subject, *State) ([]string, error)) ([]Planned, error) {
	var out []Planned
	for _, name := range names {
		st, err := readState(ctx, c.Conn, name, false)
		if err != nil {
			return nil, err
		}
		s, err := c.look(ctx, c.Conn, name)
		if err != nil {
			return nil, err
		}
		left, err := steps(s, st)
		if err != nil {
			return nil, err
		}
		out = append(out, Planned{name, s.plain(), left})
	}
	return out, nil
}

// left collects the steps that a state has not reached.
func (s *State) left(steps *[]string) (add func(step moving.Step, format string, args ...any)) {
	return func(step moving.Step, format string, args ...any) {
		if !s.Step.Reached(step) {
			*steps = append(*steps, fmt.Sprintf(format, args...))
		}
	}
}

func (c *Cutover) forwardSteps(s *subject, st *State) (steps []string) {
	add := st.left(&steps)
	add(moving.Prepared, "put a fence before hdb_catalog.event_log: a trigger that lets everything pass until the next step")
	add(moving.Switched, "in one transaction, which locks %s for a moment: drop the SQL triggers %s, close the fence, and discard what Rowhook has recorded until then, since Hasura has it, too", s.plain(), strings.Join(s.hasura(), ", "))
	if c.WithPending || st.WithPending {
		add(moving.Drained, "take over what Hasura has not delivered yet, and wait for what it is sending")
	} else {
		add(moving.Drained, "wait until Hasura has delivered what it has recorded, or given it up")
	}
	if c.Metadata != nil {
		add(moving.Unregistered, "delete the event trigger from Hasura's metadata")
	} else {
		add(moving.Unregistered, "leave Hasura's metadata as they are, since --hasura-url is not set, and say at the end what to do there")
	}
	add(moving.Resumed, "resume the deliveries of Rowhook")
	add(moving.Done, "once Hasura has dropped its functions of the trigger: take away the fence")
	return steps
}

func (s *subject) hasura() (names []string) {
	for _, t := range s.triggers {
		names = append(names, t.Name)
	}
	if names == nil {
		names = []string{"of Hasura"}
	}
	return names
}

// PlanBack returns what Back would do, or why it refuses.
func (c *Cutover) PlanBack(ctx context.Context, names ...string) ([]Planned, error) {
	return c.plan(ctx, names, func(s *subject, st *State) (steps []string, err error) {
		if st == nil || !st.Step.IsBack() {
			if err := s.check(false); err != nil {
				return nil, err
			}
			st = &State{}
		}
		add := st.left(&steps)
		add(moving.BackFenced, "close the fence before hdb_catalog.event_log, so that Hasura may make its SQL triggers, and records nothing yet")
		add(moving.BackSwitched, "have the event trigger created in Hasura, if it is not there: from its definition at the cut-over, or by hand")
		add(moving.BackSwitched, "in one transaction, which locks %s for a moment: drop the captures of Rowhook, and open the fence", s.plain())
		add(moving.BackDrained, "wait until Rowhook has delivered what it has recorded, or given it up")
		add(moving.BackDone, "take away the fence, and pause the trigger, which is then to be taken out of rowhook.yaml")
		return steps, nil
	})
}

// PauseNewcomers pauses those new triggers that Hasura delivers: see [sqlschema.Applier.Newcomers].
func PauseNewcomers(ctx context.Context, tx pgx.Tx, ids []int32) error {
	all, err := pg.Collect[struct{ Name string }](ctx, tx, "select name from rowhook.trigger where id = any($1) order by name", ids)
	if err != nil {
		return fmt.Errorf("read the new triggers: %w", err)
	}
	var names []string
	for _, t := range all {
		found, err := sqlTriggers(ctx, tx, t.Name)
		if err != nil {
			return err
		}
		if len(found) > 0 {
			names = append(names, t.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	_, err = operate.PauseFor(ctx, tx, "Hasura delivers it until it is cut over: rowhook cutover hasura", names...)
	return err
}
