package sink

import (
	"context"
	"time"
)

// Await returns when n events that m chooses have arrived, or at once if they have already. It
// returns all deliveries that m chooses then, one for each event unless m counts each attempt. If
// ctx ends first, it returns what has arrived and why that is not enough. n below 1 is 1.
func (s *Sink) Await(ctx context.Context, m Match, n int) ([]Delivery, *Miss) {
	n = max(n, 1)
	return s.await(ctx, m, func(t *tally) verdict {
		if t.n >= n {
			return verdict{held: true}
		}
		return verdict{shortfall: TooFew}
	}, n)
}

// Exactly returns when exactly n events that m chooses have arrived. It fails at once if there are
// more, and when ctx ends if there are fewer. See Await.
func (s *Sink) Exactly(ctx context.Context, m Match, n int) ([]Delivery, *Miss) {
	return s.await(ctx, m, func(t *tally) verdict {
		switch {
		case t.n > n:
			return verdict{failed: true, shortfall: TooMany}
		case t.n == n:
			return verdict{held: true}
		}
		return verdict{shortfall: TooFew}
	}, n)
}

// Remains returns when ctx ends, if then exactly n events that m chooses have arrived. It fails at
// once if there are more.
func (s *Sink) Remains(ctx context.Context, m Match, n int) *Miss {
	_, miss := s.await(ctx, m, func(t *tally) verdict {
		switch {
		case t.n > n:
			return verdict{failed: true, shortfall: TooMany}
		case t.n == n:
			return verdict{holdsAtEnd: true}
		}
		return verdict{shortfall: TooFew} // some were dropped on request
	}, n)
	return miss
}

// Never returns when ctx ends, if nothing that m chooses has arrived until then. It fails at once
// if something has.
func (s *Sink) Never(ctx context.Context, m Match) *Miss {
	_, miss := s.await(ctx, m, func(t *tally) verdict {
		if t.n > 0 {
			return verdict{failed: true, shortfall: Unwanted}
		}
		return verdict{holdsAtEnd: true}
	}, 0)
	return miss
}

// List returns the kept deliveries that m chooses, oldest first. It does not leave out attempts that
// failed, whatever m counts.
func (s *Sink) List(m Match) []Delivery {
	var out []Delivery
	for _, d := range s.journal.all().deliveries {
		if m.fits(d) {
			out = append(out, *d)
		}
	}
	return out
}

// Cursor returns the sequence number of the newest delivery, for Match.After.
func (s *Sink) Cursor() uint64 { return s.journal.all().sequence }

// Forget drops the kept deliveries that m chooses, whether they were accepted or not. Counts and
// the numbers of attempts stay. Clear drops these, too. It returns how many it has dropped.
func (s *Sink) Forget(m Match) (dropped int) {
	sequences := map[uint64]bool{}
	for _, d := range s.journal.all().deliveries {
		if m.fits(d) {
			sequences[d.Sequence] = true
		}
	}
	return s.journal.remove(sequences)
}

// verdict is what a count means.
type verdict struct {
	held, failed bool // nothing that comes can change it
	holdsAtEnd   bool // it holds if time runs out now
	shortfall    Shortfall
}

// await counts until judge is sure or ctx ends. n is the wanted number. If the client leaves, the
// result means nothing.
func (s *Sink) await(ctx context.Context, m Match, judge func(*tally) verdict, n int) ([]Delivery, *Miss) {
	began, over, client := time.Now(), ctx.Err() != nil, clientOf(ctx)
	t := newTally(m.counting(), n+1)
	for {
		end, err := s.turns.begin(client)
		if err != nil {
			return nil, &Miss{Shortfall: TooFew, Wanted: n}
		}
		changed, counted := t.look(client, &s.journal)
		end()
		if !counted {
			continue
		}
		result := judge(t)
		if !result.held && !result.failed {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
			}
		}
		chosen, miss := s.conclude(client, t, n, result)
		if miss != nil && !result.failed && !over {
			miss.Within = patience(ctx, began)
		}
		return chosen, miss
	}
}

// conclude returns what was counted, and the miss if result is one.
func (s *Sink) conclude(client context.Context, t *tally, n int, result verdict) ([]Delivery, *Miss) {
	end, err := s.turns.begin(client)
	if err != nil {
		return nil, &Miss{Shortfall: TooFew, Wanted: n}
	}
	defer end()
	chosen := copies(t.match.counted(client, s.journal.all().deliveries))
	if result.held || result.holdsAtEnd {
		return chosen, nil
	}
	return chosen, s.explain(client, t, n, result.shortfall)
}

// patience returns how long a caller has waited, without the microseconds that it took to begin.
func patience(ctx context.Context, began time.Time) time.Duration {
	waited := time.Since(began)
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		waited = deadline.Sub(began)
	}
	return max(waited, 0).Round(time.Millisecond)
}

// tally counts what a match chooses. It holds no delivery. It counts only up to most, so that it
// stays small.
type tally struct {
	match   Match
	most    int
	n       int
	seen    uint64 // the newest sequence number that it has looked at
	forgets int    // of the journal
	events  map[[16]byte]struct{}
}

func newTally(m Match, most int) *tally {
	return &tally{match: m, most: most, seen: m.After, forgets: -1, events: map[[16]byte]struct{}{}}
}

// look counts what is new. It returns the channel of the next change, and nothing that would keep
// deliveries in memory while its caller waits. counted is that of count.
func (t *tally) look(client context.Context, j *journal) (changed <-chan struct{}, counted bool) {
	v := j.since(t.seen)
	return v.changed, t.count(client, v)
}

// count looks at new deliveries. It returns false if it must begin again, since some that it has
// counted were removed on request. It ends early if client ends.
func (t *tally) count(client context.Context, v view) bool {
	if v.forgets != t.forgets {
		first := t.forgets < 0
		t.n, t.seen, t.forgets = 0, t.match.After, v.forgets
		clear(t.events)
		if !first {
			return false
		}
	}
	for _, d := range v.deliveries {
		if t.n >= t.most || client.Err() != nil {
			break
		}
		if !t.match.fits(d) {
			continue
		}
		if !t.match.eachAttempt() {
			t.events[d.key] = struct{}{}
			t.n = len(t.events)
			continue
		}
		t.n++
	}
	t.seen = max(t.seen, v.sequence)
	return true
}

// counted returns what the match counts among deliveries: of each event the first one, unless it
// counts each attempt. It ends early if client ends.
func (m *Match) counted(client context.Context, deliveries []*Delivery) []*Delivery {
	var out []*Delivery
	events := map[[16]byte]bool{}
	for _, d := range deliveries {
		if client.Err() != nil {
			break
		}
		if !m.fits(d) || !m.eachAttempt() && events[d.key] {
			continue
		}
		events[d.key] = true
		out = append(out, d)
	}
	return out
}

func copies(deliveries []*Delivery) []Delivery {
	out := make([]Delivery, len(deliveries))
	for i, d := range deliveries {
		out[i] = *d
	}
	return out
}
