package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rowhook/rowhook/internal/faultproxy"
)

// deafen disturbs the path by which a dispatcher listens, or those of all dispatchers that have
// one. No other connection is affected.
func (l *lab) deafen(ctx context.Context, f *fault) {
	paths := l.listenPaths(f.Slot)
	if f.Kind == listenStrand || f.Kind == listenStall {
		for _, p := range paths {
			disturb(ctx, p, f)
		}
		return
	}
	for end := time.Now().Add(f.For); time.Now().Before(end) && ctx.Err() == nil; {
		lose(paths, f.Hard)
		wait(ctx, min(f.Out, time.Until(end)))
		for _, p := range paths {
			p.Heal()
		}
		wait(ctx, min(f.Back, time.Until(end)))
	}
}

// listenPaths returns the proxies by which a dispatcher listens, or those of all dispatchers.
func (l *lab) listenPaths(slot int) []*faultproxy.Proxy {
	var paths []*faultproxy.Proxy
	for _, s := range l.slots {
		if s.listens != nil && (slot == everyone || slot == s.number) {
			paths = append(paths, s.listens)
		}
	}
	return paths
}

// lose ends the connections through these paths, and refuses new ones.
func lose(paths []*faultproxy.Proxy, hard bool) {
	for _, p := range paths {
		p.Set(faultproxy.Refuse)
		if hard {
			p.Reset()
		} else {
			p.Cut()
		}
	}
}

// listing says whether a dispatcher was in rowhook.instance at a moment, and whether it said that
// it listens.
type listing struct {
	Slot    int
	At      time.Time
	Listed  bool
	Listens bool
}

// census reads rowhook.instance again and again.
type census struct {
	lab  *lab
	stop context.CancelFunc
	done chan struct{}
	all  []listing
}

const (
	censusEvery  = 200 * time.Millisecond
	censusWithin = time.Second // a slower look, for instance at a locked table, tells nothing about that time
)

func (l *lab) startCensus(ctx context.Context) *census {
	ctx, stop := context.WithCancel(ctx)
	c := &census{lab: l, stop: stop, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		for ctx.Err() == nil {
			wait(ctx, censusEvery)
			now, err := l.listed(ctx)
			if err == nil { // the server is down now and then
				c.all = append(c.all, now...)
			}
		}
	}()
	return c
}

// finish ends the census and returns what it saw.
func (c *census) finish() []listing {
	c.stop()
	<-c.done
	return c.all
}

// listed reads it once.
func (l *lab) listed(ctx context.Context) ([]listing, error) {
	ctx, cancel := context.WithTimeout(ctx, censusWithin)
	defer cancel()
	type row struct {
		Name    string
		Listens bool
	}
	// The row of a killed dispatcher may still be there beside the row of its successor.
	rows, err := collect[row](ctx, l, "select distinct on (name) name, listens from rowhook.instance order by name, id desc")
	if err != nil {
		return nil, err
	}
	at := time.Now()
	var all []listing
	for _, s := range l.slots {
		here := listing{Slot: s.number, At: at}
		if i := slices.IndexFunc(rows, func(r row) bool { return r.Name == s.name() }); i >= 0 {
			here.Listed, here.Listens = true, rows[i].Listens
		}
		all = append(all, here)
	}
	return all, nil
}

// serving waits until a dispatcher serves the source, and returns the slots of all that do.
func (l *lab) serving(ctx context.Context) (slots []*slot, err error) {
	for ctx.Err() == nil {
		now, err := l.listed(ctx)
		if err != nil {
			return nil, err
		}
		for _, s := range now {
			if s.Listed {
				slots = append(slots, l.slots[s.Slot])
			}
		}
		if len(slots) > 0 {
			return slots, nil
		}
		wait(ctx, 50*time.Millisecond)
	}
	return nil, errors.New("no dispatcher serves " + l.database)
}

// allListen waits until every dispatcher is in rowhook.instance and says that it listens. Otherwise
// it returns why not. Of several sources, each is served by those dispatchers that have it among them.
func (l *lab) allListen(ctx context.Context, within time.Duration) string {
	for deadline := time.Now().Add(within); ; {
		now, err := l.listed(ctx)
		if len(l.labs) > 1 {
			now = slices.DeleteFunc(now, func(s listing) bool { return !s.Listed })
		}
		if err == nil && len(now) > 0 && !slices.ContainsFunc(now, func(s listing) bool { return !s.Listens }) {
			return ""
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return fmt.Sprintf("not every dispatcher listens after %s: %+v %v\n%s", within, now, err, l.diagnosis(ctx))
		}
		wait(ctx, 50*time.Millisecond)
	}
}
