package sqlschema

import (
	"context"
	"fmt"
)

// orphanBatch bounds how many events one statement of BuryOrphans moves.
const orphanBatch = 5000

// BuryOrphans moves the events of removed triggers to the dead letters and returns how many. Transactions that were running
// at the removal may add some later, so this is repeated. Events in flight are left to be settled first.
func BuryOrphans(ctx context.Context, db Queryer) (int64, error) {
	var total int64
	relation, returned := "", ""
	if has, err := hasRelations(ctx, db); err != nil {
		return 0, err
	} else if has {
		relation, returned = ", relation_id", ", e.relation_id"
	}
	batch, payload := int64(orphanBatch), true
	for {
		var moved int64
		err := db.QueryRow(ctx, `
with orphan as (
  select e.id
    from rowhook.trigger t
   cross join lateral (
     select id from rowhook.event_log e
      where e.trigger_id = t.id and (e.claimed_by is null or e.due_at <= clock_timestamp())
      order by e.due_at limit $1 for update skip locked) e
   where t.removed_at is not null
   limit $1
), gone as (
  delete from rowhook.event_log e using orphan o where e.id = any (array[o.id])
  returning e.id, e.created_at, e.trigger_id, e.tries, e.op, e.old, e.new, e.session, e.trace`+returned+`
), buried as (
  insert into rowhook.dead_letter (id, created_at, trigger_id, tries, op, reason, old, new, session, trace`+relation+`)
  select id, created_at, trigger_id, tries, op, 'trigger removed' || case when $2 then '' else ' (and its payload can''t be read)' end,
         case when $2 then old end, case when $2 then new end, case when $2 then session end, case when $2 then trace end`+relation+` from gone
  on conflict (id) do update set died_at = excluded.died_at, tries = excluded.tries, reason = excluded.reason
)
select count(*) from gone`, batch, payload).Scan(&moved)
		if IsData(err) && payload { // of one of them the payload can't be read: it goes without
			if batch, payload = max(batch/2, 1), batch > 1; payload || IsBadData(err) {
				continue
			}
		}
		if err != nil {
			return total, fmt.Errorf("bury the events of removed triggers: %w", err)
		}
		total += moved
		if moved < batch {
			return total, nil
		}
		batch, payload = min(2*batch, orphanBatch), true
	}
}
