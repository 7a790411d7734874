package cli

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/rowhook/rowhook/internal/child"
	"github.com/rowhook/rowhook/internal/sandbox"
	"github.com/rowhook/rowhook/internal/secret"
	"github.com/rowhook/rowhook/internal/session"
	"github.com/rowhook/rowhook/internal/suggest"
	"github.com/rowhook/rowhook/trigger"
)

// databaseURLVariable is the one variable that is not named after its flag. Hosting platforms set
// it.
const databaseURLVariable = "DATABASE_URL"

// twinKey is the annotation of a flag that names its environment variable.
const twinKey = "environment"

// fileKey is the annotation of a flag whose value a file may hold, with what to do with the file.
const (
	fileKey          = "file"
	fileOfConnection = "connection"
	fileOfSecret     = "secret"
	fileSuffix       = "_FILE" // of the variable that names the file
)

// flagSet adds flags, each with an environment variable of its name: --poll-interval and
// ROWHOOK_POLL_INTERVAL.
type flagSet struct{ set *pflag.FlagSet }

// syntax parses and formats one kind of value. Its errors say which values are accepted.
type syntax[T any] struct {
	kind   string // its name in the help text
	parse  func(string) (T, error)
	format func(T) string
}

// value is the pflag.Value of a variable and its syntax.
type value[T any] struct {
	to *T
	syntax[T]
}

func (v *value[T]) Set(s string) error {
	parsed, err := v.parse(s)
	if err == nil {
		*v.to = parsed
	}
	return err
}
func (v *value[T]) String() string { return v.format(*v.to) }
func (v *value[T]) Type() string   { return v.kind }

// add adds a flag with an environment variable. The value of *to is the default.
func add[T any](s *flagSet, to *T, name, usage string, as syntax[T]) {
	s.set.VarP(&value[T]{to, as}, name, shorthand(name), usage)
	s.twin(name, "ROWHOOK_"+strings.ToUpper(strings.ReplaceAll(name, "-", "_")))
}

// shorthand returns the one-letter form of a flag, or "".
func shorthand(name string) string {
	if name == "file" {
		return "f"
	}
	return ""
}

func (s *flagSet) text(to *string, name, usage string) {
	add(s, to, name, usage, syntax[string]{
		kind: "string", parse: func(s string) (string, error) { return s, nil }, format: func(s string) string { return s },
	})
}

// connection adds a flag for a connection string. A file may hold it, which the variable NAME_FILE
// names: then it is read for each connection.
func (s *flagSet) connection(to *string, name, usage string) {
	s.text(to, name, usage)
	s.fromFile(name, fileOfConnection)
}

// secret adds a flag for a secret. A file may hold it, which the variable NAME_FILE names.
func (s *flagSet) secret(to *string, name, usage string) {
	s.text(to, name, usage)
	s.fromFile(name, fileOfSecret)
}

// fromFile says what becomes of a file with the value of a flag.
func (s *flagSet) fromFile(name, kind string) {
	f := s.set.Lookup(name)
	f.Annotations[fileKey] = []string{kind}
	s.twin(name, f.Annotations[twinKey][0])
}

func (s *flagSet) duration(to *time.Duration, name, usage string, least time.Duration) {
	add(s, to, name, usage, syntax[time.Duration]{
		kind: "duration",
		parse: func(s string) (time.Duration, error) {
			d, err := trigger.ParseDuration(s)
			if err == nil && d.Std() < least {
				err = fmt.Errorf("%s is too short: write %s or more", d, trigger.Duration(least))
			}
			return d.Std(), err
		},
		format: func(d time.Duration) string { return trigger.Duration(d).String() },
	})
}

func (s *flagSet) number(to *int, name, usage string, least, most int) {
	add(s, to, name, usage, syntax[int]{
		kind: "number",
		parse: func(s string) (int, error) {
			n, err := strconv.Atoi(strings.TrimSpace(s))
			if err != nil || n < least || n > most {
				return 0, fmt.Errorf("want a whole number from %d to %d", least, most)
			}
			return n, nil
		},
		format: strconv.Itoa,
	})
}

func (s *flagSet) yesNo(to *bool, name, usage string) {
	add(s, to, name, usage, syntax[bool]{
		kind: "bool",
		parse: func(s string) (bool, error) {
			b, err := strconv.ParseBool(strings.ToLower(strings.TrimSpace(s)))
			if err != nil {
				return false, errors.New("want true or false")
			}
			return b, nil
		},
		format: strconv.FormatBool,
	})
	s.set.Lookup(name).NoOptDefVal = "true"
}

// largestSize is the most bytes that a flag accepts.
const largestSize = 1 << 40

// byteSize is the syntax of a number of bytes.
func byteSize() syntax[int64] {
	return syntax[int64]{
		kind: "size",
		parse: func(s string) (int64, error) {
			n, err := trigger.ParseBytes(s)
			if err != nil || n > largestSize {
				return 0, fmt.Errorf("want a whole number with a unit up to %s, such as 64MiB or 512KiB", trigger.FormatBytes(largestSize))
			}
			return n, nil
		},
		format: trigger.FormatBytes,
	}
}

