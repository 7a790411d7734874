package cutover

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/moving"
	"github.com/rowhook/rowhook/internal/operate"
)

// Forward moves triggers from Hasura to Rowhook. Each step is done for all of them before the next
// one, so that their queues are emptied side by side. A call after one that was interrupted goes on
// where that one ended.
func (c *Cutover) Forward(ctx context.Context, names ...string) ([]*State, error) {
	return c.walk(ctx, names, c.prepare, c.switchOver, c.drain, c.unregister, c.resume, c.finish)
}

// walk does each step for all triggers, and returns their states.
func (c *Cutover) walk(ctx context.Context, names []string, steps ...func(ctx context.Context, name string) error) (out []*State, err error) {
	err = c.exclusive(ctx, names, func() error {
		for _, step := range steps {
			for _, name := range names {
				if err := step(ctx, name); err != nil {
					return err
				}
			}
		}
		out, err = c.Status(ctx, names...)
		return err
	})
	return out, err
}

// standing returns the subject and its state, if the state is at this step.
func (c *Cutover) standing(ctx context.Context, name string, steps ...moving.Step) (*subject, *State, error) {
	st, err := readState(ctx, c.Conn, name, false)
	if err != nil || st == nil {
		return nil, nil, err
	}
	for _, step := range steps {
		if st.Step == step {
			s, err := c.look(ctx, c.Conn, name)
			return s, st, err
		}
	}
	return nil, nil, nil
}

// advance runs f in a transaction that finds the state unchanged, and stores the step with what f has
// changed in the state. lock says that f takes locks that others may hold.
func (c *Cutover) advance(ctx context.Context, s *subject, st *State, to moving.Step, what string, f func(tx pgx.Tx, now *State) (map[string]any, error)) error {
	err := c.tries(ctx, s, what, func(tx pgx.Tx) error {
		now, err := readState(ctx, tx, st.Trigger, true)
		if err != nil {
			return err
		}
		if now == nil || now.Step != st.Step {
			return problem(operate.ErrBusy, "repeat the command", "the cut-over of %s was changed by another session", st.Trigger)
		}
		if err := c.point("begun " + string(to)); err != nil {
			return err
		}
		detail, err := f(tx, now)
		if err != nil {
			return err
		}
		return c.keep(ctx, tx, now, to, detail)
	})
	if err != nil {
		return err
	}
	return c.point("after " + string(to))
}

// prepare checks the trigger, and puts the fence before Hasura's event log, open.
func (c *Cutover) prepare(ctx context.Context, name string) error {
	st, err := readState(ctx, c.Conn, name, false)
	if err != nil {
		return err
	}
	switch {
	case st == nil || st.Step == moving.BackDone:
	case st.Step.IsBack():
		return isOnItsWayBack(name)
	case st.Step == moving.Done:
		return c.again(ctx, name, st)
	default:
		return nil
	}
	s, err := c.look(ctx, c.Conn, name)
	if err != nil {
		return err
	}
	if err := c.checkStart(ctx, s); err != nil {
		return err
	}
	fresh := State{Trigger: name, Table: s.plain(), WithPending: c.WithPending}
	if c.Metadata != nil {
		src, definition, err := c.Metadata.find(ctx, s)
		switch {
		case err == nil:
			fresh.Source, fresh.Definition = src, storable(definition)
		case errors.Is(err, errNotThere):
			return problem(operate.ErrRefused, "check --hasura-url and --hasura-source: is that the Hasura of this database? If its metadata has the trigger no more, delete its SQL triggers: drop function hdb_catalog."+
				fmt.Sprintf("%q", s.triggers[0].Name)+"() cascade, and so on", "Hasura's metadata has no trigger %s on %s", name, s.plain())
		case !errors.Is(err, errNoSuchPath): // version 1 has another interface
			return err
		}
	}
	c.say(name, "puts a fence before hdb_catalog.event_log, and leaves it open")
	return c.begin(ctx, s, &fresh, moving.Prepared, map[string]any{"table": fresh.Table, "with_pending": fresh.WithPending}, func(tx pgx.Tx) (err error) {
		if fresh.Since, err = s.oldest(ctx, tx, fresh.Began); err != nil {
			return err
		}
		return s.buildFence(ctx, tx, false)
	})
}

