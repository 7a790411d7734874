package operate

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

// Discard deletes dead, waiting and retrying events permanently. The log of their attempts stays
// for its retention. Events in flight are skipped, and so are delivered ones named by id. If the
// filter names a single id and that event is skipped, Discard returns an error. The state Delivered
// is ErrInvalid.
//
// A filter without states and ids chooses dead letters only. Each batch is a transaction. Discarding
// a dead letter that holds its key lets the key go on.
func Discard(ctx context.Context, db DB, f Filter, o BulkOptions) (*Bulk, error) {
	empty := f.IsZero()
	if len(f.States) == 0 {
		f.States = []State{Dead}
		if len(f.IDs) > 0 {
			f.States = States() // so that each skipped event gets its reason
		}
	} else if slices.Contains(f.States, Delivered) || slices.Contains(f.States, Merged) {
		return nil, problem(ErrInvalid, "name dead, waiting or retrying; delivered events are deleted after the retention in rowhook.yaml", "delivered events can't be discarded")
	}
	b, err := prepareBulk(ctx, db, f, empty, o)
	if err != nil {
		return nil, err
	}
	b.opt.Unthrottled = true // discarding adds nothing to the queue
	b.change = discard
	out, err := b.recorded(ctx, "discard", f)
	if err == nil && len(b.query.ids) == 1 && len(out.Skips) == 1 {
		return out, out.Skips[0].err()
	}
	return out, err
}

func discard(ctx context.Context, tx pgx.Tx, events []raw, out *Bulk) error {
	ids := split(events, out, func(r *raw) string {
		switch State(r.State) {
		case InFlight:
			return SkipBusy
		case Delivered:
			return SkipDelivered
		}
		return ""
	})
	if len(ids) == 0 {
		return nil
	}
	sql := `delete from rowhook.dead_letter where id = any($1::text[]::uuid[]) returning id::text`
	if State(events[0].State) != Dead {
		sql = `
delete from rowhook.event_log q
 using (select id from rowhook.event_log
         where id = any($1::text[]::uuid[]) and (claimed_by is null or due_at <= statement_timestamp())
         order by id for update skip locked) as mine
 where q.id = mine.id
returning q.id::text`
	}
	rows, err := tx.Query(ctx, sql, ids)
	if err != nil {
		return fmt.Errorf("discard events: %w", err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("discard events: %w", err)
	}
	changed(ids, got, out)
	return nil
}
