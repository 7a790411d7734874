package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rowhook/rowhook/internal/pg"
)

// instanceLock is the first key of the session advisory locks by which instances show that they are
// alive. The second key is the id of the instance. The bytes spell "rowh".
const instanceLock = 0x726f7768

// NewInstance draws an id for a dispatcher that starts. It skips ids in use. A dispatcher that has
// outlived an uninstall keeps its id, while the sequence of the new installation begins at 1 again.
func NewInstance(ctx context.Context, db pg.Queryer) (int32, error) {
	for {
		var id int32
		var used bool
		err := db.QueryRow(ctx, `
with drawn as materialized (select nextval('rowhook.instance_id')::integer as id)
select id, exists (select from rowhook.instance i where i.id = drawn.id)
        or exists (select from pg_catalog.pg_locks l where l.locktype = 'advisory' and l.classid = $1::bigint::oid and l.objid = drawn.id::oid and l.objsubid = 2
                      and l.database = (select oid from pg_catalog.pg_database where datname = current_database()))
  from drawn`, int64(instanceLock)).Scan(&id, &used)
		if err != nil {
			return 0, fmt.Errorf("draw an instance id: %w", err)
		}
		if !used {
			return id, nil
		}
	}
}

// Register writes the row of an instance, with a first Beat: one that dies before the next, or whose
// later ones a crash of the server loses, is missed as any other is. listens says that the instance
// holds a session with HoldLock. Without one, others can't see by its lock that it died.
func Register(ctx context.Context, db pg.Queryer, id int32, name, version string, listens bool) error {
	var n int
	err := db.QueryRow(ctx, `
with i as (
  insert into rowhook.instance (id, name, version, listens, seen_at) values ($1, $2, $3, $4, clock_timestamp())
  on conflict (id) do update set listens = excluded.listens, seen_at = excluded.seen_at returning id)
select count(*) from i`, id, name, version, listens).Scan(&n)
	if err != nil {
		return fmt.Errorf("register this instance: %w", err)
	}
	return nil
}

// MeasureCommit updates the row of an instance without changing it. That is the smallest possible
// commit, and its caller measures how long it takes.
func MeasureCommit(ctx context.Context, db pg.Queryer, id int32) error {
	return execute(ctx, db, "commit an update of this instance", "update rowhook.instance set name = name where id = $1", id)
}

// ErrLockHeld says that another session holds the instance lock. Usually the connection of that
// session broke, and the server has not noticed yet.
var ErrLockHeld = errors.New("an earlier session is still open")

// HoldLock takes the lock that shows that the instance is alive, until the connection ends. It
// returns ErrLockHeld if another session has the lock. EndHolders ends such a session of the same
// role.
func HoldLock(ctx context.Context, conn *pgx.Conn, id int32) error {
	var got bool
	if err := conn.QueryRow(ctx, "select pg_try_advisory_lock($1, $2)", instanceLock, id).Scan(&got); err != nil {
		return fmt.Errorf("take the instance lock: %w", err)
	}
	if !got {
		return fmt.Errorf("take the lock of instance %d: %w", id, ErrLockHeld)
	}
	return nil
}

// EndHolders ends the other sessions that hold the lock of an instance, and waits up to five
// seconds for their end. It returns their number. Anybody can take such a lock. So EndHolders ends
// only sessions of the same role whose application name is a dispatcher's.
func EndHolders(ctx context.Context, db pg.Queryer, id int32) (int, error) {
	var n int
	err := db.QueryRow(ctx, `
with holder as materialized (
  select a.pid
    from pg_catalog.pg_locks l join pg_catalog.pg_stat_activity a on a.pid = l.pid
   where l.locktype = 'advisory' and l.classid = $1::bigint::oid and l.objid = $2::integer::oid and l.objsubid = 2 and l.granted
     and l.database = (select oid from pg_catalog.pg_database where datname = current_database())
     and a.pid <> pg_backend_pid() and a.datid = l.database and a.usename = session_user
     and (a.application_name like 'rowhook %' or a.application_name = current_setting('application_name')))
select count(pg_terminate_backend(pid, 5000)) from holder`, int64(instanceLock), id).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("end earlier sessions of instance %d: %w", id, err)
	}
	return n, nil
}

const beatSQL = "with i as (update rowhook.instance set listens = $2, seen_at = clock_timestamp() where id = $1 and " + unflushed + " returning 1) select count(*) > 0 from i"

