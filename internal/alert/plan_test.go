package alert

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/rowhook/rowhook/trigger"
)

// desk keeps what Plan decides, as a database does, and the messages that a receiver has got.
type desk struct {
	destinations []Destination
	states       map[place]State
	now          time.Time
	down         bool // the receiver fails
	got          []Message
	attempts     int
}

func newDesk(on ...string) *desk {
	a := trigger.Alert{URL: "https://e.com", Format: trigger.AlertJSON, Backlog: trigger.Backlog{OlderThan: trigger.DefaultBacklog}}
	if len(on) > 0 {
		a.On = on
	}
	return &desk{destinations: []Destination{{ID: "one", Alert: a}}, states: map[place]State{}, now: time.Date(2026, 11, 26, 14, 0, 0, 0, time.UTC)}
}

// look is what a dispatcher does every ten seconds.
func (d *desk) look(troubles ...Trouble) {
	d.report(Report{Troubles: troubles})
}

func (d *desk) report(r Report) {
	var states []State
	for _, s := range d.states {
		states = append(states, s)
	}
	out := Plan(d.destinations, states, r, d.now)
	d.write(out.Changed)
	for _, s := range out.Gone {
		delete(d.states, place{s.Destination, s.Key})
	}
	for i := range out.Messages {
		d.attempts++
		if d.down {
			d.write(out.Messages[i].Failed("answered 503", d.now))
			continue
		}
		d.got = append(d.got, out.Messages[i])
		d.write(out.Messages[i].Sent())
	}
	d.now = d.now.Add(10 * time.Second)
}

func (d *desk) write(states []State) {
	for _, s := range states {
		d.states[place{s.Destination, s.Key}] = s
	}
}

// wait looks for a time with the same troubles.
func (d *desk) wait(span time.Duration, troubles ...Trouble) {
	for until := d.now.Add(span); d.now.Before(until); {
		d.look(troubles...)
	}
}

// said returns the messages in short, as kind phase subjects.
func (d *desk) said() []string {
	out := []string{}
	for i := range d.got {
		m := &d.got[i]
		text := fmt.Sprintf("%s %s %s", m.Kind, m.Phase, m.States[0].Subject)
		if n := len(m.States); n > 1 {
			text = fmt.Sprintf("%s %s %d", m.Kind, m.Phase, n)
		}
		out = append(out, text)
	}
	return out
}

func (d *desk) trouble(k Kind, subject string) Trouble {
	return Trouble{Key: Key{k, subject}, Since: d.now, Facts: Facts{Triggers: []string{subject}, Host: "https://e.com:443", Reason: "answered 503"}}
}

func TestATroubleIsToldOnceWhenItBeginsAndOnceWhenItEnds(t *testing.T) {
	t.Parallel()
	for _, k := range []Kind{Failing, Dead, Backlog, Uncaptured} {
		d := newDesk()
		bad := d.trouble(k, "orders")
		bad.Waits = time.Hour
		d.wait(time.Hour, bad)
		require.Equal(t, []string{string(k) + " begun orders"}, d.said())
		d.wait(time.Hour)
		require.Equal(t, []string{string(k) + " begun orders", string(k) + " ended orders"}, d.said())
		require.Equal(t, d.got[0].States[0].BegunAt, d.got[1].States[0].BegunAt)
		require.Empty(t, d.states, "nothing is kept of what is over")
	}
}

// The endpoint answers again, and some looks later that is certain.
func TestTheEndOfAFailureIsWhenTheEndpointAnswered(t *testing.T) {
	t.Parallel()
	d := newDesk()
	bad := d.trouble(Failing, "orders")
	d.wait(time.Minute, bad)
	back := d.now
	bad.Over = back
	d.wait(20*time.Second, bad)
	d.look()
	require.Equal(t, []string{"failing begun orders", "failing ended orders"}, d.said())
	require.Equal(t, &back, d.got[1].document().Until)

	again := d.trouble(Failing, "invoices")
	again.Over = d.now
	d.look(again)
	again.Over = time.Time{}
	d.look(again)
	gone := d.now
	d.look()
	require.Equal(t, &gone, d.got[3].document().Until, "it fell back")
}

