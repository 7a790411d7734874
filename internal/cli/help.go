package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/internal/term"
)

// explainHelp makes help for an unknown command an error. Cobra prints the help of the command
// above it and succeeds, which a script would take for an answer.
func (a *app) explainHelp(root *cobra.Command) {
	help := root.HelpFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		if unknown := cmd.Flags().Args(); len(unknown) > 0 && cmd.HasSubCommands() {
			a.unknown = unknownCommand(cmd, unknown)
			return
		}
		help(cmd, args)
	})
	root.SetHelpCommand(&cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Print the help of a command",
		RunE: func(_ *cobra.Command, args []string) error {
			cmd, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 && cmd.HasSubCommands() {
				return unknownCommand(cmd, rest)
			}
			cmd.InitDefaultHelpFlag()
			return cmd.Help()
		},
	})
}

func unknownCommand(cmd *cobra.Command, args []string) error {
	return usagef("%s\nSee %s --help.", argumentProblem(cmd, args, nil), cmd.CommandPath())
}

// offerVersion makes --version of the root do what the command version does, whatever else the
// command line and the environment say. Cobra's own --version prints by a template, which decision
// 26 rules out.
func (a *app) offerVersion(root *cobra.Command) {
	asked := root.Flags().BoolP("version", "v", false, "print the version")
	unlessAsked := func(do func(*cobra.Command, []string) error) func(*cobra.Command, []string) error {
		return func(cmd *cobra.Command, args []string) error {
			if *asked {
				return nil
			}
			return do(cmd, args)
		}
	}
	root.Args, root.PersistentPreRunE = unlessAsked(root.Args), unlessAsked(root.PersistentPreRunE)
	help := root.RunE
	root.RunE = func(cmd *cobra.Command, args []string) error {
		if *asked {
			_, err := fmt.Fprintln(a.stdout, versionLine())
			return err
		}
		return help(cmd, args)
	}
}

// The widest and the narrowest help. Where there is no terminal it is the widest.
const (
	mostHelp  = 110
	leastHelp = 40
)

// wrapHelp wraps help texts at the width of the terminal.
func (a *app) wrapHelp(root *cobra.Command) {
	width := a.helpWidth()
	root.SetUsageFunc(func(cmd *cobra.Command) error {
		_, err := io.WriteString(cmd.OutOrStderr(), usage(cmd, width))
		return err
	})
	help := root.HelpFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		cmd.Long, cmd.Short = reflow(cmd.Long, width), reflow(cmd.Short, width)
		help(cmd, args)
	})
}

func (a *app) helpWidth() int {
	return max(min(term.Width(a.stdout, a.lookup, mostHelp), mostHelp), leastHelp)
}

// reflow wraps paragraphs again, into lines of at most width columns. Indented lines stay as they
// are.
func reflow(text string, width int) string {
	var out, paragraph []string
	flush := func() {
		if len(paragraph) > 0 {
			out = append(out, term.Wrap(strings.Join(paragraph, " "), width, width)...)
		}
		paragraph = nil
	}
	for line := range strings.SplitSeq(text, "\n") {
		if line == "" || strings.HasPrefix(line, " ") {
			flush()
			out = append(out, line)
			continue
		}
		paragraph = append(paragraph, strings.Fields(line)...)
	}
	flush()
	return strings.Join(out, "\n")
}
