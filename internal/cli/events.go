package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/term"
)

func (a *app) eventsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Show events: list, show, tail",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.listCommand(), a.showCommand(), a.tailCommand())
	return cmd
}

// note returns what is worth knowing about an event besides its state.
func note(e *operate.Event, now time.Time) string {
	if e.WaitsFor == "endpoint" {
		return "waits for its endpoint"
	}
	switch e.State {
	case operate.Waiting:
		if e.DueAt.After(now) {
			return "due " + term.Ago(*e.DueAt, now)
		}
	case operate.Retrying:
		return "next attempt " + term.Ago(*e.DueAt, now)
	case operate.InFlight:
		return fmt.Sprintf("by dispatcher %d", *e.InstanceID)
	case operate.Delivered:
		if e.MergedInto != "" {
			return "a later event was sent in its stead"
		}
		return "after " + term.Span(e.DeliveredAt.Sub(e.CreatedAt))
	case operate.Dead:
		if e.Blocks {
			return term.Ago(*e.DiedAt, now) + ", holds the key " + e.Key + ": " + e.Reason
		}
		return term.Ago(*e.DiedAt, now) + ": " + e.Reason
	}
	return ""
}

func stateCell(s operate.State) term.Cell {
	c := map[operate.State]term.Colour{
		operate.InFlight: term.Cyan, operate.Retrying: term.Yellow, operate.Delivered: term.Green, operate.Dead: term.Red,
	}[s]
	return term.Cell{Text: strings.ReplaceAll(string(s), "_", " "), Colour: c}
}
