package pg

import (
	"errors"
	"slices"
	"strings"
)

// Pattern names tables: one, as SQL would, or several by * for any characters of the schema or of
// the table, as in billing.* and tenant_*.orders. A * within double quotes is a * of the name.
type Pattern struct {
	parts []glob // the schema and the table, or the table alone
}

// glob is what a name is made of: texts with any characters between them. A single text is a name.
type glob []string

// ParsePattern reads a Pattern. Names fold to lower case outside of quotes, as in SQL.
func ParsePattern(text string) (Pattern, error) {
	var p Pattern
	for rest := text; ; {
		part, after, err := cutGlob(rest)
		if err != nil {
			return Pattern{}, err
		}
		p.parts = append(p.parts, part)
		if after == "" {
			break
		}
		rest = after[1:]
	}
	switch {
	case len(p.parts) > 2:
		return Pattern{}, errors.New("has more than a schema and a table; write schema.table")
	case len(p.parts) == 1 && !p.Exact():
		return Pattern{}, errors.New("is a pattern without a schema; write it with its schema, as in public." + text)
	}
	return p, nil
}

// cutGlob reads the first part of a pattern. after begins with the dot before the next part.
func cutGlob(text string) (part glob, after string, err error) {
	if !strings.HasPrefix(text, `"`) {
		end := strings.IndexByte(text, '.')
		if end < 0 {
			end = len(text)
		}
		if end == 0 || strings.Contains(text[:end], `"`) {
			return nil, "", errors.New("is not the name of a table; write schema.table")
		}
		return strings.Split(lower(text[:end]), "*"), text[end:], nil
	}
	var name strings.Builder
	for i := 1; i < len(text); i++ {
		switch {
		case text[i] != '"':
			name.WriteByte(text[i])
		case i+1 < len(text) && text[i+1] == '"':
			name.WriteByte('"')
			i++
		case i == 1 || i+1 < len(text) && text[i+1] != '.':
			return nil, "", errors.New("is not the name of a table; write schema.table")
		default:
			return glob{name.String()}, text[i+1:], nil
		}
	}
	return nil, "", errors.New("has a quote that is never closed; close it, or double it if it belongs to the name")
}

// lower folds the letters that Postgres folds in every database.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// IsZero reports whether the pattern is the zero value, which matches nothing.
func (p Pattern) IsZero() bool { return len(p.parts) == 0 }

// Exact reports whether the pattern is the name of one table.
func (p Pattern) Exact() bool {
	return !slices.ContainsFunc(p.parts, func(g glob) bool { return len(g) > 1 })
}

// HasSchema reports whether the pattern says something of the schema.
func (p Pattern) HasSchema() bool { return len(p.parts) > 1 }

// Schema returns the schema of an exact pattern, or of one whose schema has no *. ok is false for
// any other, and for a name without a schema.
func (p Pattern) Schema() (schema string, ok bool) {
	if len(p.parts) < 2 || len(p.parts[0]) > 1 {
		return "", false
	}
	return p.parts[0][0], true
}

// Table returns the table of an exact pattern, without its schema.
func (p Pattern) Table() string {
	if last := p.parts[len(p.parts)-1]; len(last) == 1 {
		return last[0]
	}
	return ""
}

// OnlySchema reports whether the pattern matches tables of this schema alone.
func (p Pattern) OnlySchema(name string) bool {
	schema, ok := p.Schema()
	return ok && schema == name
}

// Fixed returns the texts between the *.
func (p Pattern) Fixed() []string { return slices.Concat(p.parts...) }

// Match reports whether the pattern names this table. It must have a schema.
func (p Pattern) Match(schema, table string) bool {
	return len(p.parts) == 2 && p.parts[0].match(schema) && p.parts[1].match(table)
}

func (g glob) match(name string) bool {
	if len(g) == 1 {
		return name == g[0]
	}
	name, ok := strings.CutPrefix(name, g[0])
	if !ok {
		return false
	}
	for _, text := range g[1 : len(g)-1] {
		_, after, found := strings.Cut(name, text) // the first place leaves most for the others
		if !found {
			return false
		}
		name = after
	}
	return strings.HasSuffix(name, g[len(g)-1])
}
