package cli

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/rowhook/rowhook/internal/logs"
)

// The widest help, which is also that of what is no terminal, and the narrowest.
const (
	mostHelp  = 110
	leastHelp = 40
)

// wrapHelp has help texts broken where the terminal ends.
func (a *app) wrapHelp(root *cobra.Command) {
	width := a.helpWidth()
	template := root.UsageTemplate()
	root.SetUsageTemplate(strings.ReplaceAll(template, "Flags.FlagUsages ", fmt.Sprintf("Flags.FlagUsagesWrapped %d ", width)))
	help := root.HelpFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		cmd.Long, cmd.Short = reflow(cmd.Long, width), reflow(cmd.Short, width)
		help(cmd, args)
	})
}

func (a *app) helpWidth() int {
	width := mostHelp
	if f, ok := a.stdout.(interface{ Fd() uintptr }); ok && logs.IsTerminal(a.stdout) {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil {
			width = w
		}
	} else if text, ok := a.lookup("COLUMNS"); ok {
		if w, err := strconv.Atoi(text); err == nil {
			width = w
		}
	}
	return max(min(width, mostHelp), leastHelp)
}

// reflow breaks paragraphs anew into lines of so many characters. What is indented stays as it is.
func reflow(text string, width int) string {
	var out []string
	paragraph := ""
	flush := func() {
		line := ""
		for _, word := range strings.Fields(paragraph) {
			switch {
			case line == "":
				line = word
			case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) <= width:
				line += " " + word
			default:
				out = append(out, line)
				line = word
			}
		}
		if line != "" {
			out = append(out, line)
		}
		paragraph = ""
	}
	for line := range strings.SplitSeq(text, "\n") {
		if line == "" || strings.HasPrefix(line, " ") {
			flush()
			out = append(out, line)
			continue
		}
		paragraph += " " + line
	}
	flush()
	return strings.Join(out, "\n")
}
