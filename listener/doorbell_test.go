package listener_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/rowhook/rowhook/listener"
)

var start = time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)

// ringing returns a doorbell that was armed while no transaction was open.
func ringing(t require.TestingT) *listener.Doorbell {
	d := &listener.Doorbell{}
	require.Equal(t, listener.Arm, d.Next(start))
	d.Armed(start)
	require.Equal(t, listener.Check, d.Next(start))
	require.True(t, d.Checked(start, 0))
	require.Equal(t, listener.Ringing, d.State())
	return d
}

func TestDoorbellStartsByArming(t *testing.T) {
	t.Parallel()
	d := ringing(t)
	require.Equal(t, listener.None, d.Next(start.Add(time.Hour)))
	_, ok := d.Wait(start)
	require.False(t, ok, "with the bell armed a dispatcher may sleep")
}

func TestDoorbellLooksAgainWheneverATransactionBelowTheHorizonEnds(t *testing.T) {
	t.Parallel()
	d := &listener.Doorbell{}
	d.Armed(start)
	require.True(t, d.Checked(start, 3))
	require.False(t, d.Checked(start.Add(time.Second), 3), "nothing ended")
	require.True(t, d.Checked(start.Add(2*time.Second), 2))
	require.Equal(t, listener.Arming, d.State(), "two may still be silent")
	require.True(t, d.Checked(start.Add(3*time.Second), 0))
	require.Equal(t, listener.Ringing, d.State())
}

func TestDoorbellChecksTheHorizonWithin100msForAMinuteThenEverySecond(t *testing.T) {
	t.Parallel()
	d := &listener.Doorbell{}
	d.Armed(start)
	var last time.Duration
	for now := start; now.Sub(start) < 2*time.Minute; {
		d.Checked(now, 1)
		wait, ok := d.Wait(now)
		require.True(t, ok)
		require.Positive(t, wait)
		if now.Sub(start) <= time.Minute {
			require.LessOrEqual(t, wait, 100*time.Millisecond)
		} else {
			require.LessOrEqual(t, wait, time.Second)
		}
		require.GreaterOrEqual(t, wait, min(last, 100*time.Millisecond))
		last = wait
		now = now.Add(wait)
		require.Equal(t, listener.Check, d.Next(now))
	}
	require.Equal(t, time.Second, last)
}

func TestDoorbellGoesSilentWhenRungTooOftenAndRingsWhenItGetsQuiet(t *testing.T) {
	t.Parallel()
	d := ringing(t)
	d.SilenceAbove, d.RingBelow, d.Window = 10, 5, 100*time.Millisecond
	now := start.Add(time.Second)
	require.Equal(t, listener.None, d.Next(now))
	for range 9 {
		d.Rang()
	}
	require.Equal(t, listener.None, d.Next(now.Add(time.Millisecond)))
	d.Rang()
	require.Equal(t, listener.Silence, d.Next(now.Add(time.Millisecond)))
	d.Silenced(now)
	for range 3 { // busy windows keep it silent
		d.Found(5)
		now = now.Add(100 * time.Millisecond)
		require.Equal(t, listener.None, d.Next(now))
	}
	d.Found(4)
	require.Equal(t, listener.None, d.Next(now.Add(50*time.Millisecond)), "the window is not over")
	require.Equal(t, listener.Arm, d.Next(now.Add(100*time.Millisecond)))
}

func TestDoorbellBringsALongWindowDownToItsLength(t *testing.T) {
	t.Parallel()
	d := ringing(t)
	d.SilenceAbove, d.Window = 10, 100*time.Millisecond
	require.Equal(t, listener.None, d.Next(start.Add(time.Second)))
	for range 9 {
		d.Rang()
	}
	require.Equal(t, listener.None, d.Next(start.Add(11*time.Second)), "nine rings in ten seconds are few")
	for range 9 {
		d.Rang()
	}
	require.Equal(t, listener.None, d.Next(start.Add(11*time.Second+50*time.Millisecond)))
}

func TestDoorbellSilencesAgainWhenAnotherInstanceArmedIt(t *testing.T) {
	t.Parallel()
	d := ringing(t)
	d.SilenceAbove = 10
	d.Silenced(start)
	for range 10 {
		d.Rang()
	}
	require.Equal(t, listener.Silence, d.Next(start.Add(time.Millisecond)))
}

func TestDoorbellIsArmedAnewAfterALostSession(t *testing.T) {
	t.Parallel()
	for _, silent := range []bool{false, true} {
		d := ringing(t)
		if silent {
			d.Silenced(start)
		}
		d.Lost()
		require.Equal(t, listener.Arm, d.Next(start))
		wait, ok := d.Wait(start)
		require.True(t, ok)
		require.Zero(t, wait)
	}
}

