package webhook

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// MaxRetryAfter is the longest wait that ParseRetryAfter returns: ten years, far over any sensible limit, and small
// enough to be added to any time.
const MaxRetryAfter = 10 * 365 * 24 * time.Hour

// ParseRetryAfter reads a Retry-After header: seconds, whole (RFC 9110) or with a decimal fraction (seen in the wild),
// or an HTTP date in any of its three formats, counted from now. A date in the past is no wait. It returns false for
// what is neither, negative numbers among them. The result is between 0 and MaxRetryAfter.
func ParseRetryAfter(value string, now time.Time) (time.Duration, bool) {
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

// retryAfter is the wait that a response asks for, if that is any at all. A date counts from the response's own, as the receiver's clock
// need not be ours.
func retryAfter(header http.Header, now time.Time) (time.Duration, bool) {
	if date, err := http.ParseTime(header.Get("Date")); err == nil {
		now = date
	}
	d, ok := ParseRetryAfter(header.Get("Retry-After"), now)
	return d, ok && d > 0
}

// parseSeconds reads digits with at most one point between or after them. Signs, exponents and words such as inf are refused.
func parseSeconds(s string) (time.Duration, bool) {
	if s[0] == '.' || strings.Count(s, ".") > 1 || strings.Trim(s, "0123456789.") != "" {
		return 0, false
	}
	// The digits alone can't make ParseFloat fail, only overflow to +Inf, which the comparison bounds.
	seconds, _ := strconv.ParseFloat(s, 64)
	if seconds >= MaxRetryAfter.Seconds() {
		return MaxRetryAfter, true
	}
	return time.Duration(seconds * float64(time.Second)), true
}
