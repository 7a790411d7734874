package queue

import (
	"context"
	"fmt"
	"time"

	"github.com/rowhook/rowhook/internal/pg"
)

// Expiry says which events of a trigger Expire gives up.
type Expiry struct {
	Trigger int32         // rowhook.trigger.id
	Age     time.Duration // above 0
	Delay   time.Duration // after its change an event's age begins; not after a redelivery
	Reason  string        // of the dead letters
	After   time.Time     // looks at events that are due later than that; the zero time: at all
	Limit   int           // the largest number of events to look at
}

// Before version 7 of the schema event_log has no column renewed_at. There the name refers to the
// null of absent.
const expireSQL = `
with seen as materialized (
  select e.id, e.due_at, e.old
    from (values (null::timestamptz)) as absent (renewed_at)
   cross join lateral (
     select q.id, q.due_at, q.claimed_by is null and q.lane is null
            and coalesce(renewed_at, q.created_at + $3::interval) <= statement_timestamp() - $2::interval as old
       from rowhook.event_log q
      where q.trigger_id = $1 and q.due_at <= statement_timestamp() and q.due_at > $5
      order by q.due_at limit $6) e),
mine as materialized (
  select q.id from rowhook.event_log q
   where q.id = any (array(select id from seen where old)) and q.claimed_by is null and q.due_at <= statement_timestamp() and q.lane is null
   order by q.id for update skip locked),
gone as (
  delete from rowhook.event_log q using mine where q.id = any (array[mine.id]) returning q.*),
buried as (
  insert into rowhook.dead_letter (id, created_at, died_at, trigger_id, tries, op, reason, old, new, session, trace, relation_id, seq)
  select id, created_at, statement_timestamp(), trigger_id, tries, op, $4, old, new, session, trace, relation_id, seq from gone
  on conflict (id) do update set died_at = excluded.died_at, tries = excluded.tries, reason = excluded.reason)
select (select count(*) from gone), (select coalesce(max(due_at), $5) from seen), (select count(*) = $6 from seen)`

// Expire moves events to the dead letters that are due, too old, and claimed by nobody. It returns
// how many, the latest time at which one that it has looked at is due, and whether there may be more
// behind that.
func Expire(ctx context.Context, db pg.Queryer, e Expiry) (n int64, last time.Time, more bool, err error) {
	err = db.QueryRow(ctx, expireSQL, e.Trigger, e.Age, e.Delay, e.Reason, e.After, e.Limit).Scan(&n, &last, &more)
	if err != nil {
		return 0, time.Time{}, false, fmt.Errorf("look for events that have expired: %w", err)
	}
	return n, last, more, nil
}
