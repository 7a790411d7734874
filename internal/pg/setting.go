package pg

import (
	"maps"
	"slices"
	"strings"
)

// Settings are settings of Postgres, by name.
type Settings map[string]string

// ByIndex keeps the planner to the indexes of Rowhook's tables. A plan that is made while they are
// empty, or were so at the last analyze, prefers to scan all of them, and would cost seconds when a
// million events wait.
func ByIndex() Settings {
	return Settings{"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off", "jit": "off"}
}

// InKeyOrder has a page of a user's table read by the index of its key.
func InKeyOrder() Settings {
	return Settings{"enable_seqscan": "off", "enable_sort": "off", "jit": "off"}
}

// WithoutIndex has a table counted without its indexes, to check what was read by them.
func WithoutIndex() Settings {
	return Settings{
		"enable_indexscan": "off", "enable_indexonlyscan": "off", "enable_bitmapscan": "off", "enable_seqscan": "on", "jit": "off",
	}
}

// With returns both. more wins.
func (s Settings) With(more Settings) Settings {
	all := maps.Clone(s)
	maps.Copy(all, more)
	return all
}

// Local is statements that set them until the transaction ends.
func (s Settings) Local() string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(s)) {
		out = append(out, "set local "+name+" = "+StringLiteral(s[name]))
	}
	return strings.Join(out, "; ")
}

// LocalCalls is calls that set them until the transaction ends, for one select.
func (s Settings) LocalCalls() string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(s)) {
		out = append(out, "set_config("+StringLiteral(name)+", "+StringLiteral(s[name])+", true)")
	}
	return strings.Join(out, ", ")
}
