package webhook

import (
	"encoding/hex"
	"strconv"
	"time"
	"unicode/utf8"
)

// Event is one attempt's view of a captured row change: what the request body says.
type Event struct {
	ID                     [16]byte // a UUID, the same at every attempt
	CreatedAt              time.Time
	Schema, Table, Trigger string
	Op                     byte   // 'I', 'U', 'D' or 'M'
	Old, New               []byte // raw JSON text as Postgres made it; empty is null
	Session, Trace         []byte // raw JSON text; empty is null
	CurrentRetry           int    // 0 at the first attempt
	MaxRetries             int
}

// createdAtLayout is applied to UTC, so the Z is literal. Always six digits, as a Postgres timestamp has.
const createdAtLayout = "2006-01-02T15:04:05.000000Z"

// AppendBody appends e's request body to dst: the JSON that Hasura's receivers expect, without spaces. The raw JSON of
// the row images is copied as it is, so numbers keep every digit. It allocates nothing but what dst has to grow by.
func AppendBody(dst []byte, e *Event) []byte {
	dst = append(dst, `{"id":"`...)
	dst = appendUUID(dst, e.ID)
	dst = append(dst, `","created_at":"`...)
	dst = e.CreatedAt.UTC().AppendFormat(dst, createdAtLayout)
	dst = append(dst, `","table":{"schema":`...)
	dst = appendString(dst, e.Schema)
	dst = append(dst, `,"name":`...)
	dst = appendString(dst, e.Table)
	dst = append(dst, `},"trigger":{"name":`...)
	dst = appendString(dst, e.Trigger)
	dst = append(dst, `},"event":{"op":"`...)
	dst = append(dst, e.OpName()...)
	dst = append(dst, `","data":{"old":`...)
	dst = appendRaw(dst, e.Old)
	dst = append(dst, `,"new":`...)
	dst = appendRaw(dst, e.New)
	dst = append(dst, `},"session_variables":`...)
	dst = appendRaw(dst, e.Session)
	dst = append(dst, `,"trace_context":`...)
	dst = appendRaw(dst, e.Trace)
	dst = append(dst, `},"delivery_info":{"current_retry":`...)
	dst = strconv.AppendInt(dst, int64(e.CurrentRetry), 10)
	dst = append(dst, `,"max_retries":`...)
	dst = strconv.AppendInt(dst, int64(e.MaxRetries), 10)
	return append(dst, "}}"...)
}

// size is what AppendBody will append, rounded up, unless names need much escaping.
func (e *Event) size() int {
	return 384 + len(e.Schema) + len(e.Table) + len(e.Trigger) + len(e.Old) + len(e.New) + len(e.Session) + len(e.Trace)
}

// OpName is the operation as the request body has it.
func (e *Event) OpName() string {
	switch e.Op {
	case 'I':
		return "INSERT"
	case 'U':
		return "UPDATE"
	case 'D':
		return "DELETE"
	default:
		return "MANUAL"
	}
}

// appendUUID writes the lower-case 8-4-4-4-12 form.
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

// appendString writes s as a JSON string: only what JSON demands is escaped, so non-ASCII stays UTF-8 and <, > and &
// stay themselves. Bytes that are not UTF-8 (a name in a SQL_ASCII database) become U+FFFD.
func appendString[S []byte | string](dst []byte, s S) []byte {
	const digits = "0123456789abcdef"
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= 0x20 && c != '"' && c != '\\' {
				i++
				continue
			}
			dst = append(dst, s[start:i]...)
			switch c {
			case '"', '\\':
				dst = append(dst, '\\', c)
			case '\b':
				dst = append(dst, `\b`...)
			case '\f':
				dst = append(dst, `\f`...)
			case '\n':
				dst = append(dst, `\n`...)
			case '\r':
				dst = append(dst, `\r`...)
			case '\t':
				dst = append(dst, `\t`...)
			default:
				dst = append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
			}
			i++
			start = i
			continue
		}
		r, n := decodeRune(s[i:])
		if r == utf8.RuneError && n == 1 {
			dst = append(dst, s[start:i]...)
			dst = append(dst, "\uFFFD"...)
			i++
			start = i
			continue
		}
		i += n
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}

func decodeRune[S []byte | string](s S) (rune, int) {
	var head [utf8.UTFMax]byte
	return utf8.DecodeRune(head[:copy(head[:], s)])
}
