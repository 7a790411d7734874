package cli

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
)

// shownCommand is a command line of rowhook in a page: in a block, perhaps behind variables, or
// between backticks.
var shownCommand = regexp.MustCompile("(?m)^(?:    |\\$ )(?:[A-Z_]+=(?:\"[^\"]*\"|'[^']*'|[^\\s\"']*) +)*(rowhook .*(?:\\\\\n.*)*)$|`(rowhook [^`]*)`")

// placeholders are words that stand for something of the reader's.
var placeholders = regexp.MustCompile(`^(?:[A-Z][A-Z_]*|\.\.\.|…)$`)

// words splits a command line as a shell does, up to a comment, a pipe, a redirection or another
// command.
func words(line string) (out []string) {
	line = strings.ReplaceAll(line, "\\\n", " ")
	var word strings.Builder
	quote, inside := rune(0), false
	end := func() {
		if inside {
			out = append(out, word.String())
		}
		word.Reset()
		inside = false
	}
	for _, c := range line {
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(c)
		case c == '"' || c == '\'':
			quote, inside = c, true
		case c == ' ' || c == '\t' || c == '\n':
			end()
		case c == '#' && !inside, c == '|', c == '>', c == '<', c == ';', c == '&':
			end()
			return out
		default:
			word.WriteRune(c)
			inside = true
		}
	}
	end()
	return out
}

// TestTheCommandsThatPagesShowAreThere reads each command line of the documentation as the program
// would: the command, its flags, and its arguments where none is a placeholder.
func TestTheCommandsThatPagesShowAreThere(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob("../../docs/*.md")
	require.NoError(t, err)
	pages = append(pages, "../../README.md", "../../CONTRIBUTING.md", "../../SECURITY.md", "../../docs/model/README.md")
	seen := 0
	for _, page := range pages {
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		for _, m := range shownCommand.FindAllStringSubmatch(string(text), -1) {
			line := m[1] + m[2]
			seen++
			args := words(line)[1:]
			inText := m[2] != ""
			a := &app{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard}
			root := a.root()
			if len(args) == 0 || placeholders.MatchString(args[0]) || strings.HasPrefix(args[0], "--") {
				continue // rowhook COMMAND --help, rowhook --help
			}
			cmd, rest, err := root.Find(args)
			require.NoError(t, err, "%s: %s", page, line)
			if !cmd.HasParent() {
				require.Contains(t, []string{"help", "completion"}, args[0], "%s: %s", page, line)
				continue
			}
			if cmd.HasSubCommands() && inText {
				continue // `rowhook events`, of all of them
			}
			problem := parsed(cmd, rest)
			if needs := new(pflag.ValueRequiredError); inText && errors.As(problem, &needs) {
				continue // `rowhook sink --secret`, of the flag whatever its value
			}
			require.NoError(t, problem, "%s: %s", page, line)
		}
	}
	require.Greater(t, seen, 300)
}

// parsed says what is wrong with the flags of a command line. A placeholder may stand for any value.
func parsed(cmd *cobra.Command, rest []string) error {
	before, command, found := cutDashes(rest)
	if found && len(command) == 0 {
		return errors.New("nothing follows --")
	}
	for i, word := range before {
		if name, value, _ := strings.Cut(word, "="); strings.HasPrefix(word, "-") && placeholders.MatchString(value) {
			before[i] = name + "=" + standIn(cmd, name)
		} else if i > 0 && placeholders.MatchString(word) && strings.HasPrefix(before[i-1], "-") {
			before[i] = standIn(cmd, before[i-1])
		}
	}
	if err := cmd.ParseFlags(before); !errors.Is(err, pflag.ErrHelp) {
		return err
	}
	return nil
}

func cutDashes(args []string) (before, after []string, found bool) {
	for i, a := range args {
		if a == "--" {
			return args[:i], args[i+1:], true
		}
	}
	return args, nil, false
}

// standIn is a value that a flag takes.
func standIn(cmd *cobra.Command, name string) string {
	f := cmd.Flags().Lookup(strings.TrimLeft(name, "-"))
	if f == nil {
		f = cmd.InheritedFlags().Lookup(strings.TrimLeft(name, "-"))
	}
	if f == nil || f.DefValue == "" || f.DefValue == "[]" {
		return "x"
	}
	return f.DefValue
}
