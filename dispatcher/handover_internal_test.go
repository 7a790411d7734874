package dispatcher

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

// handedLanes makes a scheduler with endpoints, since a lease has to last for an attempt.
func handedLanes(t *testing.T, limit, n int) *scheduler {
	t.Helper()
	s := newScheduler(limit, 100)
	var triggers []queue.Trigger
	for id := range int32(n) {
		triggers = append(triggers, queue.Trigger{ID: id + 1, Spec: trigger.DefaultSpec()})
	}
	s.configure(triggers, func(trigger.Spec) (Endpoint, error) {
		ep, err := webhook.NewEndpoint(trigger.Webhook{URL: "http://127.0.0.1/", Timeout: trigger.DefaultTimeout}, nil)
		return &webhookEndpoint{Endpoint: ep}, err
	})
	return s
}

func handedEvent(n byte) queue.Claimed {
	return queue.Claimed{ID: [16]byte{n}, Trigger: 1, Tries: 1, Claim: 1, CreatedAt: time.Now(), DueAt: time.Now(), Lease: handoverLease}
}

func TestAnEventThatIsHereOrWasSettledDuringTheReadIsNotTakenAgain(t *testing.T) {
	t.Parallel()
	s, now := handedLanes(t, 10, 1), time.Now()
	take := func() (took []queue.Claimed, start []*shipment) {
		took, start, unsent, unknown := s.taken([]queue.Claimed{handedEvent(1)}, now, now)
		require.Empty(t, unsent)
		require.False(t, unknown)
		return took, start
	}
	s.beginTaking()
	took, start := take()
	require.Len(t, took, 1)
	require.Len(t, start, 1)
	took, _ = take()
	require.Empty(t, took, "it is in flight")
	s.endTaking()
	s.done(start[0], time.Millisecond, true)

	s.beginTaking()
	s.settled(start[0].deliveries)
	took, _ = take()
	require.Empty(t, took, "the read may have seen it as it was before")
	s.endTaking()

	s.beginTaking()
	took, _ = take()
	require.Len(t, took, 1, "a later read sees what was written")
	s.endTaking()
}

func TestNoMoreIsTakenThanSlotsAreNear(t *testing.T) {
	t.Parallel()
	s, now := handedLanes(t, 4, 2), time.Now()
	s.beginTaking()
	defer s.endTaking()
	started, back := 0, 0
	for n := range byte(10) {
		_, start, unsent, _ := s.taken([]queue.Claimed{handedEvent(n + 1)}, now, now)
		started, back = started+len(start), back+len(unsent)
	}
	require.Equal(t, []int{4, 6}, []int{started, back})
	buckets, again := s.refuses()
	require.Equal(t, queue.Bucket(1), buckets)
	require.False(t, again.IsZero())
}

func TestALeaseThatIsTooShortForAnAttemptIsNotUsed(t *testing.T) {
	t.Parallel()
	s, now := handedLanes(t, 4, 1), time.Now()
	e := handedEvent(1)
	e.Lease = trigger.DefaultTimeout.Std()
	_, start, unsent, _ := s.taken([]queue.Claimed{e}, now, now)
	require.Empty(t, start)
	require.Len(t, unsent, 1)
}

func TestAnnouncementsAreReadOrRefused(t *testing.T) {
	t.Parallel()
	h, ok := parseHanded("7 0194e9a0-0000-7000-8000-0000000000ff")
	require.True(t, ok)
	require.Equal(t, int32(7), h.trigger)
	require.Equal(t, byte(0xff), h.id[15])
	for _, payload := range []string{"", "7", "x 0194e9a0-0000-7000-8000-0000000000ff", "7 x", "99999999999 0194e9a0-0000-7000-8000-0000000000ff", " ", strings.Repeat("7", 8000)} {
		_, ok := parseHanded(payload)
		require.False(t, ok, payload)
	}
}

func TestWhoIsNotGivenWhatWasHandedOverBeatsIfItsBeatIsOld(t *testing.T) {
	t.Parallel()
	for age, pokes := range map[time.Duration]int{0: 0, queue.LockLostAfter: 1} {
		p := newPulse(nil, nil, nil, nil)
		p.epoch = time.Now().Add(-time.Minute)
		p.beaten(time.Now().Add(-age))
		(&taker{pulse: p}).missed()
		require.Len(t, p.pokes, pokes, "its beat is %s old", age)
	}
}
