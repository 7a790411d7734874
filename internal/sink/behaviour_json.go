package sink

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/rowhook/rowhook/internal/webapi"
	"github.com/rowhook/rowhook/trigger"
)

// ruleJSON is a Rule in JSON.
type ruleJSON struct {
	Trigger *string     `json:"trigger"`
	Where   typedWhere  `json:"where"`
	Present presentList `json:"present"`
	behaviourJSON
}

// behaviourJSON is a Behaviour in JSON.
type behaviourJSON struct {
	Statuses       []int            `json:"statuses,omitempty"`
	Status         int              `json:"status,omitempty"`
	FailStatus     int              `json:"fail_status,omitempty"`
	Fail           failures         `json:"fail,omitempty"`
	FailRate       float64          `json:"fail_rate,omitempty"`
	Seed           uint64           `json:"seed,omitempty"`
	Hang           bool             `json:"hang,omitempty"`
	Close          bool             `json:"close,omitempty"`
	Redirect       string           `json:"redirect,omitempty"`
	Delay          trigger.Duration `json:"delay,omitzero"`
	RetryAfter     trigger.Duration `json:"retry_after,omitzero"`
	RetryAfterDate bool             `json:"retry_after_date,omitempty"`
	Body           string           `json:"body,omitempty"`
	BodySize       int              `json:"body_size,omitempty"`
}

// failures is a number of attempts, or "all", which is negative.
type failures int

// UnmarshalJSON implements json.Unmarshaler.
func (f *failures) UnmarshalJSON(text []byte) error {
	n, err := strconv.ParseInt(string(text), 10, 32)
	switch {
	case string(text) == `"all"`:
		*f = -1
	case err == nil && n >= 0:
		*f = failures(n)
	default:
		return errors.New(`fail must be a whole number from 0, or "all"`)
	}
	return nil
}

// MarshalJSON implements json.Marshaler.
func (f failures) MarshalJSON() ([]byte, error) {
	if f < 0 {
		return []byte(`"all"`), nil
	}
	return strconv.AppendInt(nil, int64(f), 10), nil
}

func toJSON(b Behaviour) behaviourJSON {
	return behaviourJSON{Statuses: b.Statuses, Status: b.Status, FailStatus: b.FailStatus, Fail: failures(b.Fail), FailRate: b.FailRate, Seed: b.Seed, Hang: b.Hang, Close: b.CloseConnection, Redirect: b.Redirect,
		Delay: trigger.Duration(b.Delay), RetryAfter: trigger.Duration(b.RetryAfter), RetryAfterDate: b.RetryAfterAsDate, Body: b.Body, BodySize: b.BodySize}
}

// Limits of a behaviour that is set over HTTP.
const (
	maxStatuses  = 1000
	maxBodySize  = 1 << 30
	maxBehaviour = 32 << 10 // bytes of the request; times maxRules it bounds the memory
)

// behaviour checks b.
func (b *behaviourJSON) behaviour() (Behaviour, error) {
	ways := 0
	for _, set := range []bool{b.Hang, b.Close, b.Redirect != "" && len(b.Statuses) == 0} {
		if set {
			ways++
		}
	}
	for _, status := range slices.Concat(b.Statuses, []int{orDefault(b.Status, 200), orDefault(b.FailStatus, 500)}) {
		if status < 200 || status > 599 {
			return Behaviour{}, invalid(fmt.Sprintf("the status %d is not from 200 to 599", status), "for no answer at all use hang or close")
		}
	}
	fault := func(wrong bool, detail, remedy string) error {
		if !wrong {
			return nil
		}
		return invalid(detail, remedy)
	}
	if err := errors.Join(
		fault(b.RetryAfter.Std()%time.Second != 0, fmt.Sprintf("retry_after is %s, and Retry-After has whole seconds", b.RetryAfter), "write 1s or 2s, or leave it out"),
		fault(ways > 1, "hang, close and redirect contradict each other", "set one of them"),
		fault(len(b.Statuses) > 0 && (b.Hang || b.Close), "hang and close have no status", "leave out statuses; fail says how many attempts fail so"),
		fault(len(b.Statuses) > 0 && (b.Fail != 0 || b.Status != 0), "statuses contradicts fail and status", "write each status into statuses; the last one repeats"),
		fault(b.Statuses != nil && len(b.Statuses) == 0, "statuses is empty", "write statuses such as [503, 200], or leave it out"),
		fault(len(b.Statuses) > maxStatuses, fmt.Sprintf("there are more than %d statuses", maxStatuses), "leave some out; the last one repeats"),
		fault(b.FailRate < 0 || b.FailRate > 1 || math.IsNaN(b.FailRate), "fail_rate is not from 0 to 1", "write 0.1 for one attempt in ten"),
		fault(b.Body != "" && b.BodySize != 0, "body and body_size contradict each other", "leave one of them out"),
		fault(b.Body != "" && !b.hasBody(), "the answers have no body, since a status of 204 or 304 has none", "leave out body, or set another status"),
		fault(b.BodySize < 0 || b.BodySize > maxBodySize, fmt.Sprintf("body_size is not from 0 to %d", maxBodySize), ""),
	); err != nil {
		return Behaviour{}, err
	}
	return Behaviour{Statuses: b.Statuses, Status: b.Status, FailStatus: b.FailStatus, Fail: int(b.Fail), FailRate: b.FailRate, Seed: b.Seed, Hang: b.Hang, CloseConnection: b.Close, Redirect: b.Redirect,
		Delay: b.Delay.Std(), RetryAfter: b.RetryAfter.Std(), RetryAfterAsDate: b.RetryAfterDate, Body: b.Body, BodySize: b.BodySize}, nil
}

