package webhook

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// TraceContext is the trace in which a row was written. ParseTraceContext reads it from what the
// writer has set. The zero value is none.
type TraceContext struct {
	// Parent is a traceparent as W3C Trace Context defines it, in version 00 and lower case. "" is
	// no trace.
	Parent string
	// State is the tracestate that belongs to it, at most 512 bytes long, or "".
	State string
	// B3 says that the writer's context has the form of Hasura, whose requests have B3 headers.
	B3 bool
	// Undecided says that a context of Hasura leaves it to others whether the trace is sampled.
	// Parent then says that it is.
	Undecided bool
}

// The headers of a trace. B3's are those of https://github.com/openzipkin/b3-propagation.
const (
	headerParent  = "Traceparent"
	headerState   = "Tracestate"
	headerTraceID = "X-B3-Traceid"
	headerSpanID  = "X-B3-Spanid"
	headerSampled = "X-B3-Sampled"
)

// Limits of a trace context.
const (
	maxTraceContext = 8 << 10 // bytes of JSON; a longer one is not read
	maxState        = 512     // every participant passes on that many bytes of a tracestate
	maxStateMembers = 32

	traceDigits, spanDigits = 32, 16
	parentLength            = len("00-") + traceDigits + 1 + spanDigits + len("-01")
)

// ParseTraceContext reads the trace_context of an event. It accepts a traceparent as a string, an
// object with traceparent and perhaps tracestate, and Hasura's object with trace_id and span_id.
// Anything else is no trace, also one whose ids have a wrong length, are zero, or are not
// hexadecimal. A tracestate that is malformed or too long is left out.
func ParseTraceContext(raw []byte) TraceContext {
	if len(raw) == 0 || len(raw) > maxTraceContext {
		return TraceContext{}
	}
	if raw = bytes.TrimSpace(raw); bytes.HasPrefix(raw, []byte{'"'}) {
		text := ""
		if len(raw) == parentLength+2 { // parseParent rejects an escape
			text = string(raw[1 : len(raw)-1])
		} else if json.Unmarshal(raw, &text) != nil {
			return TraceContext{}
		}
		return TraceContext{Parent: parseParent(text)}
	}
	var object struct {
		Parent   string `json:"traceparent"`
		State    string `json:"tracestate"`
		TraceID  string `json:"trace_id"`
		SpanID   string `json:"span_id"`
		Sampling string `json:"sampling_state"` // Hasura: "0" or "1"
	}
	if json.Unmarshal(raw, &object) != nil {
		return TraceContext{}
	}
	c := TraceContext{Parent: parseParent(object.Parent)}
	if object.Parent == "" {
		flags := "-01"
		if object.Sampling == "0" {
			flags = "-00"
		}
		c.Parent = parseParent("00-" + padded(object.TraceID, traceDigits) + "-" + padded(object.SpanID, spanDigits) + flags)
		c.B3 = c.Parent != ""
		c.Undecided = c.B3 && object.Sampling != "0" && object.Sampling != "1"
	}
	if c.Parent != "" {
		c.State = parseState(object.State)
	}
	return c
}

// padded puts zeros before an id, because Hasura omits the leading zeros of 64-bit trace ids.
func padded(id string, digits int) string {
	return strings.Repeat("0", max(digits-len(id), 0)) + id
}

// parseParent returns a traceparent in version 00, or "" if it is malformed. Upper case is accepted,
// although W3C Trace Context requires lower case, because a person may have typed it. What a later
// version has behind the flags is left out.
func parseParent(s string) string {
	s = strings.TrimSpace(s)
	if len(s) < parentLength || len(s) > maxState {
		return ""
	}
	s, rest := strings.ToLower(s[:parentLength]), s[parentLength:]
	version, ids, flags := s[:2], s[3:parentLength-3], s[parentLength-2:]
	trace, span := ids[:traceDigits], ids[traceDigits+1:]
	switch {
	case len(s) != parentLength || s[2] != '-' || ids[traceDigits] != '-' || s[parentLength-3] != '-':
		return ""
	case !isHex(version) || version == "ff" || !isHex(flags) || !isID(trace) || !isID(span):
		return ""
	case version == "00" && rest != "" || rest != "" && rest[0] != '-':
		return ""
	case version != "00": // of its flags only this one is known
		flags = "0" + sampledDigit(flags)
	}
	return "00-" + ids + "-" + flags
}

func isHex(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }

// isID reports whether s is hexadecimal and not zero.
func isID(s string) bool { return isHex(s) && strings.Trim(s, "0") != "" }

// parseState returns a tracestate without blanks around its members, or "" if it is malformed or too
// long.
func parseState(s string) string {
	if len(s) > maxState {
		return ""
	}
	var members, keys []string
	for member := range strings.SplitSeq(s, ",") {
		if member = strings.Trim(member, " \t"); member == "" {
			continue
		}
		key, value, _ := strings.Cut(member, "=")
		if !isStateKey(key) || !isStateValue(value) || slices.Contains(keys, key) || len(keys) == maxStateMembers {
			return ""
		}
		members, keys = append(members, member), append(keys, key)
	}
	return strings.Join(members, ",")
}

func isStateKey(s string) bool {
	tenant, system, split := strings.Cut(s, "@")
	isName := func(s string, longest int) bool {
		return s != "" && len(s) <= longest && !strings.ContainsAny(s[:1], "_-*/") && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_-*/") == ""
	}
	if split {
		return isName(tenant, 241) && isName(system, 14)
	}
	return isName(s, 256)
}

func isStateValue(s string) bool {
	return s != "" && len(s) <= 256 && s[len(s)-1] != ' ' &&
		!strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' || r == ',' || r == '=' })
}

// withTrace returns h, or a copy of h with the headers of the trace in which the row of e was
// written. configured names the headers of the configuration: they have precedence. h may have the
// headers of a span of this attempt. Then these stay, and B3's are made of them.
func withTrace(h http.Header, configured map[string]bool, e *Event) http.Header {
	c := ParseTraceContext(e.Trace)
	if c.Parent == "" {
		return h
	}
	h = maps.Clone(h)
	own := has(configured, headerParent, headerState)
	switch spans := h[headerParent]; {
	case own: // the receiver's trace is not the writer's
		if !configured[headerState] {
			delete(h, headerState)
		}
	case len(spans) == 1:
		c.Parent, c.Undecided = spans[0], false
	default:
		h[headerParent] = []string{c.Parent}
		if c.State != "" {
			h[headerState] = []string{c.State}
		}
	}
	if c.B3 && len(c.Parent) == parentLength && !has(configured, "B3", headerTraceID, headerSpanID, headerSampled, "X-B3-Parentspanid", "X-B3-Flags") {
		setB3(h, &c)
	}
	return h
}

func has(configured map[string]bool, names ...string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return configured[name] })
}

func setB3(h http.Header, c *TraceContext) {
	ids := c.Parent[len("00-"):]
	trace, span := ids[:traceDigits], ids[traceDigits+1:][:spanDigits]
	h[headerTraceID] = []string{strings.TrimPrefix(trace, "0000000000000000")} // one of 64 bits has 16 digits
	h[headerSpanID] = []string{span}
	if !c.Undecided {
		h[headerSampled] = []string{sampledDigit(c.Parent)}
	}
}

// sampledDigit returns "1" if hexadecimal flags at the end of s say that the trace is sampled, and
// otherwise "0".
func sampledDigit(s string) string {
	if strings.Contains("13579bdf", s[len(s)-1:]) {
		return "1"
	}
	return "0"
}
