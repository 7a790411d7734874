package cli

import (
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/operate"
)

func TestWhatDrainDidNotCountItDoesNotSplitUp(t *testing.T) {
	t.Parallel()
	a := &app{stdout: io.Discard}
	err := a.showLeft(&operating{}, []operate.Left{{Trigger: "a", Waiting: 9_999, Retrying: 1, More: true}, {Trigger: "b", InFlight: 2}}, 30*time.Second)
	require.EqualError(t, err, "events are left after 30s:\n  a: more than 10,000 events\n  b: 0 waiting, 2 in flight, 0 to be retried")
}
