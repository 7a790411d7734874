package cli

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestMomentsAreReadAsPeopleWriteThem(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 15, 4, 5, 0, time.FixedZone("X", 3600))
	f := &filterFlags{clock: func() time.Time { return now }}
	for s, want := range map[string]time.Time{
		"": {}, "1h": now.Add(-time.Hour), "7d": now.Add(-7 * 24 * time.Hour), "2026-11-20": time.Date(2026, 11, 20, 0, 0, 0, 0, now.Location()),
		"2026-11-20 12:30": time.Date(2026, 11, 20, 12, 30, 0, 0, now.Location()), "2026-11-20T12:30:00Z": time.Date(2026, 11, 20, 12, 30, 0, 0, time.UTC),
	} {
		got, err := f.moment("since", s)
		require.NoError(t, err)
		require.True(t, want.Equal(got), "%q: %s", s, got)
	}
	_, err := f.moment("since", "yesterday")
	require.ErrorContains(t, err, "--since")
}
