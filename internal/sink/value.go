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

// equals reports whether raw, which is valid JSON, is this value.
func (v *value) equals(raw json.RawMessage) bool {
	return v.loose && isText(raw, v.plain) || v.ok && equalJSON(raw, v.json)
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

// equalJSON compares JSON with a decoded value. It keeps nothing that the value does not have: raw can
// be large. Numbers are equal if their values are, however they are written: 7 and 7.0 are. Their
// digits never pass through a float.
func equalJSON(raw json.RawMessage, want any) bool {
	switch want := want.(type) {
	case nil:
		return string(raw) == "null"
	case bool:
		return string(raw) == strconv.FormatBool(want)
	case string:
		return isText(raw, want)
	case json.Number:
		isNumber := len(raw) > 0 && (raw[0] == '-' || raw[0] >= '0' && raw[0] <= '9')
		return isNumber && (string(raw) == string(want) || equalNumbers(string(raw), string(want)))
	case []any:
		return equalArray(raw, want)
	case map[string]any:
		return equalObject(raw, want)
	}
	return false
}

func equalArray(raw json.RawMessage, want []any) bool {
	inside, bracket := within(raw)
	if bracket != '[' {
		return false
	}
	for _, w := range want {
		if element, ok := inside.element(); !ok || !equalJSON(element, w) {
			return false
		}
	}
	_, more := inside.element()
	return !more
}

func equalObject(raw json.RawMessage, want map[string]any) bool {
	inside, bracket := within(raw)
	if bracket != '{' {
		return false
	}
	got := map[string]json.RawMessage{} // of a key that is there twice, the last value counts
	for {
		name, v, ok := inside.next()
		if !ok {
			break
		}
		key, ok := unquote(name)
		if _, wanted := want[key]; !ok || !wanted {
			return false
		}
		got[key] = v
	}
	for key, w := range want {
		if v, ok := got[key]; !ok || !equalJSON(v, w) {
			return false
		}
	}
	return true
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
