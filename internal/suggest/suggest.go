// Package suggest finds the names that somebody may have meant who wrote another one.
package suggest

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// maxEdits is the largest distance of a suggestion, however long the name is.
const maxEdits = 3

// Near returns at most n of the candidates, the nearest first: those that differ from name by a third
// of its letters at most, and at least by one and at most by three letters. Case, double quotes, and
// whether a hyphen or an underscore separates words make no difference. Equally near candidates stay
// in the order in which they are given.
func Near(name string, candidates []string, n int) []string {
	type match struct {
		name     string
		distance int
	}
	var matches []match
	folded := fold(name)
	for _, c := range candidates {
		other := fold(c)
		letters := max(utf8.RuneCountInString(folded), utf8.RuneCountInString(other))
		if d := Distance(folded, other); d <= min(maxEdits, max(1, letters/3)) {
			matches = append(matches, match{c, d})
		}
	}
	slices.SortStableFunc(matches, func(a, b match) int { return a.distance - b.distance })
	var near []string
	for _, m := range matches[:min(n, len(matches))] {
		near = append(near, m.name)
	}
	return near
}

// Hint ends a message about a name that does not exist: "; did you mean a or b?", with at most three
// candidates. It is empty where none is near.
func Hint(name string, candidates []string) string {
	near := Near(name, candidates, 3)
	if len(near) == 0 {
		return ""
	}
	return "; did you mean " + strings.Join(near, " or ") + "?"
}

func fold(name string) string {
	return strings.ToLower(strings.NewReplacer(`"`, "", "-", "_").Replace(name))
}

// Distance is the least number of letters to insert, delete, change, or swap with their neighbour to
// turn a into b (the optimal string alignment distance).
func Distance(a, b string) int {
	from, to := []rune(a), []rune(b)
	before, last := []int(nil), make([]int, len(to)+1)
	for j := range last {
		last[j] = j
	}
	for i, x := range from {
		row := make([]int, len(to)+1)
		row[0] = i + 1
		for j, y := range to {
			change := last[j]
			if x != y {
				change++
			}
			row[j+1] = min(change, row[j]+1, last[j+1]+1)
			if i > 0 && j > 0 && x == to[j-1] && from[i-1] == y {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last = last, row
	}
	return last[len(to)]
}
