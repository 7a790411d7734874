package trigger

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Duration is a [time.Duration] with a text form for people: 250ms, 10s, 1h30m, 7d, 2w. Zero is
// written without a unit. JSON and YAML hold the text form.
type Duration time.Duration

var dayPart = regexp.MustCompile(`^(\d+)([wd])`)

// ParseDuration reads the syntax of [time.ParseDuration], with w (7 days) and d (24 hours) in
// front, as in 1w2d12h. It reads everything that [Duration.String] writes. A negative duration, a
// number without a unit, and a duration over 292 years are errors.
func ParseDuration(s string) (Duration, error) {
	rest, total := strings.TrimSpace(s), time.Duration(0)
	if rest == "0" {
		return 0, nil
	}
	fail := func(why string) (Duration, error) {
		return 0, fmt.Errorf("%q is not a duration (%s): write it like 250ms, 10s, 1h30m or 7d", s, why)
	}
	for {
		m := dayPart.FindStringSubmatch(rest)
		if m == nil {
			break
		}
		n, err := strconv.ParseInt(m[1], 10, 64)
		unit := int64(24 * time.Hour)
		if m[2] == "w" {
			unit *= 7
		}
		if err != nil || n > (1<<63-1-int64(total))/unit {
			return fail("too long")
		}
		total += time.Duration(n * unit)
		rest = rest[len(m[0]):]
	}
	if rest == "" {
		if total == 0 && !strings.ContainsAny(s, "wd") {
			return fail("empty")
		}
		return Duration(total), nil
	}
	d, err := time.ParseDuration(rest)
	switch {
	case err != nil && strings.Contains(err.Error(), "missing unit"):
		return fail("no unit")
	case err != nil:
		return fail("not understood")
	case d < 0:
		return fail("negative")
	case total+d < total:
		return fail("too long")
	}
	return Duration(total + d), nil
}

// String returns the shortest form: 7d, 1h30m, 10s.
func (d Duration) String() string {
	if d == 0 {
		return "0"
	}
	s := ""
	if days := d / Duration(24*time.Hour); days > 0 {
		s = strconv.FormatInt(int64(days), 10) + "d"
		d %= Duration(24 * time.Hour)
	}
	if d == 0 {
		return s
	}
	t := time.Duration(d).String()
	if strings.HasSuffix(t, "m0s") {
		t = strings.TrimSuffix(t, "0s")
	}
	if strings.HasSuffix(t, "h0m") {
		t = strings.TrimSuffix(t, "0m")
	}
	return s + t
}

// Std returns the duration as a [time.Duration].
func (d Duration) Std() time.Duration { return time.Duration(d) }

// MarshalJSON writes the form of [Duration.String].
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// MarshalYAML writes the form of [Duration.String].
func (d Duration) MarshalYAML() (any, error) { return d.String(), nil }

// UnmarshalJSON reads a JSON string by [ParseDuration].
func (d *Duration) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("read duration %s: write a string like \"10s\"", b)
	}
	v, err := ParseDuration(s)
	*d = v
	return err
}
