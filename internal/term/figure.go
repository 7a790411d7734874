package term

import (
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
)

// Digits writes a number with its thousands apart: 1,234,567.
func Digits(n int64) string { return humanize.Comma(n) }

// Plural writes a number with its noun: 1 event, 1,000 events.
func Plural(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return Digits(n) + " " + noun + "s"
}

// Bytes writes about how many bytes there are: 12 B, 1.5 KiB, 20 GiB.
func Bytes(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

// Span writes a duration by its largest one or two units: 42ms, 4.2s, 1m02s, 3h04m, 2d02h.
func Span(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%.2fms", float64(d)/float64(time.Millisecond))
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
}

// Ago writes a moment relative to another: 5.0s ago, now, in 42s.
func Ago(t, now time.Time) string {
	d := now.Sub(t)
	switch {
	case d.Abs() < time.Second:
		return "now"
	case d < 0:
		return "in " + Span(-d)
	}
	return Span(d) + " ago"
}
