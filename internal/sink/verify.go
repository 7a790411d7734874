package sink

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/rowhook/rowhook/trigger"
)

// claim is the body of POST /verify.
type claim struct {
	Match  *matchJSON       `json:"match"`
	Count  *int             `json:"count"` // exactly; nil: at least one
	Within trigger.Duration `json:"within"`
	Settle trigger.Duration `json:"settle"` // how long the count must stay as it is
	Never  bool             `json:"never"`
}

// matchJSON is a Match in JSON. Unlike those of a query, its values have types.
type matchJSON struct {
	Trigger  *string     `json:"trigger"`
	Op       *string     `json:"op"`
	Table    *string     `json:"table"`
	ID       *string     `json:"id"`
	Where    typedWhere  `json:"where"`
	Present  presentList `json:"present"`
	Attempt  *int        `json:"attempt"`
	Attempts *string     `json:"attempts"`
	Accepted *bool       `json:"accepted"`
	Test     *bool       `json:"test"`
	After    uint64      `json:"after"`
}

// typedWhere reads an object of paths to the values that they must have.
type typedWhere []Condition

// UnmarshalJSON implements json.Unmarshaler. It keeps the order.
func (w *typedWhere) UnmarshalJSON(text []byte) error {
	if *w = nil; string(text) == "null" {
		return nil
	}
	in := json.NewDecoder(bytes.NewReader(text))
	if open, err := in.Token(); err != nil || open != json.Delim('{') {
		return errors.New(`where must be an object of paths to values, such as {"new.id": 7}`)
	}
	for in.More() {
		name, err := in.Token()
		if err != nil {
			return err
		}
		var v json.RawMessage
		if err := in.Decode(&v); err != nil {
			return err
		}
		c, err := Where(name.(string), v) // the key of an object
		if err != nil {
			return err
		}
		*w = append(*w, c)
	}
	return nil
}

// presentList reads a list of paths at which there must be a value.
type presentList []Condition

// UnmarshalJSON implements json.Unmarshaler.
func (l *presentList) UnmarshalJSON(text []byte) error {
	var paths []string
	if json.Unmarshal(text, &paths) != nil {
		return errors.New(`present must be a list of paths, such as ["new.email"]`)
	}
	*l = nil
	for _, p := range paths {
		c, err := Present(p)
		if err != nil {
			return err
		}
		*l = append(*l, c)
	}
	return nil
}

// match returns the Match that m describes.
func (m *matchJSON) match() (Match, error) {
	if len(m.Where)+len(m.Present) > maxConditions {
		return Match{}, tooManyConditions()
	}
	out := Match{Accepted: m.Accepted, Test: m.Test, After: m.After, Where: slices.Concat([]Condition(m.Where), []Condition(m.Present))}
	for name, text := range map[string]*string{"trigger": m.Trigger, "op": m.Op, "table": m.Table, "id": m.ID, "attempts": m.Attempts} {
		if text == nil {
			continue
		}
		if err := out.read(name, *text); err != nil {
			return Match{}, err
		}
	}
	if m.Attempt != nil {
		if out.Attempt = *m.Attempt; out.Attempt < 1 {
			return Match{}, invalid(fmt.Sprintf("attempt is %d", out.Attempt), "attempts are counted from 1")
		}
	}
	return out, nil
}

// verify answers POST /verify.
func (s *Sink) verify(w http.ResponseWriter, r *http.Request, body []byte) error {
	var c claim
	if err := decode(body, &c); err != nil {
		return err
	}
	m, err := c.check()
	if err != nil {
		return err
	}
	if err := errors.Join(s.checkTrigger(m.Trigger), s.checkCursor(m)); err != nil {
		return err
	}
	ctx, cancel := withWait(r, c.Within.Std())
	defer cancel()
	var miss *Miss
	switch {
	case c.Never:
		miss = s.Never(ctx, m)
	case c.Count == nil:
		miss = s.arrives(ctx, m, 1)
	default:
		if _, miss = s.Exactly(ctx, m, *c.Count); miss == nil && c.Settle.Std() > 0 {
			settling, settled := withWait(r, c.Settle.Std())
			defer settled()
			miss = s.Remains(settling, m, *c.Count)
		}
	}
	if err := stopping(r); err != nil {
		return err
	}
	switch {
	case miss == nil:
		m = m.counting()
		return s.writeList(w, r, maxCount, func(all []*Delivery) []*Delivery { return m.counted(r.Context(), all) })
	case miss.Shortfall == TooFew:
		return miss.write(w, http.StatusRequestTimeout)
	}
	return miss.write(w, http.StatusConflict)
}

// check returns the match of a claim.
func (c *claim) check() (Match, error) {
	switch {
	case c.Match == nil:
		return Match{}, invalid("match is missing", `write {"match": {"trigger": "order_placed", "where": {"new.id": 7}}, "within": "5s"}; {"match": {}} chooses every delivery`)
	case c.Never && c.Count != nil:
		return Match{}, invalid("never and count contradict each other", "leave one of them out")
	case c.Count != nil && (*c.Count < 0 || *c.Count > maxCount):
		return Match{}, invalid(fmt.Sprintf("count is %d, and not from 0 to %d", *c.Count, maxCount), "write \"count\": 1")
	case c.Within.Std() > maxWait:
		return Match{}, invalid(fmt.Sprintf("within is %s, which is more than %s", c.Within, trigger.Duration(maxWait)), "verify several times")
	case c.Settle.Std() > maxWait:
		return Match{}, invalid(fmt.Sprintf("settle is %s, which is more than %s", c.Settle, trigger.Duration(maxWait)), "write \"settle\": \"200ms\"")
	case c.Settle.Std() > 0 && (c.Count == nil || *c.Count == 0):
		return Match{}, invalid("settle is for a count of 1 or more", "write how many with count; never and 0 are judged when within is over")
	}
	if c.Count != nil && *c.Count == 0 {
		c.Never = true
	}
	return c.Match.match()
}
