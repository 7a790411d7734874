package dispatcher_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/trigger"
)

// heldBy has the rate of a trigger held by a source.
func heldBy(limit, source string) func(*trigger.Spec) {
	return func(s *trigger.Spec) {
		rateOf(limit, 1)(s)
		s.Rate.HeldBy = source
	}
}

// ratesIn tells where a source is, unless it is away.
func ratesIn(source string, at *fixture, away *atomic.Bool) dispatcher.SharedConfig {
	return dispatcher.SharedConfig{Rates: func(asked string) (string, error) {
		if asked != source || away.Load() {
			return "", errors.New(asked + " is nowhere")
		}
		return at.URL(), nil
	}}
}

func TestARateOfAllSourcesIsHeldByOneOfThem(t *testing.T) {
	t.Parallel()
	a := newFixture(t)
	b := a.beside(t)
	a.watch(t, "other") // so that the trigger has another number there
	a.watch(t, "paced", heldBy("20/s", "main"))
	b.watch(t, "paced", heldBy("20/s", "main"))
	var away atomic.Bool
	shared := newShared(t, ratesIn("main", a, &away))
	a.start(t, sharing(shared, "main"))
	us := b.start(t, sharing(shared, "us"))
	for _, f := range []*fixture{a, b} {
		f.Exec(t, "insert into paced (n) select generate_series(1, 40)")
	}
	got := a.receiver.await(t, "paced", 80)
	took := got[len(got)-1].at.Sub(got[0].at)
	require.Greater(t, took, 3*time.Second, "80 of 20 a second, and not 40 each")
	a.settled(t)
	b.settled(t)

	away.Store(true)
	b.Exec(t, "insert into paced (n) values (41)")
	us.says(t, "main is nowhere")
	require.Len(t, a.receiver.on("paced"), 80, "its event waits")
	a.Exec(t, "insert into paced (n) values (41)")
	a.receiver.await(t, "paced", 81) // that of the holder does not
	away.Store(false)
	a.receiver.await(t, "paced", 82)
	us.says(t, "planned again")
	require.Equal(t, 1, strings.Count(us.log.String(), "main is nowhere"), "it is said once")
}

func TestWhoHoldsARateMustHaveTheTrigger(t *testing.T) {
	t.Parallel()
	a := newFixture(t)
	b := a.beside(t)
	b.watch(t, "paced", heldBy("20/s", "main"))
	b.watch(t, "plain", rateOf("20/s", 1))
	var away atomic.Bool
	us := b.start(t, sharing(newShared(t, ratesIn("main", a, &away)), "us"))
	b.Exec(t, "insert into paced default values")
	b.Exec(t, "insert into plain default values")
	b.receiver.await(t, "plain", 1)
	require.Eventually(t, func() bool {
		return strings.Contains(us.log.String(), "paced: not applied in the source main with rate.held_by: main: apply the configuration there")
	}, patience, 20*time.Millisecond)
	a.watch(t, "paced", rateOf("20/s", 1))
	require.Never(t, func() bool { return len(b.receiver.on("paced")) > 0 }, 2*time.Second, 100*time.Millisecond, "it is a rate of its own")
	a.watch(t, "paced", heldBy("20/s", "main"))
	b.receiver.await(t, "paced", 1)
}

func TestWhoKnowsNoSourcesHoldsItsRateItself(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "paced", heldBy("20/s", "main"))
	b.watch(t, "lonely", heldBy("20/s", "elsewhere"))
	b.start(t)
	b.Exec(t, "insert into paced default values")
	b.receiver.await(t, "paced", 1)
	d := b.start(t, func(c *dispatcher.Config) { c.SourceName = "us" })
	require.Eventually(t, func() bool {
		b.Exec(t, "insert into lonely default values")
		return strings.Contains(d.log.String(), "this program works on one database alone")
	}, patience, 20*time.Millisecond)
}
