package cli

import (
	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/internal/operate"
)

func (a *app) discardCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "discard [ID]...",
		Short: "Delete dead or waiting events for good",
		Long: `Delete events for good, by their ids or by a filter. A filter means dead letters unless it names another --state: waiting or retrying.
Events in flight are left alone, and delivered ones go by the retention. With a filter it says how many events it is about,
and asks; events named by their ids are deleted without a question.`,
		Example: `  rowhook discard --state dead --until 30d
  rowhook discard --state waiting,retrying -t order_placed`,
	}
	return a.bulk(cmd, bulkCommand{
		verb: "Discard", doing: "discarding", done: "deleted", do: operate.Discard,
		states: func(f *operate.Filter) { f.States = []operate.State{operate.Dead} },
	})
}
