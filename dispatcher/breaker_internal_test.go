package dispatcher

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/rowhook/rowhook/webhook"
)

var breakerEpoch = time.Unix(1_700_000_000, 0)

func TestABreakerBeginsToFailByTenInARowOrMostOfAMinute(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		outcomes string // f: failure, s: success
		every    time.Duration
		fails    bool
	}{
		"9 in a row":                           {"fffffffff", time.Second, false},
		"10 in a row":                          {"ffffffffff", time.Second, true},
		"10 in a row over hours":               {"ffffffffff", time.Hour, true},
		"10 with a success in between":         {"fffffffffsf", time.Second, false},
		"70 % of 20":                           {"fffffffsffffsffffsfs" + "sf", time.Second, true},
		"fewer than 20 in a minute":            {"fffffffsffffsffff", time.Second, false},
		"70 % of 20, but over several minutes": {"fffffffsffffsffffsfssf", 10 * time.Second, false},
		"half of many":                         {"fsfsfsfsfsfsfsfsfsfsfsfsfsfsfsfsfsfsfsfsfsfs", time.Millisecond, false},
	} {
		b, now, failed := &breaker{}, breakerEpoch, false
		for _, o := range c.outcomes {
			now = now.Add(c.every)
			if o == 'f' {
				failed = b.failed(now, now, 100) || failed
			} else {
				b.succeeded(now, now, 100)
			}
		}
		require.Equal(t, c.fails, failed, name)
		require.Equal(t, c.fails, b.state == breakerFailing, name)
	}
}

func TestWorkGrowsBackFromOneByDoubling(t *testing.T) {
	t.Parallel()
	b, now := &breaker{}, breakerEpoch
	b.follow(breakerFailing, now)
	b.answered(now)
	var allowed []int
	for range 8 {
		allowed = append(allowed, b.allowed)
		b.succeeded(now, now, 100)
	}
	require.Equal(t, []int{1, 2, 4, 8, 16, 32, 64, 0}, allowed, "then there is no bound")
	var halved []int
	for b.state == breakerProbing {
		b.failed(now, now, 100)
		halved = append(halved, b.allowed)
	}
	require.Equal(t, []int{50, 25, 12, 6, 3, 1, 0}, halved)
	require.Equal(t, breakerFailing, b.state)
}

func TestAttemptsThatBeganBeforeTheProbeSayNothing(t *testing.T) {
	t.Parallel()
	b, now := &breaker{}, breakerEpoch
	b.follow(breakerFailing, now)
	b.answered(now.Add(time.Second))
	require.False(t, b.failed(now, now.Add(2*time.Second), 100), "it timed out only now")
	b.succeeded(now, now.Add(2*time.Second), 100)
	require.Equal(t, 1, b.allowed)
}

func TestWorkGrowsBackAlsoWhereAnotherInstanceHasProbed(t *testing.T) {
	t.Parallel()
	for _, shared := range []breakerState{breakerProbing, breakerOK} {
		b, now := &breaker{}, breakerEpoch
		require.True(t, b.follow(breakerFailing, now))
		require.False(t, b.follow(breakerFailing, now))
		require.True(t, b.follow(shared, now))
		require.Equal(t, 1, b.allowed)
		require.Equal(t, shared, b.state)
	}
}

func TestABreakerFailsOnlyWithFailuresAndNeverHoldsAHealthyEndpointForGood(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		b, now, limit := &breaker{}, breakerEpoch, rapid.IntRange(1, 200).Draw(t, "limit")
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				require.GreaterOrEqual(t, b.allowed, 0)
				require.LessOrEqual(t, b.allowed, limit)
				failed, all := b.minute.sums(now)
				require.LessOrEqual(t, failed, all)
			},
			"fail": func(t *rapid.T) {
				was := b.state
				if b.failed(now, now, limit) {
					require.NotEqual(t, breakerFailing, was)
					require.Equal(t, breakerFailing, b.state)
				}
			},
			"succeed": func(t *rapid.T) {
				was := b.state
				b.succeeded(now, now, limit)
				require.Equal(t, was, b.state)
			},
			"answer": func(*rapid.T) {
				if b.state == breakerFailing {
					b.answered(now)
				}
			},
			"follow": func(t *rapid.T) {
				b.follow(breakerState(rapid.IntRange(0, 2).Draw(t, "state")), now)
			},
			"wait": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "time")))
			},
		})
		b.follow(breakerOK, now)
		for range 10 {
			b.succeeded(now, now, limit)
		}
		require.Equal(t, breakerOK, b.state)
		require.Zero(t, b.allowed)
	})
}

func TestProbesComeRarelyAndFindTheReturnInTenSeconds(t *testing.T) {
	t.Parallel()
	for failing, within := range map[time.Duration][2]time.Duration{
		0:                {time.Second, 1100 * time.Millisecond},
		time.Minute:      {time.Second, 1100 * time.Millisecond},
		10 * time.Minute: {8 * time.Second, 9 * time.Second},
		24 * time.Hour:   {time.Minute, time.Minute},
	} {
		for range 100 {
			wait := probeIn(failing)
			require.GreaterOrEqual(t, wait, within[0])
			require.LessOrEqual(t, wait, within[1])
		}
	}
}

func TestAnAttemptSaysWhoIsIll(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		result        webhook.Result
		ownTLS        bool
		trigger, host verdict
	}{
		"delivered":                {webhook.Result{Status: 204, Connected: true}, false, healthy, healthy},
		"500":                      {webhook.Result{Status: 500, Connected: true}, false, ill, healthy},
		"429":                      {webhook.Result{Status: 429, Connected: true}, false, ill, healthy},
		"404":                      {webhook.Result{Status: 404, Connected: true}, false, noVerdict, healthy},
		"403 with Retry-After":     {webhook.Result{Status: 403, HasRetryAfter: true, Connected: true}, false, ill, healthy},
		"response time-out":        {webhook.Result{Kind: webhook.KindTimeout, Connected: true}, false, ill, healthy},
		"connect time-out":         {webhook.Result{Kind: webhook.KindTimeout}, false, noVerdict, ill},
		"refused":                  {webhook.Result{Kind: webhook.KindRefused}, false, noVerdict, ill},
		"no such host":             {webhook.Result{Kind: webhook.KindDNS}, false, noVerdict, ill},
		"reset":                    {webhook.Result{Kind: webhook.KindReset, Connected: true}, false, ill, healthy},
		"reset in the handshake":   {webhook.Result{Kind: webhook.KindReset}, false, noVerdict, ill},
		"no trusted certificate":   {webhook.Result{Kind: webhook.KindTLS}, false, noVerdict, ill},
		"its own certificate":      {webhook.Result{Kind: webhook.KindTLS}, true, ill, healthy},
		"denied by the guard":      {webhook.Result{Kind: webhook.KindDenied}, false, noVerdict, noVerdict},
		"canceled":                 {webhook.Result{Kind: webhook.KindCanceled, Connected: true}, false, noVerdict, noVerdict},
		"headers that are too big": {webhook.Result{Kind: webhook.KindTooLarge, Connected: true}, false, noVerdict, healthy},
		"a body that is too big":   {webhook.Result{Kind: webhook.KindTooLarge, Hopeless: true}, false, noVerdict, noVerdict},
	} {
		trigger, host := judge(&c.result, c.ownTLS)
		require.Equal(t, [2]verdict{c.trigger, c.host}, [2]verdict{trigger, host}, name)
	}
}
