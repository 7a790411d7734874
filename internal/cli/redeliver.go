package cli

import (
	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/internal/operate"
)

func (a *app) redeliverCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "redeliver [ID]...",
		Short: "Send dead or delivered events again",
		Long: `Send events again, by their ids or by a filter. A filter means dead letters unless it names another --state: delivered ones are sent
again from the history, and those that wait for a retry are tried at once.

The id stays the same, the attempts start again at 0, and the log of earlier attempts is kept. An event that is in flight is
busy and left alone. With a filter it says how many events it is about, and asks. They are put back in small batches, only
as fast as they are delivered, so that other events are not held up; --no-throttle puts them back all at once.`,
		Example: `  rowhook redeliver 0199a8e2-7c5d-7a3e-9f10-2b7f4c1d8e90
  rowhook redeliver -t order_placed --since 1d
  rowhook redeliver --state delivered -t order_placed --payload new.customer_id=42 --yes`,
	}
	return a.bulk(cmd, bulkCommand{
		verb: "Redeliver", doing: "redelivering", done: "back in the queue", do: operate.Redeliver, throttled: true,
		states: func(f *operate.Filter) { f.States = []operate.State{operate.Dead} },
	})
}
