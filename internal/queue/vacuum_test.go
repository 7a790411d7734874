package queue_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/internal/queue"
)

// On version 18 one call in five found such a session before the query excluded it.
func TestSessionsThatAreStillStartingHoldNothingBack(t *testing.T) {
	t.Parallel()
	db, elsewhere := pgtest.NewEmpty(t).Conn(t), pgtest.NewEmpty(t).URL()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			c, err := pgx.Connect(ctx, elsewhere)
			if ctx.Err() != nil {
				return
			}
			if assert.NoError(t, err) {
				assert.NoError(t, c.Close(t.Context()))
			}
		}
	}()
	for range 500 {
		h, err := queue.FindHolder(t.Context(), db, 0, 1_000_000)
		require.NoError(t, err)
		require.Nil(t, h)
	}
	cancel()
	<-ended
}
