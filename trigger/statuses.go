package trigger

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"

	"github.com/rowhook/rowhook/internal/sorting"
)

// Statuses say what becomes of an event whose receiver answers with a certain status, in the order
// of the statuses. In JSON and YAML they are a map from a status or a range of them to a word:
// {"400-499": "dead", "408": "retry", "410": "pause"}. nil: every failure is retried.
type Statuses []StatusRule

// StatusRule is an entry of Statuses.
type StatusRule struct {
	From, To int    // the first and the last status, from LeastStatus to MostStatus; equal for a single one
	Then     string // StatusDead, StatusRetry or StatusPause
}

// The values of StatusRule.Then.
const (
	StatusDead  = "dead"  // the event is given up at once
	StatusRetry = "retry" // as without the rule
	StatusPause = "pause" // the trigger is paused, and the event waits
)

// The statuses that a rule can name. A 2xx always means that the event is delivered, and a 1xx is no
// answer.
const (
	LeastStatus = 300
	MostStatus  = 999
)

// Outcomes returns the values of StatusRule.Then.
func Outcomes() []string { return []string{StatusDead, StatusRetry, StatusPause} }

// StatusPattern is the form of a status or of a range of them.
const StatusPattern = `^[3-9][0-9]{2}(?:-[3-9][0-9]{2})?$`

var statusForm = regexp.MustCompile(StatusPattern)

// ParseStatuses reads 404 or 400-499, into a rule without a word.
func ParseStatuses(s string) (StatusRule, error) {
	if !statusForm.MatchString(s) {
		return StatusRule{}, fmt.Errorf("%q is neither a status nor a range of them: write 404 or 400-499, from %d to %d", s, LeastStatus, MostStatus)
	}
	from, _ := strconv.Atoi(s[:3])
	to, _ := strconv.Atoi(s[len(s)-3:])
	if len(s) > 3 && to <= from {
		return StatusRule{}, fmt.Errorf("the range %s ends before it begins: write the lower status first, or a single status", s)
	}
	return StatusRule{From: from, To: to}, nil
}

// Range returns 404 or 400-499.
func (r StatusRule) Range() string {
	if r.From == r.To {
		return strconv.Itoa(r.From)
	}
	return strconv.Itoa(r.From) + "-" + strconv.Itoa(r.To)
}

// IsRange reports whether the rule is for more than one status.
func (r StatusRule) IsRange() bool { return r.From != r.To }

// Then returns the word for a status. The rule for this very status has precedence over that for a
// range. "": no rule names it.
func (s Statuses) Then(status int) string {
	word := ""
	for i := range s {
		switch r := &s[i]; {
		case status < r.From || status > r.To:
		case !r.IsRange():
			return r.Then
		default:
			word = r.Then
		}
	}
	return word
}

// Pauses reports whether an answer can pause the trigger.
func (s Statuses) Pauses() bool {
	return slices.ContainsFunc(s, func(r StatusRule) bool { return r.Then == StatusPause })
}

// Set adds a rule, or replaces the one for the same statuses. It leaves s as it is.
func (s Statuses) Set(r StatusRule) Statuses {
	out := slices.DeleteFunc(slices.Clone(s), func(o StatusRule) bool { return o.From == r.From && o.To == r.To })
	out = append(out, r)
	sorting.By(out, func(a, b StatusRule) int {
		if a.From != b.From {
			return a.From - b.From
		}
		return b.To - a.To
	})
	return out
}

// MarshalJSON writes the map, in the order of the statuses.
func (s Statuses) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, r := range s {
		if i > 0 {
			b.WriteByte(',')
		}
		word, err := json.Marshal(r.Then)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "%q:%s", r.Range(), word)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// MarshalYAML writes what MarshalJSON writes.
func (s Statuses) MarshalYAML() (any, error) {
	m := make(map[string]string, len(s))
	for _, r := range s {
		m[r.Range()] = r.Then
	}
	return m, nil
}

// UnmarshalJSON reads what MarshalJSON writes.
func (s *Statuses) UnmarshalJSON(b []byte) error {
	var m map[string]string
	if err := json.Unmarshal(b, &m); err != nil {
		return fmt.Errorf("read statuses: write a map such as {\"400-499\": \"dead\"}: %w", err)
	}
	*s = nil
	for text, word := range m {
		r, err := ParseStatuses(text)
		if err != nil {
			return fmt.Errorf("read statuses: %w", err)
		}
		if !slices.Contains(Outcomes(), word) {
			return fmt.Errorf("read statuses: %q of %s is not a valid value", word, text)
		}
		r.Then = word
		*s = s.Set(r)
	}
	return nil
}
