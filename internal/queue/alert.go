package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/alert"
	"github.com/rowhook/rowhook/internal/pg"
)

// AlertTurn is a look after the alerts. It is the turn of one dispatcher at a time.
type AlertTurn struct {
	Now  time.Time // by the server's clock
	Last time.Time // when somebody last looked; zero: nobody has
}

// TakeAlertTurn makes it the turn of an instance. It is that of the instance whose turn it was last,
// until it is gone or has not looked for the time idle. It returns nil if it is the turn of another
// one. The row that it writes is locked until the transaction ends.
func TakeAlertTurn(ctx context.Context, tx pgx.Tx, instance int32, idle time.Duration) (*AlertTurn, error) {
	var t AlertTurn
	var last *time.Time
	err := tx.QueryRow(ctx, `
with was as materialized (select looked_at from rowhook.alerter)
insert into rowhook.alerter as a (instance_id, looked_at) values ($1, statement_timestamp())
on conflict (one) do update set instance_id = excluded.instance_id, looked_at = excluded.looked_at
 where a.instance_id = $1 or a.looked_at < statement_timestamp() - $2::interval
    or not exists (select from rowhook.instance i where i.id = a.instance_id)
returning looked_at, (select looked_at from was)`, instance, idle).Scan(&t.Now, &last)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("take the turn to look after alerts: %w", err)
	}
	if last != nil {
		t.Last = *last
	}
	return &t, nil
}

// heartbeatKind marks the row of a heartbeat that fails, in rowhook.alert.kind.
const heartbeatKind = "heartbeat"

// ReadAlerts returns what was done about troubles so far.
func ReadAlerts(ctx context.Context, db pg.Queryer) ([]alert.State, error) {
	rows, err := db.Query(ctx, `
select destination, kind, subject, active, begun_at, ended_at, facts::text, told, told_at, paired_at, again, pending, attempts, next_at, coalesce(error, '')
  from rowhook.alert where kind <> $1`, heartbeatKind)
	if err != nil {
		return nil, fmt.Errorf("read the alerts: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (s alert.State, err error) {
		var facts string
		var ended, told, paired, next *time.Time
		err = row.Scan(&s.Destination, &s.Kind, &s.Subject, &s.Active, &s.BegunAt, &ended, &facts, &s.Told, &told, &paired, &s.Again, &s.Pending,
			&s.Attempts, &next, &s.Error)
		if err != nil {
			return s, err
		}
		for _, at := range []struct {
			from *time.Time
			to   *time.Time
		}{{&s.BegunAt, &s.BegunAt}, {ended, &s.EndedAt}, {told, &s.ToldAt}, {paired, &s.PairAt}, {next, &s.NextAt}} {
			if at.from != nil {
				*at.to = at.from.UTC()
			}
		}
		return s, json.Unmarshal([]byte(facts), &s.Facts)
	})
	if err != nil {
		return nil, fmt.Errorf("read the alerts: %w", err)
	}
	return all, nil
}

// WriteAlerts writes and deletes states. endpoints are the destinations for people.
func WriteAlerts(ctx context.Context, db pg.Queryer, endpoints map[string]string, changed, gone []alert.State) error {
	var b pgx.Batch
	for i := range gone {
		s := &gone[i]
		b.Queue("delete from rowhook.alert where destination = $1 and kind = $2 and subject = $3", s.Destination, string(s.Kind), s.Subject)
	}
	for i := range changed {
		s := &changed[i]
		facts, err := json.Marshal(s.Facts)
		if err != nil {
			return fmt.Errorf("encode an alert: %w", err)
		}
		b.Queue(`
insert into rowhook.alert as a (destination, kind, subject, endpoint, active, begun_at, ended_at, facts, told, told_at, paired_at, again, pending, attempts, next_at, error)
values ($1, $2, $3, $4, $5, $6, $7, $8::text::jsonb, $9, $10, $11, $12, $13, $14, $15, nullif($16, ''))
on conflict (destination, kind, subject) do update
   set endpoint = excluded.endpoint, active = excluded.active, begun_at = excluded.begun_at, ended_at = excluded.ended_at, facts = excluded.facts,
       told = excluded.told, told_at = excluded.told_at, paired_at = excluded.paired_at, again = excluded.again, pending = excluded.pending,
       attempts = excluded.attempts, next_at = excluded.next_at, error = excluded.error`,
			s.Destination, string(s.Kind), s.Subject, endpoints[s.Destination], s.Active, s.BegunAt, orNull(s.EndedAt), storable(string(facts)),
			string(s.Told), orNull(s.ToldAt), orNull(s.PairAt), s.Again, string(s.Pending), s.Attempts, orNull(s.NextAt), storable(s.Error))
	}
	return runBatch(ctx, db, &b, "write the alerts")
}

