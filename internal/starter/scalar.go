package starter

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

var plainWord = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.]*$`)

// notText are words that some version of YAML takes for something other than text.
func notText() []string {
	return []string{"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
}

// scalar returns a text as YAML: as it is if every version of YAML reads it as this text, otherwise
// in single quotes, and if it has characters that can't be printed, with escapes in double quotes.
func scalar(s string) string {
	if plainWord.MatchString(s) && !slices.Contains(notText(), strings.ToLower(s)) {
		return s
	}
	if !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return "'" + strings.ReplaceAll(s, "'", "''") + "'"
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteString(`\` + string(r))
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
