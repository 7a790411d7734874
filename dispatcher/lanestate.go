package dispatcher

import "time"

// laneState is what the next claim of a lane has to do. It holds no clock and does no I/O: it is
// told what happened, and answers with the state after that.
//
//	                   mark                      mark below
//	+---------+ ------------------> +-------+ ----------------> +----------+
//	| drained |                     |  due  |                   | dueBelow | <-- mark below,
//	+---------+                     +-------+                   +----------+     from any state
//	     ^                            |   ^                       |   |  ^
//	     |                  ask: from |   | mark, or              |   |  | mark, or
//	     |                  the floor |   | full answer           |   |  | full answer
//	     |                            v   |                       |   |  |
//	     |       answer that       +--------+  ask: a sweep       |   |  |
//	     +------ is not full ----- | asked  | <-------------------+   |  |
//	                               +--------+              ask: from  |  |
//	                                   ^                   the floor, |  |
//	                                   |              as no sweep may |  |
//	                                   |                        begin v  |
//	                                   |      ask: a sweep      +-----------+
//	                                   +----------------------- | sweepOwed |
//	                                                            +-----------+
//
// A claim that fails marks its lane below the floor. A lane for which nothing may be claimed, since
// its trigger is paused, gone, or can't be sent for, goes to drained from any state at the next
// ask, and is marked below the floor when that is over.
type laneState uint8

const (
	// drained: nothing is due, as far as this dispatcher knows. In every other state the lane is in
	// scheduler.undrained.
	drained laneState = iota
	// due: events above the floor may be due.
	due
	// dueBelow: events may be due above and below the floor. A sweep finds both, if one may begin
	// by now.
	dueBelow
	// sweepOwed: only a sweep is owed, and none may begin yet. A claim from the floor may be under
	// way.
	sweepOwed
	// asked: a claim is under way, and nothing was marked since it was sent. Its answer decides.
	asked
)

// String names the state.
func (s laneState) String() string {
	return [...]string{"drained", "due", "due below", "sweep owed", "asked"}[s]
}

// claimStart is where a claim starts.
type claimStart uint8

const (
	noClaim   claimStart = iota
	fromFloor            // at the floor of the lane
	sweep                // from the beginning
)

// mark says that more may be due, below the floor too where below is set.
func (s laneState) mark(below bool) laneState {
	if below || s == dueBelow || s == sweepOwed {
		return dueBelow
	}
	return due
}

// ask returns the claim to send now, and the state after it is sent. maySweep says that a sweep may
// begin.
func (s laneState) ask(maySweep bool) (claimStart, laneState) {
	switch {
	case s == due:
		return fromFloor, asked
	case maySweep && (s == dueBelow || s == sweepOwed):
		return sweep, asked
	case s == dueBelow:
		return fromFloor, sweepOwed
	}
	return noClaim, s
}

// answer takes in the answer to a claim. full says that it brought all that was asked for, so that
// more may be due where it ended.
func (s laneState) answer(full bool) laneState {
	switch {
	case full:
		return s.mark(false)
	case s == asked:
		return drained
	}
	return s
}

// sweeping bounds how often a lane is swept. A sweep gets slow where a long transaction keeps
// settled events in the index.
type sweeping struct {
	began  time.Time     // when the last sweep began, by our clock
	took   time.Duration // the last claim without a floor
	before time.Duration // the one before that
}

// Sweeps of a lane may take one part in sweepShare of the time. A sweep is put off by longestPause
// at most.
const (
	sweepShare   = 10
	longestPause = time.Second
)

// ended records how long a claim without a floor took.
func (s *sweeping) ended(took time.Duration) { s.before, s.took = s.took, took }

// pause is how long to wait between two sweeps. It goes by the quicker one of the last two, since a
// single slow sweep may have waited for a lock.
func (s *sweeping) pause() time.Duration { return min(sweepShare*min(s.took, s.before), longestPause) }

// next is when the next sweep may begin.
func (s *sweeping) next() time.Time { return s.began.Add(s.pause()) }

// dueTime is when a retry or a lease of a lane becomes due. Only the next time is kept. When it has
// passed, the one after it has to be asked for.
//
//	         note                  ripen, at that time
//	none ----------> known ------------------------------> to be asked for --- ask ---> none
//	                   |                                         ^
//	                   +-------------- forget -------------------+   (the known time stays)
type dueTime struct {
	at time.Time // by our clock; zero: none is known
	// unasked says that there may be another time. The database has to be asked once the lane is
	// drained.
	unasked bool
}

// note takes in that something becomes due. It reports whether that is the next time now.
func (d *dueTime) note(at time.Time) bool {
	if !d.at.IsZero() && !at.Before(d.at) {
		return false
	}
	d.at = at
	return true
}

// ripen reports whether the time has come. From then on the next one is to be asked for.
func (d *dueTime) ripen(now time.Time) bool {
	if d.at.IsZero() || now.Before(d.at) {
		return false
	}
	*d = dueTime{unasked: true}
	return true
}

// forget has the database asked, since there may be an earlier time than the one that is known.
func (d *dueTime) forget() { d.unasked = true }

// ask reports whether the database is to be asked now. The caller asks, or calls forget.
func (d *dueTime) ask() bool {
	was := d.unasked
	d.unasked = false
	return was
}
