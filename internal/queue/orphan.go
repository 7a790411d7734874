package queue

import (
	"context"
	"fmt"
	"github.com/rowhook/rowhook/internal/pg"
)

// orphanBatch is the largest number of events that one statement of bury moves.
const orphanBatch = 5000

// BuryOrphans moves the events of removed triggers to the dead letters and returns their number.
// Transactions that were open at the removal may add events later, so it is called again. It skips
// events in flight until they are settled.
func BuryOrphans(ctx context.Context, db pg.Queryer) (int64, error) {
	return bury(ctx, db, "select id from rowhook.trigger where removed_at is not null", "trigger removed")
}

// BuryStrays moves the events of triggers that have no row in rowhook.trigger. Only an apply calls
// it: while a dump is being loaded, the rows of triggers may still come.
func BuryStrays(ctx context.Context, db pg.Queryer) (int64, error) {
	return bury(ctx, db, StrayTriggers, "trigger unknown")
}

// StrayTriggers selects the triggers of waiting events that have no row in rowhook.trigger. It
// takes one step in the index for each trigger.
const StrayTriggers = `
with recursive waiting as (
  (select trigger_id from rowhook.event_log order by trigger_id limit 1)
  union all
  select (select e.trigger_id from rowhook.event_log e where e.trigger_id > w.trigger_id order by e.trigger_id limit 1) from waiting w where w.trigger_id is not null)
select trigger_id as id from waiting w where trigger_id is not null and not exists (select from rowhook.trigger t where t.id = w.trigger_id)`

// bury moves the events of some triggers to the dead letters.
func bury(ctx context.Context, db pg.Queryer, triggers, reason string) (int64, error) {
	var total int64
	relation, returned := "", ""
	if has, err := HasRelations(ctx, db); err != nil {
		return 0, err
	} else if has {
		relation, returned = ", relation_id", ", e.relation_id"
	}
	if has, err := HasOrder(ctx, db); err != nil {
		return 0, err
	} else if has {
		relation, returned = relation+", seq", returned+", e.seq"
	}
	batch, payload := int64(orphanBatch), true
	for {
		var moved int64
		err := db.QueryRow(ctx, `
with orphan as (
  select e.id
    from (`+triggers+`) t
   cross join lateral (
     select id from rowhook.event_log e
      where e.trigger_id = t.id and (e.claimed_by is null or e.due_at <= clock_timestamp())
      order by e.due_at limit $1 for update skip locked) e
   limit $1
), gone as (
  delete from rowhook.event_log e using orphan o where e.id = any (array[o.id])
  returning e.id, e.created_at, e.trigger_id, e.tries, e.op, e.old, e.new, e.session, e.trace`+returned+`
), buried as (
  insert into rowhook.dead_letter (id, created_at, trigger_id, tries, op, reason, old, new, session, trace`+relation+`)
  select id, created_at, trigger_id, tries, op, $3 || case when $2 then '' else ' (and its payload can''t be read)' end,
         case when $2 then old end, case when $2 then new end, case when $2 then session end, case when $2 then trace end`+relation+` from gone
  on conflict (id) do update set died_at = excluded.died_at, tries = excluded.tries, reason = excluded.reason
)
select count(*) from gone`, batch, payload, reason).Scan(&moved)
		if pg.IsData(err) && payload { // one payload can't be read: its event is moved without
			if batch, payload = max(batch/2, 1), batch > 1; payload || pg.IsBadData(err) {
				continue
			}
		}
		if err != nil {
			return total, fmt.Errorf("bury events (%s): %w", reason, err)
		}
		total += moved
		if moved < batch {
			return total, nil
		}
		batch, payload = min(2*batch, orphanBatch), true
	}
}
