package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// spell is one time that an alert was active, over all its label sets.
type spell struct {
	alert   string
	pending time.Time // by Prometheus' clock, which is this machine's
	firing  time.Time // zero: it did not come to that
	over    time.Time // no longer firing; if it never was, no longer pending; zero: not yet
}

// history is what the alerts did.
type history struct {
	mu      sync.Mutex
	ended   []*spell
	active  map[string]*spell
	faults  map[string]bool // texts that were not made as meant
	changed chan struct{}   // closed and replaced at each look
}

func newHistory() *history {
	return &history{active: map[string]*spell{}, faults: map[string]bool{}, changed: make(chan struct{})}
}

// lookEvery is how exact the times are.
const lookEvery = 200 * time.Millisecond

// follow looks at the alerts until ctx is done.
func (h *history) follow(ctx context.Context, p *prometheus) error {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		alerts, err := p.alerts(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		h.look(time.Now(), alerts)
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (h *history) look(now time.Time, alerts []alert) {
	h.mu.Lock()
	defer h.mu.Unlock()
	state := map[string]*spell{}
	for i := range alerts {
		a := &alerts[i]
		s := state[a.name()]
		if s == nil {
			s = &spell{alert: a.name(), pending: a.ActiveAt}
			state[a.name()] = s
		}
		if a.ActiveAt.Before(s.pending) {
			s.pending = a.ActiveAt
		}
		if a.State == "firing" {
			s.firing = now
		}
		for _, text := range a.Annotations {
			if text == "" || strings.Contains(text, "<error") || strings.Contains(text, "  ") { // two spaces: a label was missing between
				h.faults[fmt.Sprintf("%s says %q", a.name(), text)] = true
			}
		}
	}
	for name, s := range h.active {
		if is := state[name]; is == nil || !s.firing.IsZero() && is.firing.IsZero() {
			s.over = now
			h.ended = append(h.ended, s)
			delete(h.active, name)
		}
	}
	for name, is := range state {
		s := h.active[name]
		switch {
		case s == nil:
			h.active[name] = is
		case s.firing.IsZero():
			s.firing = is.firing
		}
	}
	close(h.changed)
	h.changed = make(chan struct{})
}

// spells are those that were active after a time, in the order of their beginnings.
func (h *history) spells(since time.Time) []spell {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []spell
	for _, s := range slices.Concat(h.ended, slices.Collect(maps.Values(h.active))) {
		if s.over.IsZero() || s.over.After(since) {
			all = append(all, *s)
		}
	}
	slices.SortFunc(all, func(a, b spell) int { return a.pending.Compare(b.pending) })
	return all
}

// fired tells whether an alert fired after a time.
func (h *history) fired(alert string, since time.Time) bool {
	return slices.ContainsFunc(h.spells(since), func(s spell) bool { return s.alert == alert && s.firing.After(since) })
}

// quiet tells whether no alert is active but some.
func (h *history) quiet(but ...string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for name := range h.active {
		if !slices.Contains(but, name) {
			return false
		}
	}
	return true
}

func (h *history) texts() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Sorted(maps.Keys(h.faults))
}

var errPatience = errors.New("it took too long")

// until waits for a condition, which is looked at whenever the alerts were.
func (h *history) until(ctx context.Context, patience time.Duration, condition func() bool) error {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		h.mu.Lock()
		changed := h.changed
		h.mu.Unlock()
		if condition() {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-timer.C:
			return errPatience
		case <-changed:
		}
	}
}
