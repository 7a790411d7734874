package alert

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rowhook/rowhook/trigger"
)

// mostNamed is how many triggers a message names.
const mostNamed = 20

// Message tells a destination of the beginning or the end of one trouble or of several of one kind.
type Message struct {
	Destination string
	Kind        Kind
	Phase       Phase
	At          time.Time
	States      []State // what it tells, at least one
	Test        bool    // it is made up, to try the destination
}

// ID identifies what is told: it is the same when a message is sent again.
func (m *Message) ID() (id [16]byte) {
	h := sha256.New()
	fmt.Fprintf(h, "%s\x00%s\x00%s", m.Destination, m.Kind, m.Phase)
	for i := range m.States {
		fmt.Fprintf(h, "\x00%s\x00%d", m.States[i].Subject, m.States[i].BegunAt.UnixMicro())
	}
	copy(id[:], h.Sum(nil))
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80 // a UUID of version 8
	return id
}

// Sent returns the states after the destination has taken the message.
func (m *Message) Sent() []State {
	states := slices.Clone(m.States)
	for i := range states {
		states[i].sent(m.At)
	}
	return states
}

// Failed returns the states after an attempt failed.
func (m *Message) Failed(reason string, now time.Time) []State {
	states := slices.Clone(m.States)
	for i := range states {
		states[i].failed(reason, now)
	}
	return states
}

// document is the JSON form of a message. docs/delivery.md describes it.
type document struct {
	Alert    Kind             `json:"alert"`
	State    Phase            `json:"state"`
	Trigger  *string          `json:"trigger"` // null: several
	Triggers []string         `json:"triggers"`
	Endpoint *string          `json:"endpoint"` // null: several, or it does not matter
	Since    time.Time        `json:"since"`
	Until    *time.Time       `json:"until"` // null: it has not ended
	Reason   string           `json:"reason"`
	Counts   map[string]int64 `json:"counts"`
	Remedy   string           `json:"remedy"`
	Test     bool             `json:"test,omitempty"`
}

func (m *Message) document() document {
	first := &m.States[0]
	d := document{
		Alert: m.Kind, State: m.Phase, Triggers: []string{}, Since: first.BegunAt.UTC(), Reason: first.Facts.Reason, Counts: map[string]int64{},
		Remedy: first.Facts.Remedy, Test: m.Test,
	}
	endpoint, again := first.Facts.Endpoint, 0
	triggers, oldest := int64(0), int64(0)
	for i := range m.States {
		s := &m.States[i]
		if s.BegunAt.Before(d.Since) {
			d.Since = s.BegunAt.UTC()
		}
		if m.Phase == Ended && (d.Until == nil || s.EndedAt.After(*d.Until)) {
			until := s.EndedAt.UTC()
			d.Until = &until
		}
		d.Triggers = append(d.Triggers, s.Facts.Triggers...)
		if s.Facts.Endpoint != endpoint {
			endpoint = ""
			if s.Facts.Host == first.Facts.Host {
				endpoint = s.Facts.Host
			}
		}
		n := int64(len(s.Facts.Triggers))
		for name, count := range s.Facts.Counts {
			switch name {
			case "triggers": // more than are named
				n = count
			case "oldest_seconds":
				oldest = max(oldest, count)
			default:
				d.Counts[name] += count
			}
		}
		triggers += n
		again = max(again, s.Again)
	}
	if m.Phase == Ended && d.Counts[countLeft] == 0 {
		d.Remedy = "" // nothing is left to do
	}
	if oldest > 0 {
		d.Counts["oldest_seconds"] = oldest
	}
	if triggers > 1 {
		d.Counts["triggers"] = triggers
	}
	if again > 1 || again == 1 && m.Phase == Ended { // 1: its beginning was not told
		d.Counts["times"] = int64(again)
	}
	if endpoint != "" {
		d.Endpoint = &endpoint
	}
	slices.Sort(d.Triggers)
	d.Triggers = slices.Compact(d.Triggers)
	if len(d.Triggers) == 1 && triggers == 1 {
		d.Trigger = &d.Triggers[0]
	}
	d.Triggers = d.Triggers[:min(len(d.Triggers), mostNamed)]
	return d
}