// The test runs the protocol against a model of Postgres. Transactions insert, read the bit, and
// commit or roll back later. A transaction that has read ring notifies at commit. In every order,
// when a doorbell lets its dispatcher sleep, no visible event is unclaimed and no open transaction
// is silent.
func TestNoWakeUpIsLost(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		type transaction struct {
			xid    int
			silent bool
		}
		var (
			open    []transaction
			nextXid = 100
			silent  bool // the bit
			horizon int
			visible int // committed and not claimed
			rung    bool
			muted   bool
			now     = start
			d       = &listener.Doorbell{SilenceAbove: 3, RingBelow: 2, Window: 10 * time.Millisecond}
		)
		claim := func() { d.Found(visible); visible, rung = 0, false }
		step := func() {
			switch d.Next(now) {
			case listener.Arm:
				silent = false
				horizon = nextXid
				nextXid++
				d.Armed(now)
				claim()
			case listener.Check:
				pending := 0
				for _, tx := range open {
					if tx.xid < horizon {
						pending++
					}
				}
				if d.Checked(now, pending) {
					claim()
				}
			case listener.Silence:
				silent = true
				d.Silenced(now)
			case listener.None:
			}
			if rung || d.State() == listener.Silent {
				claim()
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"insert": func(*rapid.T) {
				open = append(open, transaction{xid: nextXid, silent: silent})
				nextXid++
			},
			"end": func(t *rapid.T) {
				if len(open) == 0 {
					t.Skip("none is open")
				}
				i := rapid.IntRange(0, len(open)-1).Draw(t, "which")
				tx := open[i]
				open = append(open[:i], open[i+1:]...)
				if rapid.Bool().Draw(t, "commits") {
					visible++
					if !tx.silent {
						d.Rang()
						rung = true
					}
				}
			},
			"pass time": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(0, 30).Draw(t, "ms")) * time.Millisecond)
			},
			"dispatch": func(*rapid.T) { step() },
			"lose the session": func(*rapid.T) {
				d.Lost()
				rung = false
			},
			"mute": func(t *rapid.T) {
				muted = rapid.Bool().Draw(t, "muted")
				d.Mute(muted)
				step()
			},
			"": func(t *rapid.T) {
				require.False(t, muted && !silent, "muted, and yet writers ring")
				if d.State() != listener.Ringing || rung {
					return
				}
				require.Zero(t, visible, "an event is left that nobody rings for")
				for _, tx := range open {
					require.False(t, tx.silent, "transaction %d will commit in silence", tx.xid)
				}
			},
		})
	})
}

func TestDoorbellGoesSilentSoonerOnASlowDisk(t *testing.T) {
	t.Parallel()
	for flush, threshold := range map[time.Duration]int{
		0:                      100, // unknown
		200 * time.Microsecond: 100,
		2 * time.Millisecond:   25, // at most one commit that rings per 2 ms: 50 in a window
		time.Second:            10,
	} {
		d := ringing(t)
		d.Flush(flush)
		require.Equal(t, listener.None, d.Next(start.Add(time.Second)))
		for range threshold - 1 {
			d.Rang()
		}
		require.Equal(t, listener.None, d.Next(start.Add(time.Second)), flush)
		d.Rang()
		require.Equal(t, listener.Silence, d.Next(start.Add(time.Second)), flush)
	}
}

func TestDoorbellRingsForNobodyWhoHasNoSlot(t *testing.T) {
	t.Parallel()
	d := ringing(t)
	d.Saturated(true)
	require.Equal(t, listener.None, d.Next(start.Add(time.Second)), "nobody rings anyway")
	d.Rang()
	require.Equal(t, listener.Silence, d.Next(start.Add(time.Second)))
	d.Silenced(start.Add(time.Second))
	require.Equal(t, listener.None, d.Next(start.Add(2*time.Second)), "it stays silent until slots are free")
	d.Saturated(false)
	require.Equal(t, listener.Arm, d.Next(start.Add(3*time.Second)))
}

func TestAMutedDoorbellIsSilentWhateverItWasAndStaysSo(t *testing.T) {
	t.Parallel()
	fresh, arming, silent := &listener.Doorbell{}, &listener.Doorbell{}, ringing(t)
	arming.Armed(start)
	silent.Silenced(start)
	lost := ringing(t)
	lost.Lost()
	for name, d := range map[string]*listener.Doorbell{"unarmed": fresh, "arming": arming, "ringing": ringing(t), "silent": silent, "lost": lost} {
		d.Mute(true)
		wait, ok := d.Wait(start)
		require.True(t, ok, "%s: it must not sleep", name)
		if d.State() != listener.Silent {
			require.Zero(t, wait, name)
			require.Equal(t, listener.Silence, d.Next(start), name)
			d.Silenced(start)
		}
		for _, later := range []time.Duration{time.Millisecond, time.Second, time.Hour} {
			require.Equal(t, listener.None, d.Next(start.Add(later)), name)
			wait, ok = d.Wait(start.Add(later))
			require.True(t, ok, name)
			require.LessOrEqual(t, wait, 50*time.Millisecond, name)
		}
		d.Found(1)
		require.Equal(t, listener.None, d.Next(start.Add(time.Hour)))
		wait, _ = d.Wait(start.Add(time.Hour))
		require.Equal(t, 2*time.Millisecond, wait, "where there are events it looks as often as ever")
		d.Mute(false)
		require.Equal(t, listener.Arm, d.Next(start.Add(2*time.Hour)), name)
	}
}
