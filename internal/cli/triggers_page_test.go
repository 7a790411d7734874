package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/term"
	"github.com/rowhook/rowhook/trigger"
)

func TestRetriesAreSaidInShort(t *testing.T) {
	t.Parallel()
	const hour = trigger.Duration(time.Hour)
	for want, r := range map[string]trigger.Retry{
		"5 x 10s":    {Limit: 5, Interval: trigger.Duration(10 * time.Second), Backoff: trigger.BackoffFixed, MaxInterval: hour},
		"3 x 5s, 1m": {Limit: 3, Schedule: []trigger.Duration{trigger.Duration(5 * time.Second), trigger.Duration(time.Minute)}, MaxInterval: hour},
		"5 x 10s; 400-499 dead; 410 pause; at most 1d": {
			Limit: 5, Interval: trigger.Duration(10 * time.Second), Backoff: trigger.BackoffFixed, MaxAge: 24 * hour,
			Statuses: trigger.Statuses{{From: 400, To: 499, Then: "dead"}, {From: 410, To: 410, Then: "pause"}},
		},
		"12 x 10s..1h exponential": {Limit: 12, Interval: trigger.Duration(10 * time.Second), Backoff: trigger.BackoffExponential, MaxInterval: hour},
		"3 x 1h exponential":       {Limit: 3, Interval: hour, Backoff: trigger.BackoffExponential, MaxInterval: hour},
		"none":                     {Interval: hour, Backoff: trigger.BackoffFixed},
		"1000 x 0":                 {Limit: 1000, Backoff: trigger.BackoffFixed},
	} {
		require.Equal(t, want, retries(r))
	}
}

func TestOperationsSayColumnsAndWhen(t *testing.T) {
	t.Parallel()
	g := &operate.Trigger{On: trigger.On{Insert: true, Update: trigger.UpdateOn{Enabled: true, Columns: []string{"a", "b c"}}, Delete: true, Manual: true}, When: "new.x"}
	require.Equal(t, "insert, update(a b c), delete, manual when ...", operations(g))
	require.Equal(t, "update", operations(&operate.Trigger{On: trigger.On{Update: trigger.UpdateOn{Enabled: true}}}))
}

func TestTheListOfTriggersSaysHowEachIsDoing(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	a := &app{stdout: &out}
	since := time.Now().Add(-time.Hour)
	a.showTriggers([]operate.Trigger{
		{Name: "a", Table: "public.a", State: operate.TriggerActive, On: trigger.On{Insert: true}, URL: "https://${HOST}/a", Retry: trigger.DefaultSpec().Retry},
		{Name: "b", State: operate.TriggerFailing, FailingSince: &since, Health: &operate.EndpointHealth{State: "failing"}},
		{Name: "e", State: operate.TriggerFailing, FailingSince: &since},
		{Name: "c", State: operate.TriggerRemoved, Owed: 1, Dead: 2},
		{Name: "d", State: operate.TriggerUncaptured, Problems: []operate.Warning{{Problem: "it is disabled", Remedy: "apply"}}},
	})
	text := out.String()
	require.Regexp(t, `(?m)^a +active +public\.a +insert +12 x 10s\.\.1h exponential +https://\$\{HOST\}/a$`, text)
	require.Regexp(t, `(?m)^b +failing for 1h00m `, text)
	require.Regexp(t, `(?m)^e +attempts fail, 1h00m `, text)
	require.Regexp(t, `(?m)^c +removed, 3 events `, text)
	require.Regexp(t, `(?m)^d  it is disabled: apply$`, text)
	out.Reset()
	a.showTrigger(&operate.Trigger{Name: strings.Repeat("x", 42), State: operate.TriggerPaused, URL: "https://example.com/", When: strings.Repeat("old.b is null or ", 20) + "new.a\nand \x1b[31mnew.b"})
	for line := range strings.SplitSeq(out.String(), "\n") {
		require.LessOrEqual(t, term.Columns(line), 80, line)
		require.NotContains(t, line, "\x1b")
	}
}

func TestATriggerSaysInWhichOrderAndHowFastItIsSent(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	a := &app{stdout: &out}
	a.showTrigger(&operate.Trigger{
		Name: "a", State: operate.TriggerActive, Breaker: trigger.BreakerOff, Concurrency: 20, ConcurrencyTotal: 50,
		Order: &operate.TriggerOrder{By: []string{trigger.OrderByRow}, Strict: true, Latest: true, OnDead: trigger.OnDeadBlock},
		Batch: &trigger.Batch{Max: 100, Bytes: 1 << 20, Wait: trigger.Duration(time.Second)},
		Rate:  &trigger.Rate{Limit: trigger.PerTime{N: 50, Time: time.Second}, Burst: 100},
	})
	for _, line := range []string{
		"order        by the primary key, strict, only the latest, a dead letter blocks its key", "batch        up to 100 events or 1MiB, waits up to 1s",
		"rate         50/s, bursts of 100", "concurrency  20 in each dispatcher, 50 in all", "breaker      off",
	} {
		require.Contains(t, strings.Join(strings.Fields(out.String()), " "), strings.Join(strings.Fields(line), " "))
	}
	out.Reset()
	a.showTrigger(&operate.Trigger{Name: "a", State: operate.TriggerActive, Breaker: trigger.BreakerOn})
	for _, absent := range []string{"order", "batch", "rate ", "concurrency", "breaker"} {
		require.NotContains(t, out.String(), absent)
	}
}
