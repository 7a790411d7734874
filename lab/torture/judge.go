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

// evidence is all that is known about a run when it is over.
type evidence struct {
	ledger      []entry
	places      []place
	invocations []invocation
	seen        map[uuid.UUID]*seen
	wrong       []string             // faults that the receiver found in bodies
	alien       []string             // events of another source
	unnamed     []string             // messages of the stream without the id of their event
	doubled     []string             // events that the stream has twice
	stored      map[uuid.UUID]uint64 // their places in the stream
	faults      []*fault
	instances   int // rows of rowhook.instance
	listings    []listing
	spread      bool // the dispatchers have several sources among them, so not each serves this one
	pauses      []pause
	handings    []handing
}

// entry is a committed change, from the ledger.
type entry struct {
	Trigger   string
	Op        string
	ID        int64
	Old       int64
	Fresh     int64
	Committed time.Time
	Began     time.Time // before the change
	Noted     time.Time // after it
	Tx        int64     // transaction
	N         int64     // rises within a transaction
}

// place is the row of an event in one of the tables.
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
	Seq     int64      // 0: none
	Into    *uuid.UUID // the event that was sent in its stead, or itself if nothing was; nil: it was sent
}

// invocation is a row of rowhook.invocation_log.
type invocation struct {
	Event   uuid.UUID
	Attempt int
	Status  int // 0: null
	Kind    string
}

// key identifies a change. No version is used twice.
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
	e := &evidence{faults: faultsOf(faults, l.source)}
	l.receiver.mu.Lock()
	e.seen, e.wrong, e.alien = l.receiver.events, l.receiver.wrong, l.receiver.alien
	l.receiver.mu.Unlock()
	var err error
	if l.publishes() {
		all, err := l.broker.messages(ctx)
		if err != nil {
			return nil, err
		}
		e.takeMessages(all, l.name)
	}
	e.ledger, err = collect[entry](ctx, l, "select trigger, op::text, id, old, fresh, coalesce(pg_xact_commit_timestamp(xmin), '-infinity') as committed, began, noted, tx, n from ledger order by tx, n")
	if err != nil {
		return nil, err
	}
	const row = `coalesce(e.new->>'id', e.old->>'id', '0')::bigint as id, coalesce((e.old->>'version')::bigint, 0) as old, coalesce((e.new->>'version')::bigint, 0) as fresh, e.tries`
	e.places, err = collect[place](ctx, l, `
select e.id as event, 'archive' as "where", t.name as trigger, e.op::text, `+row+`, e.delivered_at as at, '' as reason, false as claimed, coalesce(e.seq, 0) as seq, e.merged_into as into
  from rowhook.event_archive e join rowhook.trigger t on t.id = e.trigger_id
union all
select e.id, 'dead', t.name, e.op::text, `+row+`, e.died_at, e.reason, false, coalesce(e.seq, 0), null
  from rowhook.dead_letter e join rowhook.trigger t on t.id = e.trigger_id
union all
select e.id, 'owed', t.name, e.op::text, `+row+`, e.due_at, '', e.claimed_by is not null, coalesce(e.seq, 0), null
  from rowhook.event_log e join rowhook.trigger t on t.id = e.trigger_id`)
	if err != nil {
		return nil, err
	}
	e.invocations, err = collect[invocation](ctx, l,
		"select event_id as event, attempt, coalesce(status, 0)::integer as status, coalesce(error_kind, '') as kind from rowhook.invocation_log")
	if err != nil {
		return nil, err
	}
	if e.pauses, err = collect[pause](ctx, l, "select action, at from rowhook.audit where action in ('pause', 'resume') and target @> array['"+pausing+"'] order by id"); err != nil {
		return nil, err
	}
	if e.handings, err = collect[handing](ctx, l, "select event, due, taken from handed"); err != nil {
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
	ruleBody       = "a body differs from what was written"
	rulePlaces     = "an event is in two places"
	ruleOwed       = "an event is still owed"
	ruleClaimed    = "a claim is left"
	ruleTwice      = "a change was captured twice"
	ruleUnanswered = "an event is archived, but the attempt that the archive names was not accepted before"
	ruleBuried     = "an event is dead although it has attempts left"
	ruleDenied     = "an event is dead although its last attempt was accepted, with no fault to explain it"
	ruleDuplicate  = "an event was sent again after it was accepted, with no fault to explain it"
	ruleUnlogged   = "an attempt is missing from the log, with no fault to explain it"
	ruleInvented   = "the log has an answer that the receiver did not give"
	ruleAttempts   = "an attempt has a number above the event's count"
	ruleEarly      = "an event was tried again before the receiver's Retry-After"
	ruleInstances  = "an instance is left in rowhook.instance"
	ruleUnlisted   = "an instance was not in rowhook.instance although it had lost only its listen path"
	ruleDeaf       = "an instance did not listen again although its listen path had come back"
	ruleOvertaken  = "an event was sent before an earlier one of its key was settled"
	ruleInverted   = "an event was sent after a later one of its key was settled, with no fault to explain it"
	ruleSequence   = "the sequence does not follow the changes of a row"
	ruleStale      = "a receiver that takes only the latest change of a row has another one"
	ruleNeighbour  = "an event is dead after an attempt that it shared with others, and that did not name it"
	ruleRate       = "more requests arrived than the rate allows"
	ruleHammered   = "an endpoint that was down got more than probes"
	ruleTooSoon    = "an event was sent before its delay had passed"
	ruleYoung      = "an event has expired before its time"
	ruleRisen      = "an event was sent after it had expired, with no fault to explain it"
	ruleAged       = "an event was sent although it was too old, with no fault to explain it"
	ruleCounted    = "an attempt counted although its answer had paused the trigger"
	ruleFlood      = "a dispatcher went on sending after an answer that pauses the trigger"
	rulePaused     = "an event of a paused trigger was sent"
	ruleSummed     = "an event of a trigger at commit is not the first and the last row of its transaction"
	ruleLease      = "an event that was handed over waited for the end of its lease"
	ruleAlien      = "an event arrived under another source's name"
	ruleUnnamed    = "a message has another id than its event"
	ruleStored     = "a stream has an event twice"
	ruleMisplaced  = "a stream has the events of a key in another order"
	ruleSilence    = "nothing was sent although events were owed and nothing hampered deliveries"
)

