package sink

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
)

// value is what a condition wants.
type value struct {
	text string // as messages show it
	json any    // decoded with json.Number
	// loose is set for text of a query, which has no type: a string equals it too, if it has
	// exactly the characters plain. ok reports whether the text is JSON as well.
	loose, ok bool
	plain     string
}

// typedValue returns a value that JSON must equal.
func typedValue(v any) (value, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return value{}, err
	}
	decoded, err := decodeJSON(out.Bytes())
	return value{text: strings.TrimSpace(out.String()), json: decoded, ok: true}, err
}

// looseValue returns a value of a query.
func looseValue(text string) value {
	v := value{text: text, loose: true, plain: text}
	decoded, err := decodeJSON([]byte(text))
	if v.json, v.ok = decoded, err == nil; !v.ok {
		v.text = quoteJSON(text)
	}
	return v
}

// equals reports whether raw, which is JSON, is this value.
func (v value) equals(raw json.RawMessage) bool {
	got, err := decodeJSON(raw)
	if err != nil {
		return false
	}
	if s, isString := got.(string); isString && v.loose && s == v.plain {
		return true
	}
	return v.ok && equalJSON(got, v.json)
}

func decodeJSON(text []byte) (v any, err error) {
	if !json.Valid(text) {
		// Decode would stop behind the first value.
		return nil, json.Unmarshal(text, &v)
	}
	in := json.NewDecoder(bytes.NewReader(text))
	in.UseNumber()
	err = in.Decode(&v)
	return v, err
}

// equalJSON compares decoded JSON. Numbers are equal if their values are, however they are written:
// 7 and 7.0 are. Their digits never pass through a float.
func equalJSON(a, b any) bool {
	switch a := a.(type) {
	case json.Number:
		b, ok := b.(json.Number)
		return ok && equalNumbers(string(a), string(b))
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for i := range a {
			if !equalJSON(a[i], b[i]) {
				return false
			}
		}
		return true
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for key, x := range a {
			if y, ok := b[key]; !ok || !equalJSON(x, y) {
				return false
			}
		}
		return true
	}
	return a == b // text, true, false, null
}

func equalNumbers(a, b string) bool {
	if a == b {
		return true
	}
	x, okX := parseDecimal(a)
	y, okY := parseDecimal(b)
	return okX && okY && x == y
}

// decimal is the number 0.digits * 10^exponent. Digits neither begin nor end with 0, and are empty
// for zero, so that equal numbers are equal structs.
type decimal struct {
	negative bool
	digits   string
	exponent int64
}

// parseDecimal reads a number of JSON. It returns false for an exponent beyond 64 bits.
func parseDecimal(text string) (decimal, bool) {
	rest, negative := strings.CutPrefix(text, "-")
	d := decimal{negative: negative}
	if mantissa, exponent, ok := strings.Cut(strings.ToLower(rest), "e"); ok {
		var err error
		if d.exponent, err = strconv.ParseInt(exponent, 10, 62); err != nil {
			return decimal{}, false
		}
		rest = mantissa
	}
	whole, fraction, _ := strings.Cut(rest, ".")
	d.exponent += int64(len(whole))
	all := whole + fraction
	d.digits = strings.TrimLeft(all, "0")
	d.exponent -= int64(len(all) - len(d.digits))
	d.digits = strings.TrimRight(d.digits, "0")
	if d.digits == "" {
		return decimal{}, true
	}
	return d, true
}

func quoteJSON(s string) string {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(s) // a string always encodes
	return strings.TrimSpace(out.String())
}