func TestADestinationIsToldOnlyOfWhatItAskedFor(t *testing.T) {
	t.Parallel()
	for want, d := range map[string]*desk{
		"[failing begun a failing ended a]": newDesk("failing", "recovered"),
		"[failing begun a]":                 newDesk("failing"),
		"[failing ended a]":                 newDesk("recovered"),
		"[dead begun b dead ended b]":       newDesk("dead"),
		"[]":                                newDesk("uncaptured"),
	} {
		d.wait(time.Minute, d.trouble(Failing, "a"), d.trouble(Dead, "b"))
		d.wait(time.Hour)
		require.Equal(t, want, fmt.Sprint(d.said()))
	}
}

func TestWhatFlapsIsToldInOnePairAndThenInASummary(t *testing.T) {
	t.Parallel()
	d := newDesk()
	for range 6 {
		d.wait(30*time.Second, d.trouble(Failing, "a"))
		d.wait(30 * time.Second)
	}
	require.Equal(t, []string{"failing begun a", "failing ended a"}, d.said())
	d.wait(10 * time.Minute)
	require.Equal(t, []string{"failing begun a", "failing ended a", "failing ended a"}, d.said())
	require.Equal(t, 5, d.got[2].States[0].Again)
	var body map[string]any
	text, err := d.got[2].Body(trigger.AlertJSON)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &body))
	require.Equal(t, map[string]any{"times": 5.0}, body["counts"])

	d.wait(time.Minute, d.trouble(Failing, "a"))
	d.wait(time.Minute)
	d.got = nil
	d.wait(20*time.Minute, d.trouble(Failing, "a"))
	require.Equal(t, []string{"failing begun a"}, d.said(), "it fails when the time of the pair is over")
}

func TestATroubleThatComesBackAndStandsIsToldBeforeItEnds(t *testing.T) {
	t.Parallel()
	d := newDesk()
	d.wait(10*time.Second, d.trouble(Dead, "a"))
	d.wait(20 * time.Second)
	require.Equal(t, []string{"dead begun a", "dead ended a"}, d.said())
	bad := d.trouble(Dead, "a")
	d.wait(StandsAfter+10*time.Second, bad)
	require.Equal(t, "dead begun a", d.said()[2])
	d.wait(5*time.Minute, bad)
	d.wait(time.Minute)
	require.Equal(t, []string{"dead begun a", "dead ended a", "dead begun a", "dead ended a"}, d.said())
}

func TestNoTroubleStandsUntoldHoweverItComesAndGoes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		d := newDesk()
		var bad *Trouble
		var came time.Time
		for range rapid.IntRange(1, 80).Draw(t, "spells") {
			var all []Trouble
			if bad == nil {
				came = d.now
				b := d.trouble(Dead, "a")
				b.Since = d.now.Add(-time.Duration(rapid.IntRange(0, 600).Draw(t, "seconds before")) * time.Second)
				bad, all = &b, []Trouble{b}
			} else {
				bad = nil
			}
			for range rapid.IntRange(1, 40).Draw(t, "looks") {
				at := d.now
				d.look(all...)
				if bad != nil && at.Sub(came) >= StandsAfter {
					require.Equal(t, Begun, d.got[len(d.got)-1].Phase, "it has stood for %s", at.Sub(came))
				}
			}
		}
		d.wait(20 * time.Minute)
		told := None
		for i := range d.got {
			m := &d.got[i]
			if m.Phase == Ended && told != Begun {
				require.NotZero(t, m.document().Counts["times"], "an end without a beginning says how often it was")
			}
			told = m.Phase
			within := 0
			for j := i; j < len(d.got) && d.got[j].At.Sub(m.At) < PairEvery; j++ {
				within++
			}
			require.LessOrEqual(t, within, 10)
		}
	})
}