// verdict is what the judge found.
type verdict struct {
	Source     string            `json:"source,omitempty"`
	Events     int               `json:"events"`      // committed changes of the triggers
	Arrived    int               `json:"arrived"`     // distinct events that arrived
	Attempts   int               `json:"attempts"`    // at the receiver
	Archived   int               `json:"archived"`    //
	Merged     int               `json:"merged"`      // of these: in their stead a later one was sent, or nothing
	Dead       int               `json:"dead"`        //
	Expired    int               `json:"expired"`     // of these: because of their age
	Stored     int               `json:"stored"`      // messages of a stream
	Pauses     int               `json:"pauses"`      // by an answer of the receiver
	Summed     int               `json:"summed"`      // changes of a row after the first one of its transaction, where these are one event
	Handed     int               `json:"handed"`      // events that their writers handed over
	Taken      int               `json:"taken"`       // of these: settled under the claim that their writers made
	HandedLate time.Duration     `json:"handed_late"` // from commit to the first arrival, of the slowest of Handed
	Duplicates int               `json:"duplicates"`  // arrivals of an event that had been accepted
	Excuses    map[string]int    `json:"excuses"`     // duplicates by the kind of fault that explains them
	Unlogged   int               `json:"unlogged"`    // attempts that a fault kept from the log
	Unwritten  int               `json:"unwritten"`   // events that arrived and were then settled without history
	Free       time.Duration     `json:"free"`        // time of faults during which deliveries have to go on, and no other fault hampered them
	Silence    time.Duration     `json:"silence"`     // the longest part of Free without an attempt although events were owed
	Slowest    time.Duration     `json:"slowest"`     // from commit to the first acceptance
	Recovery   map[string]delay  `json:"recovery"`    // the slowest event, by the kind of fault that was active meanwhile
	Violations map[string]int    `json:"violations"`
	Examples   map[string]string `json:"examples"` // one of each
}

