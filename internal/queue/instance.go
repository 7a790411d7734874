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

// instanceLock is the class of the session advisory locks by which instances show that they are alive; the object is
// the instance's id. The bytes read "rowh".
const instanceLock = 0x726f7768

// NewInstance draws the id of a dispatcher that is starting. It passes over those in use: a dispatcher that has outlived an uninstall goes on
// under its id, while the sequence begins anew.
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

// Register makes an instance known. listens says that it holds a session with HoldLock; without one it can't be found
// dead, and its claims come back by the end of their leases alone.
func Register(ctx context.Context, db pg.Queryer, id int32, name, version string, listens bool) error {
	var n int
	err := db.QueryRow(ctx, `
with i as (
  insert into rowhook.instance (id, name, version, listens) values ($1, $2, $3, $4)
  on conflict (id) do update set listens = excluded.listens returning id)
select count(*) from i`, id, name, version, listens).Scan(&n)
	if err != nil {
		return fmt.Errorf("register this instance: %w", err)
	}
	return nil
}

// Touch writes an instance's row as it is: the smallest commit there is.
func MeasureCommit(ctx context.Context, db pg.Queryer, id int32) error {
	rows, err := db.Query(ctx, "update rowhook.instance set name = name where id = $1", id)
	if err == nil {
		rows.Close()
		err = rows.Err()
	}
	if err != nil {
		return fmt.Errorf("touch this instance: %w", err)
	}
	return nil
}

// ErrLockHeld says that another session holds the instance lock: one that is thought dead, while the server still believes in it.
var ErrLockHeld = errors.New("an earlier session is still open")

// HoldLock takes the lock that shows that the instance is alive. It is held until the connection ends. It fails by ErrLockHeld where
// another session has it; EndHolders ends one of ours.
func HoldLock(ctx context.Context, conn *pgx.Conn, id int32) error {
	var got bool
	if err := conn.QueryRow(ctx, "select pg_try_advisory_lock($1, $2)", instanceLock, id).Scan(&got); err != nil {
		return fmt.Errorf("take the instance lock: %w", err)
	}
	if !got {
		return fmt.Errorf("take the instance lock: %w: of instance %d", ErrLockHeld, id)
	}
	return nil
}

// EndHolders ends the sessions that hold an instance's lock, the one that asks left out, and waits up to five seconds until they are gone.
// The lock names the instance; anybody can take such a lock, so the session has to be this role's and a dispatcher's as well. It returns
// how many there were.
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

// Beat says that an instance lives, and whether it holds a session with HoldLock now. From version 3 of the schema on, the server notes when
// that was. It returns false where the instance is not registered.
func Beat(ctx context.Context, db pg.Queryer, schema, id int32, listens bool) (registered bool, err error) {
	set := "listens = $2, seen_at = clock_timestamp()"
	if schema < 3 {
		set = "listens = $2"
	}
	var n int
	err = db.QueryRow(ctx, "with i as (update rowhook.instance set "+set+" where id = $1 returning 1) select count(*) from i", id, listens).Scan(&n)
	if err != nil {
		return false, fmt.Errorf("say that this instance is alive: %w", err)
	}
	return n > 0, nil
}

// Instance is what an instance's row and lock say.
type Instance struct {
	ID      int32
	Listens bool  // by its row
	Locked  bool  // some session holds its lock
	Seen    int64 // when it last said that it lives, in microseconds since 1970 by the server's clock; 0: programs of before do not
}

// Watch is what an instance looks at every second or so.
type Watch struct {
	Schema     int32      // version of the schema rowhook
	Generation int64      // of the configuration
	Departures int64      // instances that have stopped so far
	Doorbell   int32      // Ringing, or who asked for silence, or Nobody
	Notices    float64    // share of the server's queue of notifications that is in use
	Alive      []int32    // instances that are registered and not dead
	Dead       []int32    // instances that are registered but hold no lock although they should, or were not seen for long
	Instances  []Instance // all that are registered
}

// IsAlive reports whether an instance is registered and not dead.
func (w *Watch) IsAlive(instance int32) bool { return slices.Contains(w.Alive, instance) }