func TestAThousandTriggersOfOneHostAreOneMessage(t *testing.T) {
	t.Parallel()
	d := newDesk()
	var all []Trouble
	for i := range 1000 {
		all = append(all, d.trouble(Failing, fmt.Sprintf("t%03d", i)))
	}
	d.wait(time.Minute, all...)
	d.wait(time.Minute)
	require.Equal(t, []string{"failing begun 1000", "failing ended 1000"}, d.said())
	doc := d.got[0].document()
	require.Nil(t, doc.Trigger)
	require.Len(t, doc.Triggers, mostNamed)
	require.EqualValues(t, 1000, doc.Counts["triggers"])
	require.Contains(t, d.got[0].text(), "t000, t001, ")
	require.Contains(t, d.got[0].text(), "t019 and 980 more")
}

func TestTroublesThatTrickleInAreBoundedToo(t *testing.T) {
	t.Parallel()
	d := newDesk()
	var all []Trouble
	for i := range 60 {
		b := d.trouble(Failing, fmt.Sprintf("t%03d", i))
		b.Host = fmt.Sprintf("https://%d.example:443", i)
		all = append(all, b)
		d.look(all...)
	}
	require.LessOrEqual(t, len(d.got), mostIn+10)
	told := map[string]bool{}
	d.wait(2*time.Minute, all...)
	for i := range d.got {
		for _, s := range d.got[i].States {
			require.False(t, told[s.Subject], "%s is told twice", s.Subject)
			told[s.Subject] = true
		}
	}
	require.Len(t, told, 60)
}

func TestAMessageThatFailsIsSentAgainUntilItIsGivenUp(t *testing.T) {
	t.Parallel()
	d := newDesk()
	bad := d.trouble(Failing, "a")
	d.down = true
	d.look(bad)
	first := d.state(t)
	require.Equal(t, "answered 503", first.Error)
	require.Equal(t, None, first.Told)
	d.wait(9*time.Second, bad)
	require.Equal(t, 2, d.attempts, "after ten seconds")
	d.wait(5*time.Minute, bad)
	require.InDelta(t, 5, d.attempts, 1, "then after 20, 40, 80, ...")
	d.down = false
	d.wait(10*time.Minute, bad)
	require.Equal(t, []string{"failing begun a"}, d.said())
	require.Empty(t, d.state(t).Error)

	d.down, d.attempts = true, 0
	d.wait(24 * time.Hour)
	require.Equal(t, MaxAttempts, d.attempts)
	require.NotEmpty(t, d.state(t).Error, "it stays visible for a day")
	d.wait(time.Hour)
	require.Empty(t, d.states)
}

func (d *desk) state(t *testing.T) State {
	t.Helper()
	require.Len(t, d.states, 1)
	for _, s := range d.states {
		return s
	}
	return State{}
}

func TestATroubleThatEndsBeforeItCouldBeToldIsToldAsOver(t *testing.T) {
	t.Parallel()
	d := newDesk()
	d.down = true
	d.wait(time.Minute, d.trouble(Uncaptured, "a"))
	d.down = false
	d.wait(time.Hour)
	require.Equal(t, []string{"uncaptured ended a"}, d.said())
	require.NotNil(t, d.got[0].document().Until)
}

func TestAMessageBelongsToItsSenderForAWhile(t *testing.T) {
	t.Parallel()
	d := newDesk()
	bad := d.trouble(Dead, "a")
	out := Plan(d.destinations, nil, Report{Troubles: []Trouble{bad}}, d.now)
	require.Len(t, out.Messages, 1)
	again := Plan(d.destinations, out.Changed, Report{Troubles: []Trouble{bad}}, d.now.Add(SendLease-time.Second))
	require.Empty(t, again.Messages)
	again = Plan(d.destinations, out.Changed, Report{Troubles: []Trouble{bad}}, d.now.Add(SendLease))
	require.Len(t, again.Messages, 1, "its sender has died")
	require.Equal(t, out.Messages[0].ID(), again.Messages[0].ID())
}

