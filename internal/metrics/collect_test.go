package metrics

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAnswersAreKeptForLongOnlyWhereOneAfterAnotherIsSlow(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ took, before, want time.Duration }{
		{0, 0, 10 * time.Second},
		{time.Millisecond, time.Millisecond, 10 * time.Second},
		{3 * time.Second, time.Millisecond, 10 * time.Second},
		{time.Millisecond, 3 * time.Second, 10 * time.Second},
		{3 * time.Second, 2 * time.Second, 100 * time.Second},
		{2 * time.Second, 3 * time.Second, 100 * time.Second},
	} {
		require.Equal(t, c.want, keep(c.took, c.before), "%s after %s", c.took, c.before)
	}
}
