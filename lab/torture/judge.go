package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// evidence is all that is known of a run when it is over.
type evidence struct {
	ledger      []entry
	places      []place
	invocations []invocation
	seen        map[uuid.UUID]*seen
	wrong       []string // what the receiver found wrong with bodies
	faults      []*fault
	instances   int // rows of rowhook.instance
	listings    []listing
}

// entry is a change that was committed, by the ledger.
type entry struct {
	Trigger   string
	Op        string
	ID        int64
	Old       int64
	Fresh     int64
	Committed time.Time
}

// place is where an event stands in the tables.
type place struct {
	Event   uuid.UUID
	Where   string // archive, dead or owed
	Trigger string
	Op      string
	ID      int64
	Old     int64
	Fresh   int64
	Tries   int
	At      time.Time // archived or died
	Reason  string
	Claimed bool
}

// invocation is a row of rowhook.invocation_log.
type invocation struct {
	Event   uuid.UUID
	Attempt int
	Status  int // 0: null
	Kind    string
}

// key tells changes apart: no version is used twice.
type key struct {
	trigger string
	op      string
	version int64
}

func keyOf(trigger, op string, old, fresh int64) key {
	if op == "D" {
		return key{trigger, op, old}
	}
	return key{trigger, op, fresh}
}

// gather reads the tables.
func (l *lab) gather(ctx context.Context, faults []*fault) (*evidence, error) {
	e := &evidence{faults: faults}
	l.receiver.mu.Lock()
	e.seen, e.wrong = l.receiver.events, l.receiver.wrong
	l.receiver.mu.Unlock()
	var err error
	e.ledger, err = collect[entry](ctx, l, "select trigger, op::text, id, old, fresh, coalesce(pg_xact_commit_timestamp(xmin), '-infinity') as committed from ledger")
	if err != nil {
		return nil, err
	}
	const row = `coalesce(e.new->>'id', e.old->>'id')::bigint as id, coalesce((e.old->>'version')::bigint, 0) as old, coalesce((e.new->>'version')::bigint, 0) as fresh, e.tries`
	e.places, err = collect[place](ctx, l, `
select e.id as event, 'archive' as "where", t.name as trigger, e.op::text, `+row+`, e.delivered_at as at, '' as reason, false as claimed
  from rowhook.event_archive e join rowhook.trigger t on t.id = e.trigger_id
union all
select e.id, 'dead', t.name, e.op::text, `+row+`, e.died_at, e.reason, false
  from rowhook.dead_letter e join rowhook.trigger t on t.id = e.trigger_id
union all
select e.id, 'owed', t.name, e.op::text, `+row+`, e.due_at, '', e.claimed_by is not null
  from rowhook.event_log e join rowhook.trigger t on t.id = e.trigger_id`)
	if err != nil {
		return nil, err
	}
	e.invocations, err = collect[invocation](ctx, l,
		"select event_id as event, attempt, coalesce(status, 0)::integer as status, coalesce(error_kind, '') as kind from rowhook.invocation_log")
	if err != nil {
		return nil, err
	}
	if err := l.admin.QueryRow(ctx, "select count(*) from rowhook.instance").Scan(&e.instances); err != nil {
		return nil, fmt.Errorf("count instances: %w", err)
	}
	return e, nil
}

