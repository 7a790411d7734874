package config_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/trigger"
)

func TestAScheduleSaysHowManyRetriesThereAre(t *testing.T) {
	t.Parallel()
	retry := func(text string) trigger.Retry { return parse(t, text).Triggers[0].Retry }
	waits := []trigger.Duration{trigger.Duration(5 * time.Second), trigger.Duration(time.Minute)}
	want := trigger.Retry{Limit: 2, Schedule: waits, MaxInterval: trigger.DefaultMaxInterval}
	require.Equal(t, want, retry(fileOf("retry: {schedule: [5s, 1m]}")))
	require.Equal(t, want, retry(fileOf()+"defaults: {retry: {schedule: [5s, 1m]}}\n"))
	want.Limit = 7 // the last wait repeats
	require.Equal(t, want, retry(fileOf("retry: {schedule: [5s, 1m], limit: 7}")))
	require.Equal(t, want, retry(fileOf("retry: {schedule: [5s, 1m]}")+"defaults: {retry: {limit: 7}}\n"))
}

func TestStatusesOfATriggerAreMergedWithThoseOfDefaults(t *testing.T) {
	t.Parallel()
	shared := "defaults: {retry: {statuses: {400-499: dead, 429: retry}}}\n"
	words := func(text string) map[string]string {
		out := map[string]string{}
		for _, r := range parse(t, text).Triggers[0].Retry.Statuses {
			out[r.Range()] = r.Then
		}
		return out
	}
	require.Equal(t, map[string]string{"400-499": "dead", "429": "retry"}, words(fileOf()+shared))
	require.Equal(t, map[string]string{"400-499": "dead", "429": "pause", "503": "dead"}, words(fileOf("retry: {statuses: {429: pause, \"503\": dead}}")+shared))
	require.Empty(t, words(fileOf("retry: {statuses: none}")+shared))
}

func TestATriggersRetentionIsMergedWithThatOfDefaults(t *testing.T) {
	t.Parallel()
	c := parse(t, fileOf("retention: {attempts: 0}")+"defaults: {retention: {delivered: 12h}}\nretention: {delivered: 30d, attempts: 2d}\n")
	own := c.Triggers[0].Retention
	require.Equal(t, trigger.Retention{Delivered: trigger.Duration(12 * time.Hour)}, own.Of(c.Settings.Retention))
	require.Nil(t, parse(t, fileOf()).Triggers[0].Retention.Delivered)
}

func TestAllThatIsWrongWithStatusesIsReportedAtOnce(t *testing.T) {
	t.Parallel()
	require.Equal(t, []string{
		`rowhook.yaml:6:24: triggers[0].retry.statuses[200]: a status from 200 to 299 always means that the event is delivered; name statuses from 300 on`,
		`rowhook.yaml:6:60: triggers[0].retry.statuses.440-499: "drop" is not a valid value; write dead or retry or pause`,
		`rowhook.yaml:6:60: triggers[0].retry.statuses.440-499: the ranges 400-450 and 440-499 overlap; divide them, or name single statuses, which have precedence over ranges`,
		`rowhook.yaml:6:75: triggers[0].retry.statuses.445-470: the ranges 440-499 and 445-470 overlap; divide them, or name single statuses, which have precedence over ranges`,
	}, problemsOf(t, fileOf("retry: {statuses: {200: retry, 400-450: dead, 440-499: drop, 445-470: retry}}")))
}
