package listener

import "time"

// Doorbell decides when writers NOTIFY, which is called to ring. Writers read whether to ring from
// a bit in the database. A Doorbell holds no connection and no clock: its caller tells it what
// happened and when, asks Next what to do, and does it. The zero value works and is Unarmed. A
// Doorbell must not be used by several goroutines at once.
//
// A commit that notifies takes a lock of the whole server and holds it through the WAL flush, so
// such commits run one at a time. Therefore the dispatcher lets writers ring while it is idle, and
// polls while it is busy, as network cards do with interrupts.
type Doorbell struct {
	// SilenceAbove is the number of rings in a Window that silences the writers. Default 100, and
	// less on a slow disk: see Flush.
	SilenceAbove int
	// RingBelow is the number of events in a Window below which a silent doorbell is armed again.
	// Default three fifths of SilenceAbove.
	RingBelow int
	// Window is the time over which rings and events are counted. Default 100 ms.
	Window time.Duration
	// Poll is the interval at which a dispatcher polls while writers are silent. Default 2 ms.
	Poll time.Duration

	flush time.Duration // duration of a commit
	full  bool          // the dispatcher can't start another attempt
	muted bool          // writers must not ring
	found time.Time     // when Next last saw new events

	state   State
	pending int           // open transactions below the horizon at the last check
	check   time.Time     // when to check the horizon next
	wait    time.Duration // between the last checks
	armed   time.Time     // when Arming began

	start  time.Time // beginning of the present window
	rings  int       // in the present window
	events int       // in the present window
}

// State is the state of a Doorbell.
type State int

// The states.
const (
	Unarmed State = iota // the value of the bit is unknown; Next returns Arm
	Arming               // the bit says ring, but open transactions may have read silence
	Ringing              // every commit rings; the dispatcher may sleep
	Silent               // the bit says silence; the dispatcher polls for events every Poll
)

// String returns the name of the state, such as "ringing".
func (s State) String() string { return [...]string{"unarmed", "arming", "ringing", "silent"}[s] }

// Action is what the caller of Next has to do.
type Action int

// The actions. The horizon is a transaction id that is taken after the bit is set: each transaction
// that may have read silence is below it.
const (
	None    Action = iota // nothing
	Arm                   // set the bit to ring and take a horizon, then call Armed
	Check                 // count the open transactions below the horizon, then call Checked
	Silence               // set the bit to silence, then call Silenced
)

// The first check of the horizon is due at once. The waits after it begin at twice firstCheck,
// because most transactions are short. They double, or grow to a twentieth of the time since Armed
// if that is longer. During the first longWait they are at most maxCheck, so that the events of a
// transaction of some seconds are found within that time. Later they are at most lateCheck.
const (
	firstCheck = 2 * time.Millisecond
	maxCheck   = 100 * time.Millisecond
	lateCheck  = time.Second
	longWait   = time.Minute
)

// maxMutedPoll is the longest interval at which a dispatcher polls while its doorbell is muted.
// That may last for hours.
const maxMutedPoll = 50 * time.Millisecond

// State returns the state of the doorbell.
func (d *Doorbell) State() State { return d.state }

// Rang counts a notification.
func (d *Doorbell) Rang() { d.rings++ }

// Found counts events that a claim returned.
func (d *Doorbell) Found(n int) { d.events += n }

// Flush tells the doorbell how long a commit takes. Commits that ring run one after the other, each
// with its own flush. On a slow disk Flush therefore lowers the default of SilenceAbove to half of
// the commits that fit into a Window, but not below 10. It does not change a SilenceAbove that is
// set.
func (d *Doorbell) Flush(took time.Duration) { d.flush = took }

// Saturated tells the doorbell whether the dispatcher has no free slot. A ring is useless then.
func (d *Doorbell) Saturated(full bool) { d.full = full }

// Mute tells the doorbell whether writers must not ring, for instance because the server's
// notification queue fills up. A muted doorbell goes silent from any state, and stays silent. Its
// dispatcher polls every Poll while it finds events, and at intervals that grow to 50 ms while it
// finds none.
func (d *Doorbell) Mute(on bool) { d.muted = on }