// begin runs f in a transaction that stores the first step of a way.
func (c *Cutover) begin(ctx context.Context, s *subject, fresh *State, to moving.Step, detail map[string]any, f func(tx pgx.Tx) error) error {
	err := c.tries(ctx, s, "the preparation", func(tx pgx.Tx) error {
		if err := c.point("begun " + string(to)); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, "select clock_timestamp()").Scan(&fresh.Began); err != nil {
			return fmt.Errorf("ask for the time: %w", err)
		}
		if err := f(tx); err != nil {
			return err
		}
		return c.keep(ctx, tx, fresh, to, detail)
	})
	if err != nil {
		return err
	}
	return c.point("after " + string(to))
}

// keep stores a state at a step, at the end of a transaction.
func (c *Cutover) keep(ctx context.Context, tx pgx.Tx, st *State, to moving.Step, detail map[string]any) error {
	if err := st.write(ctx, tx, to); err != nil {
		return err
	}
	if err := st.record(ctx, tx, to, detail); err != nil {
		return err
	}
	return c.point("before the commit of " + string(to))
}

func isOnItsWayBack(name string) error {
	return problem(operate.ErrRefused, "finish that first: rowhook cutover hasura --back "+name, "%s is on its way back to Hasura", name)
}

// checkStart returns why the cut-over can't begin.
func (c *Cutover) checkStart(ctx context.Context, s *subject) error {
	if err := s.check(true); err != nil {
		return err
	}
	if err := s.captures(ctx, c.Conn); err != nil {
		return err
	}
	if !s.Paused {
		return problem(operate.ErrRefused, fmt.Sprintf("run \"rowhook pause %s\" first, and know that what Rowhook has delivered until then Hasura has delivered as well", s.Name),
			"Rowhook delivers %s already, beside Hasura", s.Name)
	}
	var busy bool
	err := c.Conn.QueryRow(ctx, "select exists (select from rowhook.backfill where trigger_id = $1 and finished_at is null) or exists (select from rowhook.replay where trigger_id = $1 and finished_at is null)", s.ID).Scan(&busy)
	if err != nil {
		return fmt.Errorf("look for a backfill or replay of %s: %w", s.Name, err)
	}
	if busy {
		return problem(operate.ErrRefused, "finish it, or abandon it, first", "a backfill or a replay of %s has not ended, and its events could not be told from those of changes", s.Name)
	}
	return nil
}

// dropTriggers drops the SQL triggers of Hasura, under the lock of the table. Their functions stay:
// Hasura of version 2 makes a trigger again if its function is missing.
func (s *subject) dropTriggers(ctx context.Context, tx pgx.Tx) (remake []string, err error) {
	found, err := sqlTriggers(ctx, tx, s.Name)
	if err != nil {
		return nil, err
	}
	s.triggers = found
	for _, t := range found {
		if _, err := tx.Exec(ctx, "drop trigger "+pgx.Identifier{t.Name}.Sanitize()+" on "+s.table()); err != nil {
			return nil, fmt.Errorf("drop the trigger %s of Hasura: %w", t.Name, err)
		}
		remake = append(remake, t.remake())
	}
	return remake, nil
}

