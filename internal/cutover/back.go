package cutover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/moving"
	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/term"
)

// Back moves triggers from Rowhook to Hasura. A call after one that was interrupted goes on where
// that one ended.
func (c *Cutover) Back(ctx context.Context, names ...string) ([]*State, error) {
	return c.walk(ctx, names, c.fence, c.register, c.switchBack, c.drainBack, c.finishBack)
}

// fence closes the fence, so that Hasura may make its SQL triggers at a time of its own.
func (c *Cutover) fence(ctx context.Context, name string) error {
	st, err := readState(ctx, c.Conn, name, false)
	if err != nil || st != nil && st.Step.IsBack() && st.Step != moving.BackDone {
		return err
	}
	if st != nil && st.Step == moving.Prepared {
		return problem(operate.ErrRefused, "run \"rowhook cutover hasura --abort "+name+"\"", "%s is still Hasura's: the cut-over has not switched yet", name)
	}
	s, err := c.look(ctx, c.Conn, name)
	if err != nil {
		return err
	}
	if err := s.check(false); err != nil {
		return err
	}
	if st != nil && st.Step == moving.BackDone {
		return nil
	}
	if st == nil {
		st = &State{Trigger: name, Table: s.plain()}
	}
	if (st.Step == "" || st.Step == moving.Done) && len(s.triggers) > 0 {
		return problem(operate.ErrRefused, "delete the event trigger in Hasura first, or run \"rowhook cutover hasura "+name+"\", which does", "Hasura records %s already, beside Rowhook", name)
	}
	if err := s.captures(ctx, c.Conn); err != nil {
		return err
	}
	c.say(name, "closes the fence before hdb_catalog.event_log, so that Hasura may make its SQL triggers")
	fresh := *st
	fresh.Before, fresh.Remaining = st.Step, ""
	return c.begin(ctx, s, &fresh, moving.BackFenced, map[string]any{"back": true}, func(tx pgx.Tx) error {
		if err := s.buildFence(ctx, tx, true); err != nil {
			return err
		}
		// Hasura could have made them just now.
		if err := s.lockTable(ctx, tx); err != nil {
			return err
		}
		_, err := s.dropTriggers(ctx, tx)
		return err
	})
}

// register sees to it that Hasura has the trigger in its metadata, and so its functions.
func (c *Cutover) register(ctx context.Context, name string) error {
	s, st, err := c.standing(ctx, name, moving.BackFenced)
	if s == nil || err != nil {
		return err
	}
	known, err := functions(ctx, c.Conn, name)
	if err != nil || len(known) > 0 {
		return err
	}
	byHand := func(why string) error {
		return problem(operate.ErrBusy, fmt.Sprintf("create the event trigger %s on %s in Hasura, with the operations of the trigger in rowhook.yaml (\"hasura metadata apply\", or its console); then repeat the command. The fence keeps Hasura from recording until then", name, s.plain()),
			"Hasura does not have the event trigger %s, %s", name, why)
	}
	switch {
	case c.Metadata == nil:
		return byHand("and --hasura-url does not say where Hasura is")
	case len(st.Definition) == 0:
		return byHand("and its definition was not kept, since there was none, or it may hold secrets")
	}
	src := st.Source
	if src == "" {
		src = "default"
	}
	c.say(name, "creates the event trigger in Hasura's metadata")
	if err := c.Metadata.create(ctx, src, s, st.Definition); err != nil {
		return err
	}
	return c.point("after the creation in Hasura")
}

