package trigger

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes that is written the way people write it: 512MiB, 20GiB. 0 needs no unit.
type Size int64

// sizeUnits are the units of a Size, the largest first.
func sizeUnits() []struct {
	name  string
	bytes int64
} {
	return []struct {
		name  string
		bytes int64
	}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}
}

// ParseSize reads what Size.String writes: a whole number with one of the units KiB, MiB, GiB and TiB, or 0.
func ParseSize(s string) (Size, error) {
	text := strings.TrimSpace(s)
	if text == "0" {
		return 0, nil
	}
	for _, u := range sizeUnits() {
		number, ok := strings.CutSuffix(text, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
		if err != nil || n < 0 || n > math.MaxInt64/u.bytes {
			break
		}
		return Size(n * u.bytes), nil
	}
	return 0, fmt.Errorf("%q is not a size: write a whole number with a unit, as in 512MiB or 20GiB", s)
}

// String writes the largest unit that divides it.
func (s Size) String() string {
	for _, u := range sizeUnits() {
		if s != 0 && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.name
		}
	}
	if s == 0 {
		return "0"
	}
	return strconv.FormatInt(int64(s)/1024, 10) + "KiB"
}

// MarshalJSON writes the string form.
func (s Size) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// MarshalYAML writes the string form.
func (s Size) MarshalYAML() (any, error) { return s.String(), nil }

// UnmarshalJSON reads the string form.
func (s *Size) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return fmt.Errorf("read size %s: want a string like \"20GiB\"", b)
	}
	v, err := ParseSize(text)
	*s = v
	return err
}
