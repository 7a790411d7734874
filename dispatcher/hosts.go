package dispatcher

import (
	"math/rand/v2"
	"sync"
	"time"
)

// hosts is the health of hosts over all dispatchers that share. Each of them keeps the breakers of its
// hosts, whose state is in its database. Here the attempts of all are counted, and what one of them has
// found out is told to the others.
//
// Its mutex may be taken under that of a scheduler, never the other way round.
type hosts struct {
	mu  sync.Mutex
	all map[string]*sharedHost // by origin
}

// sharedHost is a host that dispatchers call.
type sharedHost struct {
	counts  breaker // of all attempts; always breakerOK
	members map[*scheduler]struct{}
	probeAt time.Time // no further probe before, by one that has sent the last
}

// hostNews is what another dispatcher has found out about a host.
type hostNews struct {
	origin  string
	answers bool // a probe has succeeded; false: it fails
	reason  string
	began   time.Time // when it began to fail
}

// follow makes a scheduler one of those that call a host.
func (h *hosts) follow(s *scheduler, origin string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	host := h.all[origin]
	if host == nil {
		host = &sharedHost{members: map[*scheduler]struct{}{}}
		h.all[origin] = host
	}
	host.members[s] = struct{}{}
}

// unfollow ends that.
func (h *hosts) unfollow(s *scheduler, origin string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.remove(s, origin)
}

func (h *hosts) remove(s *scheduler, origin string) {
	host := h.all[origin]
	if host == nil {
		return
	}
	delete(host.members, s)
	if len(host.members) == 0 {
		delete(h.all, origin)
	}
}

// leave ends that for all hosts.
func (h *hosts) leave(s *scheduler) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for origin := range h.all {
		h.remove(s, origin)
	}
}

// succeeded counts an attempt at a host.
func (h *hosts) succeeded(origin string, started, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if host := h.all[origin]; host != nil {
		host.counts.succeeded(started, now, unbounded)
	}
}

// failed counts an attempt at a host that has failed. It reports whether the host begins to fail: by
// what all dispatchers have seen, or since the one that tells has seen enough. It tells the others.
func (h *hosts) failed(from *scheduler, origin, reason string, enough bool, started, now time.Time) (begins bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	host := h.all[origin]
	if host == nil {
		return enough
	}
	if !host.counts.failed(started, now, unbounded) && !enough {
		return false
	}
	began := host.counts.began
	if began.IsZero() {
		began = now
	}
	host.counts = breaker{changed: now}
	h.tell(host, from, hostNews{origin: origin, reason: reason, began: began})
	return true
}

// answered says that a probe of a host has succeeded.
func (h *hosts) answered(from *scheduler, origin string, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if host := h.all[origin]; host != nil {
		host.counts, host.probeAt = breaker{changed: now}, time.Time{}
		h.tell(host, from, hostNews{origin: origin, answers: true})
	}
}

// tell has the other members take in news.
func (h *hosts) tell(host *sharedHost, from *scheduler, news hostNews) {
	for s := range host.members {
		if s != from {
			s.hostNews = append(s.hostNews, news)
			s.tellBreakers()
		}
	}
}

// take returns the news for a scheduler.
func (h *hosts) take(s *scheduler) []hostNews {
	h.mu.Lock()
	defer h.mu.Unlock()
	news := s.hostNews
	s.hostNews = nil
	return news
}

// probes reports whether a member may probe a host that has sent its last probe: no other one did a
// moment ago. Else it returns when to ask again.
func (h *hosts) probes(origin string, now time.Time) (ok bool, again time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	host := h.all[origin]
	if host == nil {
		return true, time.Time{}
	}
	if now.Before(host.probeAt) {
		return false, host.probeAt.Add(time.Duration(rand.Int64N(int64(leastProbe / 4)))) //nolint:gosec // nobody gains by guessing when a probe is made
	}
	host.probeAt = now.Add(leastProbe / 2) // for another one, if this one has nothing to send
	return true, time.Time{}
}

// probed says that a probe of a host was sent.
func (h *hosts) probed(origin string, failing time.Duration, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if host := h.all[origin]; host != nil {
		host.probeAt = now.Add(probeIn(failing))
	}
}

// heedHosts takes in what other dispatchers have found out about hosts.
func (s *scheduler) heedHosts(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shared.Shared == nil {
		return
	}
	for _, n := range s.shared.hosts.take(s) {
		t := s.targets[n.origin]
		switch {
		case t == nil || t.trigger != 0:
		case n.answers && t.state == breakerFailing:
			t.probeAt, t.sends = now, false
		case !n.answers && t.state != breakerFailing:
			t.began, t.reason, t.retryAfter = n.began, n.reason, 0
			t.enter(breakerFailing, 0, now)
			t.news = beganFailing
		}
	}
}

// illHost takes in an attempt that could not connect to a host. It reports whether the host begins to
// fail by this. The mutex is held.
func (s *scheduler) illHost(t *target, reason string, started, now time.Time) (begins bool) {
	before := t.state
	begins = t.failed(started, now, s.limit)
	if s.shared.Shared == nil || before == breakerFailing {
		return begins
	}
	if !s.shared.hosts.failed(s, t.name, reason, begins, started, now) {
		return false
	}
	if !begins {
		t.enter(breakerFailing, 0, now)
	}
	return true
}
