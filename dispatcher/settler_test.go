package dispatcher

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/queue"
)

// settling collects the sizes of a settler's batches until the test ends. Writing one takes no
// time.
func settling(t *testing.T) (s *settler, sizes func() []int) {
	s = &settler{signal: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	var all []int
	go func() {
		for {
			batch, _, err := s.next(ctx)
			if err != nil {
				return
			}
			all = append(all, len(batch))
		}
	}()
	return s, func() []int { synctest.Wait(); return all }
}

func (s *settler) addSome(n int) {
	for range n {
		s.add(&delivery{lane: &lane{}}, queue.Settlement{})
	}
}

// One settlement at a time would cost Postgres a statement and a flush for each event of a trickle.
func TestSettlementsOfATrickleShareStatements(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, sizes := settling(t)
		const events = 300
		for range events {
			s.addSome(1)
			<-time.After(time.Millisecond)
		}
		<-time.After(settlePace)
		total := 0
		for _, n := range sizes() {
			total += n
		}
		require.Equal(t, events, total)
		require.Len(t, sizes(), events/int(settlePace/time.Millisecond)+1, "one at once, then one each settlePace")
	})
}

func TestAFullBatchAndOneAfterAPauseAreSettledAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, sizes := settling(t)
		s.addSome(1)
		require.Equal(t, []int{1}, sizes(), "nothing was settled just before")
		s.addSome(settleFull - 1)
		require.Equal(t, []int{1}, sizes())
		s.addSome(1)
		require.Equal(t, []int{1, settleFull}, sizes())
		<-time.After(settlePace)
		s.addSome(2)
		synctest.Wait()
		require.Equal(t, 2, sizes()[2])
	})
}