// oneOf is the syntax of a choice. names has the order for the help text.
func oneOf[T comparable](meaning map[string]T, names ...string) syntax[T] {
	return syntax[T]{
		kind: strings.Join(names, "|"),
		parse: func(s string) (T, error) {
			v, ok := meaning[strings.ToLower(strings.TrimSpace(s))]
			if !ok {
				return v, fmt.Errorf("want one of %s", strings.Join(names, ", "))
			}
			return v, nil
		},
		format: func(v T) string {
			for _, name := range names {
				if meaning[name] == v {
					return name
				}
			}
			return ""
		},
	}
}

// twin sets the environment variable of a flag, and names it in the help text.
func (s *flagSet) twin(name, variable string) {
	f := s.set.Lookup(name)
	if f.Annotations[twinKey] != nil {
		f.Usage = f.Usage[:strings.LastIndex(f.Usage, " [$")]
	}
	known := []string{variable}
	if kind := f.Annotations[fileKey]; kind != nil {
		known = append(known, variable+fileSuffix)
	}
	f.Usage += " [$" + strings.Join(known, ", $") + "]"
	if f.Annotations == nil {
		f.Annotations = map[string][]string{}
	}
	f.Annotations[twinKey] = known
}

// fromEnvironment sets flags that are not on the command line from their variables. Its error names
// every invalid variable.
func fromEnvironment(flags *pflag.FlagSet, lookup func(string) (string, bool)) error {
	var bad []error
	flags.VisitAll(func(f *pflag.Flag) {
		twin := f.Annotations[twinKey]
		if twin == nil || f.Changed {
			return
		}
		text, source, err := valueOf(f, lookup)
		switch {
		case err != nil:
			bad = append(bad, err)
		case text == "": // docker compose and CI systems set variables without a value to ""
		default:
			if err := f.Value.Set(text); err != nil {
				bad = append(bad, fmt.Errorf("invalid value %q of the environment variable %s: %w", text, source, err))
			}
		}
	})
	return errors.Join(bad...)
}

// valueOf returns the value of a flag by its variable, or by the file that the variable NAME_FILE
// names. source is that variable.
func valueOf(f *pflag.Flag, lookup func(string) (string, bool)) (text, source string, err error) {
	twin := f.Annotations[twinKey]
	text, _ = lookup(twin[0])
	if len(twin) < 2 {
		return text, twin[0], nil
	}
	path, err := fileInstead(twin[0], lookup)
	switch {
	case err != nil:
		return "", "", err
	case path == "":
		return text, twin[0], nil
	case f.Annotations[fileKey][0] == fileOfConnection:
		return session.FilePrefix + path, twin[1], nil
	}
	if text, err = secret.Read(path); err != nil {
		err = fmt.Errorf("%s: %w", twin[1], err)
	}
	return text, twin[1], err
}

// fileInstead returns the absolute path of the file that holds the value of a variable, as the
// variable NAME_FILE names it; "": it names none.
func fileInstead(variable string, lookup func(string) (string, bool)) (path string, err error) {
	path, _ = lookup(variable + fileSuffix)
	if path == "" {
		return "", nil
	}
	if text, _ := lookup(variable); text != "" {
		return "", fmt.Errorf("%s and %s are both set: remove one of them", variable, variable+fileSuffix)
	}
	path, err = filepath.Abs(path)
	if err != nil {
		err = fmt.Errorf("%s: %w", variable+fileSuffix, err)
	}
	return path, err
}

// given reports whether a flag is on the command line, or its variable is set.
func (a *app) given(cmd *cobra.Command, name string) bool {
	f := cmd.Flags().Lookup(name)
	return f.Changed || slices.ContainsFunc(f.Annotations[twinKey], func(variable string) bool {
		text, _ := a.lookup(variable)
		return text != ""
	})
}

// warnOfMisspelled warns of variables whose names are close to one of Rowhook's. Any other name may
// begin with ROWHOOK_, because rowhook.yaml can refer to any variable.
func (a *app) warnOfMisspelled(root *cobra.Command) {
	var known []string
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		for _, flags := range []*pflag.FlagSet{cmd.PersistentFlags(), cmd.LocalFlags()} {
			flags.VisitAll(func(f *pflag.Flag) {
				known = append(known, f.Annotations[twinKey]...)
			})
		}
		for _, c := range cmd.Commands() {
			visit(c)
		}
	}
	visit(root)
	known = append(known, httpTokenVariable, httpReadTokenVariable, httpTokenVariable+fileSuffix, httpReadTokenVariable+fileSuffix)
	told := []string{sandbox.SinkURLVariable, sandbox.SinkSecretVariable, urlVariable, child.IDVariable} // by dev, to its command
	for _, entry := range a.environ {
		name, _, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, "ROWHOOK_") || strings.HasPrefix(name, "ROWHOOK_TEST_") || slices.Contains(known, name) || slices.Contains(told, name) {
			continue
		}
		if near := suggest.Near(name, known, 1); len(near) > 0 {
			a.log.Warn("unknown environment variable: is it misspelled?", "variable", name, "nearest", near[0])
		}
	}
}

// durationFlag is a flag for a duration, such as 10s or 7d.

type durationFlag time.Duration

func (d *durationFlag) Set(s string) error {
	v, err := trigger.ParseDuration(s)
	*d = durationFlag(v)
	return err
}

func (d *durationFlag) String() string { return trigger.Duration(*d).String() }

func (d *durationFlag) Type() string { return "duration" }
