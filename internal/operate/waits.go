package operate

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/trigger"
)

// What an event that is due may wait for, see Event.WaitsFor.
const (
	WaitsForEndpoint    = "endpoint"
	WaitsForAnswer      = "answer"
	WaitsForDeadLetter  = "dead_letter"
	WaitsForTransaction = "transaction"
)

// waits finds out why events that are due are not sent. What it reads, it reads once.
type waits struct {
	tx      pgx.Tx
	ts      triggers
	health  map[int32]*EndpointHealth
	hanging map[string][]Hangs
	blocked map[string]string // the dead letter that holds its key, by event
	holders map[string]string // the transaction that a strict order waits for, by event
}

// waitFor says of events that are due which of them wait, and for what.
func waitFor(ctx context.Context, tx pgx.Tx, ts triggers, now time.Time, events ...*Event) error {
	var due []*Event
	var placed []string
	for _, e := range events {
		if e.State != Waiting && e.State != Retrying || e.DueAt != nil && e.DueAt.After(now) {
			continue
		}
		due = append(due, e)
		if e.Key != "" {
			placed = append(placed, e.ID)
		}
	}
	if len(due) == 0 {
		return nil
	}
	w := waits{tx: tx, ts: ts}
	var err error
	if w.health, err = readHealth(ctx, tx, ts); err != nil {
		return err
	}
	if len(placed) > 0 {
		if err := w.readPlaced(ctx, placed); err != nil {
			return err
		}
	}
	for _, e := range due {
		w.judge(e)
	}
	return nil
}

// judge sets what an event waits for. An attempt that is under way comes first, and then what keeps
// the event from being next.
func (w *waits) judge(e *Event) {
	if e.Key != "" {
		for i := range w.hanging[e.Trigger] {
			if h := &w.hanging[e.Trigger][i]; h.sends(e.ID) {
				id := h.InstanceID
				e.WaitsFor, e.InstanceID = WaitsForAnswer, &id
				return
			}
		}
		if id := w.blocked[e.ID]; id != "" {
			e.WaitsFor, e.WaitsOn = WaitsForDeadLetter, id
			return
		}
	}
	t, err := w.ts.named(e.Trigger)
	if err != nil || t.Paused || t.Removed {
		return
	}
	if h := w.health[t.ID]; h != nil && h.State == "failing" {
		e.WaitsFor, e.health = WaitsForEndpoint, h
		return
	}
	if who := w.holders[e.ID]; who != "" && e.State == Waiting {
		e.WaitsFor, e.WaitsOn = WaitsForTransaction, who
	}
}

// readPlaced reads what events with an order may wait for.
func (w *waits) readPlaced(ctx context.Context, ids []string) (err error) {
	if w.hanging, err = readHanging(ctx, w.tx); err != nil {
		return err
	}
	type pair struct{ ID, What string }
	blocked, err := pg.Collect[pair](ctx, w.tx, `
select e.id::text as id, min(d.id::text) as what
  from unnest($1::text[]::uuid[]) as o(id)
  join rowhook.event_log e on e.id = o.id
  join rowhook.dead_letter d on d.trigger_id = e.trigger_id and d.lane = e.lane and d.blocks and d.key = e.key and d.seq < e.seq
  join rowhook.lane l on l.trigger_id = e.trigger_id and l.lane = e.lane
 group by 1`, ids)
	if err != nil {
		return fmt.Errorf("read which dead letters hold keys: %w", err)
	}
	w.blocked, w.holders = map[string]string{}, map[string]string{}
	for _, b := range blocked {
		w.blocked[b.ID] = b.What
	}
	var strict []int32
	for i := range w.ts {
		var spec trigger.Spec
		if err := json.Unmarshal([]byte(w.ts[i].Spec), &spec); err == nil && spec.Order.Strict && !w.ts[i].Removed {
			strict = append(strict, w.ts[i].ID)
		}
	}
	if len(strict) == 0 {
		return nil
	}
	type holding struct {
		ID string
		queue.Holder
	}
	return escaping(ctx, w.tx, func(write func(string) string) error {
		held, err := pg.Collect[holding](ctx, w.tx, `
select e.id::text as id, h.kind, h.pid, h.name, h."user", h.state, h.query, h.since, h.age
  from unnest($1::text[]::uuid[]) as o(id)
  join rowhook.event_log e on e.id = o.id and e.trigger_id = any($2::integer[])
 cross join (
   select * from (
     select 'session' as kind, pid, `+write("coalesce(application_name, '')")+` as name, coalesce(usename::text, '') as "user", coalesce(state, '') as state, '' as query,
            xact_start as since, age(backend_xid)::bigint as age
       from pg_catalog.pg_stat_activity where backend_xid is not null and pid <> pg_catalog.pg_backend_pid()
     union all
     select 'prepared transaction', 0, gid, owner::text, '', '', prepared, age(transaction) from pg_catalog.pg_prepared_xacts) as all_of_them
   order by age desc limit 1) as h
 where h.age >= age(e.xmin)`, ids, strict)
		if err != nil {
			return fmt.Errorf("look for open transactions: %w", err)
		}
		for i := range held {
			h := &held[i]
			w.holders[h.ID] = h.String()
			if h.Since != nil {
				w.holders[h.ID] += ", open since " + h.Since.UTC().Format("2006-01-02 15:04:05 MST")
			}
		}
		return nil
	})
}

// sends reports whether the event is known to be in one of the attempts.
func (h *Hangs) sends(id string) bool { return slices.Contains(h.events, id) }
