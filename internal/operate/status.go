package operate

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

// Status is the state of the whole installation.
type Status struct {
	Now      time.Time       `json:"now"` // by the server's clock
	Schema   SchemaVersion   `json:"schema"`
	Triggers []TriggerStatus `json:"triggers"` // by name; removed ones only while they have events
	// AllPaused is set after a pause of all triggers: triggers that a later apply adds start
	// paused.
	AllPaused *queue.Pause `json:"all_paused"`
	// Blocked lists keys that dead letters hold, at most 20, those first that have waited longest.
	Blocked   []BlockedKey     `json:"blocked"`
	Instances []Instance       `json:"instances"` // registered dispatchers, oldest first
	Standby   []queue.Standby  `json:"standby"`   // processes that serve when those of Instances go, where there are several sources
	Doorbell  Doorbell         `json:"doorbell"`
	Rates     Rates            `json:"rates"` // of all triggers, within the last minute
	Queue     Queue            `json:"queue"`
	Vacuum    *queue.Holder    `json:"vacuum_held_back_by"` // null: nothing holds it back for long
	History   []History        `json:"history"`
	Retention json.RawMessage  `json:"retention"` // as applied
	Backfills []BackfillStatus `json:"backfills"` // unfinished ones
	Replays   []ReplayStatus   `json:"replays"`   // likewise
	Alerts    []OpenAlert      `json:"alerts"`    // what receivers of alerts are told of at present
	Warnings  []Warning        `json:"warnings"`  // problems that need a person, see readWarnings

	daysAhead int
	known     triggers
}

// SchemaVersion is the version of the schema rowhook, and the newest version that this program
// knows.
type SchemaVersion struct {
	Database int32 `json:"database"`
	Program  int32 `json:"program"`
}

// TriggerStatus is the state of a trigger.
type TriggerStatus struct {
	Name    string `json:"name"`
	Table   string `json:"table"`             // schema.table, or the entries of tables
	Several bool   `json:"several,omitempty"` // it watches several tables
	// Tables are those of a trigger that watches several, after ReadTables.
	Tables  []sqlschema.WatchedTable `json:"tables,omitempty"`
	Paused  bool                     `json:"paused"`
	Removed bool                     `json:"removed"`
	// Pause says since when, by whom and why the trigger is paused, if that is known.
	Pause *queue.Pause `json:"pause,omitempty"`

	Waiting  int64 `json:"waiting"`
	InFlight int64 `json:"in_flight"`
	Retrying int64 `json:"retrying"`
	Dead     int64 `json:"dead"`
	// BlockedKeys is the number of keys that dead letters hold. It stops at some thousands, and is
	// then in Estimated.
	BlockedKeys int64 `json:"blocked_keys"`
	// Estimated names those of the five figures above that come from a sample. Counting them would
	// take too long.
	Estimated []string `json:"estimated"`

	OldestAt *time.Time `json:"oldest_at"` // when the oldest unsettled event was recorded, or sent again by hand; null: there is none

	// The figures of the last hour are what the dispatchers have recorded, some seconds late.
	DeliveredLastHour int64    `json:"delivered_last_hour"` // events
	FailedLastHour    int64    `json:"failed_last_hour"`    // attempts
	DiedLastHour      int64    `json:"died_last_hour"`      // events
	P50MS             *float64 `json:"p50_ms"`              // from the change to the end of the delivery; null: none was delivered
	P95MS             *float64 `json:"p95_ms"`

	// OldestInFlightAt is the time of the oldest claim in flight. If it is long ago, the receiver
	// hangs.
	OldestInFlightAt *time.Time `json:"oldest_in_flight_at"`

	LastErrorAt *time.Time `json:"last_error_at"`
	LastError   string     `json:"last_error,omitempty"`
	// Failing says that no event is known to have been delivered since that error.
	Failing bool `json:"failing"`

	// Health is set while the endpoint fails, so that events wait. null: it is ok.
	Health *EndpointHealth `json:"health"`
	// Hanging are the attempts in flight for more than a second, as each dispatcher has recorded
	// them; the first one hangs longest.
	Hanging []Hangs `json:"hanging"`

	// FailingSince is as in Trigger.
	FailingSince *time.Time `json:"failing_since"`
}