// Body returns the body of the request, in a format of trigger.Alert.
func (m *Message) Body(format string) ([]byte, error) {
	var body any = m.document()
	if format == trigger.AlertSlack {
		body = map[string]string{"text": m.text()}
	}
	text, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("write an alert: %w", err)
	}
	return text, nil
}

// text is the message for people, in the markup of Slack.
func (m *Message) text() string {
	d := m.document()
	var b strings.Builder
	if d.Test {
		b.WriteString("This is a test of Rowhook's alerts. ")
	}
	fmt.Fprintf(&b, "*%s*: %s", m.headline(), escape(subjects(&d)))
	if d.Endpoint != nil {
		fmt.Fprintf(&b, " (%s)", escape(*d.Endpoint))
	}
	fmt.Fprintf(&b, "\nsince %s", d.Since.Format("2006-01-02 15:04:05 UTC"))
	if d.Until != nil {
		fmt.Fprintf(&b, ", until %s: %s", d.Until.Format("15:04:05"), trigger.Duration(d.Until.Sub(d.Since).Round(time.Second)))
	}
	if counts := counted(&d); counts != "" {
		b.WriteString("; " + counts)
	}
	if d.Reason != "" {
		b.WriteString("\n> " + escape(strings.ReplaceAll(d.Reason, "\n", " ")))
	}
	if d.Remedy != "" {
		b.WriteString("\n" + escape(d.Remedy))
	}
	return b.String()
}

func (m *Message) headline() string {
	k, p := m.Kind, m.Phase
	unwatched := !slices.ContainsFunc(m.States, func(s State) bool { return !s.Facts.Unwatched })
	switch {
	case p == Ended && unwatched:
		return "no longer watched"
	case k == Failing && p == Begun:
		return "failing"
	case k == Failing:
		return "recovered"
	case k == Dead && p == Begun:
		return "dead letters"
	case k == Dead && slices.ContainsFunc(m.States, func(s State) bool { return s.Facts.Counts[countLeft] > 0 }):
		return "no new dead letters"
	case k == Dead:
		return "no more dead letters"
	case k == Paused && p == Begun:
		return "paused"
	case k == Paused:
		return "resumed"
	case k == Backlog && p == Begun:
		return "backlog"
	case k == Backlog:
		return "backlog gone"
	case p == Begun:
		return "changes are not captured"
	}
	return "changes are captured again"
}

func subjects(d *document) string {
	text := strings.Join(d.Triggers, ", ")
	if n := d.Counts["triggers"] - int64(len(d.Triggers)); n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	return text
}

// counted is the counts in words.
func counted(d *document) string {
	var parts []string
	for _, c := range []struct{ name, one, many string }{
		{"dead", "%d dead letter", "%d dead letters"}, {countLeft, "%d is left", "%d are left"}, {"waiting", "%d event waits", "%d events wait"},
		{"oldest_seconds", "", ""}, {"probes", "%d probe", "%d probes"}, {"times", "once since the last message", "%d times since the last message"},
	} {
		n, ok := d.Counts[c.name]
		switch {
		case !ok:
		case c.name == "oldest_seconds":
			parts = append(parts, "the oldest is due for "+trigger.Duration(time.Duration(n)*time.Second).String())
		case c.name == countLeft && n == 0:
			parts = append(parts, "none is left")
		case n == 1 && c.one != "":
			parts = append(parts, strings.ReplaceAll(c.one, "%d", "1"))
		default:
			parts = append(parts, fmt.Sprintf(c.many, n))
		}
	}
	return strings.Join(parts, ", ")
}

// escape writes text for Slack, in which <!channel> would call everybody.
func escape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}
