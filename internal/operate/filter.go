package operate

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/webhook"
)

// State is the state of an event.
type State string

// The states. A retrying event has failed at least once and will be tried again.
const (
	Waiting   State = "waiting"
	InFlight  State = "in_flight"
	Retrying  State = "retrying"
	Delivered State = "delivered"
	Dead      State = "dead"
)

// Merged chooses, in a Filter, those of the Delivered events that were not sent: a later one was, in
// their stead. An Event of that kind has the state Delivered.
const Merged State = "merged"

// States returns all states, in the order in which an event passes through them.
func States() []State { return []State{Waiting, InFlight, Retrying, Delivered, Dead} }

// FilterStates returns what a Filter may have for States.
func FilterStates() []State { return append(States(), Merged) }

// ParseState returns the state of a Filter with this JSON form, or ErrInvalid.
func ParseState(s string) (State, error) {
	if slices.Contains(FilterStates(), State(s)) {
		return State(s), nil
	}
	return "", problem(ErrInvalid, "write one of waiting, in_flight, retrying, delivered, merged, dead", "%q is not a state of events", s)
}

// Ops returns the operations that events are of.
func Ops() []string { return []string{"INSERT", "UPDATE", "DELETE", "TRUNCATE", "MANUAL"} }

// Filter chooses events. An event must meet every field that is set. The zero value chooses all
// events.
type Filter struct {
	IDs      []string  `json:"ids,omitempty"`      // any of these
	Triggers []string  `json:"triggers,omitempty"` // names; any of these
	States   []State   `json:"states,omitempty"`   // any of these
	Ops      []string  `json:"ops,omitempty"`      // INSERT, UPDATE, DELETE, TRUNCATE or MANUAL; any of these
	Table    string    `json:"table,omitempty"`    // table or schema.table, by its present name
	Since    time.Time `json:"since,omitzero"`     // recorded at this time or later
	Until    time.Time `json:"until,omitzero"`     // recorded before this time
	// Payload is a JSON path, as jsonb_path_exists takes it, over {"old", "new",
	// "session_variables", "trace_context"}. Or it is KEY=VALUE for one key, such as
	// new.customer.id=42.
	Payload string `json:"payload,omitempty"`
	// These three match the last logged attempt. For dead letters they also match the reason, which
	// stays when the log's retention has ended.
	Error    string   `json:"error,omitempty"`    // a part of the error, in any case
	Statuses []string `json:"statuses,omitempty"` // HTTP status, such as 503 or 5xx; any of these
	Kinds    []string `json:"kinds,omitempty"`    // kind of failure without a response, such as timeout; any of these
}

// IsZero reports whether the filter chooses every event.
func (f *Filter) IsZero() bool {
	return len(f.IDs) == 0 && len(f.Triggers) == 0 && len(f.States) == 0 && len(f.Ops) == 0 && f.Table == "" && f.Since.IsZero() && f.Until.IsZero() && f.Payload == "" &&
		f.Error == "" && len(f.Statuses) == 0 && len(f.Kinds) == 0
}

// query is a Filter that was checked and resolved against the triggers.
type query struct {
	ids      []string
	triggers []int32 // nil: any
	// relations are the rowhook.relation.id of the filter's table; nil: any. origins are the
	// triggers whose events without a relation_id belong to that table.
	relations, origins []int32
	states             []State
	ops                []string // as the column op has them; nil: any
	low                string   // least id
	high               string   // ids are less than this
	path               string   // jsonpath; "": none
	error              string   // in small letters; "": any
	statuses           []string // patterns for like; nil: any
	kinds              []string // nil: any
	masked             []int32  // those of the triggers that mask something
	unsearchable       bool     // not what path finds, but that in which no path can be looked for
	// sentBefore chooses, of delivered events, those that were delivered before this time, were sent
	// themselves, and still have their data; zero: all.
	sentBefore time.Time
}

// ofAttempt reports whether the query depends on the last attempt.
func (q *query) ofAttempt() bool { return q.error != "" || q.statuses != nil || q.kinds != nil }

// slow reports whether a row costs more than a comparison of its columns.
func (q *query) slow() bool { return q.path != "" || q.ofAttempt() }

var statusPattern = regexp.MustCompile(`^[1-5](\d\d|xx|XX)$`)

