package webhook

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// MaxRetryAfter is the longest wait that ParseRetryAfter returns. Ten years are far above any
// sensible limit, and small enough to be added to any time.
const MaxRetryAfter = 10 * 365 * 24 * time.Hour

// ParseRetryAfter reads the value of a Retry-After header. It accepts whole seconds (RFC 9110),
// seconds with a decimal fraction, which some receivers send, and an HTTP date in any of its three
// formats, relative to now. A date in the past is a wait of 0. ok is false for any other value,
// such as a negative number. The wait is between 0 and MaxRetryAfter.
func ParseRetryAfter(value string, now time.Time) (wait time.Duration, ok bool) {
	value = strings.TrimSpace(value)
	if value == "" {
		return 0, false
	}
	if d, ok := parseSeconds(value); ok {
		return d, true
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0, false
	}
	return min(max(at.Sub(now), 0), MaxRetryAfter), true
}

// retryAfter returns the wait that a response asks for. ok is false if it asks for none. A date is
// relative to the Date header of the response, since the clock of the receiver may differ from
// ours.
func retryAfter(header http.Header, now time.Time) (wait time.Duration, ok bool) {
	if date, err := http.ParseTime(header.Get("Date")); err == nil {
		now = date
	}
	d, ok := ParseRetryAfter(header.Get("Retry-After"), now)
	return d, ok && d > 0
}

// parseSeconds reads digits with at most one point between or after them. It rejects signs,
// exponents and words such as inf.
func parseSeconds(s string) (time.Duration, bool) {
	if s[0] == '.' || strings.Count(s, ".") > 1 || strings.Trim(s, "0123456789.") != "" {
		return 0, false
	}
	// ParseFloat can't fail for digits. It may overflow to +Inf, which the comparison bounds.
	seconds, _ := strconv.ParseFloat(s, 64)
	if seconds >= MaxRetryAfter.Seconds() {
		return MaxRetryAfter, true
	}
	return time.Duration(seconds * float64(time.Second)), true
}
