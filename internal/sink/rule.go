package sink

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rowhook/rowhook/internal/sorting"
)

// Rule is a behaviour that holds while the sink runs, for some events. It goes before the sink's
// own Behaviour, Paths and Respond.
type Rule struct {
	// ID identifies the rule. Behave sets it.
	ID int
	// Trigger is that of the events; "": all.
	Trigger string
	// Where are conditions on the events. All must hold.
	Where     []Condition
	Behaviour Behaviour
}

// maxRules bounds the memory of rules, and the time to find one.
const maxRules = 1000

// ErrManyRules is returned by Behave if there are too many rules.
var ErrManyRules = errors.New("there are too many rules")

// Behave sets a rule and returns its id. It replaces a rule with the same Trigger and Where. Of
// several that fit an event, one with conditions goes before one without, then one with a trigger
// before one for all, then the newest. Attempts count from the rule on: the next one of each event
// gets the first of Statuses. Requests that the former behaviour holds up end.
func (s *Sink) Behave(r Rule) (id int, err error) {
	rule := &activeRule{Rule: r, where: whereKey(r.Where)}
	rule.Behaviour.Statuses = slices.Clone(r.Behaviour.Statuses)
	err = s.rules.change(func(all []*activeRule) ([]*activeRule, error) {
		all = slices.DeleteFunc(all, func(o *activeRule) bool { return o.Trigger == rule.Trigger && o.where == rule.where })
		if len(all) >= maxRules {
			return nil, fmt.Errorf("%w: %d, which is the limit; remove some", ErrManyRules, maxRules)
		}
		s.rules.last++
		rule.ID = s.rules.last
		all = append(all, rule)
		sorting.By(all, func(a, b *activeRule) int {
			if d := b.rank() - a.rank(); d != 0 {
				return d
			}
			return b.ID - a.ID
		})
		return all, nil
	})
	return rule.ID, err
}

// Revert removes the rules that drop chooses. It reports how many there were.
func (s *Sink) Revert(drop func(Rule) bool) (removed int) {
	_ = s.rules.change(func(all []*activeRule) ([]*activeRule, error) { // it returns no error
		before := len(all)
		all = slices.DeleteFunc(all, func(r *activeRule) bool { return drop(r.Rule) })
		removed = before - len(all)
		return all, nil
	})
	return removed
}

// Rules returns the rules that hold, in the order in which they are tried.
func (s *Sink) Rules() []Rule {
	set := s.rules.now()
	out := make([]Rule, len(set.rules))
	for i, r := range set.rules {
		out[i] = r.Rule
	}
	return out
}

// activeRule is a rule in use.
type activeRule struct {
	Rule
	where string // the conditions, for comparison
	dice  dice   // guarded by the journal's mutex
}

func whereKey(where []Condition) string {
	var b strings.Builder
	for _, c := range where {
		fmt.Fprintf(&b, "%q", c.path.steps)
		if c.value != nil {
			fmt.Fprintf(&b, " %t %q", c.value.loose, c.value.text)
		}
	}
	return b.String()
}

func (r *activeRule) rank() (n int) {
	if len(r.Where) > 0 {
		n += 2
	}
	if r.Trigger != "" {
		n++
	}
	return n
}

func (r *activeRule) fits(d *Delivery) bool {
	m := Match{Trigger: r.Trigger, Where: r.Where}
	return m.fits(d)
}

// rules holds the rules of a sink. A delivery reads them without a lock.
type rules struct {
	mu   sync.Mutex
	last int // id
	set  atomic.Pointer[ruleSet]
}

// ruleSet never changes. changed is closed when another one takes its place.
type ruleSet struct {
	rules   []*activeRule
	changed chan struct{}
}

func (r *rules) now() *ruleSet {
	if set := r.set.Load(); set != nil {
		return set
	}
	r.set.CompareAndSwap(nil, &ruleSet{changed: make(chan struct{})})
	return r.set.Load()
}

func (r *rules) change(edit func([]*activeRule) ([]*activeRule, error)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.now()
	all, err := edit(slices.Clone(before.rules))
	if err != nil {
		return err
	}
	r.set.Store(&ruleSet{rules: all, changed: make(chan struct{})})
	close(before.changed)
	return nil
}

// find returns the rule for d, or nil.
func (set *ruleSet) find(d *Delivery) *activeRule {
	for _, r := range set.rules {
		if r.fits(d) {
			return r
		}
	}
	return nil
}

// standing reports whether what was decided for a delivery still holds. changed is closed when it
// is to be asked again.
type standing func() (holds bool, changed <-chan struct{})

// standing returns whether rule is still the one for d.
func (r *rules) standing(d *Delivery, rule *activeRule) standing {
	return func() (bool, <-chan struct{}) {
		set := r.now()
		return set.find(d) == rule, set.changed
	}
}

// wait waits for after. It ends early, and returns true, when s holds no longer. It returns false if
// ctx ends first.
func (s standing) wait(ctx context.Context, after <-chan time.Time) bool {
	for {
		holds, changed := s()
		if !holds {
			return true
		}
		select {
		case <-after:
			return true
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}
