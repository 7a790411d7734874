package pg

import (
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// MaxIdentifier is the number of bytes that Postgres keeps of a name (NAMEDATALEN - 1).
const MaxIdentifier = 63

// QuoteName writes a qualified name for SQL, with each part in double quotes.
func QuoteName(parts ...string) string { return pgx.Identifier(parts).Sanitize() }

// PlainName writes a qualified name for people. It quotes only the parts that SQL requires to be
// quoted.
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

// JoinOr joins names by the word or.
func JoinOr(names []string) string { return strings.Join(names, " or ") }

// LastPart returns the part of a qualified name behind its last dot.
func LastPart(name string) string { return name[strings.LastIndex(name, ".")+1:] }

// SplitName splits a schema-qualified, quoted name in the form in which regclass prints it. A bare
// oid is an error. regclass prints one for a table that was dropped.
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
				return "", "", fmt.Errorf("read table name %s: the closing quote is missing", qualified)
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
		return "", "", fmt.Errorf("read table name %s: it is not of the form schema.table", qualified)
	}
	return parts[0], parts[1], nil
}
