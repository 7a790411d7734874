package trigger

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// PerTime is a number in a time, such as 50/s, 600/m or 1000/h. The zero value is no rate. JSON and
// YAML hold the text form.
type PerTime struct {
	N    int           // above 0
	Time time.Duration // a second, a minute or an hour
}

var perUnits = []struct {
	unit string
	time time.Duration
}{{"s", time.Second}, {"m", time.Minute}, {"h", time.Hour}}

// ParsePerTime reads a whole number above 0, a slash, and s, m or h.
func ParsePerTime(s string) (PerTime, error) {
	number, unit, _ := strings.Cut(strings.TrimSpace(s), "/")
	n, err := strconv.Atoi(number)
	for _, u := range perUnits {
		if err == nil && n > 0 && n <= 1_000_000 && u.unit == unit {
			return PerTime{n, u.time}, nil
		}
	}
	return PerTime{}, fmt.Errorf("%q is not a rate: write a whole number from 1 to 1000000, a slash, and s, m or h, as in 50/s", s)
}

// String returns the text form, or "" for the zero value.
func (p PerTime) String() string {
	for _, u := range perUnits {
		if p.N > 0 && u.time == p.Time {
			return strconv.Itoa(p.N) + "/" + u.unit
		}
	}
	return ""
}

// Interval returns the time between two of them.
func (p PerTime) Interval() time.Duration {
	if p.N <= 0 {
		return 0
	}
	return p.Time / time.Duration(p.N)
}

// MarshalJSON writes the form of [PerTime.String].
func (p PerTime) MarshalJSON() ([]byte, error) { return json.Marshal(p.String()) }

// MarshalYAML writes the form of [PerTime.String].
func (p PerTime) MarshalYAML() (any, error) { return p.String(), nil }

// UnmarshalJSON reads a JSON string by [ParsePerTime].
func (p *PerTime) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("read rate %s: write a string like \"50/s\"", b)
	}
	v, err := ParsePerTime(s)
	*p = v
	return err
}
