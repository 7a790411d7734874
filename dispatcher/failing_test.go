package dispatcher

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestATriggerThatFailsIsSaidOnceThenCountedEachMinuteAndOnceWhenItRecovers(t *testing.T) {
	t.Parallel()
	var text bytes.Buffer
	log := slog.New(slog.NewTextHandler(&text, nil))
	f := failing{log: log}
	now := time.Date(2026, 11, 26, 1, 0, 0, 0, time.UTC)
	begins, deaths := 0, 0
	fail := func(n int, dead bool) {
		for range n {
			b, d := f.failed("orders", now, dead, []slog.Attr{slog.String("error", "refused")})
			if b {
				begins++
			}
			if d {
				deaths++
			}
		}
	}
	second := func() {
		now = now.Add(time.Second)
		f.look(now, false)
	}
	lines := func() int {
		n := strings.Count(text.String(), "\n")
		text.Reset()
		return n
	}
	for range 180 {
		fail(1000, true)
		second()
	}
	require.Equal(t, 1, begins)
	require.Equal(t, 3, deaths, "the first of each minute is named")
	require.Contains(t, text.String(), "failed=60000")
	require.Contains(t, text.String(), "error=refused")
	require.Equal(t, 3, lines())
	f.succeeded("orders", now.Add(time.Millisecond))
	second()
	require.Contains(t, text.String(), "succeed again")
	require.Equal(t, 1, lines())
	for range 200 {
		second()
	}
	require.Zero(t, lines(), "nothing is left to say")
	require.Empty(t, f.triggers)

	fail(1, false)
	require.Equal(t, 2, begins, "it begins anew")
	for range 120 { // one in two fails, twice a second: no line for each change
		now = now.Add(250 * time.Millisecond)
		fail(1, false)
		now = now.Add(250 * time.Millisecond)
		f.succeeded("orders", now)
		f.look(now, false)
	}
	require.LessOrEqual(t, begins, 3)
	require.LessOrEqual(t, lines(), 2)
	f.look(now, true)
	require.LessOrEqual(t, lines(), 1, "what was not counted yet")
}

func TestATriggerThatFailsNowAndThenSaysNoMoreThanTwoLinesAMinute(t *testing.T) {
	t.Parallel()
	var text bytes.Buffer
	log := slog.New(slog.NewTextHandler(&text, nil))
	f := failing{log: log}
	now := time.Date(2026, 11, 26, 1, 0, 0, 0, time.UTC)
	lines := 0
	for range 300 {
		now = now.Add(time.Second)
		if b, _ := f.failed("orders", now, false, nil); b {
			lines++
		}
		now = now.Add(time.Second)
		f.succeeded("orders", now)
		now = now.Add(time.Second)
		f.look(now, false)
	}
	lines += strings.Count(text.String(), "\n")
	require.LessOrEqual(t, lines, 2*15+2, text.String())
	require.GreaterOrEqual(t, lines, 10, text.String())
}
