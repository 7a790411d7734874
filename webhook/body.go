package webhook

import (
	"encoding/hex"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/rowhook/rowhook/internal/template"
)

// Event is the content of one request body: a captured row change and the number of the attempt.
type Event struct {
	ID        [16]byte  // a UUID; the same at every attempt
	CreatedAt time.Time // when the row changed; the body has microseconds, in UTC
	Sequence  int64     // rises from event to event of a key; 0: the body has none
	Source    string    // name of the database, where there are several; "": the body has none
	Schema    string    // schema of the table
	Table     string    // name of the table, without its schema
	Trigger   string    // name of the trigger

	Op       byte   // 'I' (insert), 'U' (update), 'D' (delete), 'T' (TRUNCATE) or 'M' (recorded by rowhook.emit)
	Old, New []byte // the row before and after, as JSON text from Postgres; empty is null
	Changed  []byte // names of the changed columns, as JSON text: see Trim; empty: the body has none

	Session, Trace []byte // session_variables and trace_context, as JSON text; empty is null

	CurrentRetry int // 0 at the first attempt
	MaxRetries   int // trigger.Retry.Limit

	// Test says that the event was made up, to try the webhook. The body says "test": true, and the
	// request has HeaderTest.
	Test bool
}

// createdAtLayout formats a time in UTC, so the Z is literal. It has six digits, as a timestamp of
// Postgres.
const createdAtLayout = "2006-01-02T15:04:05.000000Z"

// AppendBody appends the request body of e to dst and returns the extended slice. The body is the
// JSON that receivers of Hasura expect, without spaces. The JSON of the rows is copied unchanged,
// so numbers keep every digit. AppendBody allocates only to grow dst.
func AppendBody(dst []byte, e *Event) []byte {
	dst = append(dst, `{"id":"`...)
	dst = appendUUID(dst, e.ID)
	dst = append(dst, `","created_at":"`...)
	dst = e.CreatedAt.UTC().AppendFormat(dst, createdAtLayout)
	dst = append(dst, '"')
	if e.Sequence != 0 {
		dst = append(dst, `,"sequence":`...)
		dst = strconv.AppendInt(dst, e.Sequence, 10)
	}
	if e.Source != "" {
		dst = append(dst, `,"source":`...)
		dst = template.AppendString(dst, e.Source)
	}
	dst = append(dst, `,"table":{"schema":`...)
	dst = template.AppendString(dst, e.Schema)
	dst = append(dst, `,"name":`...)
	dst = template.AppendString(dst, e.Table)
	dst = append(dst, `},"trigger":{"name":`...)
	dst = template.AppendString(dst, e.Trigger)
	dst = append(dst, `},"event":`...)
	dst = appendEvent(dst, e)
	dst = append(dst, `,"delivery_info":{"current_retry":`...)
	dst = strconv.AppendInt(dst, int64(e.CurrentRetry), 10)
	dst = append(dst, `,"max_retries":`...)
	dst = strconv.AppendInt(dst, int64(e.MaxRetries), 10)
	if e.Test {
		return append(dst, `},"test":true}`...)
	}
	return append(dst, "}}"...)
}

// appendEvent appends the object event of the body.
func appendEvent(dst []byte, e *Event) []byte {
	dst = append(dst, `{"op":"`...)
	dst = append(dst, e.OpName()...)
	dst = append(dst, '"')
	dst = e.appendChanged(dst)
	dst = append(dst, `,"data":`...)
	dst = appendData(dst, e)
	dst = append(dst, `,"session_variables":`...)
	dst = appendRaw(dst, e.Session)
	dst = append(dst, `,"trace_context":`...)
	dst = appendRaw(dst, e.Trace)
	return append(dst, '}')
}

// appendData appends the object event.data of the body.
func appendData(dst []byte, e *Event) []byte {
	dst = append(dst, `{"old":`...)
	dst = appendRaw(dst, e.Old)
	dst = append(dst, `,"new":`...)
	dst = appendRaw(dst, e.New)
	return append(dst, '}')
}

// size estimates the length of the body, rounded up. It is too small only if names need much
// escaping.
func (e *Event) size() int {
	return 384 + len(e.Source) + len(e.Schema) + len(e.Table) + len(e.Trigger) + len(e.Old) + len(e.New) + len(e.Session) + len(e.Trace) + len(e.Changed)
}

// BodySize returns the length of the body that AppendBody writes.
func (e *Event) BodySize() int {
	const fixed = len(`{"id":"","created_at":"","table":{"schema":,"name":},"trigger":{"name":},"event":{"op":"","data":{"old":,"new":},`) +
		len(`"session_variables":,"trace_context":},"delivery_info":{"current_retry":,"max_retries":}}`) + 36 + len(createdAtLayout)
	n := fixed + stringSize(e.Schema) + stringSize(e.Table) + stringSize(e.Trigger) + len(e.OpName()) +
		rawSize(e.Old) + rawSize(e.New) + rawSize(e.Session) + rawSize(e.Trace) + digits(e.CurrentRetry) + digits(e.MaxRetries)
	if e.Sequence != 0 {
		var room [20]byte
		n += len(`,"sequence":`) + len(strconv.AppendInt(room[:0], e.Sequence, 10))
	}
	if e.Source != "" {
		n += len(`,"source":`) + stringSize(e.Source)
	}
	if e.Test {
		n += len(`,"test":true`)
	}
	return n + e.changedSize()
}

func rawSize(raw []byte) int {
	if len(raw) == 0 {
		return len("null")
	}
	return len(raw)
}

func digits(n int) int {
	var room [20]byte
	return len(strconv.AppendInt(room[:0], int64(n), 10))
}

// stringSize returns the length of what template.AppendString appends.
func stringSize(s string) int {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			return len(template.AppendString(nil, s))
		}
	}
	return len(s) + 2
}

// OpName returns the operation as in the request body: INSERT, UPDATE, DELETE, TRUNCATE or MANUAL.
func (e *Event) OpName() string {
	switch e.Op {
	case 'I':
		return "INSERT"
	case 'U':
		return "UPDATE"
	case 'D':
		return "DELETE"
	case 'T':
		return "TRUNCATE"
	default:
		return "MANUAL"
	}
}

// appendUUID appends the lower-case 8-4-4-4-12 form.
func appendUUID(dst []byte, id [16]byte) []byte {
	dst = hex.AppendEncode(dst, id[0:4])
	dst = append(dst, '-')
	dst = hex.AppendEncode(dst, id[4:6])
	dst = append(dst, '-')
	dst = hex.AppendEncode(dst, id[6:8])
	dst = append(dst, '-')
	dst = hex.AppendEncode(dst, id[8:10])
	dst = append(dst, '-')
	return hex.AppendEncode(dst, id[10:16])
}

func appendRaw(dst, raw []byte) []byte {
	if len(raw) == 0 {
		return append(dst, "null"...)
	}
	return append(dst, raw...)
}
