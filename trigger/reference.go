package trigger

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/rowhook/rowhook/internal/template"
)

// References returns the names of the environment variables that s refers to as ${NAME}. It lists
// each once, in order of appearance. $${ stands for a literal ${, and a $ before anything else
// stands for itself. A ${ without a closing } is an error. So is a NAME that is not letters, digits
// and underscores, or that starts with a digit. The error gives the number of the character in s,
// from 1. It quotes nothing else of s, which may be a secret.
func References(s string) ([]string, error) {
	var names []string
	seen := map[string]bool{}
	err := eachReference(s, func(string) {}, func(name string) {
		if !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	})
	if err != nil {
		return nil, err
	}
	return names, nil
}

// ExpandReferences replaces each ${NAME} in s by the value that lookup returns for NAME, and each
// $${ by ${. It does not expand the values again. A variable that is set to the empty string
// expands to nothing. If lookup does not know some variables, one error names all of them. lookup
// has the shape of [os.LookupEnv]. Malformed references are the errors of [References].
func ExpandReferences(s string, lookup func(string) (string, bool)) (string, error) {
	var out strings.Builder
	var unset []string
	seen := map[string]bool{}
	err := eachReference(s, func(text string) { out.WriteString(text) }, func(name string) {
		value, ok := lookup(name)
		if !ok && !seen[name] {
			seen[name] = true
			unset = append(unset, name)
		}
		out.WriteString(value)
	})
	switch {
	case err != nil:
		return "", err
	case len(unset) == 1:
		return "", fmt.Errorf("environment variable %s is not set", unset[0])
	case len(unset) > 1:
		last := len(unset) - 1
		return "", fmt.Errorf("environment variables %s and %s are not set", strings.Join(unset[:last], ", "), unset[last])
	}
	return out.String(), nil
}

// eachReference passes the literal parts of s and the names of its references to the callbacks, in
// order.
func eachReference(s string, literal, reference func(string)) error {
	rest := s
	for {
		i := strings.Index(rest, "${")
		if i < 0 {
			literal(rest)
			return nil
		}
		if i > 0 && rest[i-1] == '$' {
			literal(rest[:i-1] + "${")
			rest = rest[i+2:]
			continue
		}
		if n := template.Skip(rest[i:]); n > 0 { // data of the event
			literal(rest[:i+n])
			rest = rest[i+n:]
			continue
		}
		literal(rest[:i])
		name, after, closed := strings.Cut(rest[i+2:], "}")
		if !closed || !isReferenceName(name) {
			at := utf8.RuneCountInString(s[:len(s)-len(rest)+i]) + 1
			return fmt.Errorf("${ at character %d %w", at, referenceFault(name, closed))
		}
		reference(name)
		rest = after
	}
}

func referenceFault(name string, closed bool) error {
	valid := 0
	for valid < len(name) && isReferenceName(name[:valid+1]) {
		valid++
	}
	switch {
	case !closed:
		return errors.New("has no closing }; write ${NAME}, or $${ for a literal ${")
	case name == "":
		return errors.New("names no variable; write ${NAME}, or $${ for a literal ${")
	case valid > 0 && strings.ContainsRune(":-?+=", rune(name[valid])):
		return fmt.Errorf("has text after the name (defaults are not supported); write ${%s}, or $${ for a literal ${", name[:valid])
	}
	return errors.New("is not followed by a variable name; use letters, digits and underscores, not starting with a digit, or write $${ for a literal ${")
}

func isReferenceName(s string) bool {
	for i, c := range []byte(s) {
		letter := c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}
