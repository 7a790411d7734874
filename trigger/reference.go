package trigger

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/rowhook/rowhook/internal/template"
)

// Source gives out what references stand for. name is what stands between the braces of ${...}: the
// name of an environment variable, or [FilePrefix] and the path of a file. The error says why there
// is nothing for it, such as "environment variable ORDERS_URL is not set". It never holds a value.
type Source func(name string) (value string, err error)

// FilePrefix begins a reference to a file, as in ${file:/run/secrets/token}.
const FilePrefix = "file:"

// Variables returns the Source of environment variables alone. lookup has the shape of
// [os.LookupEnv].
func Variables(lookup func(string) (string, bool)) Source {
	return func(name string) (string, error) {
		if path, isFile := strings.CutPrefix(name, FilePrefix); isFile {
			return "", fmt.Errorf("the file %s is not given out here", path)
		}
		value, ok := lookup(name)
		if !ok {
			return "", &UnsetError{name}
		}
		return value, nil
	}
}

// Once returns a Source that asks s once for each name. So two references to a file have the same
// value, although the file changes in between. One goroutine may use it.
func (s Source) Once() Source {
	type given struct {
		value string
		err   error
	}
	known := map[string]given{}
	return func(name string) (string, error) {
		g, ok := known[name]
		if !ok {
			g.value, g.err = s(name)
			known[name] = g
		}
		return g.value, g.err
	}
}

// Lookup returns s in the shape of [os.LookupEnv].
func (s Source) Lookup(name string) (string, bool) {
	value, err := s(name)
	return value, err == nil
}

// UnsetError says that an environment variable is not set.
type UnsetError struct{ Name string }

func (e *UnsetError) Error() string { return fmt.Sprintf("environment variable %s is not set", e.Name) }

// References returns what s refers to: the NAME of each ${NAME}, and file:PATH of each ${file:PATH}.
// It lists each once, in order of appearance. $${ stands for a literal ${, and a $ before anything
// else stands for itself. A ${ without a closing } is an error. So is a NAME that is not letters,
// digits and underscores, or that starts with a digit, and a PATH that does not begin with /. The
// error gives the number of the character in s, from 1. It quotes nothing else of s, which may be a
// secret.
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

// ExpandReferences is Expand with environment variables alone. lookup has the shape of
// [os.LookupEnv]. It is asked for file:PATH, too.
func ExpandReferences(s string, lookup func(string) (string, bool)) (string, error) {
	return Expand(s, func(name string) (string, error) {
		if value, ok := lookup(name); ok {
			return value, nil
		}
		return Variables(func(string) (string, bool) { return "", false })(name)
	})
}

// Expand replaces each reference in s by the value that source gives out for it, and each $${ by ${.
// It does not expand the values again. A variable that is set to the empty string expands to nothing.
// If source has nothing for some references, one error says why for all of them. Malformed references
// are the errors of [References].
func Expand(s string, source Source) (string, error) {
	var out strings.Builder
	var unset []string
	var others []string
	failed := map[string]bool{}
	err := eachReference(s, func(text string) { out.WriteString(text) }, func(name string) {
		if failed[name] {
			return
		}
		value, err := source(name)
		if err != nil {
			failed[name] = true
			if missing := (*UnsetError)(nil); errors.As(err, &missing) {
				unset = append(unset, missing.Name)
			} else {
				others = append(others, err.Error())
			}
		}
		out.WriteString(value)
	})
	switch last := len(unset) - 1; {
	case err != nil:
		return "", err
	case last == 0:
		others = append(others, (&UnsetError{unset[0]}).Error())
	case last > 0:
		others = append(others, fmt.Sprintf("environment variables %s and %s are not set", strings.Join(unset[:last], ", "), unset[last]))
	}
	if len(others) > 0 {
		return "", errors.New(strings.Join(others, "; "))
	}
	return out.String(), nil
}

// eachReference passes the literal parts of s and what its references name to the callbacks, in
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
		if !closed || !isReference(name) {
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
	path, isFile := strings.CutPrefix(name, FilePrefix)
	switch {
	case !closed && isFile:
		return errors.New("has no closing }; write ${file:/PATH}, or $${ for a literal ${")
	case !closed:
		return errors.New("has no closing }; write ${NAME}, or $${ for a literal ${")
	case name == "":
		return errors.New("names no variable; write ${NAME}, or $${ for a literal ${")
	case isFile:
		return errors.New(pathFault(path) + "; write it like ${file:/run/secrets/token}, or $${ for a literal ${")
	case valid == len(FilePrefix)-1 && strings.EqualFold(name[:min(len(name), len(FilePrefix))], FilePrefix):
		return errors.New("names a file by a word in capitals; write ${file:/PATH} in lower case, or $${ for a literal ${")
	case valid > 0 && strings.ContainsRune(":-?+=", rune(name[valid])):
		return fmt.Errorf("has text after the name (defaults are not supported); write ${%s}, or $${ for a literal ${", name[:valid])
	}
	return errors.New("is not followed by a variable name; use letters, digits and underscores, not starting with a digit, or write $${ for a literal ${")
}

// isReference reports whether name can stand between the braces.
func isReference(name string) bool {
	if path, isFile := strings.CutPrefix(name, FilePrefix); isFile {
		return pathFault(path) == ""
	}
	return isReferenceName(name)
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

// longestPath is the longest path of a file that Linux accepts, in bytes.
const longestPath = 4095

// pathFault returns what is wrong with the path of a reference to a file, or "".
func pathFault(path string) string {
	switch {
	case path == "":
		return "names no file"
	case strings.Contains(path, "${"):
		return "has a reference within its path"
	case path[0] != '/':
		return "has a path that does not begin with /"
	case len(path) > longestPath:
		return "has a path that is too long"
	case !utf8.ValidString(path) || strings.ContainsFunc(path, func(r rune) bool { return !unicode.IsPrint(r) }):
		return "has a path with a character that can't be printed"
	}
	return ""
}
