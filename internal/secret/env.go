package secret

import (
	"errors"
	"fmt"
	"path"
	"runtime"
	"slices"
	"strings"
)

// CheckPattern returns what is wrong with a pattern of Rules.Env, or nil.
func CheckPattern(pattern string) error {
	if pattern == "" || strings.Trim(pattern, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_*") != "" || '0' <= pattern[0] && pattern[0] <= '9' {
		return fmt.Errorf("%q is no name of a variable: write names such as ORDERS_URL or ORDERS_*, separated by commas", pattern)
	}
	return nil
}

// refuses returns why a variable is not given out by the rules, or nil.
func (r *Rules) refuses(name string) error {
	const own = "names that begin with ROWHOOK_ or PG, and DATABASE_URL, are Rowhook's own and may hold the database's password"
	patterns := r.Env
	switch {
	case slices.Contains(r.Never, name):
		return &RefusedError{name, "the connection string of a source is made of it", "use a variable of another name"}
	case slices.Contains(patterns, name):
		return nil
	case isOwn(name):
		return &RefusedError{name, own, "use a variable of another name, or name exactly this one " + r.envSetting()}
	case patterns == nil:
		return nil
	case slices.ContainsFunc(patterns, func(pattern string) bool {
		matches, err := path.Match(pattern, name)
		return err == nil && matches
	}):
		return nil
	}
	switch {
	case r.Source == "":
		return &RefusedError{name, "--env names only " + strings.Join(patterns, ", "), "add it there, or use a variable that is named"}
	case len(patterns) == 0:
		return &RefusedError{name, "the source " + r.Source + " gives out no variables", "write env: [" + name + "] in that source"}
	}
	return &RefusedError{name, "the source " + r.Source + " gives out only " + strings.Join(patterns, ", "), "add it to env of that source, or use a variable that is named"}
}

// envSetting says where a name is given out.
func (r *Rules) envSetting() string {
	if r.Source != "" {
		return "in env of the source " + r.Source
	}
	return "by --env"
}

// isOwn reports whether a name may be that of one of the program's own variables.
func isOwn(name string) bool {
	if runtime.GOOS == "windows" { // where capitals do not matter
		name = strings.ToUpper(name)
	}
	return name == "DATABASE_URL" || strings.HasPrefix(name, "DATABASE_URL_") || strings.HasPrefix(name, "PG") || strings.HasPrefix(name, "ROWHOOK_")
}

// ErrNoPattern says that a list of patterns is empty.
var errNoPattern = errors.New("names no variable: write names such as ORDERS_*, separated by commas; without the flag every name but Rowhook's own is given out")

// ParsePatterns reads patterns that are separated by commas or blanks.
func ParsePatterns(text string) ([]string, error) {
	patterns := strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' })
	if len(patterns) == 0 {
		return nil, errNoPattern
	}
	for _, p := range patterns {
		if err := CheckPattern(p); err != nil {
			return nil, err
		}
	}
	return patterns, nil
}