// switchOver is the moment from which on Rowhook has the changes.
func (c *Cutover) switchOver(ctx context.Context, name string) error {
	s, st, err := c.standing(ctx, name, moving.Prepared)
	if s == nil || err != nil {
		return err
	}
	if err := c.checkStart(ctx, s); err != nil {
		return err
	}
	thinned := int64(0)
	for {
		var n int64
		err := c.transact(ctx, func(tx pgx.Tx) (err error) {
			n, err = s.thin(ctx, tx)
			return err
		})
		if err != nil {
			return err
		}
		if thinned += n; n < discardAtOnce {
			break
		}
	}
	c.say(name, "locks %s for a moment, drops the SQL triggers of Hasura, and discards what Rowhook has recorded until then", s.plain())
	var dropped int
	var discarded int64
	err = c.advance(ctx, s, st, moving.Switched, "the switch", func(tx pgx.Tx, now *State) (map[string]any, error) {
		if err := s.lockTable(ctx, tx); err != nil {
			return nil, err
		}
		// Everything is looked at again: nobody changes it now.
		under, err := c.look(ctx, tx, name)
		if err != nil {
			return nil, err
		}
		if err := under.check(true); err != nil {
			return nil, err
		}
		if err := under.captures(ctx, tx); err != nil {
			return nil, err
		}
		if !under.Paused {
			return nil, problem(operate.ErrRefused, "run \"rowhook pause "+name+"\", and repeat the command", "the trigger %s was resumed meanwhile", name)
		}
		if stands, err := under.fenced(ctx, tx); err != nil || !stands {
			return nil, orNoFence(err, name)
		}
		if now.Since, err = under.oldest(ctx, tx, now.Since); err != nil {
			return nil, err
		}
		if now.Dropped, err = under.dropTriggers(ctx, tx); err != nil {
			return nil, err
		}
		if err := c.point("in the middle of " + string(moving.Switched)); err != nil {
			return nil, err
		}
		if err := under.setFence(ctx, tx, true); err != nil {
			return nil, err
		}
		n, err := under.discard(ctx, tx)
		if err != nil {
			return nil, err
		}
		dropped, discarded = len(now.Dropped), n+thinned
		now.Discarded += discarded
		return map[string]any{"dropped": now.Dropped, "discarded": now.Discarded}, nil
	})
	if err == nil {
		c.say(name, "dropped %d SQL triggers of Hasura, and discarded %d events that Hasura has as well; from here on Rowhook has the changes", dropped, discarded)
	}
	return err
}

func orNoFence(err error, name string) error {
	if err != nil {
		return err
	}
	return problem(operate.ErrRefused, "run \"rowhook cutover hasura --abort "+name+"\", and begin again", "the fence of %s before hdb_catalog.event_log was removed or disabled", name)
}

// redo drops the SQL triggers that Hasura has made again meanwhile. While the fence is closed, they
// have recorded nothing.
func (c *Cutover) redo(ctx context.Context, s *subject, st *State) error {
	found, err := sqlTriggers(ctx, c.Conn, s.Name)
	if err != nil || len(found) == 0 {
		return err
	}
	c.say(s.Name, "Hasura has made its SQL triggers again, and they are dropped again")
	var archived, sending int64
	open := false
	err = c.advance(ctx, s, st, st.Step, "dropping the SQL triggers again", func(tx pgx.Tx, now *State) (map[string]any, error) {
		if err := s.lockTable(ctx, tx); err != nil {
			return nil, err
		}
		if _, err := s.dropTriggers(ctx, tx); err != nil {
			return nil, err
		}
		stood, err := s.fenced(ctx, tx)
		if err != nil {
			return nil, err
		}
		open = !stood
		now.MadeAgain++
		detail := map[string]any{"made_again": now.MadeAgain}
		if !stood { // somebody has removed the fence, so that both have recorded since
			if err := s.buildFence(ctx, tx, true); err != nil {
				return nil, err
			}
			if now.Step.Reached(moving.Drained) {
				if archived, sending, err = s.giveUp(ctx, tx); err != nil {
					return nil, err
				}
				now.Archived += archived
			}
			detail["fence"], detail["archived"], detail["sending"] = "was gone", archived, sending
		}
		return detail, nil
	})
	switch {
	case err != nil:
	case !open:
		c.say(s.Name, "the fence has kept them from recording")
	default:
		c.say(s.Name, "somebody had removed the fence, so that both have recorded since: %d events are left to Rowhook, and what Hasura was sending, %d, both deliver", archived, sending)
	}
	return err
}