// resolveAttempt checks the fields that match the last attempt.
func (f *Filter) resolveAttempt(q *query) error {
	if strings.ContainsRune(f.Error, 0) || !utf8.ValidString(f.Error) {
		return problem(ErrInvalid, "write a part of an error as \"rowhook events show\" prints it", "no error contains %q", f.Error)
	}
	q.error = strings.ToLower(f.Error)
	for _, s := range f.Statuses {
		if !statusPattern.MatchString(s) {
			return problem(ErrInvalid, "write a status such as 503, or 5xx for 500 to 599", "%q is not an HTTP status", s)
		}
		q.statuses = append(q.statuses, strings.ReplaceAll(strings.ToLower(s), "x", "_"))
	}
	for _, kind := range f.Kinds {
		if !slices.Contains(webhook.Kinds(), kind) {
			return problem(ErrInvalid, "write one of "+strings.Join(webhook.Kinds(), ", "), "%q is not a kind of failure", kind)
		}
		q.kinds = append(q.kinds, kind)
	}
	return nil
}

const (
	lowest  = "00000000-0000-0000-0000-000000000000"
	highest = "ffffffff-ffff-ffff-ffff-ffffffffffff"
)

// read reads the triggers and resolves the filter against them.
func (f *Filter) read(ctx context.Context, tx pgx.Tx) (triggers, *query, error) {
	ts, err := readTriggers(ctx, tx)
	if err != nil {
		return nil, nil, err
	}
	q, err := f.resolve(ts)
	return ts, q, err
}

// resolve checks the filter. It turns the time range into a range of ids: a version 7 UUID begins
// with its millisecond.
func (f *Filter) resolve(ts triggers) (*query, error) {
	q := &query{states: f.States, low: lowest, high: highest}
	for _, id := range f.IDs {
		u, err := uuid.Parse(id)
		if err != nil {
			return nil, problem(ErrInvalid, "write an id such as 0199a8e2-7c5d-7a3e-9f10-2b7f4c1d8e90", "%q is not an event id", id)
		}
		q.ids = append(q.ids, u.String())
	}
	for _, s := range f.States {
		if _, err := ParseState(string(s)); err != nil {
			return nil, err
		}
	}
	if len(q.states) == 0 {
		q.states = States()
	}
	if !f.Since.IsZero() {
		q.low = firstID(f.Since)
	}
	if !f.Until.IsZero() {
		q.high = firstID(f.Until)
	}
	if !f.Since.IsZero() && !f.Until.IsZero() && !f.Since.Before(f.Until) {
		return nil, problem(ErrInvalid, "since must be before until", "the time range from %s to %s is empty",
			f.Since.Format(time.RFC3339), f.Until.Format(time.RFC3339))
	}
	for _, op := range f.Ops {
		if !slices.Contains(Ops(), op) {
			return nil, problem(ErrInvalid, "write one of "+strings.Join(Ops(), ", "), "%q is not an operation", op)
		}
		q.ops = append(q.ops, op[:1])
	}
	if err := f.resolveTriggers(q, ts); err != nil {
		return nil, err
	}
	if err := f.resolveAttempt(q); err != nil {
		return nil, err
	}
	var err error
	var members []string
	if q.path, members, err = payloadPath(f.Payload); err != nil {
		return nil, err
	}
	return q, q.checkMasks(ts, members)
}

func (f *Filter) resolveTriggers(q *query, ts triggers) error {
	if len(f.Triggers) == 0 && f.Table == "" {
		return nil
	}
	q.triggers = []int32{}
	for _, name := range f.Triggers {
		t, err := ts.named(name)
		if err != nil {
			return err
		}
		q.triggers = append(q.triggers, t.ID)
	}
	if f.Table == "" {
		return nil
	}
	table := strings.ReplaceAll(f.Table, `"`, "")
	q.relations, q.origins = []int32{}, []int32{}
	var watching []int32
	for i := range ts {
		t := &ts[i]
		has := t.Table == table || t.qualified() == table
		if has && t.RelationID != 0 {
			q.relations = append(q.relations, t.RelationID)
		}
		for _, id := range t.Relations { // tables that it watched earlier, whose events it may still have
			if then := t.of(id); then.Table == table || then.qualified() == table {
				q.relations, has = append(q.relations, id), true
			}
		}
		if slices.Contains(q.relations, t.OriginID) {
			q.origins = append(q.origins, t.ID)
		}
		if has {
			watching = append(watching, t.ID)
		}
	}
	if len(watching) == 0 {
		return problem(ErrNotFound, "write table or schema.table; \"rowhook status\" lists the triggers with their tables", "no trigger watches a table %q", f.Table)
	}
	if len(f.Triggers) == 0 {
		q.triggers = watching
		return nil
	}
	q.triggers = slices.DeleteFunc(q.triggers, func(id int32) bool { return !slices.Contains(watching, id) })
	return nil
}

