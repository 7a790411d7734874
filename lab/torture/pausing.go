package main

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
)

// pause is an entry of the audit: somebody, or an answer, has paused or resumed the trigger pausing.
type pause struct {
	Action string
	At     time.Time // when it was begun
}

// resumePauses resumes the trigger pausing whenever it is paused and its receiver answers as usual
// again, until ctx is done.
func (l *lab) resumePauses(ctx context.Context) *sync.WaitGroup {
	var resuming sync.WaitGroup
	resuming.Go(func() {
		for ctx.Err() == nil {
			wait(ctx, 100*time.Millisecond)
			if l.receiver.isGone(pausing) {
				continue
			}
			if paused, err := l.isPaused(ctx); err != nil || !paused {
				continue // a fault may keep the server from answering
			}
			if _, err := l.command(ctx, "resume", pausing); err != nil && ctx.Err() == nil && l.opt.verbose {
				l.logf("resume %s: %v", pausing, err)
			}
		}
	})
	return &resuming
}

func (l *lab) isPaused(ctx context.Context) (paused bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err = l.admin.QueryRow(ctx, "select paused from rowhook.trigger where name = $1 and removed_at is null", pausing).Scan(&paused)
	return paused, err
}

// gone has the receiver answer 410 to attempts that every dispatcher has in flight, while more events
// wait. The trigger is paused, and what waits arrives after it is resumed.
func (l *lab) gone(ctx context.Context, strike func(*fault)) string {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	w := newWriter(l, 820)
	defer w.close()
	until := make(chan struct{})
	l.receiver.setMood(pausing, mood{kind: moodHold, share: 1, until: until, gone: true})
	defer l.receiver.setMood(pausing, mood{})
	if err := l.healed(ctx); err != nil {
		return err.Error()
	}
	serving, err := l.serving(ctx)
	if err != nil {
		return err.Error()
	}
	const enough = pausingSlots / 2
	for _, s := range serving {
		for l.receiver.matching(pausing, func(e *seen) bool { return waitsFor(e, s.number) }) < enough {
			if ctx.Err() != nil {
				return "a dispatcher never got enough events of " + pausing
			}
			if err := w.do(ctx, nil, transaction{steps: []step{{op: 'I', trigger: pausing, rows: 10}}}); err != nil {
				return err.Error()
			}
			wait(ctx, 50*time.Millisecond)
		}
	}
	f := &fault{Kind: moodGone, Trigger: pausing, Slot: everyone, At: time.Since(l.start), For: goneFor, Began: time.Now()}
	l.receiver.setMood(pausing, mood{kind: moodGone, share: 1})
	close(until)
	for {
		paused, err := l.isPaused(ctx)
		if err != nil {
			return err.Error()
		}
		if paused {
			break
		}
		wait(ctx, 20*time.Millisecond)
	}
	wait(ctx, goneFor)
	l.receiver.setMood(pausing, mood{})
	f.Ended = time.Now()
	strike(f)
	return l.drained(ctx, calmWithin)
}

const (
	// pauseKnown is how soon every dispatcher knows of a pause that nothing keeps it from hearing of.
	pauseKnown = 4 * time.Second
	// goneFor is longer, so that a dispatcher which sends all the same is found.
	goneFor = pauseKnown + 2*time.Second
)

// pausesHold checks what follows an answer that pauses the trigger. The dispatcher that gets it begins
// no further attempt until the trigger is resumed. So it gets no more such answers than it may have
// attempts in flight, even if it can't tell the others. The others know soon.
func (j *judging) pausesHold() {
	var resumed []time.Time
	var paused []span // from the pause to the resume
	for _, p := range j.pauses {
		switch n := len(paused); {
		case p.Action == "pause" && (n == 0 || !paused[n-1].to.IsZero()):
			paused = append(paused, span{from: p.At})
			j.Pauses++
		case p.Action == "resume":
			resumed = append(resumed, p.At)
			if n > 0 && paused[n-1].to.IsZero() {
				paused[n-1].to = p.At
			}
		}
	}
	type stretch struct{ slot, resumes int }
	answers := map[stretch][]time.Time{}
	for id, s := range j.seen {
		if s.trigger != pausing {
			continue
		}
		for i := range s.attempts {
			a := &s.attempts[i]
			if n, _ := slices.BinarySearchFunc(resumed, a.arrived, time.Time.Compare); a.status == gone410 {
				answers[stretch{a.slot, n}] = append(answers[stretch{a.slot, n}], a.arrived)
			}
			for _, p := range paused {
				if a.arrived.After(p.from.Add(pauseKnown)) && a.arrived.Before(p.to) && !j.disturbed(a.slot, p.from, a.arrived) {
					j.blame(rulePaused, "event %s by slot %d at %s, paused from %s to %s", id, a.slot, a.arrived.Format(precisely), p.from.Format(precisely), p.to.Format(precisely))
				}
			}
		}
	}
	for in, arrived := range answers {
		slices.SortFunc(arrived, time.Time.Compare)
		first, last := arrived[0], arrived[len(arrived)-1]
		if len(arrived) > pausingSlots && !j.disturbed(in.slot, first, last) {
			j.blame(ruleFlood, "slot %d got %d answers of 410 from %s to %s, and may have %d attempts in flight", in.slot, len(arrived), first.Format(precisely), last.Format(precisely), pausingSlots)
		}
	}
}

const gone410 = 410

// uncounted checks that an attempt whose answer pauses the trigger does not count.
func (j *judging) uncounted(id uuid.UUID, s *seen, before, a *attempt) {
	if s.trigger == pausing && before.status == gone410 && a.number != before.number && !j.disturbed(before.slot, before.arrived, a.arrived) {
		j.blame(ruleCounted, "event %s, attempt %d after one with the number %d: %s", id, a.number, before.number, s)
	}
}

// disturbed reports whether a fault may have kept a dispatcher from hearing of something between two
// moments, from writing it, or from sending in time.
func (j *judging) disturbed(slot int, from, to time.Time) bool {
	all := natures()
	return slices.ContainsFunc(j.faults, func(f *fault) bool {
		n := all[f.Kind]
		return (n.hampers() || n.listen || n.duplicates || n.goesOn) && f.strikes(slot) && f.overlaps(from.Add(-hamperedFor), to)
	})
}