// FinishAlert records how an attempt at a message ended. It changes a row only if nobody has made a
// later attempt.
func FinishAlert(ctx context.Context, db pg.Queryer, after []alert.State, attempted *alert.Message) error {
	var b pgx.Batch
	for i := range after {
		s, was := &after[i], &attempted.States[i]
		b.Queue(`
update rowhook.alert set told = $4, told_at = $5, again = $6, pending = $7, attempts = $8, next_at = $9, error = nullif($10, '')
 where destination = $1 and kind = $2 and subject = $3 and pending = $11 and attempts = $12`,
			s.Destination, string(s.Kind), s.Subject, string(s.Told), orNull(s.ToldAt), s.Again, string(s.Pending), s.Attempts, orNull(s.NextAt), storable(s.Error),
			string(was.Pending), was.Attempts)
	}
	return runBatch(ctx, db, &b, "record that an alert was sent")
}

// RecordHeartbeat records why a heartbeat can't be called. reason is "" if it can.
func RecordHeartbeat(ctx context.Context, db pg.Queryer, destination, endpoint, reason string) error {
	sql := "delete from rowhook.alert where destination = $1 and kind = $2 and $3::text <> '' and $4::text = ''"
	if reason != "" {
		sql = `
insert into rowhook.alert as a (destination, kind, subject, endpoint, active, begun_at, facts, told, again, pending, attempts, error)
values ($1, $2, '', $3, true, statement_timestamp(), '{}', '', 0, '', 1, $4)
on conflict (destination, kind, subject) do update set attempts = a.attempts + 1, error = excluded.error`
	}
	return execute(ctx, db, "record how a heartbeat went", sql, destination, heartbeatKind, endpoint, storable(reason))
}

// ForgetHeartbeats deletes what was recorded of heartbeats that are called no more.
func ForgetHeartbeats(ctx context.Context, db pg.Queryer, called []string) error {
	return execute(ctx, db, "forget heartbeats", "delete from rowhook.alert where kind = $1 and destination <> all ($2)", heartbeatKind, called)
}

