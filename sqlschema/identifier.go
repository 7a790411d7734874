package sqlschema

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
)

// maxIdentifier is how many bytes Postgres keeps of a name (NAMEDATALEN - 1).
const maxIdentifier = 63

func quoteName(parts ...string) string { return pgx.Identifier(parts).Sanitize() }

// plainName writes a qualified name for people: quoted only where SQL needs it.
func plainName(parts ...string) string {
	out := make([]string, len(parts))
	for i, part := range parts {
		out[i] = part
		if !isPlain(part) {
			out[i] = quoteName(part)
		}
	}
	return strings.Join(out, ".")
}

func isPlain(name string) bool {
	for i, c := range []byte(name) {
		switch {
		case c == '_' || 'a' <= c && c <= 'z':
		case i > 0 && '0' <= c && c <= '9':
		default:
			return false
		}
	}
	return name != ""
}

// sqlTriggerName is rowhook_NAME_insert. A name too long for that is cut and told apart by the trigger's id; ~ occurs in no
// configured name.
func sqlTriggerName(name string, id int32, op operation) string {
	room := maxIdentifier - len("rowhook_") - len("_") - len(op.word())
	if len(name) > room {
		mark := fmt.Sprintf("~%d", id)
		cut := name[:room-len(mark)]
		for !utf8.ValidString(cut) {
			cut = cut[:len(cut)-1]
		}
		name = cut + mark
	}
	return "rowhook_" + name + "_" + op.word()
}

func joinOr(names []string) string { return strings.Join(names, " or ") }

func lastPart(name string) string { return name[strings.LastIndex(name, ".")+1:] }
