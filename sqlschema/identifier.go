package sqlschema

import (
	"fmt"
	"slices"
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

// suggest ends a message about a name that does not exist with those that come near it, or with nothing.
func suggest(name string, candidates []string) string {
	near := similar(name, candidates)
	if len(near) == 0 {
		return ""
	}
	return "; did you mean " + strings.Join(near, " or ") + "?"
}

// similar returns at most three candidates that differ from name by case and quotes or by a few letters, the nearest first.
func similar(name string, candidates []string) []string {
	type match struct {
		name     string
		distance int
	}
	var matches []match
	folded := fold(name)
	limit := min(2, max(1, utf8.RuneCountInString(folded)/3))
	for _, c := range candidates {
		if d := distance(folded, fold(c)); d <= limit {
			matches = append(matches, match{c, d})
		}
	}
	slices.SortStableFunc(matches, func(a, b match) int { return a.distance - b.distance })
	var near []string
	for _, m := range matches[:min(3, len(matches))] {
		near = append(near, m.name)
	}
	return near
}

func fold(name string) string { return strings.ToLower(strings.ReplaceAll(name, `"`, "")) }

// distance is the least number of letters to add, remove or change between a and b (Levenshtein).
func distance(a, b string) int {
	from, to := []rune(a), []rune(b)
	row := make([]int, len(to)+1)
	for j := range row {
		row[j] = j
	}
	for i, x := range from {
		diagonal := row[0]
		row[0] = i + 1
		for j, y := range to {
			cost := diagonal
			if x != y {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(to)]
}

func joinOr(names []string) string { return strings.Join(names, " or ") }

func lastPart(name string) string { return name[strings.LastIndex(name, ".")+1:] }