// Beat records that an instance is alive, and whether it holds a session with HoldLock now.
// registered is false if the instance has no row.
func Beat(ctx context.Context, db pg.Queryer, id int32, listens bool) (registered bool, err error) {
	if err := db.QueryRow(ctx, beatSQL, id, listens).Scan(&registered); err != nil {
		return false, fmt.Errorf("record that this instance is alive: %w", err)
	}
	return registered, nil
}

// Instance is an instance as its row and its lock describe it.
type Instance struct {
	ID      int32
	Listens bool // according to its row
	Locked  bool // a session holds its lock
	// Seen is the time of its last Beat by the server's clock, in microseconds since 1970. 0: none, as
	// programs before this one wrote none as they registered.
	Seen int64
}

// Watch is the state that an instance reads every 1.5 s.
type Watch struct {
	Schema     int32      // version of the schema rowhook
	Generation int64      // of the configuration
	Departures int64      // number of instances that have stopped so far
	Doorbell   int32      // Ringing, Nobody, or the instance that asked for silence
	Handover   Handover   // to whom events are handed over
	Handed     bool       // there are events that were handed over
	Notices    float64    // share of the server's queue of notifications that is in use
	Alive      []int32    // instances that are registered and not dead
	Dead       []int32    // registered instances that are dead, by their lock or their last Beat
	Instances  []Instance // all registered instances

	// BeatAndWatch alone reads these. It takes an instance's word for its own lock.
	Due bool // the queue may have events that are due
	Ill bool // rowhook.health has rows
}

// IsAlive reports whether an instance is registered and not dead.
func (w *Watch) IsAlive(instance int32) bool { return slices.Contains(w.Alive, instance) }

// IsRegistered reports whether an instance is registered.
func (w *Watch) IsRegistered(instance int32) bool {
	return slices.ContainsFunc(w.Instances, func(i Instance) bool { return i.ID == instance })
}

// seenAtUs is Instance.Seen of a row i.
const seenAtUs = "coalesce((extract(epoch from i.seen_at) * 1000000)::bigint, 0)"

// UnseenAfter is the time since its last Beat after which an instance is dead, even if the server
// still has its session. LockLostAfter is that time for an instance whose row says that it listens
// while no session holds its lock.
const (
	UnseenAfter   = 10 * time.Second
	LockLostAfter = 2500 * time.Millisecond
)

// watchFrom is what the columns of a watch are selected from. locked says whether the instance of a row
// has its lock.
func watchFrom(locked string) string {
	return `
locks as materialized (
  select objid from pg_catalog.pg_locks
   where locktype = 'advisory' and classid = $1::bigint::oid and objsubid = 2 and granted
     and database = (select oid from pg_catalog.pg_database where datname = current_database())),
seen as materialized (
  select i.id, i.listens, ` + locked + ` as locked, i.seen_at, ` + seenAtUs + ` as seen from rowhook.instance i),
i as materialized (
  select *, case when seen_at is null then listens and not locked
                 when listens and not locked then seen_at < clock_timestamp() - $3::interval
                 else seen_at < clock_timestamp() - $4::interval end as dead from seen)`
}

const (
	hasLock = "i.id::oid in (select objid from locks)"

	watchColumns = `
select (select version from rowhook.schema_version),
       (select (value #>> '{}')::bigint from rowhook.setting where name = 'generation'),
       coalesce(pg_sequence_last_value('rowhook.departures'::regclass), 0),
       coalesce(pg_sequence_last_value('rowhook.doorbell'::regclass), $2)::integer,
       coalesce(pg_sequence_last_value(to_regclass('rowhook.handover')), 0),
       case when to_regclass('rowhook.event_log_handed') is not null then exists (select from rowhook.event_log where claim = 1 and claimed_by is not null) else false end,
       pg_catalog.pg_notification_queue_usage(),
       coalesce((select array_agg(id) from i where not dead), '{}'),
       coalesce((select array_agg(id) from i where dead), '{}'),
       coalesce((select array_agg(id order by id) from i), '{}'), coalesce((select array_agg(listens order by id) from i), '{}'),
       coalesce((select array_agg(locked order by id) from i), '{}'), coalesce((select array_agg(seen order by id) from i), '{}')`

	// idleColumns say whether there may be anything to do. The locks of the server are looked through
	// only if there are other instances. Events are looked for as by a claim: by a jump in the index
	// from one trigger with events to the next.
	idleColumns = `,
       coalesce((select bool_or(exists (select from rowhook.event_log q where q.trigger_id = step.trigger_id and q.due_at <= statement_timestamp())
                             or exists (select from rowhook.event_log q where q.trigger_id = step.trigger_id and q.due_at > ` + ParkedFrom + ` and q.due_at <= statement_timestamp() + ` + ParkedSQL + `))
                   from step where step.trigger_id is not null), false),
       exists (select from rowhook.health)`
)