// Instance is a registered dispatcher.
type Instance struct {
	ID        int32     `json:"id"`
	Name      string    `json:"name"`
	Version   string    `json:"version"`
	StartedAt time.Time `json:"started_at"`
	Listens   bool      `json:"listens"` // false: it polls, and nobody notices its death
	Alive     bool      `json:"alive"`
}

// Doorbell says whether writers notify.
type Doorbell struct {
	State      string `json:"state"`                 // ringing: writers notify; silent: they don't, because a dispatcher is awake
	InstanceID int32  `json:"instance_id,omitempty"` // the dispatcher that silenced it; 0: it never rang
}

// Queue describes the table rowhook.event_log.
type Queue struct {
	Bytes          int64      `json:"bytes"`       // with indexes
	LiveTuples     int64      `json:"live_tuples"` // by the statistics
	DeadTuples     int64      `json:"dead_tuples"` // by the statistics
	LastVacuumedAt *time.Time `json:"last_vacuumed_at"`
}

// History is a partitioned table of settled events or attempts.
type History struct {
	Table      string      `json:"table"` // event_archive or invocation_log
	Bytes      int64       `json:"bytes"`
	Partitions []Partition `json:"partitions"` // oldest first
}

// Partition is the partition of one day (UTC).
type Partition struct {
	Name  string `json:"name"`
	Day   string `json:"day,omitempty"` // 2026-11-23
	Rows  *int64 `json:"rows"`          // estimate of the last analyze; null: never analyzed
	Bytes int64  `json:"bytes"`
}

// ReadStatus counts up to countEach rows of each trigger and state. All triggers share countMost,
// but each gets countLeast. Higher figures are estimated from a sample of samplePages pages.
const (
	countEach   = 10_000
	countLeast  = 500
	countMost   = 60_000
	samplePages = 600
)

