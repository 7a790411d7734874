package trigger

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes with a text form for people: 512MiB, 20GiB. Zero is written without a
// unit. JSON and YAML hold the text form.
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

// ParseSize reads what [Size.String] writes: a whole number with one of the units KiB, MiB, GiB and
// TiB, or 0. A negative number and more than 2⁶³-1 bytes are errors.
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

// String returns the size in the largest unit that divides it. A size that is no multiple of 1 KiB
// is rounded down to one.
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

// MarshalJSON writes the form of [Size.String].
func (s Size) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// MarshalYAML writes the form of [Size.String].
func (s Size) MarshalYAML() (any, error) { return s.String(), nil }

// UnmarshalJSON reads a JSON string by [ParseSize].
func (s *Size) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return fmt.Errorf("read size %s: write a string like \"20GiB\"", b)
	}
	v, err := ParseSize(text)
	*s = v
	return err
}
