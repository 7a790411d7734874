// Package moving tells which triggers are being moved between Hasura and Rowhook, for all that must
// not disturb that. Package cutover moves them.
package moving

import (
	"context"
	"fmt"
	"slices"

	"github.com/rowhook/rowhook/internal/pg"
)

// Step is how far a cut-over is. Each is recorded in the transaction that does it.
type Step string

// The steps from Hasura to Rowhook, and back.
const (
	Prepared     Step = "prepared"     // the fence stands, and is open
	Switched     Step = "switched"     // Hasura records no more: its SQL triggers are dropped, the fence is closed
	Drained      Step = "drained"      // Hasura has delivered what it had recorded, or Rowhook has taken it over
	Unregistered Step = "unregistered" // the trigger is gone from Hasura's metadata
	Resumed      Step = "resumed"      // Rowhook delivers
	Done         Step = "done"         // the fence is gone

	BackFenced   Step = "back-fenced"   // the fence is closed, so that Hasura may make its SQL triggers
	BackSwitched Step = "back-switched" // Rowhook records no more, Hasura records
	BackDrained  Step = "back-drained"  // Rowhook has delivered what it had recorded
	BackDone     Step = "back-done"     // the fence is gone
)

// Forward and Back return the steps of each way, in order.
func Forward() []Step { return []Step{Prepared, Switched, Drained, Unregistered, Resumed, Done} }

// Back returns the steps from Rowhook to Hasura.
func Back() []Step { return []Step{BackFenced, BackSwitched, BackDrained, BackDone} }

// Reached reports whether s is the step or behind it, on the same way.
func (s Step) Reached(step Step) bool {
	for _, way := range [][]Step{Forward(), Back()} {
		if at, want := slices.Index(way, s), slices.Index(way, step); at >= 0 && want >= 0 {
			return at >= want
		}
	}
	return false
}

// IsBack reports whether the trigger is on its way back, or has arrived.
func (s Step) IsBack() bool { return s.Reached(BackFenced) }

// Setting returns the name in rowhook.setting of the record of a cut-over. Its value has a step.
func Setting(trigger string) string { return settings + trigger }

const settings = "cutover:"

// Move is a trigger that is being moved, or was.
type Move struct {
	Trigger  string
	Step     Step
	Hasura   bool // Hasura has SQL triggers for it
	Captured bool // Rowhook has capture triggers for it
	Active   bool // Rowhook has the trigger
	Held     bool // a session moves it at the moment
}

// Read returns the triggers that are being moved or were, by name. The schema must be there.
func Read(ctx context.Context, db pg.Queryer) (map[string]Move, error) {
	found, err := pg.Collect[Move](ctx, db, `
select m.trigger, m.step,
       exists (select from pg_catalog.pg_trigger t join pg_catalog.pg_proc p on p.oid = t.tgfoid join pg_catalog.pg_namespace n on n.oid = p.pronamespace
                where not t.tgisinternal and n.nspname in ('hdb_catalog', 'hdb_views')
                  and t.tgname in (('notify_hasura_' || m.trigger || '_INSERT')::name, ('notify_hasura_' || m.trigger || '_UPDATE')::name, ('notify_hasura_' || m.trigger || '_DELETE')::name)) as hasura,
       r.id is not null and exists (select from pg_catalog.pg_trigger t join pg_catalog.pg_proc p on p.oid = t.tgfoid join pg_catalog.pg_namespace n on n.oid = p.pronamespace
                where not t.tgisinternal and n.nspname = 'rowhook' and p.proname ~ '^capture(_[0-9]+)?$' and pg_catalog.encode(t.tgargs, 'escape') like r.id || E'\\\\000%') as captured,
       r.id is not null as active,
       exists (select from pg_catalog.pg_locks l
                where l.locktype = 'advisory' and l.objsubid = 2 and l.granted
                  and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database())
                  and l.classid::bigint = pg_catalog.hashtext('rowhook cutover')::bigint & 4294967295
                  and l.objid::bigint = pg_catalog.hashtext(m.trigger)::bigint & 4294967295) as held
  from (select pg_catalog.substr(s.name, $1) as trigger, coalesce(s.value ->> 'step', '') as step from rowhook.setting s where pg_catalog.starts_with(s.name, $2)) as m
  left join rowhook.trigger r on r.name = m.trigger and r.removed_at is null`, len(settings)+1, settings)
	if err != nil {
		return nil, fmt.Errorf("look for cut-overs: %w", err)
	}
	moves := map[string]Move{}
	for _, m := range found {
		moves[m.Trigger] = m
	}
	return moves, nil
}

// UnderWay reports whether the cut-over has begun and not ended.
func (m Move) UnderWay() bool { return m.Step != "" && m.Step != Done && m.Step != BackDone }

// Theirs reports whether the changes are Hasura's again, so that Rowhook is not to record them. If
// Hasura has lost its SQL triggers, they are not: somebody has to record them.
func (m Move) Theirs() bool { return m.Step.Reached(BackSwitched) && m.Hasura }

// Problem says what state the trigger is in, as part of a sentence. "": nothing is to be said.
func (m Move) Problem() string {
	at := func(way, so string) string {
		text := fmt.Sprintf("it is %s (step %s); %s", way, m.Step, so)
		if !m.Active {
			text += "; and Rowhook has the trigger no more"
		}
		return text
	}
	const forth, back = "being moved from Hasura to Rowhook", "being moved back to Hasura"
	switch {
	case m.Step == Done && m.Hasura && m.Captured:
		return "Hasura has made its SQL triggers again, and both record its changes"
	case m.Step == Prepared:
		return at(forth, "both record its changes, and Hasura delivers them")
	case m.UnderWay() && !m.Step.IsBack():
		return at(forth, "Rowhook records its changes")
	case m.Step == BackFenced:
		return at(back, "Rowhook records its changes")
	case m.Theirs() && m.Captured:
		return at(back, "both record its changes")
	case m.UnderWay():
		return at(back, "Hasura records its changes")
	case m.Theirs() && m.Active:
		return "Hasura delivers it again, and Rowhook records none of its changes"
	}
	return ""
}

// Remedy says how to go on, or back.
func (m Move) Remedy() string {
	again, other := "rowhook cutover hasura "+m.Trigger, "rowhook cutover hasura --back "+m.Trigger
	if m.Step.IsBack() {
		again, other = other, ""
	}
	if m.Step == Prepared || m.Step == BackFenced {
		other = "rowhook cutover hasura --abort " + m.Trigger
	}
	switch {
	case m.Step == Done:
		return fmt.Sprintf("run \"%s\"", again)
	case m.Step == BackDone:
		return "take it out of rowhook.yaml, and apply; or move it to Rowhook again: rowhook cutover hasura " + m.Trigger + " -f rowhook.yaml"
	case !m.Active:
		return fmt.Sprintf("put it into rowhook.yaml again and apply, then run \"%s\"", again)
	case m.Held:
		return fmt.Sprintf("wait for the command that moves it; if that is interrupted, \"%s\" goes on behind this step", again)
	case m.Step == Resumed:
		return fmt.Sprintf("do what is left in Hasura, see \"rowhook cutover hasura --status %s\", and run \"%s\", which ends it", m.Trigger, again)
	case other == "":
		return fmt.Sprintf("run \"%s\", which goes on behind this step", again)
	case m.Step == Prepared || m.Step == BackFenced:
		return fmt.Sprintf("run \"%s\", which goes on behind this step, or \"%s\", which gives it up", again, other)
	}
	return fmt.Sprintf("run \"%s\", which goes on behind this step, or \"%s\", which moves it back", again, other)
}