func TestABacklogBeginsAtItsLimitAndEndsAtHalfOfIt(t *testing.T) {
	t.Parallel()
	d := newDesk()
	for minutes, want := range []int{0, 0, 0, 0, 0, 1, 1, 1} {
		b := d.trouble(Backlog, "a")
		b.Waits = time.Duration(minutes) * time.Minute
		d.look(b)
		require.Len(t, d.got, want, "after %d minutes", minutes)
	}
	for _, c := range []struct {
		waits time.Duration
		want  int
	}{{3 * time.Minute, 1}, {150 * time.Second, 1}, {149 * time.Second, 2}, {4 * time.Minute, 2}} {
		b := d.trouble(Backlog, "a")
		b.Waits = c.waits
		d.look(b)
		require.Len(t, d.got, c.want, c.waits)
	}
}

func TestABacklogOfAnEndpointThatFailsOrHasJustRecoveredIsNoNews(t *testing.T) {
	t.Parallel()
	for _, subject := range []string{"a", "https://e.com:443"} {
		d := newDesk()
		waits := d.trouble(Backlog, "a")
		waits.Waits = time.Hour
		d.wait(time.Hour, d.trouble(Failing, subject), waits)
		d.wait(4*time.Minute, waits)
		require.Equal(t, []string{"failing begun " + subject, "failing ended " + subject}, d.said())
		d.wait(5*time.Minute, waits)
		require.Equal(t, "backlog begun a", d.said()[2], "it does not go away")

		d = newDesk("backlog")
		d.wait(time.Minute, d.trouble(Failing, subject), waits)
		require.Equal(t, []string{"backlog begun a"}, d.said(), "nobody else tells of it")
	}
}

func TestWhatCouldNotBeLookedAtStaysAsItIs(t *testing.T) {
	t.Parallel()
	d := newDesk()
	d.wait(time.Minute, d.trouble(Uncaptured, "a"))
	for range 100 {
		d.report(Report{Unknown: map[Kind]bool{Uncaptured: true}})
	}
	require.Equal(t, []string{"uncaptured begun a"}, d.said())
}

func TestADestinationThatIsGoneIsForgottenAndANewOneIsToldOfWhatIsOpen(t *testing.T) {
	t.Parallel()
	d := newDesk()
	bad := d.trouble(Failing, "a")
	d.wait(time.Minute, bad)
	d.destinations[0].ID = "two"
	d.wait(time.Minute, bad)
	require.Equal(t, []string{"failing begun a", "failing begun a"}, d.said())
	require.Equal(t, "two", d.state(t).Destination)
}

func TestAnyTroubleIsToldInPairsAndNeverInAStorm(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		d := newDesk()
		since := map[Key]time.Time{}
		for range 30 {
			for range rapid.IntRange(0, 8).Draw(t, "changes") {
				key := Key{rapid.SampledFrom([]Kind{Failing, Dead, Uncaptured}).Draw(t, "kind"), fmt.Sprintf("t%d", rapid.IntRange(0, 19).Draw(t, "trigger"))}
				if _, bad := since[key]; bad {
					delete(since, key)
				} else {
					since[key] = d.now
				}
			}
			d.down = rapid.IntRange(0, 3).Draw(t, "receiver") == 0
			var troubles []Trouble
			for key, at := range since {
				troubles = append(troubles, Trouble{Key: key, Since: at, Facts: Facts{Triggers: []string{key.Subject}, Host: "h" + key.Subject[1:2]}})
			}
			d.wait(time.Duration(rapid.IntRange(1, 6).Draw(t, "looks"))*10*time.Second, troubles...)
		}
		d.down = false
		d.wait(40 * time.Minute)
		require.Empty(t, d.states)
		last := map[Key]Phase{}
		for i := range d.got {
			for _, s := range d.got[i].States {
				if d.got[i].Phase == Begun {
					require.NotEqual(t, Begun, last[s.Key], "a second beginning without an end")
				}
				last[s.Key] = d.got[i].Phase
			}
		}
		for key, p := range last {
			require.Equal(t, Ended, p, "%v", key)
		}
		for i := range d.got {
			within := slices.IndexFunc(d.got[i:], func(m Message) bool { return m.At.Sub(d.got[i].At) >= 10*time.Minute })
			if within < 0 {
				within = len(d.got) - i
			}
			require.LessOrEqual(t, within, 75, "in ten minutes")
		}
	})
}
