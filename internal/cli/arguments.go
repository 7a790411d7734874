package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// explainArguments has the errors for wrong arguments of cmd, and of the commands below it, say
// which arguments they accept.
func explainArguments(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usagef("%s\nSee %s --help.", argumentProblem(cmd, args, err), cmd.CommandPath())
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		explainArguments(sub)
	}
}

func argumentProblem(cmd *cobra.Command, args []string, err error) string {
	switch {
	case len(cmd.ValidArgs) > 0:
		return err.Error() // it names the valid ones
	case len(args) == 0:
		return "missing argument: write " + cmd.UseLine()
	case cmd.HasSubCommands():
		text := fmt.Sprintf("unknown command %q", cmd.CommandPath()+" "+args[0])
		cmd.SuggestionsMinimumDistance = 2
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			text += fmt.Sprintf("; did you mean %q?", cmd.CommandPath()+" "+near[0])
		}
		return text
	}
	text := fmt.Sprintf("unexpected argument %q: write %s", args[len(args)-1], cmd.UseLine())
	if f := cmd.Flags().Lookup("file"); f != nil && strings.Contains(f.Usage, "configuration") {
		text += "; the configuration file is the value of -f"
	}
	return text
}
