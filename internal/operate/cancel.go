package operate

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

// Canceled is what Cancel has done.
type Canceled struct {
	Trigger string `json:"trigger"`
	// InFlight is how many events were in flight, at most maxCounted. Their attempts are broken off
	// within about a second.
	InFlight int64 `json:"in_flight"`
	// Uncounted says that there may be more. The events of an ordered trigger count only if a
	// dispatcher has reported that their attempts hang, a second or two after those begin.
	Uncounted bool `json:"uncounted"`
	Paused    bool `json:"paused"` // the trigger is paused: their events are sent after Resume
}

// maxCounted is the most attempts in flight that Cancel counts.
const maxCounted = 10_000

// Cancel breaks off the attempts of a trigger that are in flight, on all instances. They are logged
// with the kind canceled and by whom, they do not count, and their events are sent again at once.
// Attempts that begin later are not concerned.
func Cancel(ctx context.Context, db DB, name string) (*Canceled, error) {
	var out *Canceled
	err := transact(ctx, db, pgx.ReadCommitted, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, byIndex()); err != nil {
			return fmt.Errorf("begin: %w", err)
		}
		ts, err := readTriggers(ctx, tx)
		if err != nil {
			return err
		}
		t, err := ts.active(name)
		if err != nil {
			return err
		}
		out = &Canceled{Trigger: t.Name, Paused: t.Paused}
		var role string
		err = tx.QueryRow(ctx, `
select session_user, (
  select count(*) from (
    select claimed_by from rowhook.event_log e where e.trigger_id = $1 and e.due_at > statement_timestamp() order by e.due_at limit $2) as e
   where e.claimed_by is not null)`, t.ID, maxCounted).Scan(&role, &out.InFlight)
		if err != nil {
			return fmt.Errorf("count events in flight: %w", err)
		}
		hanging, err := readHanging(ctx, tx)
		if err != nil {
			return err
		}
		for _, h := range hanging[t.Name] {
			out.InFlight += int64(h.Unclaimed)
		}
		paced, err := readPaced(ctx, tx)
		if err != nil {
			return err
		}
		out.InFlight, _, _ = notInFlight(paced[t.Name], out.InFlight, 0, 0)
		var spec trigger.Spec
		if err := json.Unmarshal([]byte(t.Spec), &spec); err != nil {
			return fmt.Errorf("read the spec of %s: %w", t.Name, err)
		}
		out.Uncounted = !spec.Order.IsZero()
		if err := sqlschema.RaiseGeneration(ctx, tx); err != nil {
			return err
		}
		by := queue.By(ctx, role)
		if _, err := tx.Exec(ctx, "update rowhook.trigger set canceled_at = clock_timestamp(), canceled_by = $2 where id = $1", t.ID, by); err != nil {
			return fmt.Errorf("cancel attempts: %w", err)
		}
		_, err = queue.RecordAudit(ctx, tx, queue.AuditEntry{Action: "cancel", Targets: []string{t.Name}, Detail: map[string]any{"in_flight": out.InFlight}})
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
