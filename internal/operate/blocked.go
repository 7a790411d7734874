package operate

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/pg"
)

// BlockedKey is a key of an ordered trigger that a dead letter holds: later events of the key wait.
type BlockedKey struct {
	Trigger string    `json:"trigger"`
	Key     string    `json:"key"`      // as in Event.Key
	Since   time.Time `json:"since"`    // when the event became a dead letter
	EventID string    `json:"event_id"` // of the dead letter
	Waiting int64     `json:"waiting"`  // events that wait behind it
	More    bool      `json:"more"`     // counting stopped at blockedReads events of the lane: more may wait
	Remedy  string    `json:"remedy"`
}

// blockedMost is the number of blocked keys that a status lists. blockedReads is the number of
// events of a lane that are read to count those behind one.
const (
	blockedMost  = 20
	blockedReads = 1000
)

// readBlocked counts the blocked keys of each trigger, up to limit, and lists those that have been
// blocked longest. With more than limit, the longest of some of them.
func (s *Status) readBlocked(ctx context.Context, tx pgx.Tx, ts triggers, limit int64) (counts map[int32]int64, err error) {
	counts = map[int32]int64{}
	found, err := pg.Collect[struct {
		ID int32
		N  int64
	}](ctx, tx, `
select t.id, count(*) as n
  from rowhook.trigger t cross join lateral (select from rowhook.dead_letter d where d.trigger_id = t.id and d.blocks limit $1) d
 where `+blocking+`
 group by t.id`, limit)
	if err != nil {
		return nil, fmt.Errorf("count blocked keys: %w", err)
	}
	for _, f := range found {
		counts[f.ID] = f.N
	}
	if len(found) == 0 {
		return counts, nil
	}
	err = escaping(ctx, tx, func(write func(string) string) (err error) {
		s.Blocked, err = pg.Collect[BlockedKey](ctx, tx, `
with longest as materialized (
  select d.id, d.trigger_id, d.lane, d.seq, d.key, d.died_at
    from rowhook.trigger t cross join lateral (
      select id, trigger_id, lane, seq, key, died_at from rowhook.dead_letter d where d.trigger_id = t.id and d.blocks limit $1) d
   where `+blocking+`
   order by d.died_at, d.id limit $2)
select t.name as trigger, coalesce(`+write("b.key")+`, '') as key, b.died_at as since, b.id::text as event_id, w.waiting, w.n = $3 as more,
       'to send it again and go on: rowhook redeliver ' || b.id || '; to go on without it: rowhook discard ' || b.id as remedy
  from longest b
  join rowhook.trigger t on t.id = b.trigger_id
 cross join lateral (
   select count(*) as n, count(*) filter (where e.key = b.key) as waiting
     from (select q.key from rowhook.event_log q where q.trigger_id = b.trigger_id and q.lane = b.lane and q.seq > b.seq order by q.seq limit $3) e) w
 order by b.died_at, b.id`, limit, blockedMost, blockedReads)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list blocked keys: %w", err)
	}
	for i := range s.Blocked {
		if t, err := ts.named(s.Blocked[i].Trigger); err == nil {
			s.Blocked[i].Key = t.showKey(s.Blocked[i].Key)
		}
	}
	return counts, nil
}
