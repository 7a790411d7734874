package sqlschema

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/rowhook/rowhook/internal/pg"
)

// BusyError says that a table was in use, so that its triggers could not be changed within the
// patience of an [Applier].
type BusyError struct {
	Table    string        // schema-qualified name
	Waited   time.Duration // from the first attempt to the end of the last one
	Blockers []Blocker     // at most 5, the oldest transaction first; empty: they ended meanwhile
	Err      error         // of the last attempt
}

// Blocker is a session or a prepared transaction that holds a lock on a table.
type Blocker struct {
	PID         int32      // of the session; 0: a prepared transaction
	Prepared    string     // name of the prepared transaction, or ""
	Application string     // application_name of the session
	State       string     // pg_stat_activity.state
	QueryStart  *time.Time // when the last query began; nil: not known
	Query       string     // the first 80 characters of the last query
}

// String describes the blocker in one line.
func (b Blocker) String() string {
	if b.PID == 0 {
		return fmt.Sprintf("prepared transaction %q", b.Prepared)
	}
	parts := []string{}
	if b.Application != "" {
		parts = append(parts, b.Application)
	}
	if b.State != "" {
		parts = append(parts, b.State)
	}
	if b.QueryStart != nil {
		parts = append(parts, "query started "+b.QueryStart.Format(time.RFC3339))
	}
	s := fmt.Sprintf("pid %d (%s)", b.PID, strings.Join(parts, ", "))
	if b.Query != "" {
		s += fmt.Sprintf(" %q", b.Query)
	}
	return s
}

// Error names the table and the blockers, and says how to end the first one.
func (e *BusyError) Error() string {
	remedy := "apply again when the table is less busy"
	if len(e.Blockers) > 0 {
		b := e.Blockers[0]
		remedy = fmt.Sprintf("end that transaction (select pg_terminate_backend(%d)), or apply again when it is over", b.PID)
		if b.PID == 0 {
			remedy = "commit or roll back that transaction, or apply again when it is over"
		}
	}
	return fmt.Sprintf("%s was busy for %s, and its triggers are unchanged: it was locked by %s: %s", e.Table, e.Waited.Round(time.Millisecond), e.blockers(), remedy)
}

// Unwrap returns the error of the last attempt.
func (e *BusyError) Unwrap() error { return e.Err }

func (e *BusyError) blockers() string {
	if len(e.Blockers) == 0 {
		return "sessions that have ended"
	}
	names := make([]string, len(e.Blockers))
	for i, b := range e.Blockers {
		names[i] = b.String()
	}
	return strings.Join(names, ", ")
}

// isBusy reports whether a lock could not be taken: lock_not_available or deadlock_detected.
func isBusy(err error) bool {
	return pg.IsState(err, pgerrcode.LockNotAvailable, pgerrcode.DeadlockDetected)
}

// FindBlockers returns who holds a lock on a table, such as public.orders, that DROP TRIGGER would wait
// for. The oldest transaction comes first.
func FindBlockers(ctx context.Context, conn *pgx.Conn, table string, relation uint32) ([]Blocker, error) {
	return findBlockers(ctx, conn, &unit{unitKey: unitKey{relation: relation}, table: table, lock: everyoneWaits})
}

// findBlockers returns those who hold a lock on the table, or on a partition of it, that conflicts
// with the lock of the unit. The oldest transaction comes first. relation 0 stands for all tables
// of Rowhook.
func findBlockers(ctx context.Context, conn *pgx.Conn, u *unit) ([]Blocker, error) {
	rows, err := conn.Query(ctx, `
select distinct on (a.xact_start, l.pid, p.gid) coalesce(l.pid, 0) as pid, coalesce(p.gid, '') as prepared,
       coalesce(a.application_name, '') as application, coalesce(a.state, '') as state, a.query_start,
       pg_catalog.left(coalesce(a.query, ''), 80) as query
  from pg_catalog.pg_locks l
  left join pg_catalog.pg_stat_activity a on a.pid = l.pid
  left join pg_catalog.pg_locks x on l.pid is null and x.pid is null and x.locktype = 'transactionid' and x.virtualtransaction = l.virtualtransaction
  left join pg_catalog.pg_prepared_xacts p on p.transaction = x.transactionid
 where l.locktype = 'relation' and l.granted and l.pid is distinct from pg_catalog.pg_backend_pid()
   and l.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
   and case when $1 = 0
         then l.relation in (select oid from pg_catalog.pg_class where relnamespace = 'rowhook'::pg_catalog.regnamespace)
         else l.relation = $1 or l.relation in (select relid from pg_catalog.pg_partition_tree($1)) end
   and ($2 = 'ACCESS EXCLUSIVE' or l.mode not in ('AccessShareLock', 'RowShareLock'))
 order by a.xact_start, l.pid, p.gid
 limit 5`, u.relation, u.lock)
	if err != nil {
		return nil, fmt.Errorf("look for the sessions that lock %s: %w", u.table, err)
	}
	blockers, err := pgx.CollectRows(rows, pgx.RowToStructByName[Blocker])
	if err != nil {
		return nil, fmt.Errorf("look for the sessions that lock %s: %w", u.table, err)
	}
	return blockers, nil
}
