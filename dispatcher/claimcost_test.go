package dispatcher

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestEmptyTriggersAreLeftOutFirstWhileThatIsCheaper(t *testing.T) {
	t.Parallel()
	now := time.Now()
	claims := func(s *claimCost, probing, nonEmptyTook time.Duration) (uses int) {
		for range 1000 {
			now = now.Add(10 * time.Millisecond)
			nonEmpty, d := s.preferNonEmpty(400, now), probing
			if nonEmpty {
				uses, d = uses+1, nonEmptyTook
			}
			s.note(400, nonEmpty, 2, d)
		}
		return uses
	}
	var s claimCost
	require.False(t, s.preferNonEmpty(comparedFrom-1, now), "for few lanes it makes no difference")
	require.Greater(t, claims(&s, 4*time.Millisecond, time.Millisecond), 990)
	require.Less(t, claims(&s, 4*time.Millisecond, 40*time.Millisecond), 10, "a long transaction makes it dear")
	require.Greater(t, claims(&s, 4*time.Millisecond, time.Millisecond), 300, "that is over, and noticed within ten seconds")
	s.note(400, true, 300, time.Second)
	s.note(400, true, 300, time.Second)
	require.Greater(t, claims(&s, 4*time.Millisecond, time.Millisecond), 990, "what a claim takes that finds much says nothing")
}
