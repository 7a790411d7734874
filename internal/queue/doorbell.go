package queue

import (
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/rowhook/rowhook/internal/pg"
)

// Channel is the channel to which writers NOTIFY and dispatchers LISTEN. The payload is a trigger
// id or one of the texts below.
const Channel = "rowhook"

// ConfigPayload tells dispatchers to load their triggers again.
const ConfigPayload = "config"

// HelpPayload tells dispatchers that another one has more due events than free slots.
const HelpPayload = "help"

// StoppedPayload tells dispatchers that another one has stopped. They take over the events that it
// waited for.
const StoppedPayload = "stopped"

// LanesPayload tells dispatchers that the lanes of ordered triggers are to be shared anew: one of
// them serves other triggers than before, or has given lanes back.
const LanesPayload = "lanes"

// Ringing is the value of the doorbell that makes writers NOTIFY. Any other value is Nobody, or the
// id of the instance that is awake and asked for silence.
const Ringing = 1

// Nobody is the value of the doorbell when nobody has asked for notifications and no instance is
// known to be awake. No instance has this id. A dispatcher that listens and reads Nobody arms the
// doorbell.
const Nobody = math.MaxInt32

// Postgres keeps notifications in one queue for all databases of a server. A listening session that
// does not read keeps all later notifications in it, because it is in a transaction or its client
// hangs. When the queue is full, every commit that notifies fails. So Rowhook stops notifying when
// the share MuteFrom of the queue is in use, and starts again at UnmuteAt.
const (
	MuteFrom = 0.25
	UnmuteAt = 0.1
)

// ErrUnregistered says that an instance has no row: another one has taken it for dead. It registers again
// with its next beat.
var ErrUnregistered = errors.New("this instance is not registered")

// Silence asks writers not to NOTIFY. It does so in the name of an instance that is awake and looks
// for events by itself, or of Nobody. It returns ErrUnregistered if the instance has no row: if that
// died before it looked again, no other instance would know of what was written meanwhile. The lock
// keeps the row until the doorbell is set.
func Silence(ctx context.Context, db pg.Queryer, instance int32) error {
	sql := "select setval('rowhook.doorbell', id) from (select id from rowhook.instance where id = $1 and " + unflushed + " for key share) as me"
	if instance == Nobody {
		sql = "select setval('rowhook.doorbell', $1::integer)"
	}
	var v int64
	err := db.QueryRow(ctx, sql, instance).Scan(&v)
	if errors.Is(err, pgx.ErrNoRows) {
		err = ErrUnregistered
	}
	if err != nil {
		return fmt.Errorf("silence the doorbell: %w", err)
	}
	return nil
}

// Ring asks writers to NOTIFY from now on and returns the horizon. A transaction that still read
// silence has a transaction id below the horizon. Once Pending returns 0 for it, every event either
// was visible to a later claim or rings.
//
// The horizon is a transaction id of its own, drawn after the bell was armed. The xmax of a
// snapshot would be wrong: it is one above the last *completed* transaction, so an open transaction
// may lie above it. The horizon is drawn in another transaction than the one that arms the bell,
// since setval draws an id before it writes.
//
// to says to whom writers hand over from now on, so that a transaction that read another instance is
// below the horizon, too. Instance 0 changes nothing. Before HandoverSchema it must be 0.
func Ring(ctx context.Context, db pg.Queryer, to Handover) (horizon uint64, err error) {
	var xid int64
	if to.Instance == 0 {
		err = execute(ctx, db, "ring", "select setval('rowhook.doorbell', 1) where "+unflushed)
	} else {
		err = execute(ctx, db, "ring", "select setval('rowhook.doorbell', 1), ("+offered+")", to.value(), to.Instance)
	}
	if err == nil {
		err = db.QueryRow(ctx, "select pg_current_xact_id()::text::bigint").Scan(&xid)
	}
	if err != nil {
		return 0, fmt.Errorf("arm the doorbell: %w", err)
	}
	return uint64(xid), nil
}

// SilenceForNobody silences a bell that rings while no listening instance is alive. That happens
// after the last one was killed: writers then pay for notifications that nobody hears. An instance
// that registers at this very moment reads Nobody at its next watch and arms the bell again.
// SilenceForNobody does nothing if the session is read-only or lacks the right.
func SilenceForNobody(ctx context.Context, db pg.Queryer) error {
	sql, args := Silencing()
	return execute(ctx, db, "silence the doorbell, which no instance listens to", sql, args...)
}

