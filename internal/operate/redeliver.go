package operate

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/queue"
)

// Redeliver makes events due at once. Dead letters and delivered events go back into the queue;
// retrying events no longer wait. The id stays the same, the attempts start again at 0, and the log
// of earlier attempts stays.
//
// An event of an ordered trigger goes back without its place: it is sent now, and holds up no other
// event. Its sequence stays, so a receiver can tell that it is old. A dead letter that holds its key
// goes back into its place, and the key goes on from it. A retrying event keeps its place and the
// number of its attempts.
//
// A filter with ids and without states chooses these events in any state. A filter without ids and
// states chooses dead letters only. Events in flight are skipped as busy. If the filter names a
// single id and that event is skipped, Redeliver returns ErrBusy, ErrNotFound, or ErrRefused if its
// trigger was removed. Each batch is a transaction: batches before an error or the end of ctx stay
// done.
func Redeliver(ctx context.Context, db DB, f Filter, o BulkOptions) (*Bulk, error) {
	empty := f.IsZero()
	if len(f.States) == 0 && len(f.IDs) == 0 {
		f.States = []State{Dead}
	}
	b, err := prepareBulk(ctx, db, f, empty, o)
	if err != nil {
		return nil, err
	}
	b.change = b.redeliver
	out, err := b.recorded(ctx, "redeliver", f)
	if err == nil && len(b.query.ids) == 1 && len(out.Skips) == 1 {
		return out, out.Skips[0].err()
	}
	return out, err
}

// prepareBulk resolves the filter. It rejects an empty filter: nobody should change all events by
// accident.
func prepareBulk(ctx context.Context, db DB, f Filter, empty bool, o BulkOptions) (*bulk, error) {
	if empty {
		return nil, problem(ErrInvalid, "choose events by id or by a filter; the state dead chooses all dead letters", "no events were chosen")
	}
	b := &bulk{db: db, opt: o}
	err := read(ctx, db, func(tx pgx.Tx) error {
		var err error
		if b.ts, err = readTriggers(ctx, tx); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, "select clock_timestamp()").Scan(&b.began); err != nil {
			return fmt.Errorf("ask for the time: %w", err)
		}
		b.query, err = f.resolve(b.ts)
		return err
	})
	if err != nil {
		return nil, err
	}
	b.feed, err = newThrottle(b.ts)
	return b, err
}

