package queue

import (
	"context"
	"encoding/json"
	"fmt"
	"github.com/rowhook/rowhook/internal/pg"
	"maps"
)

// TroubleSchema is the version of the schema from which on there is a place for Trouble.
const TroubleSchema = 3

// Trouble is what a dispatcher can't do, as rowhook.instance records it for those who ask the database how things stand.
type Trouble struct {
	Unable  map[string]string `json:"unable,omitempty"`  // why it can't send, by trigger
	History string            `json:"history,omitempty"` // why it settles without history
}

// IsZero reports that there is none.
func (t *Trouble) IsZero() bool { return len(t.Unable) == 0 && t.History == "" }

// Equal reports whether both say the same.
func (t *Trouble) Equal(o *Trouble) bool {
	return maps.Equal(t.Unable, o.Unable) && t.History == o.History
}

// RecordTrouble writes what an instance can't do into its row, unless it says so already.
func RecordTrouble(ctx context.Context, db pg.Queryer, id int32, t *Trouble) error {
	var text *string
	if !t.IsZero() {
		b, err := json.Marshal(t)
		if err != nil {
			return fmt.Errorf("write down what this instance can't do: %w", err)
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
		return fmt.Errorf("record what this instance can't do: %w", err)
	}
	return nil
}