// drain waits until Hasura has delivered what it has recorded, or takes that over.
func (c *Cutover) drain(ctx context.Context, name string) error {
	s, st, err := c.standing(ctx, name, moving.Switched)
	if s == nil || err != nil {
		return err
	}
	taking := c.WithPending || st.WithPending
	if taking {
		c.say(name, "takes over what Hasura has not delivered yet")
	} else {
		c.say(name, "waits until Hasura has delivered what it has recorded")
	}
	said := Backlog{Waiting: -1}
	since := time.Now()
	for {
		if err := c.redo(ctx, s, st); err != nil {
			return err
		}
		left, err := c.empty(ctx, s, st, taking)
		if err != nil {
			return err
		}
		if left.all() == 0 {
			break
		}
		if left.all() != said.all() || left.InFlight != said.InFlight {
			c.say(name, "%s", left.text())
			said, since = left, time.Now()
		} else if time.Since(since) > time.Minute && left.Waiting > 0 && !taking {
			c.say(name, "Hasura has delivered nothing for a minute: is it running? If it is not to run again, end this command, and repeat it with --with-pending")
			since = time.Now()
		}
		if err := c.point("in the middle of " + string(moving.Drained)); err != nil {
			return err
		}
		if err := c.poll(ctx); err != nil {
			return err
		}
	}
	return c.advance(ctx, s, st, moving.Drained, "the end of the drain", func(tx pgx.Tx, now *State) (map[string]any, error) {
		now.WithPending = taking
		return map[string]any{"taken_over": now.TakenOver}, nil
	})
}

// empty takes over what Hasura sends no more, and with taking also what it would still send. It
// returns what is left for Hasura.
func (c *Cutover) empty(ctx context.Context, s *subject, st *State, taking bool) (left Backlog, err error) {
	err = c.transact(ctx, func(tx pgx.Tx) error {
		left = Backlog{}
		if taking {
			if err := c.takeOver(ctx, tx, s, nil); err != nil {
				return err
			}
		}
		if err := c.takeOver(ctx, tx, s, &st.Since); err != nil {
			return err
		}
		if left, err = s.backlog(ctx, tx, nil); err != nil {
			return err
		}
		archived, err := s.backlog(ctx, tx, &st.Since)
		left.InFlight += archived.InFlight
		left.Waiting += max(0, archived.Waiting+archived.Retrying-archived.Strange)
		return err
	})
	return left, err
}

// takeOver moves a part of Hasura's events, and counts them in the state.
func (c *Cutover) takeOver(ctx context.Context, tx pgx.Tx, s *subject, since *time.Time) error {
	now, err := readState(ctx, tx, s.Name, true)
	if err != nil || now == nil {
		return err
	}
	n, err := s.takeOver(ctx, tx, since)
	if err != nil || n == 0 {
		return err
	}
	now.TakenOver += n
	if err := now.write(ctx, tx, now.Step); err != nil {
		return err
	}
	if err := now.record(ctx, tx, now.Step, map[string]any{"taken_over": n}); err != nil {
		return err
	}
	return c.point("before the commit of a take-over")
}

func (b *Backlog) text() string {
	text := fmt.Sprintf("Hasura has still to deliver %d events: %d are due, %d are being sent, %d are to be retried", b.all(), b.Waiting, b.InFlight, b.Retrying)
	if b.NextAt != nil {
		text += ", the first of them at " + b.NextAt.Format(time.RFC3339)
	}
	if b.Strange > 0 {
		text += fmt.Sprintf("; %d have an id that is no UUID, and Hasura has to deliver these itself", b.Strange)
	}
	return text
}

// unregister deletes the trigger from Hasura's metadata.
func (c *Cutover) unregister(ctx context.Context, name string) error {
	s, st, err := c.standing(ctx, name, moving.Drained)
	if s == nil || err != nil {
		return err
	}
	byHandThen := c.Metadata == nil
	if c.Metadata != nil {
		c.say(name, "deletes the trigger from Hasura's metadata")
		src := st.Source
		if src == "" {
			if src, _, err = c.Metadata.find(ctx, s); errors.Is(err, errNoSuchPath) {
				src, err = "default", nil // version 1
			}
		}
		if err == nil {
			err = c.Metadata.remove(ctx, src, name)
		}
		if err != nil && !errors.Is(err, errNotThere) {
			return err
		}
		if err := c.point("in the middle of " + string(moving.Unregistered)); err != nil {
			return err
		}
	}
	return c.advance(ctx, s, st, moving.Unregistered, "the end of the change of Hasura's metadata", func(tx pgx.Tx, now *State) (map[string]any, error) {
		now.ByHand = byHandThen
		return map[string]any{"by_hand": byHandThen}, nil
	})
}

