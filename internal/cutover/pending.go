package cutover

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/queue"
)

// Backlog is what Hasura has recorded and not delivered, or given up.
type Backlog struct {
	Waiting  int64      `json:"waiting"`   // due
	Retrying int64      `json:"retrying"`  // due later
	InFlight int64      `json:"in_flight"` // being sent; after 30 minutes Hasura sends it again
	Strange  int64      `json:"strange"`   // with an id that is no UUID, so that Rowhook can't take it over
	NextAt   *time.Time `json:"next_at,omitempty"`
}

func (b *Backlog) all() int64 { return b.Waiting + b.Retrying + b.InFlight }

const isUUID = `l.id ~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'`

// owed is SQL that is true for what is not delivered and not given up. Hasura archives events when
// their trigger is deleted from its metadata, and sends them no more. Rowhook owes those that it had
// not delivered when the cut-over began, and those since.
func owed(archived bool) string {
	sql := "l.trigger_name = $1 and not l.delivered and not l.error"
	if archived {
		return sql + " and l.archived and l.created_at at time zone (select reset_val from pg_settings where name = 'TimeZone') >= $2"
	}
	return sql + " and not l.archived"
}

// backlog looks what Hasura still has. since: only what it has archived since then.
func (s *subject) backlog(ctx context.Context, db pgx.Tx, since *time.Time) (b Backlog, err error) {
	args := []any{s.Name}
	if since != nil {
		args = append(args, *since)
	}
	err = db.QueryRow(ctx, `
select count(*) filter (where not `+s.log.inFlight()+` and (l.next_retry_at is null or l.next_retry_at <= now())),
       count(*) filter (where not `+s.log.inFlight()+` and l.next_retry_at > now()),
       count(*) filter (where `+s.log.inFlight()+`),
       count(*) filter (where not `+isUUID+`),
       min(l.next_retry_at) filter (where l.next_retry_at > now()) at time zone current_setting('TimeZone')
  from hdb_catalog.event_log l where `+owed(since != nil), args...).Scan(&b.Waiting, &b.Retrying, &b.InFlight, &b.Strange, &b.NextAt)
	if err != nil {
		return b, fmt.Errorf("look at Hasura's event log: %w", err)
	}
	return b, nil
}

// oldest returns when the oldest change was made that Hasura has not delivered, or before, if that is
// earlier.
func (s *subject) oldest(ctx context.Context, tx pgx.Tx, before time.Time) (at time.Time, err error) {
	err = tx.QueryRow(ctx, "select least($2::timestamptz, min(l.created_at) at time zone (select reset_val from pg_settings where name = 'TimeZone')) from hdb_catalog.event_log l where "+owed(false),
		s.Name, before).Scan(&at)
	if err != nil {
		return at, fmt.Errorf("look at Hasura's event log: %w", err)
	}
	return at, nil
}

// takeOverAtOnce is how many events are moved in one transaction.
const takeOverAtOnce = 1000

// takeOver moves events from Hasura's queue into that of Rowhook: under their ids, with their data,
// the time of their change, the attempts that were made, and the time of the next one. In Hasura's
// log they are given up and archived, in the same transaction. What Hasura is sending stays there.
// takeOver returns how many it has moved.
func (s *subject) takeOver(ctx context.Context, tx pgx.Tx, since *time.Time) (n int64, err error) {
	args := []any{s.Name, since, s.ID, takeOverAtOnce}
	where := owed(since != nil)
	if since == nil {
		where += " and $2::timestamptz is null"
	}
	// Hasura claims by FOR UPDATE SKIP LOCKED, and looks at archived again when it has got the row.
	err = tx.QueryRow(ctx, `
with mine as (
  select l.id from hdb_catalog.event_log l
   where `+where+` and not `+s.log.inFlight()+` and `+isUUID+`
   order by l.created_at limit $4 for update skip locked),
taken as (
  update hdb_catalog.event_log l set error = true, archived = true, next_retry_at = null, locked = `+s.log.unlocked()+`
    from mine where l.id = mine.id
  returning l.id, l.payload, l.tries, l.created_at, l.next_retry_at),
events as (
  select l.id::uuid as id, l.tries, l.payload,
         coalesce(l.created_at at time zone (select reset_val from pg_settings where name = 'TimeZone'), clock_timestamp()) as created_at,
         case l.payload ->> 'op' when 'INSERT' then 'I' when 'UPDATE' then 'U' when 'DELETE' then 'D' else 'M' end::"char" as op,
         (select h.next_retry_at from hdb_catalog.event_log h where h.id = l.id) as next_retry_at
    from taken l),
moved as (
  insert into rowhook.event_log (id, created_at, due_at, trigger_id, tries, op, old, new, session, trace)
  select id, created_at, greatest(clock_timestamp(), next_retry_at at time zone (select reset_val from pg_settings where name = 'TimeZone')), $3, tries, op,
         nullif(payload #> '{data,old}', 'null')::json, nullif(payload #> '{data,new}', 'null')::json,
         nullif(payload -> 'session_variables', 'null')::json, nullif(payload -> 'trace_context', 'null')::json
    from events
  on conflict (id) do nothing
  returning 1)
select (select count(*) from taken)`, args...).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("take over events of Hasura: %w", err)
	}
	if n > 0 {
		_, err = tx.Exec(ctx, "select pg_notify($1, $2) where pg_notification_queue_usage() < $3", queue.Channel, fmt.Sprint(s.ID), queue.MuteFrom)
		if err != nil {
			return 0, fmt.Errorf("ring the doorbell: %w", err)
		}
	}
	return n, nil
}

