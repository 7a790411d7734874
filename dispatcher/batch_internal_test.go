package dispatcher

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/trigger"
)

// bulk makes a scheduler with one lane, whose batches have 100 events.
func bulk() (*scheduler, *lane) {
	s, spec := newScheduler(100, 100), trigger.DefaultSpec()
	spec.Batch.Max = 100
	s.configure([]queue.Trigger{{ID: 1, Spec: spec}}, func(trigger.Spec) (Endpoint, error) { return nil, nil })
	return s, s.lanes[1]
}

// asksFor is how many events a claim would ask for, and when to ask again.
func asksFor(s *scheduler, now time.Time) (n int32, again time.Time) {
	s.mark(1)
	wants, lanes, again := s.wants(now)
	s.requeue(lanes)
	if len(wants) == 0 {
		return 0, again
	}
	return wants[0].Limit, again
}

func TestAClaimForBatchesWaitsForRequestsInFlightButNotForLong(t *testing.T) {
	t.Parallel()
	s, l := bulk()
	now := time.Now()
	started := fill(t, s, now, 1)
	require.Len(t, started, bulkOfLane/100)
	for _, sh := range started {
		require.Len(t, sh.deliveries, 100)
	}
	end := func(n int) {
		for _, sh := range started[:n] {
			require.Nil(t, s.done(sh, 50*time.Millisecond, true))
			s.settled(sh.deliveries)
		}
		started = started[n:]
	}
	end(1)
	n, again := asksFor(s, now)
	require.Zero(t, n, "nineteen requests are in flight, and a claim of one batch costs as much as one of ten")
	require.Equal(t, now.Add(bulkPatience), again)
	n, _ = asksFor(s, again)
	require.EqualValues(t, 100, n, "but the receiver may be slow")
	l.offered = time.Time{}
	end(9)
	n, _ = asksFor(s, now)
	require.EqualValues(t, bulkClaim, n)
}

func TestAClaimForBatchesIsNotSplitUpWhileOutcomesAreWritten(t *testing.T) {
	t.Parallel()
	s, _ := bulk()
	now := time.Now()
	var ended []*delivery
	for len(ended) < bulkInAll {
		for _, sh := range fill(t, s, now, 1) {
			require.Nil(t, s.done(sh, time.Millisecond, true))
			ended = append(ended, sh.deliveries...)
		}
	}
	require.Len(t, ended, bulkInAll)
	n, _ := asksFor(s, now)
	require.Zero(t, n)
	for len(s.signal) > 0 {
		<-s.signal
	}
	s.settled(ended[:900])
	require.Len(t, s.signal, 1, "the claimer looks again")
	n, _ = asksFor(s, now)
	require.Zero(t, n)
	s.settled(ended[900:1000])
	n, _ = asksFor(s, now)
	require.EqualValues(t, bulkClaim, n)
}
