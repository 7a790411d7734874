package sqlschema

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

// instanceLock is the class of the session advisory locks by which instances show that they are alive; the object is
// the instance's id. The bytes read "rowh".
const instanceLock = 0x726f7768

// NewInstance draws the id of a dispatcher that is starting. It passes over those in use: a dispatcher that has outlived an uninstall goes on
// under its id, while the sequence begins anew.
func NewInstance(ctx context.Context, db Queryer) (int32, error) {
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
func Register(ctx context.Context, db Queryer, id int32, name, version string, listens bool) error {
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
func Touch(ctx context.Context, db Queryer, id int32) error {
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

// HoldLock takes the lock that shows that the instance is alive. It is held until the connection ends. It fails where a
// session that is thought dead still holds it; the server finds out sooner or later.
func HoldLock(ctx context.Context, conn *pgx.Conn, id int32) error {
	var got bool
	if err := conn.QueryRow(ctx, "select pg_try_advisory_lock($1, $2)", instanceLock, id).Scan(&got); err != nil {
		return fmt.Errorf("take the instance lock: %w", err)
	}
	if !got {
		return fmt.Errorf("take the instance lock: an earlier session of instance %d is still open", id)
	}
	return nil
}

// Watch is what an instance looks at every second or so.
type Watch struct {
	Schema     int32   // version of the schema rowhook
	Generation int64   // of the configuration
	Departures int64   // instances that have stopped so far
	Doorbell   int32   // Ringing, or who asked for silence, or Nobody
	Notices    float64 // share of the server's queue of notifications that is in use
	Alive      []int32 // instances that are registered and not dead
	Dead       []int32 // instances that are registered as listening but hold no lock
}

// IsAlive reports whether an instance is registered and not dead.
func (w *Watch) IsAlive(instance int32) bool { return slices.Contains(w.Alive, instance) }

const watchSQL = `
with locks as materialized (
  select objid from pg_catalog.pg_locks
   where locktype = 'advisory' and classid = $1::bigint::oid and objsubid = 2
     and database = (select oid from pg_catalog.pg_database where datname = current_database())),
i as materialized (
  select id, listens and id::oid not in (select objid from locks) as dead from rowhook.instance)
select (select version from rowhook.schema_version),
       (select (value #>> '{}')::bigint from rowhook.setting where name = 'generation'),
       coalesce(pg_sequence_last_value('rowhook.departures'::regclass), 0),
       coalesce(pg_sequence_last_value('rowhook.doorbell'::regclass), $2)::integer, pg_catalog.pg_notification_queue_usage(),
       coalesce((select array_agg(id) from i where not dead), '{}'),
       coalesce((select array_agg(id) from i where dead), '{}')`

// Look reads the Watch.
func Look(ctx context.Context, db Queryer) (Watch, error) {
	var w Watch
	err := db.QueryRow(ctx, watchSQL, int64(instanceLock), int64(Nobody)).Scan(&w.Schema, &w.Generation, &w.Departures, &w.Doorbell, &w.Notices, &w.Alive, &w.Dead)
	if err != nil {
		return Watch{}, fmt.Errorf("watch instances and doorbell: %w", err)
	}
	return w, nil
}

// EndSession ends a session of this role and waits up to five seconds until it is gone. It is told apart by its application
// name as well, since the process id may by now be another session's.
func EndSession(ctx context.Context, db Queryer, pid uint32, application string) error {
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
func Unregister(ctx context.Context, db Queryer, id int32) error {
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
