package cli

import (
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "rewrite docs/commands.md")

func TestTheCommandReferenceIsWhatTheProgramSays(t *testing.T) {
	t.Parallel()
	const file = "../../docs/commands.md"
	want := commandReference()
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(want), 0o600))
	}
	have, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, want, string(have), "run: go test ./internal/cli -run CommandReference -update")
}

// commandReference is docs/commands.md: every command as its --help describes it.
func commandReference() string {
	a := &app{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard}
	root := a.root()
	var b strings.Builder
	b.WriteString("# Commands\n\n" +
		"Every command with its flags, as `rowhook COMMAND --help` prints them; a test holds this page to the program.\n" +
		"A flag with a variable behind it, such as `$ROWHOOK_POLL_INTERVAL`, can be given by that variable instead; the flag wins.\n" +
		"Exit codes: " + exitCodes + ".\n\n" +
		"These flags belong to every command:\n\n")
	writeFlags(&b, root.PersistentFlags())
	for _, group := range root.Groups() {
		for _, cmd := range root.Commands() {
			if cmd.GroupID == group.ID && cmd.Name() != "help" {
				writeCommand(&b, cmd)
			}
		}
	}
	return b.String()
}

func writeCommand(b *strings.Builder, cmd *cobra.Command) {
	if cmd.HasSubCommands() {
		for _, sub := range cmd.Commands() {
			writeCommand(b, sub)
		}
		return
	}
	fmt.Fprintf(b, "\n## %s\n\n%s.\n\n", cmd.CommandPath(), cmd.Short)
	if rest := strings.TrimSpace(cmd.Long); rest != "" {
		fmt.Fprintf(b, "%s\n\n", fenceIndented(rest))
	}
	fmt.Fprintf(b, "    %s\n", strings.TrimSpace(cmd.UseLine()))
	if cmd.Example != "" {
		b.WriteString("\nFor example:\n\n")
		for line := range strings.SplitSeq(cmd.Example, "\n") {
			fmt.Fprintf(b, "    %s\n", strings.TrimPrefix(line, "  "))
		}
	}
	if cmd.LocalNonPersistentFlags().HasAvailableFlags() {
		b.WriteString("\n")
		writeFlags(b, cmd.LocalNonPersistentFlags())
	}
}

// fenceIndented keeps lines that a help text indents apart from its prose.
func fenceIndented(text string) string {
	var out []string
	code := false
	for line := range strings.SplitSeq(text, "\n") {
		indented := strings.HasPrefix(line, "  ")
		switch {
		case indented && !code:
			if len(out) > 0 && out[len(out)-1] != "" {
				out = append(out, "")
			}
		case !indented && code && line != "":
			out = append(out, "")
		}
		code = indented
		if indented {
			line = "  " + line
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

func writeFlags(b *strings.Builder, flags *pflag.FlagSet) {
	b.WriteString("| flag | |\n|---|---|\n")
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		kind, usage := describeFlag(f)
		name := "`--" + f.Name
		if f.Shorthand != "" {
			name = "`-" + f.Shorthand + "`, " + name
		}
		if kind != "" {
			name += " " + kind
		}
		name += "`"
		fmt.Fprintf(b, "| %s | %s |\n", strings.ReplaceAll(name, "|", "\\|"), strings.ReplaceAll(usage, "|", "\\|"))
	})
}