// switchBack is the moment from which on Hasura has the changes.
func (c *Cutover) switchBack(ctx context.Context, name string) error {
	s, st, err := c.standing(ctx, name, moving.BackFenced)
	if s == nil || err != nil {
		return err
	}
	c.say(name, "locks %s for a moment, ends the captures of Rowhook, and opens the fence", s.plain())
	err = c.advance(ctx, s, st, moving.BackSwitched, "the switch", func(tx pgx.Tx, now *State) (map[string]any, error) {
		if err := s.lockTable(ctx, tx); err != nil {
			return nil, err
		}
		under, err := c.look(ctx, tx, name)
		if err != nil {
			return nil, err
		}
		if err := under.captures(ctx, tx); err != nil {
			return nil, err
		}
		if stands, err := under.fenced(ctx, tx); err != nil || !stands {
			if err != nil {
				return nil, err
			}
			if err := under.buildFence(ctx, tx, true); err != nil {
				return nil, err
			}
		}
		if err := under.makeTriggers(ctx, tx); err != nil {
			return nil, err
		}
		if under.triggers, err = sqlTriggers(ctx, tx, name); err != nil {
			return nil, err
		}
		if err := under.check(true); err != nil {
			return nil, err
		}
		if err := c.point("in the middle of " + string(moving.BackSwitched)); err != nil {
			return nil, err
		}
		n, err := under.dropCaptures(ctx, tx)
		if err != nil {
			return nil, err
		}
		if err := under.setFence(ctx, tx, false); err != nil {
			return nil, err
		}
		if now.Before != moving.Done && now.Before != moving.Resumed && now.Before != "" { // the cut-over has paused it
			if _, err := operate.Resume(ctx, tx, name); err != nil {
				return nil, err
			}
		}
		return map[string]any{"back": true, "captures_dropped": n}, nil
	})
	if err == nil {
		c.say(name, "from here on Hasura has the changes")
	}
	return err
}

// makeTriggers makes the SQL triggers of Hasura that are missing, from its functions.
func (s *subject) makeTriggers(ctx context.Context, tx pgx.Tx) error {
	on := s.spec.On
	for _, o := range []struct {
		op   string
		mine bool
	}{{"INSERT", on.Insert}, {"UPDATE", on.Update.Enabled}, {"DELETE", on.Delete}} {
		n := nameOf(s.Name, o.op)
		if !o.mine || slices.ContainsFunc(s.triggers, func(t sqlTrigger) bool { return t.Name == n }) {
			continue
		}
		var in string
		err := tx.QueryRow(ctx, `
select coalesce((select f.nspname::text from pg_proc p join pg_namespace f on f.oid = p.pronamespace
                  where f.nspname in ('hdb_catalog', 'hdb_views') and p.proname = $1::text::name order by 1 limit 1), '')`, n).Scan(&in)
		if err != nil {
			return fmt.Errorf("look for the functions of Hasura: %w", err)
		}
		if in == "" {
			return problem(operate.ErrRefused, "make the event trigger in Hasura's metadata and the trigger in rowhook.yaml alike", "Rowhook records %s for %s, and Hasura's event trigger does not", o.op, s.Name)
		}
		sql := "create trigger " + pg.QuoteName(n) + " after " + strings.ToLower(o.op) + " on " + s.table() + " for each row execute function " + pg.QuoteName(in, n) + "()"
		if s.spec.OnReplication {
			sql += "; alter table " + s.table() + " enable always trigger " + pg.QuoteName(n)
		}
		if _, err := tx.Exec(ctx, sql); err != nil {
			return fmt.Errorf("make the trigger %s of Hasura: %w", n, err)
		}
	}
	return nil
}

// capturesSQL lists the capture triggers of a trigger, on its table. A partition inherits those of the
// partitioned table.
const capturesSQL = `
select t.tgname::text as name, t.tgparentid <> 0 as inherited from pg_trigger t join pg_proc p on p.oid = t.tgfoid
 where t.tgrelid = $1 and not t.tgisinternal and p.pronamespace = 'rowhook'::regnamespace and p.proname ~ '^capture(_[0-9]+)?$'
   and encode(t.tgargs, 'escape') like $2 || E'\\\\000%'`

// dropCaptures drops the capture triggers of Rowhook, under the lock of the table.
func (s *subject) dropCaptures(ctx context.Context, tx pgx.Tx) (int, error) {
	found, err := pg.Collect[struct{ Name string }](ctx, tx, "select name from ("+capturesSQL+") as c where not inherited", s.Relation, fmt.Sprint(s.ID))
	if err != nil {
		return 0, fmt.Errorf("list the captures of %s: %w", s.Name, err)
	}
	for _, t := range found {
		if _, err := tx.Exec(ctx, "drop trigger "+pg.QuoteName(t.Name)+" on "+s.table()); err != nil {
			return 0, fmt.Errorf("drop the capture trigger %s: %w", t.Name, err)
		}
	}
	return len(found), nil
}