func (b *bulk) redeliver(ctx context.Context, tx pgx.Tx, events []raw, out *Bulk) error {
	// An earlier batch may have put an event back that is delivered, or dead again, by now: that
	// one is done.
	events = slices.DeleteFunc(events, func(r raw) bool {
		return (State(r.State) == Dead || State(r.State) == Delivered) && r.At.After(b.began)
	})
	var touched []int32
	empty, err := b.erased(ctx, tx, events)
	if err != nil {
		return err
	}
	ids := split(events, out, func(r *raw) string {
		switch State(r.State) {
		case Delivered:
			if slices.Contains(empty, r.ID) {
				return SkipErased
			}
		case InFlight:
			return SkipBusy
		case Waiting:
			return SkipWaiting
		}
		if b.ts.byID(r.TriggerID).Removed {
			return SkipRemoved
		}
		if !slices.Contains(touched, r.TriggerID) {
			touched = append(touched, r.TriggerID)
		}
		return ""
	})
	if len(ids) == 0 {
		return nil
	}
	sql := map[State]string{Dead: b.putBack("dead_letter"), Delivered: b.putBack("event_archive"), Retrying: b.retryNow()}[State(events[0].State)]
	for _, r := range events { // the first event of the queue may be waiting, and a later one retrying
		if State(r.State) == Retrying {
			sql = b.retryNow()
		}
	}
	rows, err := tx.Query(ctx, sql, ids)
	if err != nil {
		return fmt.Errorf("redeliver events: %w", err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("redeliver events: %w", err)
	}
	changed(ids, got, out)
	b.fed = map[int32][]string{}
	for i := range events {
		inPlace := events[i].Blocks || State(events[i].State) == Retrying && events[i].Seq > 0 // nobody claims it
		if slices.Contains(got, events[i].ID) && !inPlace {
			b.fed[events[i].TriggerID] = append(b.fed[events[i].TriggerID], events[i].ID)
		}
	}
	return ring(ctx, tx, touched)
}

// erased returns which of the events have no data any more, so that there is nothing to send.
func (b *bulk) erased(ctx context.Context, tx pgx.Tx, events []raw) ([]string, error) {
	if len(events) == 0 || State(events[0].State) != Delivered {
		return nil, nil
	}
	ids, err := texts(ctx, tx, "select e.id::text from rowhook.event_archive e where e.id = any($1::text[]::uuid[]) and "+erased, idsOf(events))
	if err != nil {
		return nil, fmt.Errorf("look for events that were erased: %w", err)
	}
	return ids, nil
}

// movedColumns are the columns that an event keeps, but for its id and its place.
const movedColumns = "created_at, trigger_id, op, old, new, session, trace, relation_id"

// putBack returns the statement that moves events from a table into the queue. After a crash an
// event may have been archived twice. Then one of the two rows goes into the queue.
func (b *bulk) putBack(table string) string {
	const columns = "id, " + movedColumns
	renewed, now := "", ""
	if b.ts.renews() {
		renewed, now = ", renewed_at", ", clock_timestamp()"
	}
	if table == "dead_letter" {
		return `
with gone as (
  delete from rowhook.dead_letter d where id = any($1::text[]::uuid[])
  returning ` + columns + `, seq, key, lane, ` + inPlace + ` as back)
insert into rowhook.event_log (` + columns + `, seq, key, lane, due_at` + renewed + `)
select ` + columns + `, seq, case when back then key end, case when back then lane end, clock_timestamp() + case when back then ` + queue.ParkedSQL + ` else interval '0' end` + now + ` from gone
on conflict (id) do nothing
returning id::text`
	}
	return `
with gone as (
  delete from rowhook.` + table + ` where id = any($1::text[]::uuid[])
  returning ` + columns + `, seq)
insert into rowhook.event_log (` + columns + `, seq` + renewed + `)
select distinct on (id) ` + columns + `, seq` + now + ` from gone
on conflict (id) do nothing
returning id::text`
}

// retryNow has retrying events due at once. Those without a place begin anew.
func (b *bulk) retryNow() string {
	renewed := ""
	if b.ts.renews() {
		renewed = ", renewed_at = case when q.due_at > " + queue.ParkedFrom + " then q.renewed_at else clock_timestamp() end"
	}
	return `
update rowhook.event_log q set due_at = ` + dueNow + `, tries = case when q.due_at > ` + queue.ParkedFrom + ` then q.tries else 0 end, claimed_by = null` + renewed + `
  from (select id from rowhook.event_log
         where id = any($1::text[]::uuid[]) and (claimed_by is null or due_at <= statement_timestamp())
         order by id for update skip locked) as mine
 where q.id = mine.id
returning q.id::text`
}

// err returns the error for a skip of the only event that was named.
func (s Skip) err() error {
	switch s.Reason {
	case SkipBusy:
		return problem(ErrBusy, "wait until that attempt has ended", "the event %s is in flight", s.ID)
	case SkipWaiting:
		return problem(ErrBusy, "a dispatcher sends it when it has a free slot and the trigger is not paused", "the event %s is waiting to be sent already", s.ID)
	case SkipRemoved:
		return problem(ErrRefused, "add the trigger to rowhook.yaml again and apply", "the trigger of the event %s was removed", s.ID)
	case SkipDelivered:
		return problem(ErrRefused, "delivered events are deleted after the retention in rowhook.yaml", "the event %s was delivered, and can't be discarded", s.ID)
	case SkipDamaged:
		return problem(ErrRefused, "\"rowhook events show\" prints what can be read; discard the event, or repair it in SQL", "the data of the event %s can't be read or moved", s.ID)
	case SkipErased:
		return problem(ErrRefused, "\"rowhook audit --action erase\" says when and by whom", "the data of the event %s were erased, so it can't be sent again", s.ID)
	case SkipGone:
		return problem(ErrBusy, "look at it again and repeat the command", "the event %s changed in the meantime", s.ID)
	default:
		return notFound(s.ID)
	}
}