// delay is how long the slowest of some events took.
type delay struct {
	Slowest time.Duration `json:"slowest"`
	Events  int           `json:"events"`
}

// judge compares what happened with what was promised.
func judge(e *evidence) *verdict {
	changes := len(e.ledger)
	e.ledger = sum(e.ledger)
	j := &judging{
		evidence: e, placeOf: map[uuid.UUID][]*place{}, logged: map[uuid.UUID][]*invocation{}, captured: map[key]uuid.UUID{}, arrived: map[key]*seen{}, inserted: map[int64]time.Time{},
		verdict: &verdict{Events: len(e.ledger), Summed: changes - len(e.ledger), Arrived: len(e.seen), Excuses: map[string]int{}, Recovery: map[string]delay{}, Violations: map[string]int{}, Examples: map[string]string{}},
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
	j.order()
	j.final()
	for id, s := range e.seen {
		j.arrival(id, s, committed)
	}
	for id, logged := range j.logged {
		j.answers(id, logged)
	}
	for rule, all := range map[string][]string{ruleBody: e.wrong, ruleAlien: e.alien, ruleUnnamed: e.unnamed, ruleStored: e.doubled} {
		for _, w := range all {
			j.blame(rule, "%s", w)
		}
	}
	j.Stored = len(e.stored)
	if e.instances > 0 {
		j.blame(ruleInstances, "%d rows", e.instances)
	}
	j.lists()
	j.silence(committed)
	j.pace()
	j.outages()
	j.pausesHold()
	j.handedOver(committed)
	return j.verdict
}

type judging struct {
	*evidence
	*verdict
	placeOf  map[uuid.UUID][]*place
	logged   map[uuid.UUID][]*invocation
	captured map[key]uuid.UUID // event of each change
	arrived  map[key]*seen
	excuses  []*fault
	inserted map[int64]time.Time // when the inserts of rows of latest were committed
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
		if c.Trigger == latest && c.Op == "I" {
			j.inserted[c.ID] = c.Committed
		}
	}
	return committed
}

