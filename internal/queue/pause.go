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

// Pause is who paused, when and why.
type Pause struct {
	At     time.Time `json:"at"`
	By     string    `json:"by"` // such as ann@laptop, role shop
	Reason string    `json:"reason,omitempty"`
}

// Pauses are what rowhook.setting keeps under the name paused. Whether a trigger is paused stands in rowhook.trigger.paused.
type Pauses struct {
	// All is set while all triggers are paused, those that are yet to come among them.
	All *Pause `json:"all,omitempty"`
	// Triggers are by rowhook.trigger.id.
	Triggers map[int32]Pause `json:"triggers,omitempty"`
}

// pausedSetting is the name of the row.
const PausedSetting = "paused"

// ReadPauses reads who paused what.
func ReadPauses(ctx context.Context, db pg.Queryer) (Pauses, error) {
	var text string
	err := db.QueryRow(ctx, "select coalesce((select value::pg_catalog.text from rowhook.setting where name = $1), '{}')", PausedSetting).Scan(&text)
	if err != nil {
		return Pauses{}, fmt.Errorf("read who paused what: %w", err)
	}
	return ParsePauses([]byte(text))
}

func ParsePauses(text []byte) (p Pauses, err error) {
	if len(text) == 0 {
		return p, nil
	}
	if err := json.Unmarshal(text, &p); err != nil {
		return Pauses{}, fmt.Errorf("read rowhook.setting paused: %w", err)
	}
	return p, nil
}

// WritePauses replaces who paused what. The transaction has raised the generation already, which keeps others from doing the same.
func WritePauses(ctx context.Context, tx pgx.Tx, p Pauses) error {
	text, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("write who paused what: %w", err)
	}
	_, err = tx.Exec(ctx, `
insert into rowhook.setting (name, value) values ($1, $2::pg_catalog.text::pg_catalog.jsonb)
on conflict (name) do update set value = excluded.value`, PausedSetting, string(text))
	if err != nil {
		return fmt.Errorf("write who paused what: %w", err)
	}
	return nil
}

// pauseNewcomers pauses triggers that an apply has made while all are paused. The transaction has raised the generation already: so whoever
// pauses all does it before this looks, or after these triggers are there.
func PauseNewcomers(ctx context.Context, tx pgx.Tx, ids []int32) error {
	if len(ids) == 0 {
		return nil
	}
	_, err := tx.Exec(ctx, `
update rowhook.trigger set paused = true
 where id = any($1) and not paused and exists (select from rowhook.setting where name = $2 and value->'all' is not null)`, ids, PausedSetting)
	if err != nil {
		return fmt.Errorf("pause new triggers, as all are: %w", err)
	}
	return nil
}

// By writes who acts by ctx and as which role.
func By(ctx context.Context, role string) string {
	a := ActorOf(ctx)
	parts := []string{a.Name}
	if a.Client != "" {
		parts = append(parts, "from "+a.Client)
	}
	return strings.Join(append(parts, "role "+role), ", ")
}