// IsRegistered reports whether an instance is registered.
func (w *Watch) IsRegistered(instance int32) bool {
	return slices.ContainsFunc(w.Instances, func(i Instance) bool { return i.ID == instance })
}

// A schema of before version 3 has no seen_at, or one that nobody keeps: as JSON, a row may have the column or not.
const (
	seenAt   = "(case when (select version from rowhook.schema_version) >= 3 then (to_jsonb(i) ->> 'seen_at')::timestamptz end)"
	seenAtUs = "coalesce((extract(epoch from " + seenAt + ") * 1000000)::bigint, 0)"
)

// UnseenAfter is how long an instance may be silent before it is dead, whatever sessions the server believes it has, and LockLostAfter how
// long where it says that it holds a lock and does not.
const (
	UnseenAfter   = 10 * time.Second
	LockLostAfter = 2500 * time.Millisecond
)

const watchSQL = `
with locks as materialized (
  select objid from pg_catalog.pg_locks
   where locktype = 'advisory' and classid = $1::bigint::oid and objsubid = 2 and granted
     and database = (select oid from pg_catalog.pg_database where datname = current_database())),
seen as materialized (
  select i.id, i.listens, i.id::oid in (select objid from locks) as locked, ` + seenAt + ` as seen_at, ` + seenAtUs + ` as seen from rowhook.instance i),
i as materialized (
  select *, case when seen_at is null then listens and not locked
                 when listens and not locked then seen_at < clock_timestamp() - $3::interval
                 else seen_at < clock_timestamp() - $4::interval end as dead from seen)
select (select version from rowhook.schema_version),
       (select (value #>> '{}')::bigint from rowhook.setting where name = 'generation'),
       coalesce(pg_sequence_last_value('rowhook.departures'::regclass), 0),
       coalesce(pg_sequence_last_value('rowhook.doorbell'::regclass), $2)::integer, pg_catalog.pg_notification_queue_usage(),
       coalesce((select array_agg(id) from i where not dead), '{}'),
       coalesce((select array_agg(id) from i where dead), '{}'),
       coalesce((select array_agg(id order by id) from i), '{}'), coalesce((select array_agg(listens order by id) from i), '{}'),
       coalesce((select array_agg(locked order by id) from i), '{}'), coalesce((select array_agg(seen order by id) from i), '{}')`

// Look reads the Watch.
func ReadWatch(ctx context.Context, db pg.Queryer) (Watch, error) {
	var w Watch
	var ids []int32
	var listens, locked []bool
	var seen []int64
	err := db.QueryRow(ctx, watchSQL, int64(instanceLock), int64(Nobody), LockLostAfter, UnseenAfter).Scan(&w.Schema, &w.Generation, &w.Departures, &w.Doorbell,
		&w.Notices, &w.Alive, &w.Dead, &ids, &listens, &locked, &seen)
	if err != nil {
		return Watch{}, fmt.Errorf("watch instances and doorbell: %w", err)
	}
	for n, id := range ids {
		w.Instances = append(w.Instances, Instance{ID: id, Listens: listens[n], Locked: locked[n], Seen: seen[n]})
	}
	return w, nil
}

// EndSession ends a session of this role and waits up to five seconds until it is gone. It is told apart by its application
// name as well, since the process id may by now be another session's. The server keeps 63 bytes of a name, and of ASCII alone.
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

// Unregister forgets an instance that has stopped and given everything back, and counts it as departed, so that the others
// look after what it waited for. The last one to leave silences the doorbell: writers need not ring for nobody, and whoever
// starts arms it.
func Unregister(ctx context.Context, db pg.Queryer, id int32) error {
	var silenced *int64
	err := db.QueryRow(ctx, `
with gone as (
  delete from rowhook.instance where id = $1),
departed as materialized (
  select nextval('rowhook.departures'))
select case when not exists (select from rowhook.instance where id <> $1 and listens) then setval('rowhook.doorbell', $1::integer) end from departed`, id).Scan(&silenced)
	if err != nil {
		return fmt.Errorf("unregister this instance: %w", err)
	}
	return nil
}
