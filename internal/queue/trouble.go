package queue

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/rowhook/rowhook/internal/pg"
)

// Trouble is what a dispatcher can't do, and who makes it wait. rowhook.instance records it for commands that ask the
// database for the state.
type Trouble struct {
	// Unable says by name of a trigger why the dispatcher can't send its events.
	Unable map[string]string `json:"unable,omitempty"`
	// History says why the dispatcher settles without history. "": it settles with history.
	History string `json:"history,omitempty"`
	// Activity says why the dispatcher can't write its counts of attempts. "": it can.
	Activity string `json:"activity,omitempty"`
	// Hanging are attempts in flight for more than a second, by name of a trigger.
	Hanging map[string]Hanging `json:"hanging,omitempty"`
	// Paced are claimed events that are not being sent, since they wait for their rate, by name of a
	// trigger. It is no trouble, but no row of the queue says so.
	Paced map[string]Paced `json:"paced,omitempty"`
}

// Paced counts claimed events that wait for their rate.
type Paced struct {
	Events  int `json:"events"`
	Retried int `json:"retried,omitempty"` // of those, have failed before
}

// Hanging are attempts of one trigger.
type Hanging struct {
	Attempts int       `json:"attempts"`
	Since    time.Time `json:"since"`              // when the oldest was begun
	Endpoint string    `json:"endpoint,omitempty"` // for people
	// Unclaimed is how many events of an ordered trigger are in them. No row of the queue says so.
	// Retried is how many of those have failed before.
	Unclaimed int `json:"unclaimed,omitempty"`
	Retried   int `json:"retried,omitempty"`
	// Events are the ids of unclaimed ones, at most MostHanging.
	Events []string `json:"events,omitempty"`
}

// MostHanging is how many events a Hanging names.
const MostHanging = 20

// IsZero reports whether there is none.
func (t *Trouble) IsZero() bool {
	return len(t.Unable) == 0 && len(t.Hanging) == 0 && len(t.Paced) == 0 && t.History == "" && t.Activity == ""
}

// Equal reports whether both are the same.
func (t *Trouble) Equal(o *Trouble) bool {
	return maps.Equal(t.Unable, o.Unable) && t.History == o.History && t.Activity == o.Activity && maps.EqualFunc(t.Hanging, o.Hanging, Hanging.equal) && maps.Equal(t.Paced, o.Paced)
}

func (h Hanging) equal(o Hanging) bool {
	return h.Attempts == o.Attempts && h.Since.Equal(o.Since) && h.Endpoint == o.Endpoint &&
		h.Unclaimed == o.Unclaimed && h.Retried == o.Retried && slices.Equal(h.Events, o.Events)
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
	return execute(ctx, db, "record the trouble of this instance", "update rowhook.instance set trouble = $2::text::jsonb where id = $1 and trouble is distinct from $2::text::jsonb", id, text)
}
