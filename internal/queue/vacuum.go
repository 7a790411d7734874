package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rowhook/rowhook/internal/pg"
)

// Holder is what holds back vacuum. While it lasts, vacuum removes no row that was deleted after it
// began.
type Holder struct {
	Kind  string `json:"kind"`            // session, prepared transaction, ...: see FindHolder
	PID   int32  `json:"pid,omitempty"`   // of the session or the standby's sender
	Name  string `json:"name,omitempty"`  // of the application, transaction, slot or standby
	User  string `json:"user,omitempty"`  // of the session or prepared transaction
	State string `json:"state,omitempty"` // pg_stat_activity.state
	Query string `json:"query,omitempty"` // beginning of the session's last query
	// Since is the beginning of the transaction. nil: not known, or hidden from this role.
	Since *time.Time `json:"since,omitempty"`
	Age   int64      `json:"age"` // number of transactions that have begun since
}

// String returns a description for messages.
func (h *Holder) String() string {
	s := h.Kind
	if h.Name != "" {
		s += fmt.Sprintf(" %q", h.Name)
	}
	if h.PID != 0 {
		s += fmt.Sprintf(" (pid %d", h.PID)
		for _, part := range []string{h.User, h.State} {
			if part != "" {
				s += ", " + part
			}
		}
		s += ")"
	}
	return s
}

// Remedy says how to end it.
func (h *Holder) Remedy() string {
	switch h.Kind {
	case "prepared transaction":
		return fmt.Sprintf("commit prepared %[1]s or rollback prepared %[1]s", pg.StringLiteral(h.Name))
	case "replication slot":
		return fmt.Sprintf("let its consumer catch up, or drop it: select pg_drop_replication_slot(%s)", pg.StringLiteral(h.Name))
	case "standby":
		return "end the long query on the standby, or turn off its hot_standby_feedback"
	}
	return fmt.Sprintf("end that transaction: select pg_terminate_backend(%d)", h.PID)
}

// FindHolder returns what holds back vacuum in this database the furthest, or nil. It ignores a
// holder that is younger than longer. If the time of a holder is not known, it ignores one that is
// younger than this number of transactions.
//
// From version 18 on, a session that is starting has a snapshot and no database yet, whatever its
// database will be. It is not a holder. Of other roles' sessions, a role without pg_read_all_stats
// sees only the process id. A query may have bytes that are not in the encoding of the database. So
// characters that are not ASCII are escaped unless the encoding is UTF-8.
func FindHolder(ctx context.Context, db pg.Queryer, longer time.Duration, transactions int64) (*Holder, error) {
	rows, err := db.Query(ctx, `
select * from (
  select 'session' as kind, pid, coalesce(application_name, '') as name, coalesce(usename::text, '') as "user", coalesce(state, '') as state,
         case current_setting('server_encoding') when 'UTF8' then left(coalesce(query, ''), 200)
           else encode(convert_to(left(coalesce(query, ''), 200), 'SQL_ASCII'), 'escape') end as query, xact_start as since, greatest(age(backend_xmin), coalesce(age(backend_xid), 0))::bigint as age
    from pg_catalog.pg_stat_activity
   where backend_xmin is not null and pid <> pg_catalog.pg_backend_pid() and backend_type = 'client backend'
     and datname = pg_catalog.current_database()
  union all
  select 'prepared transaction', 0, gid, owner::text, '', '', prepared, age(transaction) from pg_catalog.pg_prepared_xacts where database = pg_catalog.current_database()
  union all
  select 'replication slot', 0, slot_name::text, '', case when active then 'active' else 'inactive' end, '', null, age(xmin)
    from pg_catalog.pg_replication_slots where xmin is not null
  union all
  select 'standby', pid, coalesce(application_name, ''), coalesce(usename::text, ''), coalesce(state, ''), '', null, age(backend_xmin)
    from pg_catalog.pg_stat_replication where backend_xmin is not null) as h
 where case when since is null then age > $2 else since < clock_timestamp() - $1::interval end
 order by age desc, since limit 1`, longer, transactions)
	if err != nil {
		return nil, fmt.Errorf("look for what holds back vacuum: %w", err)
	}
	h, err := pgx.CollectExactlyOneRow(rows, pgx.RowToAddrOfStructByNameLax[Holder])
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for what holds back vacuum: %w", err)
	}
	return h, nil
}

// QueueHealth is the state of rowhook.event_log according to the statistics.
type QueueHealth struct {
	Live, Dead int64 // numbers of tuples
	Vacuuming  bool  // a vacuum is running
	Vacuumed   *time.Time
	MayVacuum  bool // this role may vacuum it
	// Late says that there are far more dead tuples than autovacuum allows, and that no vacuum has
	// begun for lateAfter.
	Late bool
}

// The limits of QueueHealth.Late. Autovacuum begins at 5,000 dead tuples and 1 % of the table,
// within its naptime of a minute.
const (
	lateDead  = 50_000
	latePart  = 0.2
	lateAfter = 2 * time.Minute
)

// ReadQueueHealth reads the QueueHealth.
func ReadQueueHealth(ctx context.Context, db pg.Queryer) (QueueHealth, error) {
	var q QueueHealth
	var recently bool
	err := db.QueryRow(ctx, `
select coalesce(s.n_live_tup, 0), coalesce(s.n_dead_tup, 0), greatest(s.last_vacuum, s.last_autovacuum),
       exists (select from pg_catalog.pg_stat_progress_vacuum p where p.relid = c.oid),
       coalesce(greatest(s.last_vacuum, s.last_autovacuum) > clock_timestamp() - $1::interval, false), pg_catalog.pg_has_role(c.relowner, 'USAGE')
  from pg_catalog.pg_class c left join pg_catalog.pg_stat_all_tables s on s.relid = c.oid
 where c.oid = 'rowhook.event_log'::regclass`, lateAfter).Scan(&q.Live, &q.Dead, &q.Vacuumed, &q.Vacuuming, &recently, &q.MayVacuum)
	if err != nil {
		return QueueHealth{}, fmt.Errorf("read the statistics of the queue: %w", err)
	}
	q.Late = q.Dead > lateDead+int64(latePart*float64(q.Live)) && !q.Vacuuming && !recently
	return q, nil
}

// VacuumQueue vacuums rowhook.event_log, unless another vacuum is running. It blocks neither
// readers nor writers.
func VacuumQueue(ctx context.Context, db pg.Queryer) error {
	return execute(ctx, db, "vacuum the queue", "vacuum (skip_locked, truncate false) rowhook.event_log")
}
