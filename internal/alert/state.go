package alert

import (
	"time"
)

// Phase is what a receiver is told of a trouble.
type Phase string

// The phases.
const (
	None  Phase = ""
	Begun Phase = "begun"
	Ended Phase = "ended"
)

const (
	// PairEvery is the time in which a receiver is told of one beginning and one end of a trouble.
	PairEvery = 10 * time.Minute
	// StandsAfter is how long a trouble that has come back within PairEvery stands until its
	// receiver is told at once. Nobody would hear of one that ends just before PairEvery is over.
	StandsAfter = 3 * time.Minute
	// MaxAttempts is how often a message is sent before it is given up, after about three hours.
	MaxAttempts = 20
	// SendLease is how long a message belongs to the dispatcher that sends it.
	SendLease = time.Minute
	// kept is how long a message that could not be sent stays visible.
	kept = 24 * time.Hour

	firstRetry   = 10 * time.Second
	longestRetry = 10 * time.Minute
)

// State is what was done about a trouble at a destination.
type State struct {
	Destination string
	Key

	Active  bool
	BegunAt time.Time
	EndedAt time.Time // zero: not yet
	Facts   Facts     // as last seen
	// Told is what the destination knows. ToldAt is when it was told, and PairAt when the present
	// pair of messages began.
	Told           Phase
	ToldAt, PairAt time.Time
	Again          int   // how often the trouble began since the destination was last told so
	Pending        Phase // what is to be sent
	Attempts       int   // at sending it, the present one included
	NextAt         time.Time
	Error          string // of the last attempt; "": it was sent, or none was made yet
}

// step takes over what is wrong now. t is nil if nothing is.
func (s *State) step(d *Destination, t *Trouble, now time.Time) {
	switch {
	case t != nil && !s.Active:
		s.Active, s.BegunAt, s.EndedAt, s.Facts = true, t.Since, time.Time{}, t.Facts
		if s.Pending == Ended {
			s.Pending = None // it is true no more
		}
		if s.Told != Begun {
			s.Again++
		}
	case t != nil:
		s.Facts = t.Facts
	case s.Active:
		s.Active, s.EndedAt = false, now
		if !s.Facts.Over.Before(s.BegunAt) {
			s.EndedAt = s.Facts.Over
		}
		if s.Told == Begun || s.Pending == Begun {
			s.ask(d, Ended, now)
		}
	}
	if s.Pending != None || now.Before(s.PairAt.Add(PairEvery)) && !s.stands(now) {
		return
	}
	switch {
	case s.Active && s.Told != Begun:
		s.PairAt = now
		s.ask(d, Begun, now)
	case !s.Active && s.Again > 0:
		s.PairAt = now
		s.ask(d, Ended, now)
	}
}

// stands reports whether the trouble is no mere flicker. It counts from the last message on, too,
// so that one that comes and goes is told every three minutes at most.
func (s *State) stands(now time.Time) bool {
	return s.Active && now.Sub(s.BegunAt) >= StandsAfter && now.Sub(s.ToldAt) >= StandsAfter
}

// ask has a message sent, if the destination wants it.
func (s *State) ask(d *Destination, p Phase, now time.Time) {
	if !d.listens(s.Kind, p) {
		s.Told, s.Again, s.Pending = p, 0, None
		return
	}
	s.Pending, s.Attempts, s.NextAt = p, 0, now
}

// done reports whether nothing of this is of interest any more.
func (s *State) done(now time.Time) bool {
	quiet := !s.Active && s.Pending == None && s.Again == 0
	return quiet && now.After(s.PairAt.Add(PairEvery)) && now.After(s.ToldAt.Add(PairEvery)) && (s.Error == "" || now.After(s.EndedAt.Add(kept)))
}

// sent records that the destination knows.
func (s *State) sent(at time.Time) {
	s.Told, s.ToldAt, s.Pending, s.Attempts, s.Error = s.Pending, at, None, 0, ""
	s.Again = 0
}

// failed records that an attempt at a message failed.
func (s *State) failed(reason string, now time.Time) {
	s.Error = reason
	if s.Attempts >= MaxAttempts {
		s.Told, s.Again, s.Pending = s.Pending, 0, None // it is given up
		return
	}
	wait := firstRetry << min(s.Attempts-1, 10)
	s.NextAt = now.Add(min(wait, longestRetry))
}
