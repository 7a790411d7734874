package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"strings"

	"github.com/google/uuid"
)

// verdict reads which events of a batch a response with a 2xx status lists as failed.
//
// Only a JSON object can hold such a list. So a body that begins otherwise delivers the batch: a
// text, HTML, a number, or an array. A body is an object if its first character is {, whatever its
// Content-Type says: the type that frameworks give a text by themselves is often wrong. From then on
// nothing is guessed: an object that can't be read to its end may have listed events.
func (s *scratch) verdict(events []*Event) (failed []int, err error) {
	body := bytes.TrimLeft(bytes.TrimPrefix(s.response, []byte("\xef\xbb\xbf")), " \t\r\n")
	complete := errors.Is(s.read, io.EOF)
	switch {
	case len(body) == 0 && complete:
		return nil, nil
	case len(body) == 0 && !isJSON(s.contentType) && s.contentType != "":
		return nil, nil
	case len(body) > 0 && body[0] != '{' && (complete || !isJSON(s.contentType)):
		return nil, nil
	case !complete && s.read == nil:
		return nil, fmt.Errorf("its JSON is longer than the %d bytes that are read", MaxVerdict)
	case !complete:
		return nil, errors.New("its JSON is cut off, since the connection broke or the time ran out")
	}
	list, err := failedOf(body)
	if err != nil || list == nil {
		return nil, err
	}
	return placesOf(list, events)
}

// isJSON reports whether a Content-Type is one of JSON.
func isJSON(contentType string) bool {
	media, _, err := mime.ParseMediaType(contentType)
	return err == nil && (media == "application/json" || media == "text/json" || strings.HasSuffix(media, "+json"))
}

// failedOf returns the value of failed in a JSON object; nil: there is none.
func failedOf(object []byte) (value json.RawMessage, err error) {
	read := json.NewDecoder(bytes.NewReader(object))
	if _, err := read.Token(); err != nil { // {
		return nil, notJSON(err)
	}
	for read.More() {
		key, err := read.Token()
		if err != nil {
			return nil, notJSON(err)
		}
		var v json.RawMessage
		if err := read.Decode(&v); err != nil {
			return nil, notJSON(err)
		}
		if key != "failed" {
			continue
		}
		if value != nil {
			return nil, errors.New(`its JSON has the key "failed" twice`)
		}
		value = v
	}
	if _, err := read.Token(); err != nil { // }
		return nil, notJSON(err)
	}
	if _, err := read.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("its JSON object is followed by something else")
	}
	return value, nil
}

func notJSON(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("its JSON is cut off")
	}
	return fmt.Errorf("its body begins as a JSON object and is none: %w", err)
}

// placesOf returns the places of the events that a list of ids names. null is the empty list, as
// some languages write it.
func placesOf(list json.RawMessage, events []*Event) (places []int, err error) {
	var ids []any
	if err := json.Unmarshal(list, &ids); err != nil {
		return nil, errors.New(`its "failed" is not a list of ids`)
	}
	if len(ids) == 0 {
		return nil, nil
	}
	known := make(map[uuid.UUID]int, len(events))
	for i, e := range events {
		known[e.ID] = i
	}
	named := make([]bool, len(events))
	for _, one := range ids {
		text, ok := one.(string)
		if !ok {
			return nil, errors.New(`its "failed" has an element that is not a string`)
		}
		id, err := uuid.Parse(text)
		place, ok := known[id]
		if err != nil || len(text) != 36 || !ok {
			return nil, fmt.Errorf(`its "failed" has %.50q, which is not the id of an event in this batch`, text)
		}
		if !named[place] {
			named[place] = true
			places = append(places, place)
		}
	}
	return places, nil
}
