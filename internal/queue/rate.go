package queue

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rowhook/rowhook/internal/pg"
)

// SlotsAhead is how far ahead of the present time of its requests may be reserved for a trigger with
// a rate.
const SlotsAhead = 250 * time.Millisecond

// SlotWant asks for the times of the next requests of a trigger with a rate.
type SlotWant struct {
	Trigger int32
	Every   time.Duration // the time between two requests
	Burst   int           // how many may be sent at once after a pause
	N       int           // the largest number of slots

	// Holder is the source whose database holds the rate, if it is another one, and Name the trigger's
	// name, by which it is found there.
	Holder, Name string
}

// Slots are the reserved times of requests: N of them, each Every after the one before.
type Slots struct {
	Trigger int32
	First   time.Duration // from the start of the statement to the first slot; below 0 in a burst
	N       int           // 0: the first free slot is further ahead than SlotsAhead
}

// A row says how far all instances together have planned. Behind a pause, the slots of a burst lie in
// the past. What is planned further ahead than is possible was planned under another rate, or before
// the server's clock stepped back: it is planned anew. The subquery locks the row, and so sees what
// other instances have reserved meanwhile.
const reserveSQL = `
update rowhook.rate r set next_at = h.base + h.n * h.every
  from (
    select trigger_id, every, base, greatest(least(want, floor(extract(epoch from statement_timestamp() + $5::interval - base) / extract(epoch from every)) + 1), 0)::integer as n
      from (
        select w.*, case when held.next_at > statement_timestamp() + 2 * ($5::interval + w.every) then statement_timestamp()
                         else greatest(held.next_at, statement_timestamp() - (w.burst - 1) * w.every) end as base
          from unnest($1::integer[], $2::interval[], $3::integer[], $4::integer[]) as w(trigger_id, every, burst, want)
         cross join lateral (select next_at from rowhook.rate x where x.trigger_id = w.trigger_id for update) held) b) h
 where r.trigger_id = h.trigger_id and ` + unflushed + `
returning r.trigger_id, h.base - statement_timestamp() as first, h.n`

// ReserveSlots reserves the times of requests for this instance. No other one gets the same.
func ReserveSlots(ctx context.Context, db pg.Queryer, wants []SlotWant) ([]Slots, error) {
	slots, err := reserveSlots(ctx, db, wants)
	if err != nil || len(slots) == len(wants) {
		return slots, err
	}
	triggers, _ := slotColumns(wants)
	if err := execute(ctx, db, "begin to plan requests",
		"insert into rowhook.rate (trigger_id, next_at) select unnest($1::integer[]), '-infinity' on conflict do nothing", triggers); err != nil {
		return nil, err
	}
	missing := wants[:0:0]
	for _, w := range wants {
		if !slices.ContainsFunc(slots, func(s Slots) bool { return s.Trigger == w.Trigger }) {
			missing = append(missing, w)
		}
	}
	more, err := reserveSlots(ctx, db, missing)
	return append(slots, more...), err
}

// ReserveSlotsAt is ReserveSlots in the database of the source that holds the rates, where the triggers
// have other numbers. missing are the names of those that are not there, or whose rate it does not hold by
// its own word: who applies triggers in one database can't use up the rates of another. They get no slots.
func ReserveSlotsAt(ctx context.Context, db pg.Queryer, holder string, wants []SlotWant) (slots []Slots, missing []string, err error) {
	names := make([]string, len(wants))
	for i, w := range wants {
		names[i] = w.Name
	}
	rows, err := db.Query(ctx, "select id, name from rowhook.trigger where name = any ($1) and spec #>> '{rate,held_by}' = $2", names, holder)
	if err != nil {
		return nil, nil, fmt.Errorf("find triggers whose rate is held here: %w", err)
	}
	ids, theirs := map[string]int32{}, map[int32]int32{}
	var id int32
	var name string
	if _, err := pgx.ForEachRow(rows, []any{&id, &name}, func() error { ids[name] = id; return nil }); err != nil {
		return nil, nil, fmt.Errorf("find triggers whose rate is held here: %w", err)
	}
	there := wants[:0:0]
	for _, w := range wants {
		id, known := ids[w.Name]
		if !known {
			missing = append(missing, w.Name)
			continue
		}
		theirs[id] = w.Trigger
		w.Trigger = id
		there = append(there, w)
	}
	if len(there) == 0 {
		return nil, missing, nil
	}
	slots, err = ReserveSlots(ctx, db, there)
	for i := range slots {
		slots[i].Trigger = theirs[slots[i].Trigger]
	}
	return slots, missing, err
}

func slotColumns(wants []SlotWant) (triggers []int32, rest []any) {
	every, burst, n := make([]time.Duration, len(wants)), make([]int32, len(wants)), make([]int32, len(wants))
	triggers = make([]int32, len(wants))
	for i, w := range wants {
		triggers[i], every[i], burst[i], n[i] = w.Trigger, max(w.Every, time.Microsecond), int32(max(w.Burst, 1)), int32(w.N)
	}
	return triggers, []any{every, burst, n}
}

func reserveSlots(ctx context.Context, db pg.Queryer, wants []SlotWant) ([]Slots, error) {
	triggers, rest := slotColumns(wants)
	rows, err := db.Query(ctx, reserveSQL, append(append([]any{triggers}, rest...), SlotsAhead)...)
	if err != nil {
		return nil, fmt.Errorf("plan requests: %w", err)
	}
	slots, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Slots])
	if err != nil {
		return nil, fmt.Errorf("plan requests: %w", err)
	}
	return slots, nil
}
