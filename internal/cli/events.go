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
	switch e.WaitsFor {
	case operate.WaitsForEndpoint:
		return "waits for its endpoint"
	case operate.WaitsForAnswer:
		return fmt.Sprintf("by dispatcher %d", *e.InstanceID)
	case operate.WaitsForDeadLetter:
		return "a dead letter holds its key: " + e.WaitsOn
	case operate.WaitsForTransaction:
		return "its strict order waits for a transaction: " + e.WaitsOn
	}
	switch e.State {
	case operate.Waiting:
		if e.DueAt.After(now) {
			return "due " + term.Ago(*e.DueAt, now)
		}
	case operate.Retrying:
		if !e.DueAt.After(now) {
			return "due " + term.Ago(*e.DueAt, now)
		}
		return "next attempt " + term.Ago(*e.DueAt, now)
	case operate.InFlight:
		return fmt.Sprintf("taken by dispatcher %d", *e.InstanceID)
	case operate.Delivered:
		if e.Unsent {
			return "nothing was sent: its row came and went"
		}
		if e.MergedInto != "" {
			return "sent in its stead: " + e.MergedInto
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

// stateCell is the state of an event in a word. One that was merged into a later one was not
// delivered itself.
func stateCell(e *operate.Event) term.Cell {
	if e.MergedInto != "" {
		return term.Cell{Text: "merged"}
	}
	if e.WaitsFor == operate.WaitsForAnswer {
		return term.Coloured("in flight", term.Cyan)
	}
	c := map[operate.State]term.Colour{
		operate.InFlight: term.Cyan, operate.Retrying: term.Yellow, operate.Delivered: term.Green, operate.Dead: term.Red,
	}[e.State]
	return term.Cell{Text: strings.ReplaceAll(string(e.State), "_", " "), Colour: c}
}
