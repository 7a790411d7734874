package config

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// checkWhen rejects text that would break out of the WHEN (...) around a condition: unclosed
// brackets, quotes and comments, and semicolons. An apply lets Postgres check the condition itself.
func checkWhen(s string) error {
	var open []int // where brackets opened
	for i := 0; i < len(s); {
		rest := s[i:]
		switch c := rest[0]; {
		case c == '\'' || c == '"':
			n := quotedLen(rest, c == '\'' && endsInEscapeMark(s[:i]))
			if n < 0 {
				return fmt.Errorf("the %c %s is never closed; close it, or double it if it is part of the text: %c%c", c, character(s, i), c, c)
			}
			i += n
			continue
		case c == '$' && dollarQuote.MatchString(rest) && !endsInWord(s[:i]):
			tag := dollarQuote.FindString(rest)
			end := strings.Index(rest[len(tag):], tag)
			if end < 0 {
				return fmt.Errorf("the %s %s is never closed; write it again after the text", tag, character(s, i))
			}
			i += end + 2*len(tag)
			continue
		case strings.HasPrefix(rest, "/*"):
			n := commentLen(rest)
			if n < 0 {
				return fmt.Errorf("the comment %s is never closed; add */", character(s, i))
			}
			i += n
			continue
		case strings.HasPrefix(rest, "--"):
			return fmt.Errorf("the -- %s starts a comment; write comments as /* ... */", character(s, i))
		case c == ';':
			return fmt.Errorf("the ; %s ends the statement; write one expression, without ;", character(s, i))
		case strings.HasPrefix(rest, "${"):
			return errors.New("${NAME} is not read here, only in a webhook's url, query, headers, body, form and secret; write the value itself")
		case c == '(' || c == '[':
			open = append(open, i)
		case c == ')' || c == ']':
			if len(open) == 0 {
				return fmt.Errorf("the %c %s has no opening bracket; remove it, or add the bracket before it", c, character(s, i))
			}
			last := open[len(open)-1]
			if want := closing(s[last]); c != want {
				return fmt.Errorf("the %c %s should be the %c of the %c %s; check the brackets", c, character(s, i), want, s[last], character(s, last))
			}
			open = open[:len(open)-1]
		}
		i++
	}
	if len(open) > 0 {
		last := open[len(open)-1]
		return fmt.Errorf("the %c %s is never closed; add the %c", s[last], character(s, last), closing(s[last]))
	}
	return nil
}

var dollarQuote = regexp.MustCompile(`^\$(?:(?:[A-Za-z_]|[^\x00-\x7F])(?:[A-Za-z0-9_]|[^\x00-\x7F])*)?\$`)

// character returns the position of a byte of s for people: the number of its character, from 1.
func character(s string, i int) string {
	return fmt.Sprintf("at character %d", utf8.RuneCountInString(s[:i])+1)
}

func closing(c byte) byte {
	if c == '(' {
		return ')'
	}
	return ']'
}

// quotedLen returns the length of the quoted text or name at the start of s, or -1 if it is not
// closed. A doubled quote does not close it. With escapes, neither does a quote after a backslash.
func quotedLen(s string, escapes bool) int {
	for i := 1; i < len(s); i++ {
		switch {
		case escapes && s[i] == '\\':
			i++
		case s[i] == s[0] && i+1 < len(s) && s[i+1] == s[0]:
			i++
		case s[i] == s[0]:
			return i + 1
		}
	}
	return -1
}

// commentLen returns the length of the comment at the start of s, or -1 if it is not closed. SQL
// comments nest.
func commentLen(s string) int {
	depth := 0
	for i := 0; i+1 < len(s); i++ {
		switch s[i : i+2] {
		case "/*":
			depth++
			i++
		case "*/":
			depth--
			i++
		}
		if depth == 0 {
			return i + 1
		}
	}
	return -1
}

// endsInEscapeMark reports whether s ends in the E of E'...', in which a backslash escapes.
func endsInEscapeMark(s string) bool {
	return s != "" && (s[len(s)-1] == 'E' || s[len(s)-1] == 'e') && !endsInWord(s[:len(s)-1])
}

func endsInWord(s string) bool {
	if s == "" {
		return false
	}
	c := s[len(s)-1]
	return c == '_' || c == '$' || c >= utf8.RuneSelf || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}