// drainBack waits until Rowhook has delivered what it has recorded, or given it up.
func (c *Cutover) drainBack(ctx context.Context, name string) error {
	s, st, err := c.standing(ctx, name, moving.BackSwitched)
	if s == nil || err != nil {
		return err
	}
	c.say(name, "waits until Rowhook has delivered what it has recorded")
	said := ""
	for {
		if err := c.recaught(ctx, s, st); err != nil {
			return err
		}
		var left, dispatchers int64
		var paused bool
		err := c.Conn.QueryRow(ctx, "select (select count(*) from rowhook.event_log where trigger_id = $1), (select paused from rowhook.trigger where id = $1), (select count(*) from rowhook.instance)",
			s.ID).Scan(&left, &paused, &dispatchers)
		if err != nil {
			return fmt.Errorf("look at the queue of %s: %w", name, err)
		}
		if left == 0 {
			break
		}
		if paused {
			return problem(operate.ErrRefused, "run \"rowhook resume "+name+"\", and repeat the command", "%s is paused, and %d events that Rowhook has to deliver wait", name, left)
		}
		text := "Rowhook has still to deliver " + term.Plural(left, "event")
		if dispatchers == 0 {
			text += ", and no dispatcher runs: start one with rowhook run"
		}
		if text != said {
			c.say(name, "%s", text)
			said = text
		}
		if err := c.point("in the middle of " + string(moving.BackDrained)); err != nil {
			return err
		}
		if err := c.poll(ctx); err != nil {
			return err
		}
	}
	return c.advance(ctx, s, st, moving.BackDrained, "the end of the drain", func(pgx.Tx, *State) (map[string]any, error) { return nil, nil })
}

// recaught drops the captures that somebody has made again meanwhile, such as an apply of an earlier
// version. What they have recorded Hasura has as well.
func (c *Cutover) recaught(ctx context.Context, s *subject, st *State) error {
	var again bool
	err := c.Conn.QueryRow(ctx, "select exists ("+capturesSQL+")", s.Relation, fmt.Sprint(s.ID)).Scan(&again)
	if err != nil || !again {
		return err
	}
	theirs, err := sqlTriggers(ctx, c.Conn, s.Name)
	if err != nil {
		return err
	}
	if len(theirs) == 0 {
		return problem(operate.ErrRefused, fmt.Sprintf("create the event trigger %s on %s in Hasura again, or have it make its SQL triggers again (recreate_event_triggers); then repeat the command", s.Name, s.plain()),
			"Hasura has no SQL trigger for %s any more, and Rowhook records its changes again since an apply", s.Name)
	}
	c.say(s.Name, "Rowhook's captures were made again, so that both have recorded since; they are dropped again")
	return c.advance(ctx, s, st, st.Step, "dropping the captures again", func(tx pgx.Tx, now *State) (map[string]any, error) {
		if err := s.lockTable(ctx, tx); err != nil {
			return nil, err
		}
		if _, err := s.dropCaptures(ctx, tx); err != nil {
			return nil, err
		}
		now.Recaught++
		return map[string]any{"back": true, "captured_again": now.Recaught}, nil
	})
}

// finishBack takes away the fence, and pauses what is left of the trigger.
func (c *Cutover) finishBack(ctx context.Context, name string) error {
	s, st, err := c.standing(ctx, name, moving.BackDrained)
	if s == nil || err != nil {
		return err
	}
	if err := c.recaught(ctx, s, st); err != nil {
		return err
	}
	left := "take " + name + " out of rowhook.yaml, and apply; until then it is paused"
	err = c.advance(ctx, s, st, moving.BackDone, "the end of the cut-over", func(tx pgx.Tx, now *State) (map[string]any, error) {
		if err := s.removeFence(ctx, tx); err != nil {
			return nil, err
		}
		now.Remaining = left
		_, err := operate.PauseFor(ctx, tx, "Hasura delivers it again: take it out of rowhook.yaml", name)
		return map[string]any{"back": true}, err
	})
	if err == nil {
		c.say(name, "done: Hasura delivers. %s", left)
	}
	return err
}

// Abort gives up a cut-over that has not switched yet. Later ones are finished, or moved back.
func (c *Cutover) Abort(ctx context.Context, names ...string) error {
	return c.exclusive(ctx, names, func() error {
		for _, name := range names {
			if err := c.abort(ctx, name); err != nil {
				return err
			}
		}
		return nil
	})
}

