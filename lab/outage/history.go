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

// spell is one time during which an alert was active, over all its label sets.
type spell struct {
	alert   string
	pending time.Time // by Prometheus' clock, which is this machine's
	firing  time.Time // zero: it did not fire
	over    time.Time // when it stopped firing, or pending if it never fired; zero: not yet
}

// history is when which alerts were active.
type history struct {
	mu      sync.Mutex
	ended   []*spell
	active  map[string]*spell
	faults  map[string]bool // faulty texts of alerts
	changed chan struct{}   // closed and replaced at each look
}

func newHistory() *history {
	return &history{active: map[string]*spell{}, faults: map[string]bool{}, changed: make(chan struct{})}
}

// lookEvery is the precision of the times.
const lookEvery = 200 * time.Millisecond

// follow reads the alerts until ctx is done.
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
			if text == "" || strings.Contains(text, "<error") || strings.Contains(text, "  ") { // two spaces: a label between them was missing
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

// spells returns those that were active after a time, sorted by their beginnings.
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

// fired reports whether an alert fired after a time.
func (h *history) fired(alert string, since time.Time) bool {
	return slices.ContainsFunc(h.spells(since), func(s spell) bool { return s.alert == alert && s.firing.After(since) })
}

// quiet reports whether no alert but these is active.
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

// until waits for a condition, which it checks whenever the alerts were read.
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
