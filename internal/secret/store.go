// Package secret gives out what configurations refer to: variables of the environment, and files.
// Whoever may apply a configuration chooses what is sent where. So the program that sends says which
// names and which files it gives out, and never its own secrets.
package secret

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rowhook/rowhook/trigger"
)

// Rules say what a Store gives out.
type Rules struct {
	// Env are the names of variables, as patterns in which * stands for any part. nil: every name
	// that is not one of the program's own. A pattern with * never matches one of those.
	Env []string
	// Dirs are the directories whose files are given out. nil: no file is.
	Dirs []string
	// Never are names of variables that are not given out, whatever Env says.
	Never []string
	// Source is the name of the source of databases that the rules are of, for messages; "": there is
	// one database, and Env and Dirs are those of flags.
	Source string
	// Own returns the secrets of the program itself. It is asked at most once a second. Optional.
	Own func() Own
}

// Own are secrets of the program.
type Own struct {
	Files []string // their paths; also those that hold no secret of the database
	// Values are passwords and tokens. What holds one of them is not given out, unless a name of
	// Rules.Env without * says so. A value that is shorter than leastOwn is left out: it may be
	// part of anything.
	Values []string
}

// leastOwn is the least length of a value in Own.Values, in bytes.
const leastOwn = 8

// Store gives out variables and files. Any number of goroutines may use it.
type Store struct {
	rules  Rules
	lookup func(string) (string, bool)

	mu    sync.Mutex
	files map[string]*file // by path
	own   Own
	asked time.Time // when rules.Own was
}

// New returns a Store. lookup reads a variable of the environment, as [os.LookupEnv] does. The error
// says which rule is malformed.
func New(lookup func(string) (string, bool), rules Rules) (*Store, error) {
	var problems []error
	for _, pattern := range rules.Env {
		problems = append(problems, CheckPattern(pattern))
	}
	rules.Dirs = slices.Clone(rules.Dirs)
	for i, dir := range rules.Dirs {
		clean, err := CheckDir(dir)
		rules.Dirs[i] = clean
		problems = append(problems, err)
	}
	return &Store{rules: rules, lookup: lookup, files: map[string]*file{}}, errors.Join(problems...)
}

// RefusedError says that something is not given out, and what to do about it.
type RefusedError struct {
	What   string // a name, or "the file " and a path
	Why    string
	Remedy string
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("the dispatcher does not give out %s: %s; %s", e.What, e.Why, e.Remedy)
}

// Get is the [trigger.Source] of a Store.
func (s *Store) Get(name string) (string, error) {
	if path, isFile := strings.CutPrefix(name, trigger.FilePrefix); isFile {
		return s.file(path)
	}
	if err := s.Refuses(name); err != nil {
		return "", err
	}
	value, ok := s.lookup(name)
	if !ok {
		return "", &trigger.UnsetError{Name: name}
	}
	if !slices.Contains(s.rules.Env, name) && s.holdsOwn(value) {
		return "", &RefusedError{name, "its value holds a password or a token of Rowhook itself", "use another variable, or name this one " + s.rules.envSetting()}
	}
	return value, nil
}

// holdsOwn reports whether a value holds a secret of the program.
func (s *Store) holdsOwn(value string) bool {
	return slices.ContainsFunc(s.owned().Values, func(own string) bool { return strings.Contains(value, own) })
}

// owned returns the secrets of the program, as of the last second.
func (s *Store) owned() Own {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rules.Own != nil && (s.asked.IsZero() || time.Since(s.asked) >= time.Second) {
		s.own, s.asked = s.rules.Own(), time.Now()
		s.own.Values = slices.DeleteFunc(slices.Clone(s.own.Values), func(v string) bool { return len(v) < leastOwn })
	}
	return s.own
}

// Refuses returns why a variable or a file is not given out, whatever it holds, or nil. name is as in
// a reference.
func (s *Store) Refuses(name string) error {
	if path, isFile := strings.CutPrefix(name, trigger.FilePrefix); isFile {
		_, _, err := s.locate(path)
		return err
	}
	return s.rules.refuses(name)
}

// locate returns the directory of Rules.Dirs that a path is in, and the path below it.
func (s *Store) locate(path string) (dir, below string, err error) {
	clean := filepath.Clean(filepath.FromSlash(path))
	for _, d := range s.rules.Dirs {
		rest, err := filepath.Rel(d, clean)
		if err == nil && filepath.IsLocal(rest) && rest != "." && len(d) > len(dir) {
			dir, below = d, rest
		}
	}
	switch {
	case dir != "":
		return dir, below, nil
	case s.rules.Source != "" && len(s.rules.Dirs) == 0:
		return "", "", &RefusedError{"the file " + path, "the source " + s.rules.Source + " gives out no files",
			"write secrets_dir and the directory, such as " + filepath.Dir(clean) + ", in that source"}
	case s.rules.Source != "":
		return "", "", &RefusedError{"the file " + path, "it is not in " + strings.Join(s.rules.Dirs, " or "),
			"move it there, or write its directory in secrets_dir of the source " + s.rules.Source}
	case len(s.rules.Dirs) == 0:
		return "", "", &RefusedError{"the file " + path, "it gives out no files",
			"start it with --secrets-dir and the directory, such as " + filepath.Dir(clean)}
	}
	return "", "", &RefusedError{"the file " + path, "it is not in " + strings.Join(s.rules.Dirs, " or "),
		"move it there, or start the dispatcher with its directory in --secrets-dir"}
}
