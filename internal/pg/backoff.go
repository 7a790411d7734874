package pg

import (
	"time"

	"github.com/sethvargo/go-retry"
)

// longestWait bounds the wait between two attempts of a Backoff.
const longestWait = 5 * time.Second

// Backoff says how long to wait before Postgres is asked again: first, doubling up to 5 s, give or
// take a fifth, without end.
func Backoff(first time.Duration) retry.Backoff {
	return retry.WithJitterPercent(20, retry.WithCappedDuration(longestWait, retry.NewExponential(first)))
}
