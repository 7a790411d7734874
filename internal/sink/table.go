package sink

import (
	"errors"
	"fmt"
	"strings"

	"github.com/rowhook/rowhook/internal/pg"
)

// fitsTable reports whether the match's table is d's. It is written as in SQL, with its schema or
// without: "Guest Notes" in double quotes. A name without quotes fits as it is written, too, and in
// lower case, which is how SQL reads it.
func (m *Match) fitsTable(d *Delivery) bool {
	if m.Table == "" || m.Table == d.Table || m.Table == d.Schema+"."+d.Table {
		return true
	}
	parts, err := parseTable(m.Table)
	if err != nil {
		return false
	}
	names := []string{d.Schema, d.Table}[2-len(parts):]
	for i, p := range parts {
		if p.text != names[i] && (p.quoted || strings.ToLower(p.text) != names[i]) {
			return false
		}
	}
	return true
}

// CheckTable returns an error if no table can have the name, as Match.Table has it.
func CheckTable(name string) error {
	_, err := parseTable(name)
	return err
}

// tablePart is a table's name, or that of its schema.
type tablePart struct {
	text   string
	quoted bool
}

// parseTable reads TABLE or SCHEMA.TABLE.
func parseTable(text string) ([]tablePart, error) {
	var parts []tablePart
	for rest, more := text, true; more; {
		part, after, err := nextTablePart(rest)
		if err == nil && part.text == "" {
			err = errors.New("a name is empty")
		}
		if err != nil {
			return nil, fmt.Errorf("table %s: %w", shown(text), err)
		}
		parts = append(parts, part)
		rest, more = strings.CutPrefix(after, ".")
	}
	if len(parts) > 2 {
		return nil, fmt.Errorf("table %s has %d parts; write TABLE or SCHEMA.TABLE, and a name with a dot in double quotes", shown(text), len(parts))
	}
	return parts, nil
}

// nextTablePart takes a name off rest. What follows it is empty or begins with a dot.
func nextTablePart(rest string) (part tablePart, after string, err error) {
	if !strings.HasPrefix(rest, `"`) {
		end := strings.IndexByte(rest, '.')
		if end < 0 {
			end = len(rest)
		}
		return tablePart{text: rest[:end]}, rest[end:], nil
	}
	var name strings.Builder
	for rest = rest[1:]; ; {
		before, behind, closed := strings.Cut(rest, `"`)
		if !closed {
			return part, "", errors.New(`a double quote is not closed; write "Guest Notes" or public."Guest Notes"`)
		}
		name.WriteString(before)
		doubled := false
		if rest, doubled = strings.CutPrefix(behind, `"`); !doubled {
			break
		}
		name.WriteByte('"')
	}
	if rest != "" && rest[0] != '.' {
		return part, "", fmt.Errorf("a dot is missing before %s", shown(rest))
	}
	return tablePart{name.String(), true}, rest, nil
}

// table returns the name of the row's table, as SQL writes it.
func (d *Delivery) table() string {
	if d.Schema == "" {
		return d.Table // somebody's own event
	}
	return pg.PlainName(d.Schema, d.Table)
}