// Lost tells the doorbell that the listening session is gone, or that another dispatcher changed
// the bit. The doorbell becomes Unarmed.
func (d *Doorbell) Lost() { d.state = Unarmed }

// Next returns what to do now.
func (d *Doorbell) Next(now time.Time) Action {
	if d.events > 0 {
		d.found = now
	}
	rings, events, ended := d.count(now)
	if d.muted {
		if d.state != Silent || rings >= d.silenceAbove() {
			return Silence
		}
		return None
	}
	switch d.state {
	case Unarmed:
		return Arm
	case Arming:
		if rings >= d.silenceAbove() {
			return Silence
		}
		if !now.Before(d.check) {
			return Check
		}
	case Ringing:
		if rings >= d.silenceAbove() || d.full && rings > 0 {
			return Silence
		}
	case Silent:
		// Rings in spite of silence mean that another dispatcher armed the bell before it went to
		// sleep.
		if rings >= d.silenceAbove() {
			return Silence
		}
		if ended && events < d.ringBelow() && !d.full {
			return Arm
		}
	}
	return None
}

// Wait returns how long the dispatcher may wait for a signal before it calls Next again. ok is
// false if it may sleep until there is a signal.
func (d *Doorbell) Wait(now time.Time) (wait time.Duration, ok bool) {
	switch d.state {
	case Arming:
		if d.muted {
			return 0, true
		}
		return max(d.check.Sub(now), 0), true
	case Silent:
		if d.muted {
			return min(max(now.Sub(d.found)/20, d.poll()), maxMutedPoll), true
		}
		return d.poll(), true
	case Unarmed:
		return 0, true
	}
	return 0, d.muted
}

// Armed tells the doorbell that the caller has done Arm.
func (d *Doorbell) Armed(now time.Time) {
	d.state, d.armed, d.wait, d.pending = Arming, now, firstCheck, -1
	d.check = now // the first check is due at once, because usually no transaction is open
	d.clear(now)
}

// Checked tells the doorbell how many transactions below the horizon are open. It returns whether
// to look for events once more, because a transaction has ended since the last check that may not
// have rung.
func (d *Doorbell) Checked(now time.Time, pending int) (look bool) {
	look = pending != d.pending
	d.pending = pending
	if pending == 0 {
		d.state = Ringing
		return true
	}
	waited := now.Sub(d.armed)
	limit := maxCheck
	if waited > longWait {
		limit = lateCheck
	}
	d.wait = min(max(2*d.wait, waited/20), limit)
	d.check = now.Add(d.wait)
	return look
}

// Silenced tells the doorbell that the caller has done Silence.
func (d *Doorbell) Silenced(now time.Time) {
	d.state = Silent
	d.clear(now)
}

// count returns the rings and events of the present window, and begins a new window if it is over.
// If it lasted longer than Window, because Next was not called, count scales them to Window.
func (d *Doorbell) count(now time.Time) (rings, events int, ended bool) {
	if d.start.IsZero() {
		d.start = now
	}
	rings, events = d.rings, d.events
	elapsed := now.Sub(d.start)
	if elapsed < d.window() {
		return rings, events, false
	}
	scale := float64(d.window()) / float64(elapsed)
	d.clear(now)
	return int(float64(rings) * scale), int(float64(events) * scale), true
}

func (d *Doorbell) clear(now time.Time) { d.start, d.rings, d.events = now, 0, 0 }

// The bounds of the default for SilenceAbove.
const (
	mostRings   = 100
	fewestRings = 10
)

func (d *Doorbell) silenceAbove() int {
	if d.SilenceAbove > 0 || d.flush <= 0 {
		return orDefault(d.SilenceAbove, mostRings)
	}
	return min(max(int(d.window()/(2*d.flush)), fewestRings), mostRings)
}

func (d *Doorbell) ringBelow() int        { return orDefault(d.RingBelow, d.silenceAbove()*3/5) }
func (d *Doorbell) window() time.Duration { return orDefault(d.Window, 100*time.Millisecond) }
func (d *Doorbell) poll() time.Duration   { return orDefault(d.Poll, 2*time.Millisecond) }

func orDefault[T int | time.Duration](v, byDefault T) T {
	if v <= 0 {
		return byDefault
	}
	return v
}
