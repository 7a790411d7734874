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

func TestJSONLinesAreObjectsWithReadableDurations(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	log := logs.New(&b, logs.Options{Format: logs.FormatJSON})
	log.Warn("attempt failed", "trigger", "order_placed", "wait", 1500*time.Millisecond, "error", errors.New("refused"))
	var line map[string]any
	require.NoError(t, json.Unmarshal(b.Bytes(), &line))
	require.Equal(t, "WARN", line["level"])
	require.Equal(t, "attempt failed", line["msg"])
	require.Equal(t, "1.5s", line["wait"])
	require.Equal(t, "refused", line["error"])
	require.Contains(t, line, "time")
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
