package dispatcher

import "time"

// sieve decides whether a claim first leaves out the lanes that have no events at all (sqlschema.ClaimSifted). That pays for many lanes
// of which few have any, unless a long transaction keeps settled events in the index: so it goes by what either took of late, and
// tries the dearer one again now and then.
type sieve struct {
	plain, sifted price // of a lane; of a claim
	tried         time.Time
}

const (
	sieveFrom  = 16 // lanes: for 5 of 16 both took 0.3 ms
	sieveAgain = 5 * time.Second
)

// price is what something took the last two times. The lesser counts, as a single slow one may have waited for something else.
type price struct{ last, before time.Duration }

func (p *price) paid(d time.Duration) { p.before, p.last = p.last, d }
func (p *price) get() time.Duration   { return min(p.last, p.before) }

// use answers for a claim that asks for so many lanes.
func (s *sieve) use(lanes int, now time.Time) bool {
	if lanes < sieveFrom {
		return false
	}
	cheaper := s.sifted.get() <= time.Duration(lanes)*s.plain.get() || s.plain.get() == 0
	if now.Sub(s.tried) > sieveAgain {
		s.tried = now
		return !cheaper
	}
	return cheaper
}

// took takes in the duration of a claim. One that found much says nothing of how long it took to look.
func (s *sieve) took(lanes int, sifted bool, events int, d time.Duration) {
	switch {
	case lanes < sieveFrom || events > lanes/4:
	case sifted:
		s.sifted.paid(d)
	default:
		s.plain.paid(d / time.Duration(lanes))
	}
}
