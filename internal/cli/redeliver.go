package cli

import (
	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/internal/operate"
)

func (a *app) redeliverCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "redeliver [ID]...",
		Short: "Send dead or delivered events again",
		Long: `Send events again, by their ids or by a filter. A filter selects dead letters, unless --state names another state. Delivered
events are sent again from the history. Events that wait for a retry are sent at once.

The id stays the same, the attempts start again at 0, and the log of earlier attempts stays. Events in flight are skipped.
With a filter the command prints how many events match, and asks. It puts events back in small batches, only as fast as
they are delivered, so that they do not delay other events. --no-throttle puts all of them back at once.`,
		Example: `  rowhook redeliver 0199a8e2-7c5d-7a3e-9f10-2b7f4c1d8e90
  rowhook redeliver -t order_placed --since 1d
  rowhook redeliver --state delivered -t order_placed --payload new.customer_id=42 --yes`,
	}
	return a.bulk(cmd, bulkCommand{
		verb: "Redeliver", doing: "redelivering", done: "back in the queue", do: operate.Redeliver, throttled: true,
		states: func(f *operate.Filter) { f.States = []operate.State{operate.Dead} },
	})
}
