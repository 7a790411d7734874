package dispatcher

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// of is a trigger of a dispatcher.
func of(trigger int32) holder { return holder{nil, trigger} }

func TestATriggerThatHoldsItsShareOfTheBudgetLeavesRoomForOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(100)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		whole, err := b.take(ctx, of(1), 1000)
		require.NoError(t, err, "what is larger than the budget counts as the whole")
		_, err = b.take(ctx, of(1), 1)
		require.ErrorIs(t, err, context.DeadlineExceeded, "a second one of the same trigger waits")
		other, err := b.take(t.Context(), of(2), 50)
		require.NoError(t, err, "another trigger has some room whatever the first one holds")
		other()
		whole()
		require.Zero(t, b.used)
		require.Empty(t, b.held)
	})
}

func TestBudgetWakesThoseWhoWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(100)
		first, err := b.take(t.Context(), of(1), 60)
		require.NoError(t, err)
		got := make(chan error, 1)
		go func() {
			free, err := b.take(t.Context(), of(1), 60)
			if err == nil {
				free()
			}
			got <- err
		}()
		synctest.Wait()
		require.Empty(t, got)
		first()
		require.NoError(t, <-got)
	})
}
