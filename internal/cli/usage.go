package cli

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/spf13/cobra"
)

// usage returns what Cobra prints as the usage of a command, with flags wrapped at a width. Cobra
// wraps them only in a template of one's own, and decision 26 rules templates out.
func usage(cmd *cobra.Command, width int) string {
	flags, global := cmd.LocalFlags(), cmd.InheritedFlags() // first: UseLine needs the flags of the parents, too
	var b strings.Builder
	b.WriteString("Usage:")
	if cmd.Runnable() {
		b.WriteString("\n  " + cmd.UseLine())
	}
	if cmd.HasAvailableSubCommands() {
		b.WriteString("\n  " + cmd.CommandPath() + " [command]")
	}
	if cmd.HasExample() {
		b.WriteString("\n\nExamples:\n" + cmd.Example)
	}
	if cmd.HasAvailableSubCommands() {
		writeCommands(&b, cmd)
	}
	if flags.HasAvailableFlags() {
		b.WriteString("\n\nFlags:\n" + strings.TrimRightFunc(flags.FlagUsagesWrapped(width), unicode.IsSpace))
	}
	if global.HasAvailableFlags() {
		b.WriteString("\n\nGlobal Flags:\n" + strings.TrimRightFunc(global.FlagUsagesWrapped(width), unicode.IsSpace))
	}
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "\n\nUse %q for more information about a command.", cmd.CommandPath()+" [command] --help")
	}
	b.WriteByte('\n')
	return b.String()
}

// writeCommands writes the commands below cmd, in its groups. Those without one come last.
func writeCommands(b *strings.Builder, cmd *cobra.Command) {
	groups := cmd.Groups()
	switch {
	case len(groups) == 0:
		groups = []*cobra.Group{{Title: "Available Commands:"}}
	case !cmd.AllChildCommandsHaveGroup():
		groups = append(groups[:len(groups):len(groups)], &cobra.Group{Title: "Additional Commands:"})
	}
	for _, group := range groups {
		b.WriteString("\n\n" + group.Title)
		for _, sub := range cmd.Commands() {
			if sub.GroupID == group.ID && (sub.IsAvailableCommand() || sub.Name() == "help") {
				fmt.Fprintf(b, "\n  %-*s %s", sub.NamePadding(), sub.Name(), sub.Short)
			}
		}
	}
}
