package operate

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/queue"
)

// RetryOptions choose the retries that RetryNow makes due.
type RetryOptions struct {
	Trigger string
	IDs     []string // of events; none: all of the trigger
	// Wait is how long to wait until one of these events has failed and waits for its retry. 0: not at
	// all.
	Wait time.Duration
}

// Retried is what RetryNow has done.
type Retried struct {
	Trigger string `json:"trigger"`
	Events  int64  `json:"events"` // whose retry is due now
	// IDs are the ids of these events, at most MaxRetriedIDs.
	IDs    []string `json:"ids"`
	Paused bool     `json:"paused"` // the trigger is paused: they are sent after Resume
}

// MaxRetriedIDs is the most ids that RetryNow returns.
const MaxRetriedIDs = 1000

// retryBatch is the number of events in a transaction. Its row locks delay a settlement that comes at
// the same time.
const retryBatch = 1000

// RetryNow makes retries due at once that wait for a later time. Unlike Redeliver it leaves the
// number of attempts as it is, so that the configured retries go on from there: after the last one
// the event is a dead letter. Each event is retried once, also if it fails again meanwhile. The
// batches before an error or the end of ctx stay done.
func RetryNow(ctx context.Context, db DB, o RetryOptions) (*Retried, error) {
	ids, err := o.parse()
	if err != nil {
		return nil, err
	}
	timer := time.NewTimer(o.Wait)
	defer timer.Stop()
	for pause := drainFirst; ; pause = min(2*pause, drainPause) {
		t, waiting, err := o.find(ctx, db, ids)
		if err != nil {
			return nil, err
		}
		if len(waiting) > 0 {
			out, err := o.retry(ctx, db, t, waiting)
			if err != nil || out.Events > 0 {
				return out, err
			}
		}
		next := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			next.Stop()
			return nil, ctx.Err()
		case <-timer.C:
			next.Stop()
			return &Retried{Trigger: t.Name, IDs: []string{}, Paused: t.Paused}, nil
		case <-next.C:
		}
	}
}

func (o *RetryOptions) parse() ([]uuid.UUID, error) {
	var ids []uuid.UUID
	for _, text := range o.IDs {
		id, err := uuid.Parse(text)
		if err != nil {
			return nil, problem(ErrInvalid, "write an id such as 0199a8e2-7c5d-7a3e-9f10-2b7f4c1d8e90", "%q is not an event id", text)
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// find returns the ids of the events that wait for a retry, those first that wait longest.
func (o *RetryOptions) find(ctx context.Context, db DB, ids []uuid.UUID) (t *knownTrigger, waiting []uuid.UUID, err error) {
	err = read(ctx, db, func(tx pgx.Tx) error {
		ts, err := readTriggers(ctx, tx)
		if err != nil {
			return err
		}
		if t, err = ts.active(o.Trigger); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, findRetries, t.ID, ids)
		if err == nil {
			waiting, err = pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
		}
		if err != nil {
			return fmt.Errorf("look for retries: %w", err)
		}
		return nil
	})
	return t, waiting, err
}

const (
	waitsForRetry = "trigger_id = $1 and tries > 0 and claimed_by is null and (due_at > statement_timestamp() and due_at < " + queue.ParkedFrom +
		" or due_at > statement_timestamp() + " + queue.ParkedSQL + ")"

	// findRetries reads the two ranges of the index in which retries wait, and not what is parked
	// and due.
	findRetries = `
select id from (
  select id, due_at from rowhook.event_log
   where trigger_id = $1 and due_at > statement_timestamp() and due_at < ` + queue.ParkedFrom + ` and tries > 0 and claimed_by is null and ($2::uuid[] is null or id = any($2))
  union all
  select id, due_at - ` + queue.ParkedSQL + ` from rowhook.event_log
   where trigger_id = $1 and due_at > statement_timestamp() + ` + queue.ParkedSQL + ` and tries > 0 and claimed_by is null and ($2::uuid[] is null or id = any($2))) as e
 order by due_at`
)

// retry makes the retries of these events due, in batches.
func (o *RetryOptions) retry(ctx context.Context, db DB, t *knownTrigger, waiting []uuid.UUID) (*Retried, error) {
	out := &Retried{Trigger: t.Name, IDs: []string{}, Paused: t.Paused}
	detail := map[string]any{}
	if len(o.IDs) > 0 {
		detail["ids"] = o.IDs[:min(len(o.IDs), maxAuditedIDs)]
	}
	ended, err := record(ctx, db, queue.AuditEntry{Action: "retry", Targets: []string{t.Name}, Detail: detail})
	if err != nil {
		return nil, err
	}
	for batch := range slices.Chunk(waiting, retryBatch) {
		if err = out.add(ctx, db, t, batch); err != nil {
			break
		}
	}
	return out, ended(map[string]any{"events": out.Events}, err)
}

// maxAuditedIDs is the most ids in an entry of the audit.
const maxAuditedIDs = 100

func (r *Retried) add(ctx context.Context, db DB, t *knownTrigger, batch []uuid.UUID) error {
	return transact(ctx, db, pgx.ReadCommitted, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, byIndex()); err != nil {
			return fmt.Errorf("begin to retry: %w", err)
		}
		rows, err := tx.Query(ctx, makeDue, t.ID, batch)
		if err != nil {
			return fmt.Errorf("make retries due: %w", err)
		}
		due, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return fmt.Errorf("make retries due: %w", err)
		}
		r.Events += int64(len(due))
		r.IDs = append(r.IDs, due[:min(len(due), MaxRetriedIDs-len(r.IDs))]...)
		return ring(ctx, tx, []int32{t.ID})
	})
}

const makeDue = `
update rowhook.event_log q set due_at = ` + dueNow + `
  from (select id from rowhook.event_log where id = any($2::uuid[]) and ` + waitsForRetry + `
         order by id for update skip locked) as mine
 where q.id = mine.id
returning q.id::text`