func runBatch(ctx context.Context, db pg.Queryer, b *pgx.Batch, what string) error {
	if b.Len() == 0 {
		return nil
	}
	if err := db.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func orNull(at time.Time) *time.Time {
	if at.IsZero() {
		return nil
	}
	return &at
}

// storable returns text that a column can hold.
func storable(s string) string { return strings.ReplaceAll(strings.ToValidUTF8(s, "?"), "\x00", "?") }

// FailingEndpoint is a row of rowhook.health.
type FailingEndpoint struct {
	Trigger  int32   // rowhook.trigger.id; 0: a host
	Target   string  // of a host: scheme://host:port
	Triggers []int32 // whose events wait
	Endpoint string
	Since    time.Time
	Reason   string
	Probes   int64
	Answered time.Time // since when it answers again; zero: it does not
	Webhook  string    // a digest of the trigger's webhook; "": a host
}

// Unwatched says of triggers whose endpoint failed with a webhook, given by its digest, why their
// breaker has begun anew. A trigger that is as it was is not in it.
func Unwatched(ctx context.Context, db pg.Queryer, webhooks map[string]string) (map[string]string, error) {
	why := map[string]string{}
	if len(webhooks) == 0 {
		return why, nil
	}
	rows, err := db.Query(ctx, `
select w.name, case when t.id is null then 'its trigger was removed' when t.spec->>'breaker' = 'off' then 'it has breaker: off now' else 'it has another webhook now' end
  from unnest($1::text[], $2::text[]) as w (name, webhook)
  left join rowhook.trigger t on t.name = w.name and t.removed_at is null
 where t.id is null or t.spec->>'breaker' = 'off' or md5((t.spec->'webhook')::text || coalesce((t.spec->'nats')::text, '')) <> w.webhook`,
		slices.Collect(maps.Keys(webhooks)), slices.Collect(maps.Values(webhooks)))
	var name, reason string
	if err == nil {
		_, err = pgx.ForEachRow(rows, []any{&name, &reason}, func() error {
			why[name] = reason
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("look for triggers whose breaker began anew: %w", err)
	}
	return why, nil
}

// ReadFailing returns the endpoints that fail, or have not recovered quite yet.
func ReadFailing(ctx context.Context, db pg.Queryer) ([]FailingEndpoint, error) {
	rows, err := db.Query(ctx, "select coalesce(trigger_id, 0), target, triggers, endpoint, since, reason, probes, case when state = 'probing' then changed_at end, coalesce(webhook, '') from rowhook.health h where not ("+VoidHealth()+")")
	if err != nil {
		return nil, fmt.Errorf("read the endpoints that fail: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (f FailingEndpoint, err error) {
		var answered *time.Time
		err = row.Scan(&f.Trigger, &f.Target, &f.Triggers, &f.Endpoint, &f.Since, &f.Reason, &f.Probes, &answered, &f.Webhook)
		if answered != nil {
			f.Answered = answered.UTC()
		}
		return f, err
	})
	if err != nil {
		return nil, fmt.Errorf("read the endpoints that fail: %w", err)
	}
	return all, nil
}

// mostCounted bounds what is counted for an alert.
const mostCounted = 1_000

// Deaths are dead letters of a trigger that came one after another.
type Deaths struct {
	Trigger int32
	Since   time.Time // the first one
	Count   int64     // at most mostCounted
	Reason  string    // of the first one
	Newest  time.Time
}

// ReadDeaths returns the triggers with dead letters from the time after on, of the triggers whose
// time is given. Dead letters that a removal of a trigger or a repair has made do not count.
func ReadDeaths(ctx context.Context, db pg.Queryer, triggers []int32, after []time.Time) ([]Deaths, error) {
	rows, err := db.Query(ctx, `
select w.trigger_id, d.since, d.n, d.reason,
       (select l.died_at from rowhook.dead_letter l where l.trigger_id = w.trigger_id order by l.died_at desc limit 1)
  from unnest($1::integer[], $2::timestamptz[]) as w (trigger_id, after)
 cross join lateral (
   select min(e.died_at) as since, count(*) as n, (array_agg(e.reason order by e.died_at))[1] as reason
     from (select died_at, reason from rowhook.dead_letter l
            where l.trigger_id = w.trigger_id and l.died_at >= w.after and l.reason not like 'trigger %'
            order by l.died_at limit $3) as e) as d
 where d.n > 0`, triggers, after, mostCounted)
	if err != nil {
		return nil, fmt.Errorf("look for dead letters: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Deaths])
	if err != nil {
		return nil, fmt.Errorf("look for dead letters: %w", err)
	}
	return all, nil
}

// DeadLeft are the dead letters that a trigger has, whenever they died.
type DeadLeft struct {
	Trigger int32
	Count   int64     // at most mostCounted
	Newest  time.Time // when the last one died
}

// ReadDeadLeft returns those of some triggers that have any. Dead letters that a removal of a trigger
// or a repair has made do not count.
func ReadDeadLeft(ctx context.Context, db pg.Queryer, triggers []int32) ([]DeadLeft, error) {
	rows, err := db.Query(ctx, `
select w.trigger_id, d.n, d.newest
  from unnest($1::integer[]) as w (trigger_id)
 cross join lateral (
   select count(*) as n, max(e.died_at) as newest
     from (select died_at from rowhook.dead_letter l
            where l.trigger_id = w.trigger_id and l.reason not like 'trigger %'
            order by l.died_at desc limit $2) as e) as d
 where d.n > 0`, triggers, mostCounted)
	if err != nil {
		return nil, fmt.Errorf("count the dead letters that are left: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[DeadLeft])
	if err != nil {
		return nil, fmt.Errorf("count the dead letters that are left: %w", err)
	}
	return all, nil
}

// Overdue is a backlog of a trigger.
type Overdue struct {
	Trigger int32
	Since   time.Time // when its oldest event was due
	Waiting int64     // events that are due, at most mostCounted
}

// ReadOverdue returns the triggers with events that have been due for longer than a time. Events
// with a lane count by the time at which they are due, not by that to which they are parked.
func ReadOverdue(ctx context.Context, db pg.Queryer, triggers []int32, longer time.Duration) ([]Overdue, error) {
	rows, err := db.Query(ctx, `
select w.trigger_id, o.since, n.waiting
  from unnest($1::integer[]) as w (trigger_id)
 cross join lateral (
   select least((select e.due_at from rowhook.event_log e where e.trigger_id = w.trigger_id order by e.due_at limit 1),
                (select e.due_at - $3::interval from rowhook.event_log e
                  where e.trigger_id = w.trigger_id and e.due_at >= `+ParkedFrom+` order by e.due_at limit 1)) as since) as o
 cross join lateral (
   select (select count(*) from (select from rowhook.event_log e where e.trigger_id = w.trigger_id and e.due_at <= statement_timestamp() limit $4) as e)
        + (select count(*) from (select from rowhook.event_log e where e.trigger_id = w.trigger_id
             and e.due_at between `+ParkedFrom+` and statement_timestamp() + $3::interval limit $4) as e) as waiting) as n
 where o.since < statement_timestamp() - $2::interval`, triggers, longer, Parked, mostCounted)
	if err != nil {
		return nil, fmt.Errorf("look for a backlog: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Overdue])
	if err != nil {
		return nil, fmt.Errorf("look for a backlog: %w", err)
	}
	return all, nil
}

// HoldingDeadLetter is a dead letter that holds the key of the event of its trigger that has waited longest.
type HoldingDeadLetter struct {
	Trigger int32
	ID      string
	Key     string
	Since   time.Time // when it became a dead letter
}

// ReadHoldingDeadLetters returns those of some triggers, for each at most one.
func ReadHoldingDeadLetters(ctx context.Context, db pg.Queryer, triggers []int32) ([]HoldingDeadLetter, error) {
	rows, err := db.Query(ctx, `
select w.trigger_id, d.id::text, coalesce(d.key, ''), d.died_at
  from unnest($1::integer[]) as w (trigger_id)
 cross join lateral (
   select e.key, e.lane, e.seq from rowhook.event_log e
    where e.trigger_id = w.trigger_id and e.due_at >= `+ParkedFrom+` order by e.due_at limit 1) as e
 cross join lateral (
   select l.id, l.key, l.died_at from rowhook.dead_letter l
    where l.trigger_id = w.trigger_id and l.lane = e.lane and l.blocks and l.key = e.key and l.seq < e.seq order by l.seq limit 1) as d
 where exists (select from rowhook.lane n where n.trigger_id = w.trigger_id)`, triggers)
	if err != nil {
		return nil, fmt.Errorf("look for dead letters that hold keys: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[HoldingDeadLetter])
	if err != nil {
		return nil, fmt.Errorf("look for dead letters that hold keys: %w", err)
	}
	return all, nil
}
