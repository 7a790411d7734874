package webapi

import (
	"encoding/json"
	"errors"
	"io"
	"strings"
)

// Decode parses one JSON value into v, and rejects fields that v lacks. An empty text counts as {}.
func Decode(in io.Reader, v any) error {
	d := json.NewDecoder(in)
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err == nil {
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			return nil
		}
		err = errors.New("there is more text after the JSON value")
	}
	return err
}

// UnknownField returns the name of the field that an error of Decode is about; "" if it is another
// error.
func UnknownField(err error) string {
	name, ok := strings.CutPrefix(err.Error(), "json: unknown field ")
	if !ok {
		return ""
	}
	return strings.Trim(name, `"`)
}
