package cli

import (
	"errors"
	"io"
	"slices"

	"github.com/spf13/cobra"
)

func (a *app) completionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish|powershell",
		Short: "Print a completion script for a shell",
		Long: `Print a script that makes a shell complete Rowhook's commands and flags.

  bash        source <(rowhook completion bash)        needs the package bash-completion
  zsh         source <(rowhook completion zsh)         after compinit
  fish        rowhook completion fish | source
  powershell  rowhook completion powershell | Out-String | Invoke-Expression

Put the line into the start-up file of the shell to have it in every session.`,
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 || !slices.Contains(cmd.ValidArgs, args[0]) {
				return errors.New("want one shell: bash, zsh, fish or powershell")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return writeCompletion(cmd.Root(), args[0], a.stdout)
		},
	}
}

// writeCompletion writes the script that makes a shell complete the commands of root.
func writeCompletion(root *cobra.Command, shell string, to io.Writer) error {
	switch shell {
	case "bash":
		return root.GenBashCompletionV2(to, true)
	case "zsh":
		return root.GenZshCompletion(to)
	case "fish":
		return root.GenFishCompletion(to, true)
	default:
		return root.GenPowerShellCompletionWithDesc(to)
	}
}
