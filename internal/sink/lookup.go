package sink

import (
	"encoding/json"
)

// Lookup returns the value at a path of an event's body; nil if there is none. Paths are as for
// Where.
func Lookup(body json.RawMessage, at string) (json.RawMessage, error) {
	p, err := parsePath(at)
	if err != nil {
		return nil, err
	}
	value, lack := p.find(body)
	if lack != nil {
		return nil, nil
	}
	return value, nil
}
