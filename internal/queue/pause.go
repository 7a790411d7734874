package queue

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rowhook/rowhook/internal/pg"
)

// Pause records who paused, when and why.
type Pause struct {
	At     time.Time `json:"at"`
	By     string    `json:"by"` // such as ann@laptop, role shop
	Reason string    `json:"reason,omitempty"`
	// Status is the answer of the receiver that paused the trigger; 0: somebody did.
	Status int `json:"status,omitempty"`
}

// Pauses are the value of rowhook.setting with the name paused. The column rowhook.trigger.paused
// says whether a trigger is paused.
type Pauses struct {
	// All is set while all triggers are paused, including future ones.
	All *Pause `json:"all,omitempty"`
	// Triggers has rowhook.trigger.id as its key.
	Triggers map[int32]Pause `json:"triggers,omitempty"`
}

// PausedSetting is the name of the row in rowhook.setting.
const PausedSetting = "paused"

// ReadPauses reads the Pauses.
func ReadPauses(ctx context.Context, db pg.Queryer) (Pauses, error) {
	var text string
	err := db.QueryRow(ctx, "select coalesce((select value::pg_catalog.text from rowhook.setting where name = $1), '{}')", PausedSetting).Scan(&text)
	if err != nil {
		return Pauses{}, fmt.Errorf("read rowhook.setting paused: %w", err)
	}
	return ParsePauses([]byte(text))
}

// ParsePauses reads the JSON of that row. An empty text means no pauses.
func ParsePauses(text []byte) (p Pauses, err error) {
	if len(text) == 0 {
		return p, nil
	}
	if err := json.Unmarshal(text, &p); err != nil {
		return Pauses{}, fmt.Errorf("read rowhook.setting paused: %w", err)
	}
	return p, nil
}

// WritePauses replaces the Pauses. The transaction must have raised the generation before. That
// locks a row, so two transactions can't do this at once.
func WritePauses(ctx context.Context, tx pgx.Tx, p Pauses) error {
	text, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("write rowhook.setting paused: %w", err)
	}
	_, err = tx.Exec(ctx, `
insert into rowhook.setting (name, value) values ($1, $2::pg_catalog.text::pg_catalog.jsonb)
on conflict (name) do update set value = excluded.value`, PausedSetting, string(text))
	if err != nil {
		return fmt.Errorf("write rowhook.setting paused: %w", err)
	}
	return nil
}

// PauseNewcomers pauses the triggers that an apply has made while all are paused. The transaction
// must have raised the generation before. So a transaction that pauses all triggers commits before
// this check, or it sees the new triggers.
func PauseNewcomers(ctx context.Context, tx pgx.Tx, ids []int32) error {
	if len(ids) == 0 {
		return nil
	}
	_, err := tx.Exec(ctx, `
update rowhook.trigger set paused = true
 where id = any($1) and not paused and exists (select from rowhook.setting where name = $2 and value->'all' is not null)`, ids, PausedSetting)
	if err != nil {
		return fmt.Errorf("pause the new triggers, since all triggers are paused: %w", err)
	}
	return nil
}

// By returns a text for Pause.By: the actor of ctx and the role.
func By(ctx context.Context, role string) string {
	a := ActorOf(ctx)
	parts := []string{a.Name}
	if a.Client != "" {
		parts = append(parts, "from "+a.Client)
	}
	return strings.Join(append(parts, "role "+role), ", ")
}