// unlocked is the value of the column locked of an event that nobody sends.
func (l *logTable) unlocked() string {
	if l.Locked == "boolean" {
		return "false"
	}
	return "null"
}

// alsoHasuras is SQL that is true for what Hasura has recorded, too. Manual events and those of TRUNCATE
// are Rowhook's own, and so is what somebody has it send again.
const alsoHasuras = `trigger_id = $1 and op in ('I', 'U', 'D') and renewed_at is null`

// discard deletes what Rowhook has recorded of changes and not delivered. It returns errInFlight if Rowhook is sending one.
func (s *subject) discard(ctx context.Context, tx pgx.Tx) (n int64, err error) {
	var left bool
	err = tx.QueryRow(ctx, `
with gone as (delete from rowhook.event_log where `+alsoHasuras+` and (claimed_by is null or due_at <= statement_timestamp()) returning 1)
select count(*) from gone`, s.ID).Scan(&n)
	if err == nil {
		err = tx.QueryRow(ctx, "select exists (select from rowhook.event_log where "+alsoHasuras+")", s.ID).Scan(&left)
	}
	switch {
	case err != nil:
		return 0, fmt.Errorf("discard the events that are Hasura's: %w", err)
	case left:
		return 0, errInFlight
	}
	return n, nil
}

// discardAtOnce is how many events are discarded in one statement, before the table is locked.
const discardAtOnce = 5000

// thin discards in small parts what Rowhook has recorded so far, so that little is left for the
// moment in which the table is locked. While the SQL triggers of Hasura are those that were found at
// the beginning, all that Rowhook has recorded is Hasura's.
func (s *subject) thin(ctx context.Context, tx pgx.Tx) (n int64, err error) {
	var oids []uint32
	for _, t := range s.triggers {
		oids = append(oids, t.OID)
	}
	err = tx.QueryRow(ctx, `
with gone as (
  delete from rowhook.event_log e
   using (select id from rowhook.event_log where `+alsoHasuras+` and claimed_by is null limit $3 for update skip locked) as m
   where e.id = m.id and (select count(*) from pg_trigger t where t.oid = any($2) and t.tgenabled <> 'D') = $4
  returning 1)
select count(*) from gone`, s.ID, oids, discardAtOnce, len(oids)).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("discard the events that are Hasura's: %w", err)
	}
	return n, nil
}

// giveUp archives what Hasura has recorded of changes since Rowhook delivers them, so that it does not
// deliver them, too. It returns how many it is already sending.
func (s *subject) giveUp(ctx context.Context, tx pgx.Tx) (n, sending int64, err error) {
	err = tx.QueryRow(ctx, `
with mine as (
  select l.id from hdb_catalog.event_log l
   where `+owed(false)+` and l.payload ->> 'op' <> 'MANUAL' and not `+s.log.inFlight()+` for update skip locked),
gone as (
  update hdb_catalog.event_log l set error = true, archived = true, next_retry_at = null from mine where l.id = mine.id returning 1)
select (select count(*) from gone), (select count(*) from hdb_catalog.event_log l where `+owed(false)+` and l.payload ->> 'op' <> 'MANUAL') - (select count(*) from gone)`, s.Name).Scan(&n, &sending)
	if err != nil {
		return 0, 0, fmt.Errorf("give up the events that Rowhook delivers: %w", err)
	}
	return n, sending, nil
}
