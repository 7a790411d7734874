package queue

import (
	"context"
	"encoding/json"
	"fmt"
	"github.com/rowhook/rowhook/internal/pg"
	"maps"
)

// Trouble is what a dispatcher can't do. rowhook.instance records it for commands that ask the
// database for the state.
type Trouble struct {
	// Unable says by name of a trigger why the dispatcher can't send its events.
	Unable map[string]string `json:"unable,omitempty"`
	// History says why the dispatcher settles without history. "": it settles with history.
	History string `json:"history,omitempty"`
}

// IsZero reports whether there is none.
func (t *Trouble) IsZero() bool { return len(t.Unable) == 0 && t.History == "" }

// Equal reports whether both are the same.
func (t *Trouble) Equal(o *Trouble) bool {
	return maps.Equal(t.Unable, o.Unable) && t.History == o.History
}

// RecordTrouble writes the Trouble of an instance into its row, unless the row has it already.
func RecordTrouble(ctx context.Context, db pg.Queryer, id int32, t *Trouble) error {
	var text *string
	if !t.IsZero() {
		b, err := json.Marshal(t)
		if err != nil {
			return fmt.Errorf("encode the trouble of this instance: %w", err)
		}
		s := string(b)
		text = &s
	}
	rows, err := db.Query(ctx, "update rowhook.instance set trouble = $2::text::jsonb where id = $1 and trouble is distinct from $2::text::jsonb", id, text)
	if err == nil {
		rows.Close()
		err = rows.Err()
	}
	if err != nil {
		return fmt.Errorf("record the trouble of this instance: %w", err)
	}
	return nil
}