// resume ends the pause of the trigger. From here on Rowhook delivers.
func (c *Cutover) resume(ctx context.Context, name string) error {
	s, st, err := c.standing(ctx, name, moving.Unregistered)
	if s == nil || err != nil {
		return err
	}
	if err := c.redo(ctx, s, st); err != nil {
		return err
	}
	c.say(name, "resumes the deliveries of Rowhook")
	return c.advance(ctx, s, st, moving.Resumed, "the resumption", func(tx pgx.Tx, _ *State) (map[string]any, error) {
		_, err := operate.Resume(ctx, tx, name)
		return nil, err
	})
}

// finish takes away the fence, once Hasura does not know the trigger any more.
func (c *Cutover) finish(ctx context.Context, name string) error {
	s, st, err := c.standing(ctx, name, moving.Resumed)
	if s == nil || err != nil {
		return err
	}
	if err := c.redo(ctx, s, st); err != nil {
		return err
	}
	known, err := functions(ctx, c.Conn, name)
	if err != nil {
		return err
	}
	if len(known) > 0 && c.Metadata != nil {
		// It was deleted by this command already. Somebody has brought it back, or the last run had no URL.
		src := st.Source
		if src == "" {
			src = "default"
		}
		if err := c.Metadata.remove(ctx, src, name); err != nil && !errors.Is(err, errNotThere) {
			return err
		}
		if known, err = functions(ctx, c.Conn, name); err != nil {
			return err
		}
	}
	if len(known) > 0 {
		left := byHand(s, st.Source)
		c.say(name, "Rowhook delivers, and one thing is left: %s", left)
		return c.transact(ctx, func(tx pgx.Tx) error {
			now, err := readState(ctx, tx, name, true)
			if err != nil || now == nil {
				return err
			}
			now.Remaining = left
			return now.write(ctx, tx, now.Step)
		})
	}
	c.say(name, "takes away the fence")
	for {
		left, err := c.empty(ctx, s, st, true) // what was invoked by hand
		if err != nil {
			return err
		}
		if left.all() == 0 {
			break
		}
		if err := c.poll(ctx); err != nil {
			return err
		}
	}
	err = c.advance(ctx, s, st, moving.Done, "the end of the cut-over", func(tx pgx.Tx, now *State) (map[string]any, error) {
		if err := s.lockTable(ctx, tx); err != nil {
			return nil, err
		}
		found, err := sqlTriggers(ctx, tx, name)
		if err != nil {
			return nil, err
		}
		if len(found) > 0 {
			return nil, problem(operate.ErrBusy, "repeat the command", "Hasura has made the SQL triggers of %s again just now", name)
		}
		now.Remaining = ""
		return nil, s.removeFence(ctx, tx)
	})
	if err == nil {
		c.say(name, "done: Rowhook delivers, and Hasura knows the trigger no more")
	}
	return err
}

// again is for a trigger that was moved, and that Hasura has got again, such as by "hasura metadata
// apply" from a directory that still has it. Both have recorded since, and Rowhook has recorded
// everything. So what Hasura has not sent yet is given up.
func (c *Cutover) again(ctx context.Context, name string, st *State) error {
	s, err := c.look(ctx, c.Conn, name)
	if err != nil || len(s.triggers) == 0 {
		return err
	}
	if err := s.check(true); err != nil {
		return err
	}
	if err := s.captures(ctx, c.Conn); err != nil {
		return err
	}
	c.say(name, "Hasura has the trigger again, and both deliver: what Hasura has not sent yet is given up there")
	var archived, sending int64
	err = c.advance(ctx, s, st, moving.Switched, "the switch", func(tx pgx.Tx, now *State) (map[string]any, error) {
		if err := s.lockTable(ctx, tx); err != nil {
			return nil, err
		}
		dropped, err := s.dropTriggers(ctx, tx)
		if err != nil {
			return nil, err
		}
		if err := s.buildFence(ctx, tx, true); err != nil {
			return nil, err
		}
		if archived, sending, err = s.giveUp(ctx, tx); err != nil {
			return nil, err
		}
		now.Dropped, now.MadeAgain, now.Archived = dropped, now.MadeAgain+1, now.Archived+archived
		return map[string]any{"dropped": dropped, "archived": archived, "sending": sending}, nil
	})
	if err == nil {
		c.say(name, "gave up %d events of Hasura that Rowhook delivers; Hasura was sending %d more", archived, sending)
	}
	return err
}
