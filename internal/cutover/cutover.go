// Package cutover moves a trigger from Hasura to Rowhook, and back, while the table is written to:
// each change is delivered by one of the two, and by one only.
//
// Both record each change for a while. What decides is one transaction, which locks the table. It
// drops the SQL triggers of the one, and discards what the other has recorded until then. Every
// transaction that has written to the table has ended by then, and is on one side as a whole. No
// clock and no transaction id is compared.
//
// Hasura makes its SQL triggers again at times of its own. So there is a fence between them and its
// queue, a trigger on hdb_catalog.event_log. The same transaction closes it.
package cutover

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/sqlschema"
)

// Cutover moves triggers. Conn is required; the other fields have defaults.
type Cutover struct {
	// Conn is a session of its own, not of a pooler, with its search_path pinned. See [pg.Pin].
	Conn *pgx.Conn
	// Metadata changes Hasura's metadata. nil: Say tells what to do by hand.
	Metadata *Metadata
	// WithPending takes over the events that Hasura has not delivered yet, instead of waiting until
	// it has.
	WithPending bool

	LockTimeout time.Duration // how long one attempt may wait for a lock; 0: DefaultLockTimeout
	Patience    time.Duration // how long attempts are repeated; 0: DefaultPatience
	Poll        time.Duration // between two looks at a queue that is being emptied; 0: DefaultPoll

	// Say is called with what is being done. Optional.
	Say func(trigger, text string)

	// at is called at points where a test ends the process.
	at func(point string) error
}

// The defaults of a Cutover.
const (
	DefaultLockTimeout = sqlschema.DefaultLockTimeout
	DefaultPatience    = 5 * time.Minute
	DefaultPoll        = time.Second
)

func (c *Cutover) say(trigger, format string, args ...any) {
	if c.Say != nil {
		c.Say(trigger, fmt.Sprintf(format, args...))
	}
}

func (c *Cutover) point(name string) error {
	if c.at == nil {
		return nil
	}
	return c.at(name)
}

func problem(kind error, remedy, format string, args ...any) error {
	return &operate.Error{Kind: kind, Problem: fmt.Sprintf(format, args...), Remedy: remedy}
}

// transact runs f in a transaction that sees all rows, and gives up a lock after LockTimeout.
func (c *Cutover) transact(ctx context.Context, f func(tx pgx.Tx) error) error {
	timeout := c.LockTimeout
	if timeout <= 0 {
		timeout = DefaultLockTimeout
	}
	return pgx.BeginTxFunc(ctx, c.Conn, pgx.TxOptions{IsoLevel: pgx.ReadCommitted, AccessMode: pgx.ReadWrite}, func(tx pgx.Tx) error {
		set := fmt.Sprintf("%s; set local lock_timeout = '%dms'; set local statement_timeout = 0; set local synchronous_commit = on",
			queue.SeeAllRows, max(1, timeout.Milliseconds()))
		if _, err := tx.Exec(ctx, set); err != nil {
			return fmt.Errorf("begin: %w", err)
		}
		return queue.ExplainHidden(f(tx))
	})
}

// errInFlight says that Rowhook is still sending an event that is to be discarded.
var errInFlight = errors.New("attempts of the trigger are in flight")

// tries repeats transact while a table is locked by others. A statement that waits for the lock of a
// table makes all later statements on it wait, so each attempt is short, and lets the others pass.
func (c *Cutover) tries(ctx context.Context, s *subject, what string, f func(tx pgx.Tx) error) error {
	patience := c.Patience
	if patience <= 0 {
		patience = DefaultPatience
	}
	timeout := c.LockTimeout
	if timeout <= 0 {
		timeout = DefaultLockTimeout
	}
	started, backoff, told := time.Now(), pg.Backoff(timeout), false
	for {
		err := c.transact(ctx, f)
		busy := pg.IsState(err, pgerrcode.LockNotAvailable, pgerrcode.DeadlockDetected)
		if err == nil || !busy && !errors.Is(err, errInFlight) {
			return err
		}
		if time.Since(started) > patience {
			return c.stillBusy(ctx, s, what, time.Since(started), err)
		}
		if !told {
			told = true
			c.say(s.Name, "%s waits: %s", what, c.busyWith(ctx, s, err))
		}
		wait, _ := backoff.Next()
		if err := operate.Rest(ctx, wait); err != nil {
			return err
		}
	}
}

func (c *Cutover) busyWith(ctx context.Context, s *subject, err error) string {
	if errors.Is(err, errInFlight) {
		return "Rowhook is still sending events that it has begun to send; the trigger is paused, so that ends"
	}
	for _, table := range s.locked() {
		blockers, lookErr := sqlschema.FindBlockers(ctx, c.Conn, table.name, table.oid)
		if lookErr == nil && len(blockers) > 0 {
			return table.name + " is locked by " + blockers[0].String()
		}
	}
	return "the table was locked by sessions that have ended meanwhile"
}

func (c *Cutover) stillBusy(ctx context.Context, s *subject, what string, waited time.Duration, err error) error {
	remedy := "end that transaction, or repeat the command when it is over"
	if errors.Is(err, errInFlight) {
		remedy = fmt.Sprintf("run \"rowhook cancel %s\", and repeat the command", s.Name)
	}
	return problem(operate.ErrBusy, remedy, "%s of %s was not done, since it had to wait for %s: %s", what, s.Name, waited.Round(time.Millisecond), c.busyWith(ctx, s, err))
}

func (c *Cutover) poll(ctx context.Context) error {
	d := c.Poll
	if d <= 0 {
		d = DefaultPoll
	}
	return operate.Rest(ctx, d)
}

// exclusive runs f while no other session moves one of these triggers.
func (c *Cutover) exclusive(ctx context.Context, names []string, f func() error) error {
	for _, name := range names {
		var got bool
		err := c.Conn.QueryRow(ctx, "select pg_try_advisory_lock(hashtext('rowhook cutover'), hashtext($1))", name).Scan(&got)
		if err != nil {
			return fmt.Errorf("lock the cut-over of %s: %w", name, err)
		}
		if !got {
			return problem(operate.ErrBusy, "wait until it has ended, or end it", "another session is moving the trigger %q", name)
		}
	}
	defer func() { // They end with the session, too.
		for _, name := range names {
			_, _ = c.Conn.Exec(context.WithoutCancel(ctx), "select pg_advisory_unlock(hashtext('rowhook cutover'), hashtext($1))", name)
		}
	}()
	return f()
}
