package alert

import (
	"maps"
	"time"

	"github.com/rowhook/rowhook/trigger"
)

// Kind is a kind of trouble, as in "alert" of a message.
type Kind string

// The kinds of trouble. A recovery is the end of Failing.
const (
	Failing    Kind = trigger.AlertFailing
	Dead       Kind = trigger.AlertDead
	Paused     Kind = trigger.AlertPaused
	Backlog    Kind = trigger.AlertBacklog
	Uncaptured Kind = trigger.AlertUncaptured
)

// Key identifies a trouble.
type Key struct {
	Kind    Kind
	Subject string // the name of a trigger, or of a host as scheme://host:port
}

// Trouble is what is wrong at the moment.
type Trouble struct {
	Key
	Since time.Time
	Facts
	// Waits is for how long events of the trigger have been due. It is set for Backlog alone.
	Waits time.Duration
}

// Facts are what a message says of a trouble. They are stored as JSON.
type Facts struct {
	// Triggers are the names of the affected triggers, the first ones of them where there are many.
	Triggers []string         `json:"triggers,omitempty"`
	Endpoint string           `json:"endpoint,omitempty"` // for people
	Host     string           `json:"host,omitempty"`     // scheme://host:port of the endpoint
	Reason   string           `json:"reason,omitempty"`
	Counts   map[string]int64 `json:"counts,omitempty"`
	Remedy   string           `json:"remedy,omitempty"`
	// Over is since when it seems to be over, as of an endpoint that answers again and may yet fall
	// back. Zero: it is not. It is the end that is told, since the look that finds it comes later.
	Over time.Time `json:"over,omitzero"`
	// Webhook is a digest of the webhook of Failing. Unwatched says that it ended because nobody
	// looks any more, not because it is over.
	Webhook   string `json:"webhook,omitempty"`
	Unwatched bool   `json:"unwatched,omitempty"`
}

// leave takes over what is left of a trouble that is over.
func (f *Facts) leave(left Left) {
	f.Counts = maps.Clone(f.Counts) // other destinations have it, too
	if f.Counts == nil {
		f.Counts = map[string]int64{}
	}
	f.Counts[countLeft], f.Over = left.Count, left.Last
}

// countLeft is the name of Left.Count in Facts.Counts.
const countLeft = "left"

// Destination is a receiver of alerts.
type Destination struct {
	ID string // identifies it in State
	trigger.Alert
}

// active reports whether a trouble is one for this destination. was says that it was one before.
func (d *Destination) active(t *Trouble, was bool) bool {
	if t.Kind != Backlog {
		return true
	}
	limit := d.Backlog.OlderThan.Std()
	if was { // so that it does not end and begin with each event
		limit /= 2
	}
	return t.Waits >= limit
}

// Wants reports whether the destination is told of the beginning or the end of a kind.
func (d *Destination) Wants(k Kind) bool { return d.listens(k, Begun) || d.listens(k, Ended) }

// listens reports whether the destination is told of the beginning or the end of a kind.
func (d *Destination) listens(k Kind, s Phase) bool {
	if k == Failing && s == Ended {
		return d.Tells(trigger.AlertRecovered)
	}
	return d.Tells(string(k))
}
