package queue

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/pg"
)

// memberLock is the first key of the session advisory locks by which processes that share several
// databases show in each of them that they are there. The second key is the number of the process. The
// bytes spell "rowp".
const memberLock = 0x726f7770

// Members is which processes are there to work on a database.
type Members struct {
	All []Member
	// Overdue says that events of triggers that are not paused have been due for OverdueAfter.
	Overdue bool
	Schema  int32 // version of the schema rowhook
	// Mine says that the session that asked holds the lock of a process.
	Mine bool
}

// Member is such a process.
type Member struct {
	Process int32
	Serves  bool // it has an instance that is registered and not dead
}

// OverdueAfter is how long an event may be due before whoever claims is taken to be behind.
const OverdueAfter = 5 * time.Second

// Join shows by this session that a process is there, until the session ends. joined is false if
// another session keeps it from that.
func Join(ctx context.Context, conn *pgx.Conn, process int32) (joined bool, err error) {
	if err := conn.QueryRow(ctx, "select pg_catalog.pg_try_advisory_lock_shared($1, $2)", memberLock, process).Scan(&joined); err != nil {
		return false, fmt.Errorf("take the lock of this process: %w", err)
	}
	return joined, nil
}

// ReadMembers reads the Members. A process serves if the session that holds its lock holds that of an
// instance, too, and the instance beats: the server may believe in the sessions of a host that is gone.
func ReadMembers(ctx context.Context, db pg.Queryer) (m Members, err error) {
	var processes []int64
	var serves []bool
	err = db.QueryRow(ctx, `
with held as materialized (
  select pid, classid, objid from pg_catalog.pg_locks
   where locktype = 'advisory' and classid in ($1::bigint::oid, $2::bigint::oid) and objsubid = 2 and granted
     and database = (select oid from pg_catalog.pg_database where datname = current_database())),
member as materialized (
  select p.objid::bigint as process, bool_or(i.id is not null) as serves, bool_or(p.pid = pg_catalog.pg_backend_pid()) as mine
    from held p
    left join held l on l.pid = p.pid and l.classid = $2::bigint::oid
    left join rowhook.instance i on i.id::oid = l.objid and i.seen_at > clock_timestamp() - $3::interval
   where p.classid = $1::bigint::oid
   group by p.objid)
select coalesce((select array_agg(process order by process) from member), '{}'), coalesce((select array_agg(serves order by process) from member), '{}'),
       coalesce((select bool_or(mine) from member), false), (select version from rowhook.schema_version),
       exists (select from rowhook.trigger t
                where not t.paused and t.removed_at is null
                  and exists (select from rowhook.event_log e where e.trigger_id = t.id and e.due_at <= clock_timestamp() - $4::interval))`,
		int64(memberLock), int64(instanceLock), UnseenAfter, OverdueAfter).Scan(&processes, &serves, &m.Mine, &m.Schema, &m.Overdue)
	if err != nil {
		return Members{}, fmt.Errorf("look which processes are there: %w", err)
	}
	for i, process := range processes {
		if process > 0 && process <= 1<<31-1 { // anybody can take such a lock
			m.All = append(m.All, Member{Process: int32(process), Serves: serves[i]})
		}
	}
	return m, nil
}

// StandbyPrefix begins the application name of a session by which a process shows that it is there while
// it does not serve. The name of the process follows.
const StandbyPrefix = "rowhook standby "

// Standby is a process that serves the database when those that serve it go.
type Standby struct {
	Process int32  `json:"process"` // the number that it has drawn
	Name    string `json:"name"`    // as that of its instances
}

// ReadStandby lists the processes that stand by.
func ReadStandby(ctx context.Context, db pg.Queryer) ([]Standby, error) {
	var processes []int32
	var names []string
	err := db.QueryRow(ctx, `
with held as materialized (
  select pid, classid, objid from pg_catalog.pg_locks
   where locktype = 'advisory' and classid in ($1::bigint::oid, $2::bigint::oid) and objsubid = 2 and granted
     and database = (select oid from pg_catalog.pg_database where datname = current_database())),
standby as (
  select p.objid::bigint as process, coalesce(replace(min(a.application_name), $3, ''), '') as name
    from held p
    left join held l on l.pid = p.pid and l.classid = $2::bigint::oid
    left join pg_catalog.pg_stat_activity a on a.pid = p.pid
   where p.classid = $1::bigint::oid and p.objid::bigint between 1 and 2147483647
   group by p.objid having count(l.pid) = 0)
select coalesce(array_agg(process::integer order by name, process), '{}'), coalesce(array_agg(name order by name, process), '{}') from standby`,
		int64(memberLock), int64(instanceLock), StandbyPrefix).Scan(&processes, &names)
	if err != nil {
		return nil, fmt.Errorf("look which processes stand by: %w", err)
	}
	out := make([]Standby, len(names))
	for i, name := range names {
		out[i] = Standby{processes[i], name}
	}
	return out, nil
}
