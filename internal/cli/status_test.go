package cli

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/internal/term"
	"github.com/rowhook/rowhook/sqlschema"
)

func TestTheStatusFitsEightyColumns(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	a := &app{stdout: &out}
	now := time.Now()
	ago := func(d time.Duration) *time.Time { at := now.Add(-d); return &at }
	p50, p95 := 42.0, 825_000.0
	pause := &queue.Pause{At: *ago(time.Hour), By: "ann@laptop, role shop", Reason: strings.Repeat("maintenance ", 20) + "ends"}
	s := &operate.Status{
		Now: now, AllPaused: pause,
		Triggers: []operate.TriggerStatus{
			{Name: "order_placed", Waiting: 400, InFlight: 400, DeliveredLastHour: 12_345, P50MS: &p50, P95MS: &p95, OldestInFlightAt: ago(45 * time.Second)},
			{
				Name: strings.Repeat("x", 42), Waiting: 1_234_567, Estimated: []string{"waiting"}, Dead: 99_999, OldestAt: ago(26 * time.Hour), Paused: true, Pause: pause,
				LastErrorAt: ago(2 * time.Second), LastError: strings.Repeat("the receiver answered 500 ", 8), Failing: true,
			},
			{Name: "audit", Tables: []sqlschema.WatchedTable{{Table: "public.orders", Watched: true}, {Table: "billing.later", Note: "it is watched from the next apply on"}}},
			{Name: "mended", LastErrorAt: ago(3 * time.Hour), LastError: "refused"},
		},
		Instances: []operate.Instance{{ID: 1234, Name: "a-long-host-name.of.some.where.example.com:123456", Version: "v1.2.3-0.20261125225417-abcdefabcdef", StartedAt: now}},
		Queue:     operate.Queue{Bytes: 1 << 40, DeadTuples: 1_000_000},
		Retention: []byte(`{"delivered": "7d", "attempts": "7d", "max_size": "100GiB"}`),
		Warnings:  []operate.Warning{{Code: "x", Trigger: "order_placed", Problem: strings.Repeat("something is wrong ", 6), Remedy: `run "rowhook migrate"`}},
	}
	show := func() string {
		out.Reset()
		statusPage{a.page(), s, ""}.show()
		return out.String()
	}
	text := show()
	for line := range strings.SplitSeq(text, "\n") {
		require.LessOrEqual(t, utf8.RuneCountInString(line), 80, line)
	}
	require.Regexp(t, `(?m)^TRIGGER +WAITING IN FLIGHT RETRYING +DEAD OLDEST `, text)
	require.Regexp(t, `(?m)^order_placed +400 +400 +0 +0 +- 12,345 +0 13m45s$`, text)
	require.Contains(t, text, strings.Repeat("x", 42)+" (paused)\n")
	require.Regexp(t, `(?m)^TABLE OF audit +STATE *\npublic\.orders +watched *\nbilling\.later +not watched +it is watched from the next apply on$`, text)
	flat := strings.Join(strings.Fields(text), " ")
	require.Contains(t, flat, "order_placed the receiver does not answer: the oldest of 400 attempts in flight was begun 45s ago")
	require.Contains(t, flat, "fails, last 2.0s ago: the receiver answered 500")
	require.Contains(t, flat, "mended has recovered; the last error was 3h00m ago: refused")
	require.Contains(t, flat, "by ann@laptop, role shop: maintenance")
	require.Contains(t, flat, `run "rowhook migrate"`)
	a.environ = []string{"COLUMNS=160"}
	require.Regexp(t, `(?m)^x+ \(paused\) +~1,234,567 +0 .* P50|(?m)^TRIGGER .* P50 +P95$`, show())
}

func TestWatchShowsAgainUntilItIsInterrupted(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	a := &app{stdout: &out}
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	show := func(page *term.Page) error {
		n++
		page.Printf("picture %d\n", n)
		if n == 3 {
			cancel()
			return ctx.Err()
		}
		return nil
	}
	require.NoError(t, a.watch(ctx, time.Millisecond, true, show))
	require.Equal(t, "picture 1\n\npicture 2\n", out.String())
	require.ErrorIs(t, a.watch(t.Context(), time.Millisecond, true, func(*term.Page) error { return errUnchanged }), errUnchanged)
}

func TestAStatusNamesEachDispatcherAndCutsNoRemedy(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	show := func(s *operate.Status) string {
		out.Reset()
		statusPage{term.NewPage(&out, nil), s, ""}.rest()
		return out.String()
	}
	now := time.Now()
	text := show(&operate.Status{Now: now, Doorbell: operate.Doorbell{State: "silent", InstanceID: 7}, Instances: []operate.Instance{
		{ID: 3, Name: "a:1", Version: "1.0", StartedAt: now, Listens: true, Alive: true},
		{ID: 7, Name: "b:2", Version: "1.0", StartedAt: now, Listens: true, Alive: true},
	}})
	require.Contains(t, text, "\ndispatcher 7  b:2  1.0  started now, listens\nlast minute   0.0 delivered and 0.0 failed a second\ndoorbell      silent: dispatcher 7 is awake")
	text = show(&operate.Status{Now: now, Doorbell: operate.Doorbell{State: "silent", InstanceID: 7}})
	require.Contains(t, text, "dispatchers  none: nothing is delivered")
	require.Contains(t, text, "doorbell     silent: no dispatcher runs that writers could notify")
}
