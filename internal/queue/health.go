package queue

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/pg"
)

// Health is a row of rowhook.health: an endpoint that fails, or has failed a moment ago. There is no
// row for one that is ok.
type Health struct {
	Target  string // TargetOf a trigger, or the host as scheme://host:port
	Probing bool   // a probe has succeeded, and work grows back; false: it fails
	// ProbeIn is when the next probe may be made, from the answer on; 0: now. Only the instance that
	// StartProbe names makes it.
	ProbeIn time.Duration
	Calm    time.Duration // how long it has been in this state
	Probes  int           // how many were made
}

// TargetOf names a trigger in Health.Target.
func TargetOf(trigger int32) string { return fmt.Sprintf("trigger %d", trigger) }

// VoidHealth returns an SQL condition: a row h of rowhook.health means nothing any more. Its trigger is
// gone, has another webhook by now or wants no breaker. Or nobody has probed for an hour, since no
// event is due or all triggers are paused. Or it is a host whose triggers were all changed or removed
// since, and nobody probes it any more: they lead elsewhere.
func VoidHealth() string {
	return `
       h.probe_at < statement_timestamp() - interval '1 hour'
    or h.trigger_id is null and h.state = 'failing' and h.probe_at < statement_timestamp() - interval '10 seconds' and not exists (
         select from rowhook.trigger t
          where t.id = any (h.triggers) and t.removed_at is null and t.applied_at <= h.changed_at)
    or h.trigger_id is not null and not exists (
         select from rowhook.trigger t
          where t.id = h.trigger_id and t.removed_at is null and t.spec->>'breaker' is distinct from 'off'
            and md5((t.spec->'webhook')::text || coalesce((t.spec->'nats')::text, '')) = h.webhook)`
}

func readHealthSQL() string {
	return `
with void as (
  delete from rowhook.health h where ` + VoidHealth() + ` returning target)
select h.target, h.state = 'probing',
       case when h.prober is not null and not exists (select from rowhook.instance i where i.id = h.prober) then interval '0'
            else greatest(h.probe_at - statement_timestamp(), interval '0') end,
       greatest(statement_timestamp() - h.changed_at, interval '0'), h.probes
  from rowhook.health h
 where h.target not in (select target from void)`
}

// ReadHealth returns the endpoints that are not ok. It deletes the rows that mean nothing any more.
func ReadHealth(ctx context.Context, db pg.Queryer) ([]Health, error) {
	rows, err := db.Query(ctx, readHealthSQL())
	if err != nil {
		return nil, fmt.Errorf("read the health of endpoints: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Health])
	if err != nil {
		return nil, fmt.Errorf("read the health of endpoints: %w", err)
	}
	return all, nil
}

// Failure says that an endpoint has begun to fail.
type Failure struct {
	Target   string
	Trigger  int32   // 0: the target is a host
	Triggers []int32 // whose events wait
	Endpoint string  // for people
	Reason   string  // of the last failure
	For      time.Duration
	ProbeIn  time.Duration
}

// BeginFailing records that an endpoint fails. begins is false if that was known already: it has
// failed before, and has not recovered since.
func BeginFailing(ctx context.Context, db pg.Queryer, instance int32, f *Failure) (begins bool, err error) {
	err = db.QueryRow(ctx, `
with written as (
  insert into rowhook.health as h (target, trigger_id, triggers, endpoint, webhook, state, since, reason, probe_at)
  values ($1, nullif($2, 0), $3, $4, (select md5((t.spec->'webhook')::text || coalesce((t.spec->'nats')::text, '')) from rowhook.trigger t where t.id = $2), 'failing',
          statement_timestamp() - $5::interval, $6, statement_timestamp() + $7::interval)
  on conflict (target) do update
     set state = 'failing', changed_at = statement_timestamp(), reason = excluded.reason, probe_at = excluded.probe_at, prober = null, triggers = excluded.triggers
   where h.state = 'probing' or h.prober = $8
  returning h.xmax = 0)
select coalesce((select * from written), false)`, f.Target, f.Trigger, f.Triggers, f.Endpoint, f.For, f.Reason, f.ProbeIn, instance).Scan(&begins)
	if err != nil {
		return false, fmt.Errorf("record that an endpoint fails: %w", err)
	}
	return begins, nil
}

// Probe is a probe that this instance makes.
type Probe struct {
	Target   string
	Triggers []int32       // whose events wait
	Lease    time.Duration // after which another instance makes the next probe
}

// StartProbe reports whether the instance is to make the next probe of an endpoint: no other one
// does, and its time has come. failing is how long the endpoint has been failing.
func StartProbe(ctx context.Context, db pg.Queryer, instance int32, p *Probe) (won bool, failing time.Duration, err error) {
	rows, err := db.Query(ctx, `
update rowhook.health h
   set prober = $2, probe_at = statement_timestamp() + $3::interval, probes = probes + 1, triggers = $4
 where h.target = $1 and h.state = 'failing' and exists (select from rowhook.instance i where i.id = $2)
   and (h.probe_at <= statement_timestamp() or h.prober is not null and not exists (select from rowhook.instance i where i.id = h.prober))
returning greatest(statement_timestamp() - h.since, interval '0')`, p.Target, instance, p.Lease, p.Triggers)
	if err == nil {
		_, err = pgx.ForEachRow(rows, []any{&failing}, func() error {
			won = true
			return nil
		})
	}
	if err != nil {
		return false, 0, fmt.Errorf("begin to probe an endpoint: %w", err)
	}
	return won, failing, nil
}

// ProbeFailed records that the probe of this instance has failed, or was not made. reason is "" if
// nothing is known.
func ProbeFailed(ctx context.Context, db pg.Queryer, instance int32, target, reason string, next time.Duration) error {
	return execute(ctx, db, "record that the probe of an endpoint has failed", `
update rowhook.health set prober = null, probe_at = statement_timestamp() + $3::interval, reason = coalesce(nullif($4, ''), reason)
 where target = $1 and prober = $2 and state = 'failing'`, target, instance, next, reason)
}

// ProbeAnswered records that the probe of this instance has succeeded, so that work grows back.
func ProbeAnswered(ctx context.Context, db pg.Queryer, instance int32, target string) error {
	return execute(ctx, db, "record that an endpoint answers again", `
update rowhook.health set state = 'probing', changed_at = statement_timestamp(), prober = null
 where target = $1 and prober = $2 and state = 'failing'`, target, instance)
}

// Recovery says that an endpoint is ok again.
type Recovery struct {
	Endpoint string
	Triggers []string      // names of those whose events waited
	Failed   time.Duration // from the first failure to the probe that succeeded
}

// Recover ends the record of an endpoint that has not failed again since a probe succeeded, calm
// ago. It returns nil if there is none, or another instance was first.
func Recover(ctx context.Context, db pg.Queryer, target string, calm time.Duration) (*Recovery, error) {
	rows, err := db.Query(ctx, `
with ended as (
  delete from rowhook.health where target = $1 and state = 'probing' and changed_at <= statement_timestamp() - $2::interval
  returning endpoint, triggers, changed_at - since as failed)
select endpoint, array(select t.name from rowhook.trigger t where t.id = any (triggers) order by 1), failed from ended`, target, calm)
	if err != nil {
		return nil, fmt.Errorf("record that an endpoint has recovered: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToAddrOfStructByPos[Recovery])
	if err != nil {
		return nil, fmt.Errorf("record that an endpoint has recovered: %w", err)
	}
	if len(all) == 0 {
		return nil, nil
	}
	return all[0], nil
}

// HealthPayload is the notification by which instances tell each other that rowhook.health has
// changed.
const HealthPayload = "health"
