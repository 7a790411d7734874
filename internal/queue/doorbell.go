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

// Channel is what writers NOTIFY and dispatchers LISTEN to. The payload is a trigger id, or ConfigPayload.
const Channel = "rowhook"

// ConfigPayload tells dispatchers to load their triggers anew.
const ConfigPayload = "config"

// HelpPayload tells dispatchers that another one has more to do than it has slots for.
const HelpPayload = "help"

// StoppedPayload tells dispatchers that another one has stopped: what it waited for is theirs now.
const StoppedPayload = "stopped"

// Ringing is the doorbell's value that makes writers NOTIFY. Any other value is the id of the instance that is awake and
// asked for silence, or Nobody.
const Ringing = 1

// Nobody is the doorbell's value where nobody has asked for rings, and nobody is known to be awake: no instance has it for
// its id. A dispatcher that listens and finds it arms the bell.
const Nobody = math.MaxInt32

// Postgres keeps notifications in one queue for all databases of a server. A session that listens and does not read, because
// it sits in a transaction or its client hangs, keeps everything in it from MuteFrom on; once it is full every commit that
// notifies fails. So from that share on nobody of ours notifies, and from UnmuteAt down it is as usual.
const (
	MuteFrom = 0.25
	UnmuteAt = 0.1
)

// Silence asks writers not to NOTIFY, in the name of an instance that is awake and looks for events by itself.
func Silence(ctx context.Context, db pg.Queryer, instance int32) error {
	var v int64
	if err := db.QueryRow(ctx, "select setval('rowhook.doorbell', $1)", int64(instance)).Scan(&v); err != nil {
		return fmt.Errorf("silence the doorbell: %w", err)
	}
	return nil
}

// Ring asks writers to NOTIFY from now on and returns the horizon: a transaction that still read silence has a lower
// transaction id. Once Pending returns 0 for it, every event either was visible to a claim made afterwards or rings.
//
// The horizon is a transaction id of its own, taken after the bell was armed. A snapshot's xmax would not do: it is one
// above the last *completed* transaction, so one that is still open may lie above it. And it is drawn in a transaction
// after the one that armed the bell: setval draws an id before it writes.
func Ring(ctx context.Context, db pg.Queryer) (horizon uint64, err error) {
	var v, xid int64
	err = db.QueryRow(ctx, "select setval('rowhook.doorbell', 1)").Scan(&v)
	if err == nil {
		err = db.QueryRow(ctx, "select pg_current_xact_id()::text::bigint").Scan(&xid)
	}
	if err != nil {
		return 0, fmt.Errorf("arm the doorbell: %w", err)
	}
	return uint64(xid), nil
}

// SilenceForNobody silences a bell that rings while no instance that listens is alive: the last one was killed, and writers pay for a notification that
// nobody hears. An instance that registers at this very moment arms it anew when it finds Nobody there, at its next watch. It does nothing where the
// session may not: for want of the right, or as it may only read.
func SilenceForNobody(ctx context.Context, db pg.Queryer) error {
	rows, err := db.Query(ctx, `
select case when pg_catalog.has_sequence_privilege('rowhook.doorbell', 'UPDATE') and pg_catalog.current_setting('transaction_read_only') = 'off'
            then pg_catalog.setval('rowhook.doorbell', $2) end
 where pg_catalog.pg_sequence_last_value('rowhook.doorbell'::regclass) = $3
   and not exists (select from rowhook.instance i join pg_catalog.pg_locks l on l.objid = i.id::oid
                    where i.listens and l.locktype = 'advisory' and l.classid = $1::bigint::oid and l.objsubid = 2
                      and l.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database()))`,
		int64(instanceLock), int64(Nobody), int64(Ringing))
	if err == nil {
		rows.Close()
		err = rows.Err()
	}
	if err != nil {
		return fmt.Errorf("silence a doorbell that rings for nobody: %w", err)
	}
	return nil
}

// Pending counts the transactions below the horizon that are still open. When the number falls, events may have become
// visible that nobody rang for.
func Pending(ctx context.Context, db pg.Queryer, horizon uint64) (int, error) {
	var n int
	err := db.QueryRow(ctx, "select count(*) from pg_snapshot_xip(pg_current_snapshot()) as x where x::text::bigint < $1",
		int64(horizon)).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("look for open transactions: %w", err)
	}
	return n, nil
}

// Call wakes the other dispatchers for a trigger, for instance when this one has no free slot. It does not where the
// server's queue of notifications fills up: they look by themselves then.
func NotifyPeers(ctx context.Context, db pg.Queryer, payload string) error {
	if _, err := notify(ctx, db, Channel, payload); err != nil {
		return fmt.Errorf("ring the doorbell: %w", err)
	}
	return nil
}

// Ping notifies a channel of the caller's own. It fails where the server's queue of notifications fills up.
func Ping(ctx context.Context, db pg.Queryer, channel, payload string) error {
	sent, err := notify(ctx, db, channel, payload)
	if err == nil && !sent {
		err = errors.New("the server's queue of notifications is filling up")
	}
	if err != nil {
		return fmt.Errorf("send a notification: %w", err)
	}
	return nil
}

// notify reports whether it did, which it does not from MuteFrom on.
func notify(ctx context.Context, db pg.Queryer, channel, payload string) (sent bool, err error) {
	err = db.QueryRow(ctx, `
select count(pg_catalog.pg_notify($1, $2)) > 0 where pg_catalog.pg_notification_queue_usage() < $3`, channel, payload, MuteFrom).Scan(&sent)
	return sent, err
}

// NotificationBlocker is a session that may keep the server's queue of notifications from being emptied.
type NotificationBlocker struct {
	PID         int32
	User        string
	Application string
	State       string    // such as idle in transaction
	Since       time.Time // its transaction, or its present state
	Sure        bool      // the server itself has named it
}

// FindNotificationBlocker names who may keep the server's queue of notifications from being emptied, nil where nobody can be
// seen. pid is who the server's own warning named, 0 for nobody. Otherwise it is a guess: a session that listens moves on
// in the queue only between transactions, and only as fast as its client reads.
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
		return nil, fmt.Errorf("look for who keeps notifications from being read: %w", err)
	}
	return &b, nil
}

var warnedOf = regexp.MustCompile(`\d+`)

// WarnedOf returns the process that the server's warning names as the one that keeps the queue of notifications from being
// emptied, 0 where the notice is another one. It goes to whoever notifies while the queue is more than half full.
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