// standing checks the place of every event, and looks for changes that have no event.
func (j *judging) standing(committed map[key]*entry) {
	for i := range j.places {
		p := &j.places[i]
		if !mergeable(p.Trigger, p.Op) {
			k := keyOf(p.Trigger, p.Op, p.Old, p.Fresh)
			j.capture(k, p.Event)
			if !j.isCommitted(committed, k) {
				j.blame(ruleRolledBack, "event %s: %s version %d of %s is in the tables (%s)", p.Event, p.Op, k.version, p.Trigger, p.Where)
			}
			j.sums(p.Event, k, p.ID, p.Old, committed)
		}
		switch p.Where {
		case "archive":
			j.Archived++
			if p.Into == nil {
				j.accepted(p)
			} else {
				j.Merged++
			}
		case "dead":
			j.Dead++
			j.death(p, committed)
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
		if _, ok := j.captured[k]; !ok && j.arrived[k] == nil && !mergeable(k.trigger, k.op) { // arrival checks those that arrived
			j.blame(ruleNowhere, "%s version %d of %s, committed %s", k.op, k.version, k.trigger, c.Committed.Format(time.TimeOnly))
		}
	}
}

// capture records which event a change has.
func (j *judging) capture(k key, event uuid.UUID) {
	if other, ok := j.captured[k]; ok && other != event {
		j.blame(ruleTwice, "%s version %d of %s: events %s and %s", k.op, k.version, k.trigger, other, event)
	}
	j.captured[k] = event
}

// isCommitted looks up a change. The trigger extra captures changes of the table of plain.
func (j *judging) isCommitted(committed map[key]*entry, k key) bool {
	if k.trigger == extra {
		k.trigger = plain
	}
	return committed[k] != nil
}

// accepted checks that an archived event was accepted by the attempt that the archive names, and
// that this was before it was archived.
func (j *judging) accepted(p *place) {
	s := j.seen[p.Event]
	if s == nil {
		j.blame(ruleLost, "event %s of %s is archived, %d tries", p.Event, p.Trigger, p.Tries)
		return
	}
	for _, a := range s.attempts {
		// A stream that has the event acknowledges it again, and stores it no more.
		named := a.number == p.Tries || p.Trigger == streamed && a.number < p.Tries
		if named && a.outcome != failed && a.answered.Before(p.At) {
			return
		}
	}
	j.blame(ruleUnanswered, "event %s of %s, tries %d, archived %s: %s", p.Event, p.Trigger, p.Tries, p.At.Format("15:04:05.000000"), s)
}

// death checks that a dead letter had no attempts left, or that its trigger was removed.
func (j *judging) death(p *place, committed map[key]*entry) {
	switch {
	case p.Trigger == extra && p.Reason == "trigger removed":
		return
	case p.hasExpired():
		j.expiry(p, committed)
	case p.Tries <= limitOf(p.Trigger):
		j.blame(ruleBuried, "event %s of %s after %d tries: %s", p.Event, p.Trigger, p.Tries, p.Reason)
	case p.Trigger == bulk:
		j.neighbours(p)
	}
	s := j.seen[p.Event]
	if s == nil {
		return
	}
	for _, a := range s.attempts {
		// A fault may have struck after the answer, and before the outcome was written.
		written := a.answered.Add(settledWithin)
		if p.At.After(a.answered) && p.At.Before(written) {
			written = p.At
		}
		if a.number == p.Tries && a.outcome == delivered && j.excuse(a.slot, a.arrived, written) == "" {
			j.blame(ruleDenied, "event %s, dead %s: %s; %s", p.Event, p.At.Format("15:04:05.000000"), p.Reason, s)
		}
	}
}

// arrival checks all attempts of one event.
func (j *judging) arrival(id uuid.UUID, s *seen, committed map[key]*entry) {
	j.Attempts += len(s.attempts)
	k := s.key()
	if !mergeable(k.trigger, k.op) {
		if !j.isCommitted(committed, k) {
			j.blame(ruleRolledBack, "event %s: %s version %d of %s", id, k.op, k.version, k.trigger)
		}
		j.capture(k, id)
		j.sums(id, k, s.id, s.old, committed)
	}
	attempts := slices.SortedFunc(slices.Values(s.attempts), func(a, b attempt) int { return a.arrived.Compare(b.arrived) })
	tries, merged, probed := 0, false, false
	for _, p := range j.placeOf[id] {
		tries, merged, probed = p.Tries, p.Into != nil, p.hasExpired()
	}
	gone := len(j.placeOf[id]) == 0
	switch {
	case gone && (j.forgotten(attempts) || j.passedOver(s)):
		j.Unwritten++
	case gone:
		j.blame(ruleNowhere, "event %s: %s", id, s)
	}
	var first *attempt // the first that was accepted
	for i := range attempts {
		a := &attempts[i]
		// An attempt in a lane is counted with its outcome. If that was not written, a later one may have
		// been sent in the stead of the event.
		// A probe that fails counts for nothing, also if it is the answer that a fault kept from the dispatcher.
		probe := probed && a.number == tries+1 && (a.outcome == failed || j.excuse(a.slot, a.arrived, a.arrived.Add(loggedWithin)) != "")
		if a.number > tries && !gone && !probe && !(merged && j.excuse(a.slot, a.arrived, a.arrived.Add(loggedWithin)) != "") {
			j.blame(ruleAttempts, "event %s: attempt %d, and %d tries in the end: %s", id, a.number, tries, s)
		}
		if first != nil {
			j.again(id, s, first, a)
		}
		if first == nil && a.outcome == delivered {
			first = a
		}
		if i > 0 {
			j.patience(id, s, &attempts[i-1], a)
			j.uncounted(id, s, &attempts[i-1], a)
		}
		j.timely(id, s, a, committed[k])
		if !probe {
			j.log(id, s, a)
		}
	}
	if c := committed[k]; first != nil && c != nil {
		j.recovery(c.Committed, first.answered)
	}
}

// settledWithin is how soon the outcome of an accepted attempt is written while no other fault is
// active than one of history. If the response does not end, the outcome is known only after the
// attempt's timeout.
const settledWithin = shortLease + 3*time.Second

// forgotten reports that an event may be in no table: it was accepted, and its outcome was due to
// be written while history could not be written.
func (j *judging) forgotten(attempts []attempt) bool {
	for i := range attempts {
		a := &attempts[i]
		if a.outcome != failed && j.unwritten(a.slot, a.answered, a.answered.Add(settledWithin)) {
			return true
		}
	}
	return false
}

// passedOver reports that an event may be in no table, since a later one of its row may have been sent
// in its stead, which is in none, either.
func (j *judging) passedOver(s *seen) bool {
	if !mergeable(s.trigger, string(s.op)) {
		return false
	}
	for id, later := range j.seen {
		if mergeable(later.trigger, string(later.op)) && later.id == s.id && later.sequence > s.sequence && len(j.placeOf[id]) == 0 && j.forgotten(later.attempts) {
			return true
		}
	}
	return false
}

// historyAgain is how long a dispatcher waits at most until it tries to write history again: 10 s,
// and then the next settlement.
const historyAgain = 13 * time.Second

// unwritten reports whether history could not be written when a dispatcher wrote the outcome of an
// attempt. That is between the two moments, or later if another fault explains the delay.
func (j *judging) unwritten(slot int, from, to time.Time) bool {
	return slices.ContainsFunc(j.faults, func(f *fault) bool {
		return f.Kind == faultHistory && f.Error == "" && !f.Began.IsZero() && f.Ended.Add(historyAgain).After(from) &&
			(f.Began.Before(to) || f.Began.Before(to.Add(keptFor)) && j.excuse(slot, from, f.Began) != "")
	})
}

// keptFor is how long another fault can keep a dispatcher from writing an outcome.
const keptFor = time.Minute

// again checks why an event was sent after it had been accepted.
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

// patience checks that a Retry-After was respected. A fault may have kept it from being recorded.
func (j *judging) patience(id uuid.UUID, s *seen, before, a *attempt) {
	if before.retryAfter == 0 || a.number != before.number+1 || a.arrived.Sub(before.answered) >= before.retryAfter ||
		j.excuse(before.slot, before.arrived, a.arrived) != "" {
		return
	}
	j.blame(ruleEarly, "event %s of %s, attempt %d after %s instead of %s", id, s.trigger, a.number, a.arrived.Sub(before.answered), before.retryAfter)
}

// loggedWithin is how soon the outcome of an attempt is written: a timeout, and the time to write it.
const loggedWithin = 15 * time.Second

// log checks that an attempt is in the log.
func (j *judging) log(id uuid.UUID, s *seen, a *attempt) {
	for _, v := range j.logged[id] {
		if v.Attempt == a.number {
			return
		}
	}
	late := a.arrived.Add(loggedWithin)
	if j.excuse(a.slot, a.arrived, late) == "" && !j.unwritten(a.slot, a.arrived, late) {
		j.blame(ruleUnlogged, "event %s of %s, attempt %d by slot %d at %s", id, s.trigger, a.number, a.slot, a.arrived.Format("15:04:05.000"))
		return
	}
	j.Unlogged++
}

// answers checks that the receiver gave each response that is in the log.
func (j *judging) answers(id uuid.UUID, logged []*invocation) {
	s := j.seen[id]
	used := map[int]bool{}
	for _, v := range logged {
		if v.Status == 0 {
			continue
		}
		if s != nil && s.trigger == streamed { // it has what was stored, and not what was answered
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

// recovery records how long an event took, for each kind of fault that was active meanwhile.
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

// aftermath is how long after its end a fault explains what happens: a dispatcher may have lost
// claims without knowing.
const aftermath = 3 * time.Second

// excusesOf returns the faults that can make duplicates, sorted by their beginnings.
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

// excuse returns the kind of a fault that struck this slot, or all slots, between two moments; "":
// there was none.
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

// key returns the change that the event was captured from.
func (s *seen) key() key { return keyOf(s.trigger, string(s.op), s.old, s.fresh) }

// String describes an event and its attempts.
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

// failures lists the violations, the most frequent one first.
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
