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

// sizeUnit is a unit in which people write a number of bytes.
type sizeUnit struct {
	name  string
	bytes int64
}

// sizeUnits are the units of a Size, the largest first.
func sizeUnits() []sizeUnit {
	return []sizeUnit{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}
}

// byteUnits are sizeUnits and the byte itself.
func byteUnits() []sizeUnit { return append(sizeUnits(), sizeUnit{"B", 1}) }

// ParseSize reads what [Size.String] writes: a whole number with one of the units KiB, MiB, GiB and
// TiB, or 0. A negative number and more than 2⁶³-1 bytes are errors.
func ParseSize(s string) (Size, error) {
	if strings.TrimSpace(s) == "0" {
		return 0, nil
	}
	n, ok := parseBytes(s, sizeUnits())
	if !ok {
		return 0, fmt.Errorf("%q is not a size: write a whole number with a unit, as in 512MiB or 20GiB", s)
	}
	return Size(n), nil
}

// ParseBytes reads a whole number of bytes with one of the units B, KiB, MiB, GiB and TiB. A number
// that is not positive and more than 2⁶³-1 bytes are errors.
func ParseBytes(s string) (int64, error) {
	n, ok := parseBytes(s, byteUnits())
	if !ok || n == 0 {
		return 0, fmt.Errorf("%q is not a number of bytes: write a whole number with a unit, as in 64MiB or 512KiB", s)
	}
	return n, nil
}

func parseBytes(s string, units []sizeUnit) (n int64, ok bool) {
	text := strings.TrimSpace(s)
	for _, u := range units {
		number, ok := strings.CutSuffix(text, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
		if err != nil || n < 0 || n > math.MaxInt64/u.bytes {
			return 0, false
		}
		return n * u.bytes, true
	}
	return 0, false
}

// String returns the size in the largest unit that divides it. A size that is no multiple of 1 KiB
// is rounded down to one.
func (s Size) String() string {
	switch {
	case s == 0:
		return "0"
	case s%1024 != 0:
		return strconv.FormatInt(int64(s)/1024, 10) + "KiB"
	}
	return FormatBytes(int64(s))
}

// FormatBytes writes what [ParseBytes] reads, in the largest unit that divides it.
func FormatBytes(n int64) string {
	for _, u := range byteUnits() {
		if n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.name
		}
	}
	return "" // not reached: a byte divides every number
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
