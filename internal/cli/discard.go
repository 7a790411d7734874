package cli

import (
	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/internal/operate"
)

func (a *app) discardCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "discard [ID]...",
		Short: "Delete dead or waiting events permanently",
		Long: `Delete events permanently, by their ids or by a filter. A filter selects dead letters, unless --state names waiting or
retrying events. Events in flight are skipped, and the retention deletes delivered ones. With a filter the command prints
how many events match, and asks. It deletes events that are named by their ids without a question.`,
		Example: `  rowhook discard --state dead --until 30d
  rowhook discard --state waiting,retrying -t order_placed`,
	}
	return a.bulk(cmd, bulkCommand{
		verb: "Discard", doing: "discarding", done: "deleted", do: operate.Discard,
		states: func(f *operate.Filter) { f.States = []operate.State{operate.Dead} },
	})
}
