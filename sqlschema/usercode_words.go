package sqlschema

import (
	"regexp"
	"strings"
)

var bodyToken = regexp.MustCompile(`(?s)--[^\n]*|/\*.*?\*/|[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|\$[0-9]+|\$[A-Za-z_]*\$|` +
	`(?:[A-Za-z_]|[^\x00-\x7F])(?:[A-Za-z0-9_$]|[^\x00-\x7F])*|[0-9]+(?:\.[0-9]+)?|[+\-*/<>=~!@#%^&|` + "`" + `?]+|::|:=|.`)

// words splits a body in SQL or PL/pgSQL into words. It does not know whether a name is a column or
// a table. The caller decides that.
func words(body string) []bodyWord {
	var tokens []string
	for at := 0; at < len(body); {
		span := bodyToken.FindStringIndex(body[at:])
		if span == nil {
			break
		}
		token := body[at+span[0] : at+span[1]]
		at += span[1]
		switch {
		case strings.TrimSpace(token) == "" || strings.HasPrefix(token, "--") || strings.HasPrefix(token, "/*"):
			continue
		case len(token) > 1 && token[0] == '$' && token[len(token)-1] == '$':
			rest, _, _ := strings.Cut(body[at:], token)
			at = min(len(body), at+len(rest)+len(token))
			token = "'" + rest + "'"
		}
		tokens = append(tokens, token)
	}
	var out []bodyWord
	at := func(i int) string {
		if i < 0 || i >= len(tokens) {
			return ""
		}
		return tokens[i]
	}
	for i, token := range tokens {
		name, isName := nameIn(token)
		switch {
		case isName && at(i+1) != ".":
			w := bodyWord{kind: identWord, text: name, called: at(i+1) == "("}
			if at(i-1) == "." {
				schema, ok := nameIn(at(i - 2))
				if !ok {
					continue // a field of $1, or of an expression in parentheses
				}
				w.schema = schema
			}
			out = append(out, w)
		case token[0] == '\'' || len(token) > 1 && token[1] == '\'':
			out = append(out, bodyWord{kind: stringWord, text: strings.TrimSuffix(token[strings.IndexByte(token, '\'')+1:], "'")})
		case strings.ContainsRune("+-*/<>=~!@#%^&|`?", rune(token[0])):
			w := bodyWord{kind: operatorWord, text: token}
			if at(i-1) == "." {
				w.schema, _ = nameIn(at(i - 2))
			}
			out = append(out, w)
		}
	}
	return out
}

// nameIn returns the name in a token. ok is false if the token is no name.
func nameIn(token string) (name string, ok bool) {
	switch {
	case token == "" || len(token) > 1 && token[1] == '\'':
		return "", false
	case token[0] == '"' && len(token) > 1:
		return strings.ReplaceAll(token[1:len(token)-1], `""`, `"`), true
	case token[0] == '_' || token[0] >= 0x80 || 'a' <= token[0]|0x20 && token[0]|0x20 <= 'z':
		return strings.ToLower(token), true
	}
	return "", false
}