// firstID returns the lowest version 7 UUID of t's millisecond.
func firstID(t time.Time) string {
	ms := max(t.UnixMilli(), 0)
	return uuid.UUID{byte(ms >> 40), byte(ms >> 32), byte(ms >> 24), byte(ms >> 16), byte(ms >> 8), byte(ms)}.String()
}

// idTime returns the time at the beginning of a version 7 UUID.
func idTime(id string) time.Time {
	b, err := hex.DecodeString(strings.ReplaceAll(id, "-", "")[:12])
	if err != nil {
		return time.Time{}
	}
	var ms int64
	for _, x := range b {
		ms = ms<<8 | int64(x)
	}
	return time.UnixMilli(ms)
}

// In KEY=VALUE, a member whose name has a dot, a blank or = stands in double quotes, as in placeholders:
// new."first name"=Ann. "" in it stands for a quote.
const member = `\.(?:"(?:[^"]|"")+"|[^."=\s][^.=\s]*)`

var (
	keyValue  = regexp.MustCompile(`(?s)^(old|new|session_variables|trace_context)((?:` + member + `)+)=(.*)$`)
	oneMember = regexp.MustCompile(`(?s)` + member)
)

// payloadPath returns the JSON path for a payload filter, and the members of KEY in KEY=VALUE. There
// a VALUE that is a JSON number, true, false or null matches both that value and the string.
func payloadPath(text string) (path string, members []string, err error) {
	text = strings.TrimSpace(text)
	if text == "" || strings.HasPrefix(text, "$") || strings.HasPrefix(text, "strict ") || strings.HasPrefix(text, "lax ") {
		return text, nil, nil
	}
	c, ok := parseCondition(text)
	if !ok {
		return "", nil, problem(ErrInvalid, "write KEY=VALUE with a key under old, new, session_variables or trace_context, such as new.customer.id=42 or new.\"first name\"=Ann, "+
			`or a JSON path such as '$.new.amount ? (@ > 100)'`, "the payload filter %q is not understood", text)
	}
	return memberPath("$", c.members) + " ? (" + c.test + ")", c.members, nil
}

// condition is KEY=VALUE.
type condition struct {
	members []string // of KEY
	key     string   // as written
	value   string
	test    string // the condition of a JSON path on the value of KEY
}

func parseCondition(text string) (c condition, ok bool) {
	m := keyValue.FindStringSubmatch(strings.TrimSpace(text))
	if m == nil {
		return c, false
	}
	c.key, c.members = m[1]+m[2], []string{m[1]}
	for _, name := range oneMember.FindAllString(m[2], -1) {
		if name = name[1:]; name[0] == '"' {
			name = strings.ReplaceAll(name[1:len(name)-1], `""`, `"`)
		}
		c.members = append(c.members, name)
	}
	c.value = m[3]
	c.test = "@ == " + quoted(c.value)
	var scalar any
	if decoder := json.NewDecoder(strings.NewReader(c.value)); json.Valid([]byte(c.value)) {
		decoder.UseNumber() // a float64 does not hold 1e400
		_ = decoder.Decode(&scalar)
		switch s := scalar.(type) {
		case nil, bool, json.Number:
			c.test += " || @ == " + c.value
		case string:
			c.test += " || @ == " + quoted(s)
			c.value = s
		}
	}
	return c, true
}

// memberPath returns the JSON path from a root to a member.
func memberPath(root string, members []string) string {
	var b strings.Builder
	b.WriteString(root + "." + members[0])
	for _, name := range members[1:] {
		b.WriteString("." + quoted(name))
	}
	return b.String()
}

// quoted returns s as a string literal of a JSON path.
func quoted(s string) string {
	b, err := json.Marshal(s)
	if err != nil { // a string always has a JSON form
		return `""`
	}
	return string(b)
}
