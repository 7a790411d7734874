package sqlschema

import (
	"strings"

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

func joinOr(names []string) string { return strings.Join(names, " or ") }

func lastPart(name string) string { return name[strings.LastIndex(name, ".")+1:] }
