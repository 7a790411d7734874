package cli

import (
	"github.com/spf13/cobra"
)

// explainHelp has a help that is asked of a command that does not exist say so, rather than print the help of the one above it and succeed:
// a script would take that for an answer.
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

// offerVersion makes --version of the root do what the command version does.
func (a *app) offerVersion(root *cobra.Command) {
	root.Version = build()
	root.SetVersionTemplate(versionLine() + "\n")
	root.InitDefaultVersionFlag()
	root.Flags().Lookup("version").Usage = "print the version"
}