// hasBody reports whether some of the answers can have the body.
func (b *behaviourJSON) hasBody() bool {
	can := func(status int) bool { return status != http.StatusNoContent && status != http.StatusNotModified }
	failing := b.Redirect != "" || can(orDefault(b.FailStatus, 500))
	if len(b.Statuses) > 0 {
		return slices.ContainsFunc(b.Statuses, can) || b.FailRate > 0 && failing
	}
	fails := b.Fail != 0 || b.FailRate > 0 || b.Redirect != ""
	return b.Fail >= 0 && can(orDefault(b.Status, 200)) || fails && failing
}

// setBehaviour answers PUT /behaviour.
func (s *Sink) setBehaviour(w http.ResponseWriter, _ *http.Request, body []byte) error {
	if len(body) > maxBehaviour {
		return webapi.NewProblem(http.StatusRequestEntityTooLarge, "too_large", fmt.Sprintf("the request's body has more than %d bytes", maxBehaviour), "for a long body of the answers use body_size")
	}
	var in ruleJSON
	if err := decode(body, &in); err != nil {
		return err
	}
	b, err := in.behaviour()
	if err != nil {
		return err
	}
	m := matchJSON{Trigger: in.Trigger, Where: in.Where, Present: in.Present}
	chosen, err := m.match()
	if err != nil {
		return err
	}
	if err := s.checkTrigger(chosen.Trigger); err != nil {
		return err
	}
	rule := Rule{Trigger: chosen.Trigger, Where: chosen.Where, Behaviour: b}
	if rule.ID, err = s.Behave(rule); err != nil {
		return webapi.NewProblem(http.StatusServiceUnavailable, "too_many", err.Error(), "DELETE /behaviour?id=ID")
	}
	return webapi.WriteJSON(w, http.StatusOK, "application/json", showRule(rule))
}

// shownRule is a rule in an answer.
type shownRule struct {
	ID      int                        `json:"id"`
	Trigger string                     `json:"trigger,omitempty"`
	Where   map[string]json.RawMessage `json:"where,omitempty"`
	Present []string                   `json:"present,omitempty"`
	behaviourJSON
}

func showRule(r Rule) shownRule {
	out := shownRule{ID: r.ID, Trigger: r.Trigger, behaviourJSON: toJSON(r.Behaviour)}
	for _, c := range r.Where {
		if c.value == nil {
			out.Present = append(out.Present, c.path.text)
			continue
		}
		if out.Where == nil {
			out.Where = map[string]json.RawMessage{}
		}
		out.Where[c.path.text] = json.RawMessage(c.value.text)
	}
	return out
}

// showBehaviour answers GET /behaviour.
func (s *Sink) showBehaviour(w http.ResponseWriter, _ *http.Request, _ []byte) error {
	out := struct {
		Otherwise behaviourJSON `json:"otherwise"`
		Rules     []shownRule   `json:"rules"`
	}{toJSON(s.Behaviour), []shownRule{}}
	for _, r := range s.Rules() {
		out.Rules = append(out.Rules, showRule(r))
	}
	return webapi.WriteJSON(w, http.StatusOK, "application/json", out)
}

// revertBehaviour answers DELETE /behaviour.
func (s *Sink) revertBehaviour(w http.ResponseWriter, r *http.Request, _ []byte) error {
	query := r.URL.Query()
	name, id := query.Get("trigger"), 0
	switch {
	case query.Has("trigger") && query.Has("id"):
		return invalid("trigger and id contradict each other", "leave one of them out")
	case query.Has("trigger") && name == "":
		return invalid("the parameter trigger is empty", "give it a value, or leave it out to remove the rules of all triggers")
	case s.checkTrigger(name) != nil:
		return s.checkTrigger(name)
	case query.Has("id"):
		var err error
		if id, err = readNumber("id", query.Get("id"), 1, math.MaxInt32); err != nil {
			return err
		}
	}
	removed := s.Revert(func(rule Rule) bool { return (name == "" || rule.Trigger == name) && (id == 0 || rule.ID == id) })
	return webapi.WriteJSON(w, http.StatusOK, "application/json", struct {
		Removed int `json:"removed"`
	}{removed})
}
