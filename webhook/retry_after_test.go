package webhook

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 500_000_000, time.UTC)

func TestRetryAfterIsReadAsSecondsOrAsADate(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]time.Duration{
		"0":                              0,
		"2":                              2 * time.Second,
		" 120\t":                         2 * time.Minute,
		"007":                            7 * time.Second,
		"1.5":                            1500 * time.Millisecond,
		"3.":                             3 * time.Second,
		"99999999999":                    MaxRetryAfter,
		strings.Repeat("9", 400):         MaxRetryAfter,
		"Mon, 23 Nov 2026 12:00:10 GMT":  9500 * time.Millisecond,
		"Monday, 23-Nov-26 12:00:10 GMT": 9500 * time.Millisecond,
		"Mon Nov 23 12:00:10 2026":       9500 * time.Millisecond,
		"Mon, 23 Nov 2026 11:00:00 GMT":  0,
		"Fri, 31 Dec 9999 23:59:59 GMT":  MaxRetryAfter,
	} {
		got, ok := ParseRetryAfter(value, noon)
		require.True(t, ok, value)
		require.Equal(t, want, got, value)
	}
}

func TestRetryAfterThatIsNeitherIsIgnored(t *testing.T) {
	t.Parallel()
	for _, value := range []string{"", " ", "-1", "+1", ".", ".5", "1.2.3", "1e3", "inf", "NaN", "0x10", "1_000", "soon", "2 s", "1,5",
		"Mon, 32 Nov 2026 12:00:10 GMT", "2026-11-23T12:00:10Z"} {
		_, ok := ParseRetryAfter(value, noon)
		require.False(t, ok, value)
	}
}

func FuzzParseRetryAfter(f *testing.F) {
	for _, seed := range []string{"", "0", "-5", "1.5", "120", "99999999999999999999", "Mon, 23 Nov 2026 12:00:10 GMT",
		"Monday, 23-Nov-26 12:00:10 GMT", "Mon Nov 23 12:00:10 2026", "\x00", "1.", "..", "Fri, 31 Dec 9999 23:59:59 GMT"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		d, ok := ParseRetryAfter(value, noon)
		if d < 0 || d > MaxRetryAfter || !ok && d != 0 {
			t.Fatalf("ParseRetryAfter(%q) = %v, %v", value, d, ok)
		}
	})
}
