package trigger

import (
	"slices"
	"time"
)

// Alert is an entry of alerts in rowhook.yaml: who is told of trouble. It has a URL, or a Heartbeat
// and nothing else.
type Alert struct {
	// On are the kinds of trouble to tell of: the constants Alert…. nil: all of them.
	On []string `json:"on,omitempty" yaml:"on,omitempty"`
	// URL is where an alert is POSTed. It and Secret may hold ${NAME} references.
	URL string `json:"url,omitempty" yaml:"url,omitempty"`
	// Format is AlertJSON or AlertSlack.
	Format string `json:"format,omitempty" yaml:"format,omitempty"`
	// Secret signs each alert, as Webhook.Secret does. "" sends no signature.
	Secret string `json:"secret,omitempty" yaml:"secret,omitempty"`
	// Backlog says when a backlog is one.
	Backlog Backlog `json:"backlog,omitzero" yaml:"backlog,omitempty"`

	// Heartbeat is a URL that is called while alerts would be told.
	Heartbeat string `json:"heartbeat,omitempty" yaml:"heartbeat,omitempty"`
	// Every is the time between two calls of Heartbeat.
	Every Duration `json:"every,omitzero" yaml:"every,omitempty"`
}

// Backlog says when a backlog is one.
type Backlog struct {
	// OlderThan is for how long an event of the trigger has been due.
	OlderThan Duration `json:"older_than" yaml:"older_than"`
}

// IsZero reports whether nothing is set.
func (b Backlog) IsZero() bool { return b == Backlog{} }

// The values of Alert.On and Alert.Format.
const (
	AlertFailing    = "failing"    // an endpoint has begun to fail
	AlertRecovered  = "recovered"  // it works again
	AlertDead       = "dead"       // events became dead letters
	AlertPaused     = "paused"     // an answer of its receiver has paused a trigger
	AlertBacklog    = "backlog"    // events wait for longer than Backlog.OlderThan
	AlertUncaptured = "uncaptured" // changes of a watched table are not captured
	AlertJSON       = "json"       // the facts as a JSON object
	AlertSlack      = "slack"      // the text of a message for Slack and what is compatible
)

// Alerts returns the values of Alert.On.
func Alerts() []string {
	return []string{AlertFailing, AlertRecovered, AlertDead, AlertPaused, AlertBacklog, AlertUncaptured}
}

// The defaults of an Alert.
const (
	DefaultBacklog   = Duration(5 * time.Minute)
	DefaultHeartbeat = Duration(time.Minute)
)

// Tells reports whether this kind of trouble is told.
func (a *Alert) Tells(kind string) bool {
	return a.URL != "" && (a.On == nil || slices.Contains(a.On, kind))
}