// Silencing returns the statement of SilenceForNobody, for a batch.
func Silencing() (sql string, args []any) {
	return `
select case when pg_catalog.has_sequence_privilege('rowhook.doorbell', 'UPDATE') and pg_catalog.current_setting('transaction_read_only') = 'off'
            then pg_catalog.setval('rowhook.doorbell', $2) end
 where pg_catalog.pg_sequence_last_value('rowhook.doorbell'::regclass) = $3
   and not exists (select from rowhook.instance i join pg_catalog.pg_locks l on l.objid = i.id::oid
                    where i.listens and l.locktype = 'advisory' and l.classid = $1::bigint::oid and l.objsubid = 2
                      and l.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database()))`,
		[]any{int64(instanceLock), int64(Nobody), int64(Ringing)}
}

// Pending counts the open transactions below the horizon. When the number falls, events may have
// become visible for which nobody rang.
func Pending(ctx context.Context, db pg.Queryer, horizon uint64) (int, error) {
	var n int
	err := db.QueryRow(ctx, "select count(*) from pg_snapshot_xip(pg_current_snapshot()) as x where x::text::bigint < $1",
		int64(horizon)).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("look for open transactions: %w", err)
	}
	return n, nil
}

// NotifyPeers wakes the other dispatchers for a trigger, for instance when this one has no free
// slot. From MuteFrom on it does nothing: the others then poll.
func NotifyPeers(ctx context.Context, db pg.Queryer, payload string) error {
	if _, err := notify(ctx, db, Channel, payload); err != nil {
		return fmt.Errorf("ring the doorbell: %w", err)
	}
	return nil
}

// Ping notifies a channel of the caller's own. From MuteFrom on it returns an error.
func Ping(ctx context.Context, db pg.Queryer, channel, payload string) error {
	sent, err := notify(ctx, db, channel, payload)
	if err == nil && !sent {
		err = fmt.Errorf("the server's queue of notifications is more than %.0f %% full", 100*MuteFrom)
	}
	if err != nil {
		return fmt.Errorf("send a notification: %w", err)
	}
	return nil
}

// notify returns whether it sent the notification. From MuteFrom on it does not.
func notify(ctx context.Context, db pg.Queryer, channel, payload string) (sent bool, err error) {
	err = db.QueryRow(ctx, `
select count(pg_catalog.pg_notify($1, $2)) > 0 where pg_catalog.pg_notification_queue_usage() < $3 and `+unflushed, channel, payload, MuteFrom).Scan(&sent)
	return sent, err
}

// NotificationBlocker is a session that may keep the server from emptying its queue of
// notifications.
type NotificationBlocker struct {
	PID         int32
	User        string
	Application string
	State       string    // such as idle in transaction
	Since       time.Time // beginning of its transaction, or of its state
	Sure        bool      // the server itself has named it
}

// FindNotificationBlocker returns the session that may keep the server from emptying its queue of
// notifications, or nil. pid is the process that the server's own warning named, or 0. Otherwise
// the result is a guess: a listening session reads the queue only between transactions, and only as
// fast as its client reads.
func FindNotificationBlocker(ctx context.Context, db pg.Queryer, pid int32) (*NotificationBlocker, error) {
	var b NotificationBlocker
	err := db.QueryRow(ctx, `
select pid, coalesce(usename, ''), coalesce(application_name, ''),
       case when wait_event = 'ClientWrite' then 'its client does not read' else coalesce(state, 'unknown') end,
       coalesce(xact_start, state_change, backend_start), pid = $1
  from pg_catalog.pg_stat_activity
 where backend_type = 'client backend' and pid <> pg_catalog.pg_backend_pid()
   and (pid = $1 or wait_event = 'ClientWrite' or xact_start < pg_catalog.clock_timestamp() - interval '1 second')
 order by pid = $1 desc, wait_event is not distinct from 'ClientWrite' desc,
       query ~* '^\s*listen' and state ~ '^idle in transaction' desc, state ~ '^idle in transaction' desc, xact_start
 limit 1`, pid).Scan(&b.PID, &b.User, &b.Application, &b.State, &b.Since, &b.Sure)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for the session that keeps notifications from being read: %w", err)
	}
	return &b, nil
}

var warnedOf = regexp.MustCompile(`\d+`)

// WarnedOf returns the process that the server's warning names as the one that keeps the queue of
// notifications from being emptied. It returns 0 for any other notice. The server sends the warning
// to a session that notifies while the queue is more than half full.
func WarnedOf(n *pgconn.Notice) int32 {
	if n.Routine != "asyncQueueFillWarning" {
		return 0
	}
	pid, err := strconv.ParseInt(warnedOf.FindString(n.Detail), 10, 32)
	if err != nil {
		return 0
	}
	return int32(pid)
}