// ReadStatus reads the status. Its time does not depend on the number of events.
func ReadStatus(ctx context.Context, db DB) (*Status, error) {
	s := &Status{Triggers: []TriggerStatus{}, Blocked: []BlockedKey{}, Instances: []Instance{}, Backfills: []BackfillStatus{}, Replays: []ReplayStatus{}, Alerts: []OpenAlert{}, Warnings: []Warning{}}
	err := read(ctx, db, func(tx pgx.Tx) error {
		var kept map[string]any
		if err := tx.QueryRow(ctx, "select clock_timestamp(), (select value from rowhook.setting where name = 'retention')").Scan(&s.Now, &kept); err != nil {
			return fmt.Errorf("read the time and the retention: %w", err)
		}
		trigger.ShowStored(kept)
		var err error
		if s.Retention, err = json.Marshal(kept); err != nil {
			return fmt.Errorf("encode the retention: %w", err)
		}
		if s.Schema.Database, s.Schema.Program, err = sqlschema.Version(ctx, tx.Conn()); err != nil {
			return err
		}
		for _, part := range []func(context.Context, pgx.Tx) error{s.readTriggers, s.readInstances, s.readQueue, s.readHistory, s.readBackfills, s.readReplays} {
			if err := part(ctx, tx); err != nil {
				return err
			}
		}
		if err := s.orWarn(ctx, tx, s.readHolder); err != nil {
			return err
		}
		return s.readWarnings(ctx, tx)
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// ReadTables adds the tables of the triggers that watch several.
func (s *Status) ReadTables(ctx context.Context, db DB) error {
	return read(ctx, db, func(tx pgx.Tx) error {
		for i := range s.Triggers {
			st := &s.Triggers[i]
			if !st.Several || st.Removed {
				continue
			}
			var err error
			if st.Tables, err = sqlschema.FindWatchedTables(ctx, tx, st.Name); err != nil {
				return err
			}
		}
		return nil
	})
}

// counted is the number of a trigger's events by state.
type counted struct {
	ID                       int32
	Waiting, RetryingDue     int64 // due
	InFlight, RetryingFuture int64 // due later
	Dead                     int64
	Oldest                   *time.Time
	Lease                    *time.Time // the earliest end of a lease
}

func (s *Status) readTriggers(ctx context.Context, tx pgx.Tx) error {
	ts, err := readTriggers(ctx, tx)
	if err != nil || len(ts) == 0 {
		return err
	}
	s.known = ts
	limit := int64(min(countEach, max(countLeast, countMost/len(ts))))
	// The index on due_at separates due events from the others, and those of ordered triggers, which
	// are parked, from all others. Leases end in the future, so a backlog of due events does not use
	// up the limit for events in flight.
	recorded := "created_at" // or when it was sent again: a replay of old events is no old backlog
	if ts.renews() {
		recorded = "coalesce(renewed_at, created_at) as created_at"
	}
	counts, err := pg.Collect[counted](ctx, tx, `
select t.id, due.waiting + later.delayed as waiting, due.retrying as retrying_due, later.in_flight, later.retrying as retrying_future, dead.n as dead, least(due.oldest, later.oldest) as oldest, later.lease
  from rowhook.trigger t
 cross join lateral (
   select count(*) filter (where tries = 0) as waiting, count(*) filter (where tries > 0) as retrying, min(created_at) as oldest
     from ((select tries, `+recorded+` from rowhook.event_log e where e.trigger_id = t.id and e.due_at <= statement_timestamp() order by e.due_at limit $1)
           union all
           (select tries, `+recorded+` from rowhook.event_log e where e.trigger_id = t.id
               and e.due_at > `+queue.ParkedFrom+` and e.due_at <= statement_timestamp() + $2::interval order by e.due_at limit $1)) as e) as due
 cross join lateral (
   select count(*) filter (where claimed_by is not null) as in_flight, count(*) filter (where claimed_by is null and tries > 0) as retrying,
          count(*) filter (where claimed_by is null and tries = 0) as delayed, min(created_at) filter (where claimed_by is not null or tries > 0) as oldest,
          min(due_at) filter (where claimed_by is not null) as lease
     from ((select claimed_by, tries, `+recorded+`, due_at from rowhook.event_log e where e.trigger_id = t.id
               and e.due_at > statement_timestamp() and e.due_at < `+queue.ParkedFrom+` order by e.due_at limit $1)
           union all
           (select claimed_by, tries, `+recorded+`, due_at from rowhook.event_log e where e.trigger_id = t.id and e.due_at > statement_timestamp() + $2::interval order by e.due_at limit $1)) as e) as later
 cross join lateral (
   select count(*) as n from (select from rowhook.dead_letter d where d.trigger_id = t.id limit $1) as d) as dead
 order by t.id`, limit, queue.Parked)
	if err != nil {
		return fmt.Errorf("count events: %w", err)
	}
	var inQueue, inDead map[int32]counted
	for _, c := range counts {
		if inQueue == nil && (c.Waiting+c.RetryingDue >= limit || c.InFlight+c.RetryingFuture >= limit) {
			if inQueue, err = sample(ctx, tx, strings.Replace(queueSample, "created_at, ", recorded+", ", 1), "event_log"); err != nil {
				return err
			}
		}
		if inDead == nil && c.Dead >= limit {
			if inDead, err = sample(ctx, tx, deadSample, "dead_letter"); err != nil {
				return err
			}
		}
	}
	recent, err := s.readRecent(ctx, tx)
	if err != nil {
		return err
	}
	pauses, err := queue.ReadPauses(ctx, tx)
	if err != nil {
		return err
	}
	health, err := readHealth(ctx, tx, ts)
	if err != nil {
		return err
	}
	hanging, err := readHanging(ctx, tx)
	if err != nil {
		return err
	}
	paced, err := readPaced(ctx, tx)
	if err != nil {
		return err
	}
	blocked, err := s.readBlocked(ctx, tx, ts, limit)
	if err != nil {
		return err
	}
	s.AllPaused = pauses.All
	for i := range ts {
		j, _ := slices.BinarySearchFunc(counts, ts[i].ID, func(c counted, id int32) int { return int(c.ID - id) })
		st := TriggerStatus{Name: ts[i].Name, Table: ts[i].watched(), Several: ts[i].watches != "", Paused: ts[i].Paused, Removed: ts[i].Removed, Estimated: []string{},
			Health: health[ts[i].ID], Hanging: append([]Hangs{}, hanging[ts[i].Name]...)}
		st.count(counts[j], limit, inQueue[ts[i].ID], inDead[ts[i].ID])
		st.unclaimed()
		st.InFlight, st.Waiting, st.Retrying = notInFlight(paced[ts[i].Name], st.InFlight, st.Waiting, st.Retrying)
		if st.BlockedKeys = blocked[ts[i].ID]; st.BlockedKeys >= limit {
			st.Estimated = append(st.Estimated, "blocked_keys")
		}
		if lease := counts[j].Lease; lease != nil {
			var spec trigger.Spec
			if err := json.Unmarshal([]byte(ts[i].Spec), &spec); err != nil {
				return fmt.Errorf("read the spec of %s: %w", ts[i].Name, err)
			}
			at := lease.Add(-spec.Lease())
			st.OldestInFlightAt = &at
		}
		if st.Removed && st.Waiting+st.InFlight+st.Retrying+st.Dead == 0 {
			continue
		}
		if p, ok := pauses.Triggers[ts[i].ID]; ok && st.Paused {
			st.Pause = &p
		} else if st.Paused {
			st.Pause = pauses.All
		}
		st.recent(recent[ts[i].ID])
		if st.LastErrorAt == nil && st.Dead > 0 && !st.Removed {
			if err := st.lastDeath(ctx, tx, ts[i].ID); err != nil {
				return err
			}
		}
		st.LastError = ts[i].hush(st.LastError)
		st.sinceWhen()
		s.Triggers = append(s.Triggers, st)
	}
	return nil
}

// sinceWhen sets since when it fails where the activity does not say it.
func (st *TriggerStatus) sinceWhen() {
	if st.Failing && st.FailingSince == nil {
		st.FailingSince = st.LastErrorAt // known by its dead letters only
	}
	if h := st.Health; h != nil && h.State == "failing" {
		st.FailingSince = &h.Since // exactly, and also if it is held for its host and has not failed itself
	}
}

// count takes the counted figures below the limit, and the estimates of the samples for the others.
func (st *TriggerStatus) count(c counted, limit int64, queue, dead counted) {
	st.Waiting, st.InFlight, st.Retrying, st.Dead, st.OldestAt = c.Waiting, c.InFlight, c.RetryingDue+c.RetryingFuture, c.Dead, c.Oldest
	if c.Waiting+c.RetryingDue >= limit {
		st.Waiting = max(c.Waiting, queue.Waiting)
		st.Retrying = max(c.RetryingDue, queue.RetryingDue) + c.RetryingFuture
		st.Estimated = append(st.Estimated, "waiting", "retrying")
	}
	if c.InFlight+c.RetryingFuture >= limit {
		st.InFlight = max(c.InFlight, queue.InFlight)
		st.Retrying += max(c.RetryingFuture, queue.RetryingFuture) - c.RetryingFuture
		if !slices.Contains(st.Estimated, "retrying") {
			st.Estimated = append(st.Estimated, "retrying")
		}
		st.Estimated = append(st.Estimated, "in_flight")
	}
	if queue.Oldest != nil && (st.OldestAt == nil || queue.Oldest.Before(*st.OldestAt)) {
		st.OldestAt = queue.Oldest
	}
	if c.Dead >= limit {
		st.Dead = max(c.Dead, dead.Dead)
		st.Estimated = append(st.Estimated, "dead")
	}
}

// unclaimed counts the events of ordered triggers whose attempts hang as in flight. The rows of the
// queue don't say so.
func (st *TriggerStatus) unclaimed() {
	for i := range st.Hanging {
		h := &st.Hanging[i]
		st.InFlight += int64(h.Unclaimed)
		st.Retrying = max(0, st.Retrying-int64(h.retried))
		st.Waiting = max(0, st.Waiting-int64(h.Unclaimed-h.retried))
	}
}

// notInFlight counts events that wait for their rate as waiting or retrying. They are claimed, so by
// the rows of the queue they are in flight.
func notInFlight(p queue.Paced, inFlight, waiting, retrying int64) (f, w, r int64) {
	retried := min(int64(p.Retried), inFlight)
	fresh := min(int64(p.Events-p.Retried), inFlight-retried)
	return inFlight - retried - fresh, waiting + fresh, retrying + retried
}

const (
	// queueDue is a condition on the rows of the queue.
	queueDue    = "(due_at <= statement_timestamp() or due_at > " + queue.ParkedFrom + " and due_at - " + queue.ParkedSQL + " <= statement_timestamp())"
	queueSample = `
select trigger_id as id, count(*) filter (where tries = 0 and claimed_by is null) as waiting, count(*) filter (where due and tries > 0) as retrying_due,
       count(*) filter (where not due and claimed_by is not null) as in_flight, count(*) filter (where not due and claimed_by is null and tries > 0) as retrying_future,
       0::bigint as dead, min(created_at) filter (where due or claimed_by is not null or tries > 0) as oldest, null::timestamptz as lease
  from (select trigger_id, tries, claimed_by, created_at, ` + queueDue + ` as due from rowhook.event_log tablesample system (%s)) as e group by 1`
	deadSample = `
select trigger_id as id, 0::bigint as waiting, 0::bigint as retrying_due, 0::bigint as in_flight, 0::bigint as retrying_future,
       count(*) as dead, null::timestamptz as oldest, null::timestamptz as lease
  from rowhook.dead_letter tablesample system (%s) group by 1`
)

// sample estimates the figures of all triggers from samplePages pages of a table.
func sample(ctx context.Context, tx pgx.Tx, sql, table string) (map[int32]counted, error) {
	var pages int64
	if err := tx.QueryRow(ctx, "select pg_relation_size(to_regclass($1)) / current_setting('block_size')::bigint", "rowhook."+table).Scan(&pages); err != nil {
		return nil, fmt.Errorf("read the size of %s: %w", table, err)
	}
	percent := math.Min(100, 100*samplePages/math.Max(float64(pages), 1))
	if _, err := tx.Exec(ctx, "set local enable_seqscan = on"); err != nil {
		return nil, fmt.Errorf("prepare a sample: %w", err)
	}
	found, err := pg.Collect[counted](ctx, tx, fmt.Sprintf(sql, fmt.Sprintf("%.6f", percent)))
	if err != nil {
		return nil, fmt.Errorf("take a sample of %s: %w", table, err)
	}
	if _, err := tx.Exec(ctx, "set local enable_seqscan = off"); err != nil {
		return nil, fmt.Errorf("end a sample: %w", err)
	}
	out := map[int32]counted{}
	for _, c := range found {
		for _, n := range []*int64{&c.Waiting, &c.RetryingDue, &c.InFlight, &c.RetryingFuture, &c.Dead} {
			*n = rounded(float64(*n) * 100 / percent)
		}
		out[c.ID] = c
	}
	return out, nil
}

// rounded keeps two digits, because an estimate is not more precise.
func rounded(n float64) int64 {
	if n < 100 {
		return int64(n)
	}
	unit := math.Pow(10, math.Floor(math.Log10(n))-1)
	return int64(math.Round(n/unit) * unit)
}

func (s *Status) readHolder(ctx context.Context, tx pgx.Tx) (err error) {
	s.Vacuum, err = queue.FindHolder(ctx, tx, time.Minute, 100_000)
	return err
}

func (st *TriggerStatus) recent(r *recentSums) {
	if r == nil {
		return
	}
	st.DeliveredLastHour, st.FailedLastHour, st.DiedLastHour = r.Delivered, r.Failed, r.Died
	st.P50MS, st.P95MS = quantile(r.Latency, 0.5), quantile(r.Latency, 0.95)
	st.LastErrorAt, st.LastError, st.Failing, st.FailingSince = r.ErrorAt, r.Error, r.Failing, r.Since
}

// lastDeath takes the last error from the newest dead letter if no dispatcher has recorded one.
// Dispatchers record errors only every few seconds, and old versions recorded none. Dead letters
// made by a restore or an apply are no errors of a receiver.
func (st *TriggerStatus) lastDeath(ctx context.Context, tx pgx.Tx, id int32) error {
	err := escaping(ctx, tx, func(write func(string) string) error {
		return tx.QueryRow(ctx, "select died_at, "+write("reason")+" from rowhook.dead_letter where trigger_id = $1 order by died_at desc limit 1", id).Scan(&st.LastErrorAt, &st.LastError)
	})
	if err != nil && !isNone(err) {
		return fmt.Errorf("read the last dead letter: %w", err)
	}
	if strings.HasPrefix(st.LastError, "trigger ") { // trigger removed, trigger unknown
		st.LastErrorAt, st.LastError = nil, ""
	}
	if st.LastErrorAt == nil {
		return nil
	}
	err = tx.QueryRow(ctx, "select not exists (select from rowhook.activity where trigger_id = $1 and minute > $2 and delivered > 0)", id, st.LastErrorAt).Scan(&st.Failing)
	if err != nil {
		return fmt.Errorf("look for deliveries after the last dead letter: %w", err)
	}
	return nil
}

func (s *Status) readInstances(ctx context.Context, tx pgx.Tx) error {
	watch, err := queue.ReadWatch(ctx, tx)
	if err != nil {
		return err
	}
	s.Doorbell = Doorbell{State: "ringing"}
	if watch.Doorbell != queue.Ringing {
		s.Doorbell = Doorbell{State: "silent", InstanceID: watch.Doorbell}
	}
	if watch.Doorbell == queue.Nobody {
		s.Doorbell.InstanceID = 0
	}
	var found []Instance
	err = escaping(ctx, tx, func(write func(string) string) (err error) {
		found, err = pg.Collect[Instance](ctx, tx, "select id, "+write("name")+" as name, "+write("version")+" as version, started_at, listens, false as alive from rowhook.instance order by started_at, id")
		return err
	})
	if err != nil {
		return fmt.Errorf("list the instances: %w", err)
	}
	for _, i := range found {
		i.Alive = watch.IsAlive(i.ID)
		s.Instances = append(s.Instances, i)
	}
	s.Standby, err = queue.ReadStandby(ctx, tx)
	return err
}

func (s *Status) readQueue(ctx context.Context, tx pgx.Tx) error {
	err := tx.QueryRow(ctx, `
select pg_total_relation_size(c.oid), coalesce(s.n_live_tup, 0), coalesce(s.n_dead_tup, 0), greatest(s.last_vacuum, s.last_autovacuum)
  from pg_catalog.pg_class c left join pg_catalog.pg_stat_all_tables s on s.relid = c.oid
 where c.oid = 'rowhook.event_log'::regclass`).Scan(&s.Queue.Bytes, &s.Queue.LiveTuples, &s.Queue.DeadTuples, &s.Queue.LastVacuumedAt)
	if err != nil {
		return fmt.Errorf("read the statistics of the queue: %w", err)
	}
	return nil
}

func (s *Status) readHistory(ctx context.Context, tx pgx.Tx) error {
	for _, table := range []string{"event_archive", "invocation_log"} {
		parts, err := pg.Collect[Partition](ctx, tx, `
select c.relname as name, '' as day, nullif(c.reltuples, -1)::bigint as rows, pg_total_relation_size(c.oid) as bytes
  from pg_catalog.pg_inherits i join pg_catalog.pg_class c on c.oid = i.inhrelid
 where i.inhparent = to_regclass($1) order by c.relname`, "rowhook."+table)
		if err != nil {
			return fmt.Errorf("list the partitions of %s: %w", table, err)
		}
		h := History{Table: table, Partitions: parts}
		for i := range parts {
			h.Bytes += parts[i].Bytes
			if day := strings.TrimPrefix(parts[i].Name, table+"_"); len(day) == 8 {
				parts[i].Day = day[:4] + "-" + day[4:6] + "-" + day[6:]
			}
		}
		s.History = append(s.History, h)
	}
	return nil
}
