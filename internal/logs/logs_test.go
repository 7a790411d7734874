package logs_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/logs"
)

func TestJSONLinesHaveNumbersForDurationsAndFullTimes(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	log := logs.New(&b, logs.Options{Format: logs.FormatJSON})
	log.Warn("attempt failed", "trigger", "order_placed", "wait", 1500*time.Millisecond, "at", time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600)), "error", errors.New("refused"))
	var line map[string]any
	require.NoError(t, json.Unmarshal(b.Bytes(), &line))
	require.Equal(t, "WARN", line["level"])
	require.Equal(t, "attempt failed", line["msg"])
	require.EqualValues(t, 1500, line["wait_ms"])
	require.NotContains(t, line, "wait")
	require.Equal(t, "2026-01-02T03:04:05+01:00", line["at"])
	require.Equal(t, "refused", line["error"])
	_, err := time.Parse(time.RFC3339Nano, line["time"].(string))
	require.NoError(t, err)
}

func TestTextHasNoColourWhereNoTerminalIs(t *testing.T) {
	t.Parallel()
	for _, format := range []logs.Format{logs.FormatAuto, logs.FormatText} {
		var b bytes.Buffer
		logs.New(&b, logs.Options{Format: format}).Error("it failed", "error", errors.New("because"))
		require.NotContains(t, b.String(), "\x1b")
		require.Contains(t, b.String(), "it failed error=because")
	}
}

func TestLevelDropsWhatIsBelow(t *testing.T) {
	t.Parallel()
	for _, format := range []logs.Format{logs.FormatText, logs.FormatJSON} {
		var b bytes.Buffer
		log := logs.New(&b, logs.Options{Format: format, Level: slog.LevelWarn})
		log.Info("quiet")
		require.Empty(t, b.String())
		log.Warn("loud")
		require.Contains(t, b.String(), "loud")
	}
}
