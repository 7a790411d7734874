package cli

import (
	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/internal/operate"
)

func (a *app) resumeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "resume TRIGGER...|--all",
		Short:   "Deliver events of a paused trigger again",
		Example: `  rowhook resume order_placed`,
	}
	return a.pausing(cmd, operate.Resume, pausingWords{"Resumed", "not paused", ""})
}
