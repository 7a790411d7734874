// Package suggest finds the known names that are similar to a misspelled one.
package suggest

import (
	"strings"
	"unicode/utf8"

	"github.com/rowhook/rowhook/internal/sorting"
)

// maxEdits is the greatest distance of a suggestion, even for long names.
const maxEdits = 3

// Near returns up to n candidates that are similar to name, nearest first. A candidate is similar
// if its Distance is at most a third of the letters of the longer name. The bound is at least 1 and
// at most maxEdits. Case and double quotes make no difference, and neither does a hyphen in place
// of an underscore. Equally near candidates keep their order.
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
	sorting.By(matches, func(a, b match) int { return a.distance - b.distance })
	var near []string
	for _, m := range matches[:min(n, len(matches))] {
		near = append(near, m.name)
	}
	return near
}

// Hint returns the end of a message about an unknown name: "; did you mean a or b?", with up to
// three candidates. It returns "" if no candidate is similar.
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

// Distance returns the optimal string alignment distance: the least number of letters to insert,
// delete, change, or swap with a neighbour to turn a into b.
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