var (
	watchSQL = "with" + watchFrom(hasLock) + watchColumns
	idleSQL  = "with recursive " + steps + "," + watchFrom("case when i.id = $5 then i.listens else "+hasLock+" end") + watchColumns + idleColumns
)

// ReadWatch reads the Watch.
func ReadWatch(ctx context.Context, db pg.Queryer) (Watch, error) {
	return scanWatch(db.QueryRow(ctx, watchSQL, int64(instanceLock), int64(Nobody), LockLostAfter, UnseenAfter))
}

// BeatAndWatch is Beat and ReadWatch in one round trip and one transaction: an idle instance does no
// more than that. If it fails, neither has happened.
func BeatAndWatch(ctx context.Context, db pg.Queryer, id int32, listens bool) (registered bool, w Watch, err error) {
	var b pgx.Batch
	b.Queue(beatSQL, id, listens).QueryRow(func(row pgx.Row) error { return row.Scan(&registered) })
	b.Queue(idleSQL, int64(instanceLock), int64(Nobody), LockLostAfter, UnseenAfter, id).QueryRow(func(row pgx.Row) (err error) {
		var due, ill bool
		w, err = scanWatch(row, &due, &ill)
		w.Due, w.Ill = due, ill
		return err
	})
	if err := db.SendBatch(ctx, &b).Close(); err != nil {
		return false, Watch{}, fmt.Errorf("record that this instance is alive, and watch: %w", err)
	}
	return registered, w, nil
}

func scanWatch(row pgx.Row, more ...any) (w Watch, err error) {
	var ids []int32
	var listens, locked []bool
	var seen []int64
	var handover int64
	into := []any{&w.Schema, &w.Generation, &w.Departures, &w.Doorbell, &handover, &w.Handed, &w.Notices, &w.Alive, &w.Dead, &ids, &listens, &locked, &seen}
	if err := row.Scan(append(into, more...)...); err != nil {
		return Watch{}, fmt.Errorf("watch instances and doorbell: %w", err)
	}
	w.Handover = handoverOf(handover)
	for n, id := range ids {
		w.Instances = append(w.Instances, Instance{ID: id, Listens: listens[n], Locked: locked[n], Seen: seen[n]})
	}
	return w, nil
}

// EndSession ends a session of this role and waits up to five seconds for its end. It compares the
// application name as well, since the process id may belong to another session by now. The server
// keeps 63 bytes of a name, and replaces characters that are not ASCII.
func EndSession(ctx context.Context, db pg.Queryer, pid uint32, application string) error {
	var ended *bool
	err := db.QueryRow(ctx, `
select bool_and(pg_terminate_backend(pid, 5000)) from pg_catalog.pg_stat_activity where pid = $1 and application_name = left($2, 63)`,
		int32(pid), application).Scan(&ended)
	if err != nil {
		return fmt.Errorf("end the session of an interrupted claim: %w", err)
	}
	return nil
}

// Unregister deletes the row of an instance that has stopped and given everything back. That also
// counts a departure, so that the others take over the events that it waited for. The last
// listening instance silences the doorbell: nobody would hear writers. The next one that starts
// arms it.
func Unregister(ctx context.Context, db pg.Queryer, id int32) error {
	var silenced *int64
	err := db.QueryRow(ctx, `
with gone as (
  delete from rowhook.instance where id = $1),
departed as materialized (
  select case when to_regprocedure('rowhook.end_handover()') is null then nextval('rowhook.departures') end)
select case when not exists (select from rowhook.instance where id <> $1 and listens) then setval('rowhook.doorbell', $1::integer) end from departed`, id).Scan(&silenced)
	if err != nil {
		return fmt.Errorf("unregister this instance: %w", err)
	}
	return nil
}
