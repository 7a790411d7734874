package cutover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/moving"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
)

// State is the record of a cut-over: the value of rowhook.setting with the name cutover:TRIGGER.
type State struct {
	Trigger string      `json:"trigger"`
	Table   string      `json:"table"` // schema.table
	Step    moving.Step `json:"step"`
	Source  string      `json:"source,omitempty"` // of Hasura
	Began   time.Time   `json:"began"`
	Touched time.Time   `json:"touched"`
	// Since is when the oldest change was made that Hasura had not delivered at the beginning. What
	// Hasura archives of changes since then, it sends no more.
	Since time.Time `json:"since"`
	// WithPending says that Rowhook takes over what Hasura had not delivered.
	WithPending bool `json:"with_pending,omitempty"`
	// Dropped are the SQL triggers of Hasura that were dropped, as statements that make them again.
	Dropped []string `json:"dropped,omitempty"`
	// Definition is the trigger in Hasura's metadata, from before it was deleted there. It is not kept
	// if it holds a header or a URL with what may be a secret.
	Definition json.RawMessage `json:"definition,omitempty"`
	// ByHand says that Hasura's metadata is changed by hand.
	ByHand bool `json:"by_hand,omitempty"`

	Discarded int64       `json:"discarded"`           // events of Rowhook that were Hasura's
	TakenOver int64       `json:"taken_over"`          // events of Hasura that Rowhook delivers
	Archived  int64       `json:"archived,omitempty"`  // events of Hasura that Rowhook had recorded as well
	MadeAgain int64       `json:"made_again"`          // how many times Hasura had made its SQL triggers again
	Before    moving.Step `json:"before,omitempty"`    // the step at which the way back began; empty: none
	Recaught  int64       `json:"recaught,omitempty"`  // how many times Rowhook's captures had been made again
	Remaining string      `json:"remaining,omitempty"` // what is left to do by hand
}

// readState returns the state, or nil if there was no cut-over. lock keeps others from changing it
// until the transaction ends.
func readState(ctx context.Context, db pg.Queryer, name string, lock bool) (*State, error) {
	sql := "select value::text from rowhook.setting where name = $1"
	if lock {
		sql += " for update"
	}
	var text string
	switch err := db.QueryRow(ctx, sql, moving.Setting(name)).Scan(&text); {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read rowhook.setting %s: %w", moving.Setting(name), err)
	}
	var s State
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return nil, fmt.Errorf("read rowhook.setting %s: %w", moving.Setting(name), err)
	}
	return &s, nil
}

// write stores the state at a step.
func (s *State) write(ctx context.Context, tx pgx.Tx, step moving.Step) error {
	next := *s
	next.Step = step
	if err := tx.QueryRow(ctx, "select clock_timestamp()").Scan(&next.Touched); err != nil {
		return fmt.Errorf("ask for the time: %w", err)
	}
	text, err := json.Marshal(next)
	if err != nil {
		return fmt.Errorf("write rowhook.setting %s: %w", moving.Setting(s.Trigger), err)
	}
	_, err = tx.Exec(ctx, `
insert into rowhook.setting (name, value) values ($1, $2::text::jsonb)
on conflict (name) do update set value = excluded.value`, moving.Setting(s.Trigger), string(text))
	if err != nil {
		return fmt.Errorf("write rowhook.setting %s: %w", moving.Setting(s.Trigger), err)
	}
	return nil
}

// record adds what was done to the audit.
func (s *State) record(ctx context.Context, tx pgx.Tx, step moving.Step, detail map[string]any) error {
	all := map[string]any{"from": "hasura", "step": step}
	for k, v := range detail {
		all[k] = v
	}
	_, err := queue.RecordAudit(ctx, tx, queue.AuditEntry{Action: "cutover", Targets: []string{s.Trigger}, Detail: all})
	return err
}
