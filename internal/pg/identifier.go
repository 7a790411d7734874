package pg

import (
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// maxIdentifier is how many bytes Postgres keeps of a name (NAMEDATALEN - 1).
const MaxIdentifier = 63

func QuoteName(parts ...string) string { return pgx.Identifier(parts).Sanitize() }

// plainName writes a qualified name for people: quoted only where SQL needs it.
func PlainName(parts ...string) string {
	out := make([]string, len(parts))
	for i, part := range parts {
		out[i] = part
		if !isPlain(part) {
			out[i] = QuoteName(part)
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

func JoinOr(names []string) string { return strings.Join(names, " or ") }

func LastPart(name string) string { return name[strings.LastIndex(name, ".")+1:] }

// SplitName takes apart a schema-qualified, quoted name as regclass prints it. A bare oid, which stands for a table that
// is gone, is an error.
func SplitName(qualified string) (schema, table string, err error) {
	var parts []string
	for rest := qualified; ; {
		part, after := "", ""
		if strings.HasPrefix(rest, `"`) {
			end := 1
			for end < len(rest) && (rest[end] != '"' || end+1 < len(rest) && rest[end+1] == '"') {
				if rest[end] == '"' {
					end++
				}
				end++
			}
			if end >= len(rest) {
				return "", "", fmt.Errorf("read table name %s: missing quote", qualified)
			}
			part, after = strings.ReplaceAll(rest[1:end], `""`, `"`), rest[end+1:]
		} else if dot := strings.IndexByte(rest, '.'); dot >= 0 {
			part, after = rest[:dot], rest[dot:]
		} else {
			part = rest
		}
		parts = append(parts, part)
		if after == "" {
			break
		}
		rest = after[1:]
	}
	if len(parts) != 2 {
		return "", "", fmt.Errorf("read table name %s: want schema.table", qualified)
	}
	return parts[0], parts[1], nil
}