func collect[T any](ctx context.Context, l *lab, sql string) ([]T, error) {
	rows, err := l.admin.Query(ctx, sql)
	if err != nil {
		return nil, fmt.Errorf("gather evidence: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByName[T])
	if err != nil {
		return nil, fmt.Errorf("gather evidence: %w", err)
	}
	return all, nil
}

// The rules.
const (
	ruleLost       = "a committed change did not arrive"
	ruleNowhere    = "a committed change is in none of the tables"
	ruleRolledBack = "a change that was rolled back arrived"
	ruleBody       = "a body is not as it was written"
	rulePlaces     = "an event is in two places"
	ruleOwed       = "an event is still owed"
	ruleClaimed    = "a claim is left"
	ruleTwice      = "a change was captured twice"
	ruleUnanswered = "archived though the attempt that it is archived for was not accepted before"
	ruleBuried     = "dead though it has attempts left"
	ruleDenied     = "dead though its last attempt was accepted, with no fault to explain it"
	ruleDuplicate  = "sent again after it was accepted, with no fault to explain it"
	ruleUnlogged   = "an attempt is missing in the log, with no fault to explain it"
	ruleInvented   = "the log has an answer that the receiver did not give"
	ruleAttempts   = "an attempt has a number above the event's count"
	ruleEarly      = "tried again before the receiver's Retry-After"
	ruleInstances  = "an instance is left in rowhook.instance"
	ruleUnlisted   = "an instance was not in rowhook.instance though it had lost its listen path alone"
	ruleDeaf       = "an instance did not listen again though its listen path had come back"
	ruleSilence    = "nothing was sent though events were owed and nothing hampered that"
)

// verdict is what the judge found.
type verdict struct {
	Events     int               `json:"events"`     // committed changes of the three triggers
	Arrived    int               `json:"arrived"`    // distinct events that arrived
	Attempts   int               `json:"attempts"`   // at the receiver
	Archived   int               `json:"archived"`   //
	Dead       int               `json:"dead"`       //
	Duplicates int               `json:"duplicates"` // arrivals of an event that had been accepted
	Excuses    map[string]int    `json:"excuses"`    // duplicates by the kind of fault that explains them
	Unlogged   int               `json:"unlogged"`   // attempts that a fault kept from the log
	Unwritten  int               `json:"unwritten"`  // events that were accepted and then settled without history
	Free       time.Duration     `json:"free"`       // time of faults that deliveries go on in, in which nothing else hampered them
	Silence    time.Duration     `json:"silence"`    // the longest in that time without an attempt though events were owed
	Slowest    time.Duration     `json:"slowest"`    // from commit to the first acceptance
	Recovery   map[string]delay  `json:"recovery"`   // the slowest by the kind of fault that was at work meanwhile
	Violations map[string]int    `json:"violations"`
	Examples   map[string]string `json:"examples"` // one of each
}

// delay is how long an event took, over how many of them.
type delay struct {
	Slowest time.Duration `json:"slowest"`
	Events  int           `json:"events"`
}

// judge holds what happened against what was promised.
func judge(e *evidence) *verdict {
	j := &judging{
		evidence: e, placeOf: map[uuid.UUID][]*place{}, logged: map[uuid.UUID][]*invocation{}, captured: map[key]uuid.UUID{}, arrived: map[key]*seen{},
		verdict: &verdict{Events: len(e.ledger), Arrived: len(e.seen), Excuses: map[string]int{}, Recovery: map[string]delay{}, Violations: map[string]int{}, Examples: map[string]string{}},
	}
	for i := range e.places {
		p := &e.places[i]
		j.placeOf[p.Event] = append(j.placeOf[p.Event], p)
	}
	for i := range e.invocations {
		v := &e.invocations[i]
		j.logged[v.Event] = append(j.logged[v.Event], v)
	}
	j.excuses = excusesOf(e.faults)
	for _, s := range e.seen {
		j.arrived[s.key()] = s
	}
	committed := j.ledgered()
	j.standing(committed)
	for id, s := range e.seen {
		j.arrival(id, s, committed)
	}
	for id, logged := range j.logged {
		j.answers(id, logged)
	}
	for _, w := range e.wrong {
		j.blame(ruleBody, "%s", w)
	}
	if e.instances > 0 {
		j.blame(ruleInstances, "%d rows", e.instances)
	}
	j.lists()
	j.silence(committed)
	return j.verdict
}

type judging struct {
	*evidence
	*verdict
	placeOf  map[uuid.UUID][]*place
	logged   map[uuid.UUID][]*invocation
	captured map[key]uuid.UUID // events by what they are of
	arrived  map[key]*seen
	excuses  []*fault
}

func (j *judging) blame(rule, format string, args ...any) {
	if j.Violations[rule]++; j.Violations[rule] == 1 {
		j.Examples[rule] = fmt.Sprintf(format, args...)
	}
}

// ledgered indexes the ledger.
func (j *judging) ledgered() map[key]*entry {
	committed := make(map[key]*entry, len(j.ledger))
	for i := range j.ledger {
		c := &j.ledger[i]
		committed[keyOf(c.Trigger, c.Op, c.Old, c.Fresh)] = c
	}
	return committed
}

// standing looks at every event where it stands, and for changes that have no event.
func (j *judging) standing(committed map[key]*entry) {
	for i := range j.places {
		p := &j.places[i]
		k := keyOf(p.Trigger, p.Op, p.Old, p.Fresh)
		j.capture(k, p.Event)
		if !j.isCommitted(committed, k) {
			j.blame(ruleRolledBack, "event %s: %s version %d of %s is in the tables (%s)", p.Event, p.Op, k.version, p.Trigger, p.Where)
		}
		switch p.Where {
		case "archive":
			j.Archived++
			j.accepted(p)
		case "dead":
			j.Dead++
			j.death(p)
		default:
			j.blame(ruleOwed, "event %s of %s, %d tries, due %s", p.Event, p.Trigger, p.Tries, p.At.Format(time.TimeOnly))
		}
		if p.Claimed {
			j.blame(ruleClaimed, "event %s of %s", p.Event, p.Trigger)
		}
	}
	for id, places := range j.placeOf {
		if len(places) > 1 {
			j.blame(rulePlaces, "event %s: %s and %s", id, places[0].Where, places[1].Where)
		}
	}
	for k, c := range committed {
		if _, ok := j.captured[k]; !ok && j.arrived[k] == nil { // what arrived is looked at there
			j.blame(ruleNowhere, "%s version %d of %s, committed %s", k.op, k.version, k.trigger, c.Committed.Format(time.TimeOnly))
		}
	}
}

// capture notes which event a change has.
func (j *judging) capture(k key, event uuid.UUID) {
	if other, ok := j.captured[k]; ok && other != event {
		j.blame(ruleTwice, "%s version %d of %s: events %s and %s", k.op, k.version, k.trigger, other, event)
	}
	j.captured[k] = event
}

// isCommitted looks a change up. What extra captures are changes of plain's table.
func (j *judging) isCommitted(committed map[key]*entry, k key) bool {
	if k.trigger == extra {
		k.trigger = plain
	}
	return committed[k] != nil
}

// accepted checks that an archived event was accepted at the attempt that it is archived for, and before it was archived.
func (j *judging) accepted(p *place) {
	s := j.seen[p.Event]
	if s == nil {
		j.blame(ruleLost, "event %s of %s is archived, %d tries", p.Event, p.Trigger, p.Tries)
		return
	}
	for _, a := range s.attempts {
		if a.number == p.Tries && a.outcome != failed && a.answered.Before(p.At) {
			return
		}
	}
	j.blame(ruleUnanswered, "event %s of %s, tries %d, archived %s: %s", p.Event, p.Trigger, p.Tries, p.At.Format("15:04:05.000000"), s)
}

// death checks that a dead event had run out of attempts, or that its trigger was removed.
func (j *judging) death(p *place) {
	switch {
	case p.Trigger == extra && p.Reason == "trigger removed":
		return
	case p.Trigger != brittle || p.Tries <= brittleLimit:
		j.blame(ruleBuried, "event %s of %s after %d tries: %s", p.Event, p.Trigger, p.Tries, p.Reason)
	}
	s := j.seen[p.Event]
	if s == nil {
		return
	}
	for _, a := range s.attempts {
		if a.number == p.Tries && a.outcome == delivered && j.excuse(a.slot, a.arrived, a.answered) == "" {
			j.blame(ruleDenied, "event %s: %s", p.Event, p.Reason)
		}
	}
}

// arrival looks at all the attempts of one event.
func (j *judging) arrival(id uuid.UUID, s *seen, committed map[key]*entry) {
	j.Attempts += len(s.attempts)
	k := s.key()
	if !j.isCommitted(committed, k) {
		j.blame(ruleRolledBack, "event %s: %s version %d of %s", id, k.op, k.version, k.trigger)
	}
	j.capture(k, id)
	attempts := slices.SortedFunc(slices.Values(s.attempts), func(a, b attempt) int { return a.arrived.Compare(b.arrived) })
	tries := 0
	for _, p := range j.placeOf[id] {
		tries = p.Tries
	}
	gone := len(j.placeOf[id]) == 0
	switch {
	case gone && j.forgotten(attempts):
		j.Unwritten++
	case gone:
		j.blame(ruleNowhere, "event %s: %s", id, s)
	}
	var first *attempt // that was accepted
	for i := range attempts {
		a := &attempts[i]
		if a.number > tries && !gone {
			j.blame(ruleAttempts, "event %s of %s: attempt %d, and %d tries in the end", id, s.trigger, a.number, tries)
		}
		if first != nil {
			j.again(id, s, first, a)
		}
		if first == nil && a.outcome == delivered {
			first = a
		}
		if i > 0 {
			j.patience(id, s, &attempts[i-1], a)
		}
		j.log(id, s, a)
	}
	if c := committed[k]; first != nil && c != nil {
		j.recovery(c.Committed, first.answered)
	}
}

// settledWithin is how soon what became of an accepted attempt is written, as long as nothing is wrong but that the history can't be. Of an answer
// that does not end it is known only after the attempt's timeout.
const settledWithin = shortLease + 3*time.Second

// forgotten reports that an event may be in no table: it was accepted, and what became of it was to be written while the history could not be.
func (j *judging) forgotten(attempts []attempt) bool {
	for i := range attempts {
		a := &attempts[i]
		if a.outcome != failed && j.unwritten(a.slot, a.answered, a.answered.Add(settledWithin)) {
			return true
		}
	}
	return false
}

// A dispatcher tries to write history again after so long, and does so when it has something to write.
const historyAgain = 13 * time.Second

// unwritten reports that the history could not be written at some time in which a dispatcher wrote what became of an attempt: between two moments, or
// later, where another fault explains that it did not come to it.
func (j *judging) unwritten(slot int, from, to time.Time) bool {
	return slices.ContainsFunc(j.faults, func(f *fault) bool {
		return f.Kind == faultHistory && f.Error == "" && !f.Began.IsZero() && f.Ended.Add(historyAgain).After(from) &&
			(f.Began.Before(to) || f.Began.Before(to.Add(keptFor)) && j.excuse(slot, from, f.Began) != "")
	})
}

// keptFor is for how long at most another fault can keep a dispatcher from writing what it knows.
const keptFor = time.Minute

// again asks why an event was sent after it had been accepted.
func (j *judging) again(id uuid.UUID, s *seen, first, a *attempt) {
	j.Duplicates++
	kind := j.excuse(first.slot, first.arrived, a.arrived)
	if kind == "" {
		kind = j.excuse(a.slot, first.arrived, a.arrived)
	}
	if kind == "" {
		j.blame(ruleDuplicate, "event %s of %s, attempt %d by slot %d at %s: %s", id, s.trigger, a.number, a.slot, a.arrived.Format("15:04:05.000"), s)
		return
	}
	j.Excuses[kind]++
}

// patience checks that a Retry-After was respected. A fault may have hidden it.
func (j *judging) patience(id uuid.UUID, s *seen, before, a *attempt) {
	if before.retryAfter == 0 || a.number != before.number+1 || a.arrived.Sub(before.answered) >= before.retryAfter ||
		j.excuse(before.slot, before.arrived, a.arrived) != "" {
		return
	}
	j.blame(ruleEarly, "event %s of %s, attempt %d after %s instead of %s", id, s.trigger, a.number, a.arrived.Sub(before.answered), before.retryAfter)
}

// log checks that an attempt is in the log.
func (j *judging) log(id uuid.UUID, s *seen, a *attempt) {
	for _, v := range j.logged[id] {
		if v.Attempt == a.number {
			return
		}
	}
	const loggedWithin = 15 * time.Second // a timeout, and then what it takes to write it
	late := a.arrived.Add(loggedWithin)
	if j.excuse(a.slot, a.arrived, late) == "" && !j.unwritten(a.slot, a.arrived, late) {
		j.blame(ruleUnlogged, "event %s of %s, attempt %d by slot %d at %s", id, s.trigger, a.number, a.slot, a.arrived.Format("15:04:05.000"))
		return
	}
	j.Unlogged++
}

// answers checks that each answer in the log was given.
func (j *judging) answers(id uuid.UUID, logged []*invocation) {
	s := j.seen[id]
	used := map[int]bool{}
	for _, v := range logged {
		if v.Status == 0 {
			continue
		}
		found := false
		if s != nil {
			for i, a := range s.attempts {
				if found = !used[i] && a.number == v.Attempt && a.status == v.Status; found {
					used[i] = true
					break
				}
			}
		}
		if !found {
			j.blame(ruleInvented, "event %s, attempt %d, status %d %s: %s", id, v.Attempt, v.Status, v.Kind, s)
		}
	}
}

// recovery notes how long an event took, for each kind of fault that was at work in that time.
func (j *judging) recovery(committed, accepted time.Time) {
	took := accepted.Sub(committed)
	j.Slowest = max(j.Slowest, took)
	kinds := map[string]bool{}
	for _, f := range j.faults {
		if !f.Began.After(accepted) && !f.Ended.Before(committed) {
			kinds[f.Kind] = true
		}
	}
	for kind := range kinds {
		d := j.Recovery[kind]
		d.Events++
		d.Slowest = max(d.Slowest, took)
		j.Recovery[kind] = d
	}
}

// aftermath is for how long after its end a fault explains what happens: what a dispatcher believes to hold may be gone.
const aftermath = 3 * time.Second

// excusesOf returns the faults that can make duplicates, in the order of their beginnings.
func excusesOf(faults []*fault) []*fault {
	all := natures()
	var some []*fault
	for _, f := range faults {
		if all[f.Kind].duplicates && !f.Began.IsZero() {
			some = append(some, f)
		}
	}
	slices.SortFunc(some, func(a, b *fault) int { return a.Began.Compare(b.Began) })
	return some
}

// excuse returns the kind of a fault that was at work on a slot, or on all, between two moments; "" if there was none.
func (j *judging) excuse(slot int, from, to time.Time) string {
	for _, f := range j.excuses {
		if f.Began.After(to) {
			break
		}
		if (f.Slot == slot || f.Slot == everyone) && f.Ended.Add(aftermath).After(from) {
			return f.Kind
		}
	}
	return ""
}

// key is what the event is of.
func (s *seen) key() key { return keyOf(s.trigger, string(s.op), s.old, s.fresh) }

// String tells an event's story.
func (s *seen) String() string {
	if s == nil {
		return "it never arrived"
	}
	text := fmt.Sprintf("%s %c of row %d, versions %d %d", s.trigger, s.op, s.id, s.old, s.fresh)
	for _, a := range s.attempts {
		text += fmt.Sprintf("; attempt %d by slot %d arrived %s, answered %s with %d (%s)", a.number, a.slot,
			a.arrived.Format("15:04:05.000000"), a.answered.Format("15:04:05.000000"), a.status, [...]string{"failed", "delivered", "perhaps"}[a.outcome])
	}
	return text
}

// failures lists the violations, the most frequent first.
func (v *verdict) failures() []string {
	rules := slices.SortedFunc(maps.Keys(v.Violations), func(a, b string) int {
		return cmp.Or(cmp.Compare(v.Violations[b], v.Violations[a]), cmp.Compare(a, b))
	})
	var lines []string
	for _, r := range rules {
		lines = append(lines, fmt.Sprintf("%s: %d, such as: %s", r, v.Violations[r], v.Examples[r]))
	}
	return lines
}
