package sqlschema

import (
	"context"
	"fmt"
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
// asked for silence.
const Ringing = 1

// Silence asks writers not to NOTIFY, in the name of an instance that is awake and looks for events by itself.
func Silence(ctx context.Context, db Queryer, instance int32) error {
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
func Ring(ctx context.Context, db Queryer) (horizon uint64, err error) {
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

// Pending counts the transactions below the horizon that are still open. When the number falls, events may have become
// visible that nobody rang for.
func Pending(ctx context.Context, db Queryer, horizon uint64) (int, error) {
	var n int
	err := db.QueryRow(ctx, "select count(*) from pg_snapshot_xip(pg_current_snapshot()) as x where x::text::bigint < $1",
		int64(horizon)).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("look for open transactions: %w", err)
	}
	return n, nil
}

// Call wakes the other dispatchers for a trigger, for instance when this one has no free slot.
func Call(ctx context.Context, db Queryer, payload string) error {
	rows, err := db.Query(ctx, "select pg_notify($1, $2)", Channel, payload)
	if err == nil {
		rows.Close()
		err = rows.Err()
	}
	if err != nil {
		return fmt.Errorf("ring the doorbell: %w", err)
	}
	return nil
}