func (c *Cutover) abort(ctx context.Context, name string) error {
	st, err := readState(ctx, c.Conn, name, false)
	if err != nil {
		return err
	}
	switch {
	case st == nil || st.Step == moving.Done || st.Step == moving.BackDone:
		return problem(operate.ErrRefused, "see rowhook cutover hasura --status", "no cut-over of %s is under way", name)
	case st.Step.IsBack() && st.Step != moving.BackFenced:
		return problem(operate.ErrRefused, "finish it (rowhook cutover hasura --back "+name+"), and cut over again", "Hasura has the changes of %s already", name)
	case !st.Step.IsBack() && st.Step != moving.Prepared:
		return problem(operate.ErrRefused, "finish it, or go back exactly by \"rowhook cutover hasura --back "+name+"\"", "Rowhook has the changes of %s already", name)
	}
	s, err := c.look(ctx, c.Conn, name)
	if err != nil {
		return err
	}
	return c.tries(ctx, s, "the end of the cut-over", func(tx pgx.Tx) error {
		now, err := readState(ctx, tx, name, true)
		if err != nil {
			return err
		}
		if now == nil || now.Step != st.Step {
			return problem(operate.ErrBusy, "repeat the command", "the cut-over of %s was changed by another session", name)
		}
		before := now.Before
		if st.Step.IsBack() {
			if err := s.lockTable(ctx, tx); err != nil {
				return err
			}
			if known, err := functions(ctx, tx, name); err != nil {
				return err
			} else if len(known) > 0 && (before == "" || before == moving.Done) {
				return problem(operate.ErrRefused, "delete the event trigger in Hasura first", "Hasura has the event trigger %s, and would record beside Rowhook without the fence", name)
			}
		}
		if err := now.record(ctx, tx, now.Step, map[string]any{"aborted": true}); err != nil {
			return err
		}
		if st.Step.IsBack() && before != "" && before != moving.Done { // the fence stays closed for the way forward
			now.Before = ""
			return now.write(ctx, tx, before)
		}
		if err := s.removeFence(ctx, tx); err != nil {
			return err
		}
		if before == moving.Done {
			now.Before = ""
			return now.write(ctx, tx, moving.Done)
		}
		if _, err := tx.Exec(ctx, "delete from rowhook.setting where name = $1", moving.Setting(name)); err != nil {
			return fmt.Errorf("end the cut-over of %s: %w", name, err)
		}
		return nil
	})
}

// Status returns the cut-overs of these triggers, or without names of all, in the order of their
// names. Remaining tells of each what is to be done.
func (c *Cutover) Status(ctx context.Context, names ...string) ([]*State, error) {
	if len(names) == 0 {
		all, err := pg.Collect[struct{ Name string }](ctx, c.Conn, "select substr(name, 9) as name from rowhook.setting where name like 'cutover:%' order by 1")
		if err != nil {
			return nil, fmt.Errorf("list the cut-overs: %w", err)
		}
		for _, a := range all {
			names = append(names, a.Name)
		}
	}
	out := []*State{}
	for _, name := range names {
		st, err := readState(ctx, c.Conn, name, false)
		if err != nil {
			return nil, err
		}
		if st == nil {
			continue
		}
		if err := c.remaining(ctx, st); err != nil {
			return nil, err
		}
		out = append(out, st)
	}
	return out, nil
}

// remaining says what is to be done. It finds triggers that Hasura has made again.
func (c *Cutover) remaining(ctx context.Context, st *State) error {
	found, err := sqlTriggers(ctx, c.Conn, st.Trigger)
	if err != nil {
		return err
	}
	var known *operate.Error
	if _, err := c.look(ctx, c.Conn, st.Trigger); errors.As(err, &known) {
		if st.Remaining = known.Error(); st.Step == moving.BackDone && errors.Is(err, operate.ErrNotFound) {
			st.Remaining = "" // it was taken out of rowhook.yaml, as it should be
		}
		return nil
	} else if err != nil {
		return err
	}
	switch {
	case st.Step == moving.Done && len(found) > 0:
		st.Remaining = "Hasura has made its SQL triggers again, and both record: run \"rowhook cutover hasura " + st.Trigger + "\" again"
	case st.Step == moving.Done:
		st.Remaining = ""
	case st.Step.IsBack() && st.Step != moving.BackDone:
		st.Remaining = "run \"rowhook cutover hasura --back " + st.Trigger + "\" again: it goes on behind this step"
	case !st.Step.IsBack() && st.Step != moving.Resumed:
		st.Remaining = "run \"rowhook cutover hasura " + st.Trigger + "\" again: it goes on behind this step"
	case st.Step == moving.Resumed && len(found) > 0:
		st.Remaining = "Hasura has made its SQL triggers again; the fence keeps them from recording: " + st.Remaining
	}
	return nil
}
