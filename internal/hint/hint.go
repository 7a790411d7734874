// Package hint completes the commands that messages for people advise.
package hint

import "strings"

// commands work on one source, or may.
const commands = " apply audit backfill cancel cutover discard doctor drain erase events invoke migrate pause redeliver replay resume retry status test triggers uninstall "

// Of returns a text whose commands name a source. source "": there is one database, and the text stays
// as it is.
func Of(source, text string) string {
	const program = "rowhook "
	out := ""
	for {
		before, after, found := strings.Cut(text, program)
		if out += before; !found || source == "" {
			return out + text[len(before):]
		}
		out, text = out+program, after
		end := wordEnd(after)
		if end == 0 || !strings.Contains(commands, " "+after[:end]+" ") {
			continue
		}
		if word := after[:end]; word == "events" || word == "cutover" { // a word follows that says what of it
			if rest, is := strings.CutPrefix(after[end:], " "); is && wordEnd(rest) > 0 {
				end += 1 + wordEnd(rest)
			}
		}
		out, text = out+after[:end]+" --source "+source, after[end:]
	}
}

// wordEnd is the length of the word at the beginning of a text.
func wordEnd(text string) int {
	n := 0
	for n < len(text) && text[n] >= 'a' && text[n] <= 'z' {
		n++
	}
	return n
}
