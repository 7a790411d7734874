package dispatcher

import (
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/internal/sorting"
	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

// target is what a breaker is for: the endpoint of a trigger, or the host that many triggers share.
// The mutex of the scheduler guards it, like the lanes.
type target struct {
	breaker
	name     string // queue.Health.Target
	trigger  int32  // 0: a host
	endpoint string // for people
	lanes    []*lane
	inFlight int // attempts of this dispatcher
	permit   permit

	// What the loop of the breakers has to record, and knows.
	news       news
	reason     string        // of the latest failure
	retryAfter time.Duration // what it asked for, bounded by the trigger's max_interval
	probeAt    time.Time     // when the next probe may be made, by our clock
	recorded   bool          // rowhook.health has a row
	failing    time.Duration // how long it has been failing, as of the latest probe
	sends      bool          // its latest probe was sent
}

// news is what has happened to a target and is not recorded yet.
type news uint8

const (
	noNews        news = iota
	beganFailing       // its breaker has begun to fail
	probeFailed        // our probe has failed
	probeUnused        // our probe was not made, or says nothing
	probeAnswered      // our probe has succeeded
)

// permit is the right to make the probe of a target that fails.
//
//	none --> granted ---- claim ----> asked --- events ---> claimed --- begin ---> sent
//	            ^                       |  no events                    ^
//	            |                       v                               |
//	            |                    offered, to the orderer -- event --+
//	            +---- no event: the next lane, or none
type permit struct {
	state permitState
	lane  *lane   // whose turn it is
	rest  []*lane // that follow if the lane has nothing due
	since time.Time
}

type permitState uint8

const (
	permitNone permitState = iota
	permitGranted
	permitAsked
	permitOffered
	permitClaimed
	permitSent
)

// permitFor is how long a permit is kept for an event to begin. Then the next probe is waited for.
const permitFor = 5 * time.Second

// offeredFor is how long the orderer has to hand over an event. It knows at once whether it has one.
const offeredFor = time.Second

// gate is what may hold the attempts of a lane: the breakers of its endpoint and of its host. Both
// are nil where the trigger wants none.
type gate struct {
	own, host *target
	webhook   trigger.Webhook // for which they were made
	nats      trigger.NATS
}

// closed returns the target that fails and so holds the lane. nil: none does. While the host fails,
// the endpoint is not probed by itself.
func (g *gate) closed() *target {
	switch {
	case g.host != nil && g.host.state == breakerFailing:
		return g.host
	case g.own != nil && g.own.state == breakerFailing:
		return g.own
	}
	return nil
}

// shut reports that nothing may be claimed for the lane, not even a probe.
func (g *gate) shut(l *lane) bool {
	t := g.closed()
	return t != nil && (t.permit.lane != l || t.permit.state > permitAsked)
}

// open reports that nothing holds the lane.
func (g *gate) open() bool {
	for _, t := range [...]*target{g.own, g.host} {
		if t != nil && (t.state == breakerFailing || t.allowed > 0) {
			return false
		}
	}
	return true
}

// unbounded is the room of a lane whose endpoint is ok.
const unbounded = 1 << 30

// room returns how many more events may be claimed for the lane.
func (g *gate) room(l *lane) int {
	if t := g.closed(); t != nil {
		if t.permit.lane == l && (t.permit.state == permitGranted || t.permit.state == permitOffered) {
			return 1
		}
		return 0
	}
	room := unbounded
	for _, t := range [...]*target{g.own, g.host} {
		if t != nil && t.allowed > 0 {
			room = min(room, t.allowed-t.inFlight-l.loads())
		}
	}
	return max(room, 0)
}

// admits reports whether an attempt of the lane may start.
func (g *gate) admits(l *lane) bool {
	if t := g.closed(); t != nil {
		return t.permit.lane == l && t.permit.state == permitClaimed
	}
	for _, t := range [...]*target{g.own, g.host} {
		if t != nil && t.allowed > 0 && t.inFlight >= t.allowed {
			return false
		}
	}
	return true
}

// asked says that a claim for the lane is sent.
func (g *gate) asked(l *lane) {
	if t := g.closed(); t != nil && t.permit.lane == l {
		t.permit.state = permitAsked
	}
}

// offered says that the orderer has handed over events of the lane.
func (g *gate) offered(l *lane) {
	if t := g.closed(); t != nil && t.permit.lane == l && (t.permit.state == permitGranted || t.permit.state == permitOffered) {
		t.permit.state = permitClaimed
	}
}

// aimed is where an attempt goes, as of its start.
type aimed struct {
	own, host *target
	probe     *target // whose probe it is; nil: it is none
}

// aim returns where an attempt of the lane goes that starts now.
func (g *gate) aim(l *lane) aimed {
	a := aimed{own: g.own, host: g.host}
	for _, t := range [...]*target{g.own, g.host} {
		if t != nil {
			t.inFlight++
		}
	}
	if t := g.closed(); t != nil && t.permit.lane == l && t.permit.state == permitClaimed {
		t.permit.state = permitSent
		a.probe = t
	}
	return a
}

// landed ends what aim began. A probe that was not judged was not made.
func (a *aimed) landed() {
	if a.probe != nil && a.probe.permit.state == permitSent {
		a.probe.unused()
	}
	for _, t := range [...]*target{a.own, a.host} {
		if t != nil {
			t.inFlight--
		}
	}
}

// aim gives every lane its gate, after the configuration was loaded. A trigger with another webhook
// begins anew.
func (s *scheduler) aim() {
	before := s.targets
	s.targets = map[string]*target{}
	for _, l := range s.lanes {
		was := l.gate
		l.gate = gate{webhook: l.trigger.Spec.Webhook, nats: l.trigger.Spec.NATS}
		if l.trigger.Spec.Breaker == trigger.BreakerOff || l.endpoint == nil || l.endpoint.Origin() == "" {
			continue
		}
		l.gate.own = was.own
		if was.own == nil || !reflect.DeepEqual(was.webhook, l.gate.webhook) || !reflect.DeepEqual(was.nats, l.gate.nats) {
			l.gate.own = &target{name: queue.TargetOf(l.id), trigger: l.id}
		}
		l.gate.own.lanes, l.gate.own.endpoint = []*lane{l}, l.endpoint.String()
		origin := l.endpoint.Origin()
		host := s.targets[origin]
		if host == nil {
			if host = before[origin]; host == nil {
				host = &target{name: origin, endpoint: origin}
			}
			host.lanes = nil
		}
		host.lanes = append(host.lanes, l)
		l.gate.host = host
		s.targets[l.gate.own.name], s.targets[origin] = l.gate.own, host
		if before[origin] != host && s.shared.Shared != nil {
			s.shared.hosts.follow(s, origin)
		}
	}
	for name, t := range before {
		if s.targets[name] == t {
			continue
		}
		t.permit = permit{}
		if t.trigger == 0 && s.shared.Shared != nil {
			s.shared.hosts.unfollow(s, name)
		}
	}
}

// grant hands out the permit for a probe of a target. It goes to its lanes in turn.
func (s *scheduler) grant(t *target, now time.Time) {
	able := t.able()
	// Another lane first each time.
	sorting.By(able, func(a, b *lane) int { return a.probed.Compare(b.probed) })
	t.permit = permit{rest: able}
	s.pass(t, now)
}

// able lists the lanes of a target for which a probe may be claimed.
func (t *target) able() (lanes []*lane) {
	for _, l := range t.lanes {
		if !l.gone && !l.idle() && l.gate.closed() == t {
			lanes = append(lanes, l)
		}
	}
	return lanes
}

// pass hands the permit to the next lane.
func (s *scheduler) pass(t *target, now time.Time) {
	p := &t.permit
	if len(p.rest) == 0 {
		t.unused()
		return
	}
	*p = permit{state: permitGranted, lane: p.rest[0], rest: p.rest[1:], since: now}
	p.lane.probed = now
	s.markLane(p.lane, true)
	s.wake()
}

// unused gives up the permit.
func (t *target) unused() {
	t.permit, t.sends = permit{}, false
	if t.news == noNews {
		t.news = probeUnused
	}
}

// answered takes in what a claim for a lane has brought, for its probe.
func (s *scheduler) answered(l *lane, got int32, now time.Time) {
	t := l.gate.closed()
	if t == nil || t.permit.lane != l || t.permit.state != permitAsked {
		return
	}
	switch {
	case got > 0:
		t.permit.state = permitClaimed
	case l.state != drained: // a sweep is owed, which may find one
		t.permit.state = permitGranted
	case ordered(&l.trigger.Spec): // most of its events are not claimed
		t.permit.state = permitOffered
		s.wakeOrderer()
	default:
		s.pass(t, now)
	}
}

// unanswered says that the claim for a lane has failed.
func (g *gate) unanswered(l *lane) {
	if t := g.closed(); t != nil && t.permit.lane == l && t.permit.state == permitAsked {
		t.permit.state = permitGranted
	}
}

// judged takes in how an attempt went. It reports that it was a probe that failed: it counts for
// nothing, and its events are given back. result is nil if nothing was sent.
func (s *scheduler) judged(sh *shipment, ownTLS bool, r *webhook.Result, now time.Time) (failedProbe bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	own, host := noVerdict, noVerdict
	if r != nil {
		own, host = judge(r, ownTLS)
	}
	a := sh.aimed
	sh.aimed.probe = nil
	limit := sh.lane.concurrency(s.limit)
	for _, v := range [...]struct {
		t       *target
		verdict verdict
		limit   int
	}{{a.own, own, limit}, {a.host, host, s.limit}} {
		switch {
		case v.t == nil || v.t == a.probe:
		case v.verdict == healthy:
			v.t.succeeded(r.StartedAt, now, v.limit)
			if v.t.trigger == 0 && s.shared.Shared != nil {
				s.shared.hosts.succeeded(v.t.name, r.StartedAt, now)
			}
		case v.verdict == ill && v.t.trigger == 0 && s.illHost(v.t, reason(r), r.StartedAt, now),
			v.verdict == ill && v.t.trigger != 0 && v.t.failed(r.StartedAt, now, v.limit):
			v.t.remember(sh.lane, r)
			v.t.news = beganFailing
			s.tellBreakers()
		}
	}
	if a.probe == nil || a.probe.permit.state != permitSent || a.probe.state != breakerFailing {
		return false
	}
	return s.probed(a.probe, sh.lane, own, host, r, now)
}

// probed takes in the outcome of a probe. An answer of any kind shows that a host is there. An
// endpoint that does not answer as a healthy one goes on failing, unless it answers something that
// says nothing, such as 404.
func (s *scheduler) probed(t *target, l *lane, own, host verdict, r *webhook.Result, now time.Time) (failed bool) {
	says := host
	if t.trigger != 0 && own != noVerdict {
		says = own
	}
	t.permit = permit{}
	s.tellBreakers()
	switch says {
	case ill:
		t.remember(l, r)
		t.news = probeFailed
		return true
	case healthy:
		t.breaker.answered(now)
		t.news = probeAnswered
		if t.trigger == 0 && s.shared.Shared != nil {
			s.shared.hosts.answered(s, t.name, now)
		}
		s.reopen(t)
		return false
	case noVerdict:
	}
	t.news = probeUnused
	return false
}

// remember keeps what is said of a failure.
func (t *target) remember(l *lane, r *webhook.Result) {
	t.reason, t.retryAfter = reason(r), 0
	if r.HasRetryAfter && r.RetryAfter > 0 {
		t.retryAfter = retryAfter(l.trigger.Spec.Retry, r.RetryAfter)
	}
}

// reopen has the lanes of a target claimed for that no longer fails.
func (s *scheduler) reopen(t *target) {
	for _, l := range t.lanes {
		s.markLane(l, true)
		l.next.forget()
	}
	s.wake()
	s.wakeOrderer()
}

// held takes what was claimed for lanes whose endpoint fails, and waits here.
func (s *scheduler) held(now time.Time) (unsent []*delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.targets {
		if t.state != breakerFailing {
			continue
		}
		switch p := &t.permit; {
		case p.state == permitOffered && now.Sub(p.since) > offeredFor:
			s.pass(t, now)
		case p.state != permitNone && p.state != permitSent && now.Sub(p.since) > permitFor:
			t.unused()
		}
		for _, l := range t.lanes {
			if l.queued() > 0 && !l.gate.admits(l) {
				unsent = append(unsent, s.dropQueue(l)...)
			}
		}
	}
	return unsent
}

// triggers lists the triggers of a target, by id.
func (t *target) triggers() []int32 {
	ids := make([]int32, 0, len(t.lanes))
	for _, l := range t.lanes {
		ids = append(ids, l.id)
	}
	slices.Sort(ids)
	return ids
}

// tellBreakers wakes their loop.
func (s *scheduler) tellBreakers() {
	select {
	case s.breakerSignal <- struct{}{}:
	default:
	}
}

// names lists the triggers of a target, by name.
func (t *target) names() string {
	const most = 10
	names := make([]string, 0, len(t.lanes))
	for _, l := range t.lanes {
		names = append(names, l.trigger.Spec.Name)
	}
	slices.Sort(names)
	if len(names) > most {
		names = append(names[:most], "...")
	}
	return strings.Join(names, ", ")
}

// probeLease is how long a probe may take before another instance makes the next one.
func (t *target) probeLease() time.Duration {
	longest := time.Duration(0)
	for _, l := range t.lanes {
		if l.endpoint != nil {
			longest = max(longest, l.endpoint.Timeout())
		}
	}
	return min(longest, longestProbeLease) + permitFor + settleMargin
}

const longestProbeLease = 10 * time.Minute
