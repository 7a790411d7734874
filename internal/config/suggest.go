package config

import (
	"slices"
	"strings"
)

// unknownKey reports a key that means nothing where it is. It returns the one that was meant, if that is clear.
func (d *decoder) unknownKey(e entry, at place, fields []field) string {
	path := at.path.to(e.name)
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	where := "here"
	if len(at.path) > 0 {
		where = "in " + at.path.String()
	}
	if name, ok := nearest(e.name, names); ok {
		d.reportAt(e.pos, path, "unknown key; did you mean %s?", name)
		return name
	}
	if rule := d.elsewhere(e.name); rule != "" {
		parent := rule[:max(strings.LastIndex(rule, "."), 0)]
		switch parent {
		case "":
			d.reportAt(e.pos, path, "unknown key %s; it belongs at the top of the file, without indentation", where)
		case "triggers[]":
			d.reportAt(e.pos, path, "unknown key %s; it belongs to an entry of triggers, indent it like the name of the trigger", where)
		default:
			d.reportAt(e.pos, path, "unknown key %s; it belongs in %s, indent it under that", where, strings.TrimPrefix(parent, "triggers[]."))
		}
		return ""
	}
	if right := foreign(e.name); right != "" && strings.HasPrefix(at.rule, "triggers[]") {
		d.reportAt(e.pos, path, "unknown key; Rowhook calls it %s", right)
		return ""
	}
	d.reportAt(e.pos, path, "unknown key; the keys %s are %s", where, strings.Join(names, ", "))
	return ""
}

// elsewhere is the one place where a key of this name does belong, or nothing.
func (d *decoder) elsewhere(name string) string {
	var found []string
	for _, rule := range sortedKeys(d.keys) {
		if rule == name || strings.HasSuffix(rule, "."+name) {
			found = append(found, rule)
		}
	}
	if len(found) != 1 {
		return ""
	}
	return found[0]
}

// foreign is what other event-trigger engines' keys are called here.
func foreign(name string) string {
	switch strings.ToLower(name) {
	case "uri", "endpoint", "webhook_url", "webhook_from_env", "destination":
		return "webhook: {url: ...}"
	case "retry_conf", "retries", "num_retries", "max_retries", "attempts", "max_attempts":
		return "retry: {limit: ...}"
	case "interval_sec", "retry_interval":
		return "retry: {interval: ...}"
	case "timeout_sec", "timeout_seconds":
		return "webhook: {timeout: ...}"
	case "filter", "where", "condition", "if":
		return "when: ..."
	case "events", "operations", "ops", "definition":
		return "on: {insert: true, update: true, delete: true}"
	case "schema":
		return "table: schema.table"
	}
	return ""
}

// nearest is the name that a misspelling of it most resembles.
func nearest(word string, names []string) (string, bool) {
	best, distance := "", len(word)/3+1
	for _, name := range names {
		if n := editDistance(normal(word), normal(name)); n < distance || n == distance && best == "" && n <= max(len(word), len(name))/3 {
			best, distance = name, n
		}
	}
	return best, best != ""
}

func normal(s string) string { return strings.ReplaceAll(strings.ToLower(s), "-", "_") }

// editDistance counts the insertions, deletions, substitutions and swaps of neighbours that turn a into b
// (the optimal string alignment distance).
func editDistance(a, b string) int {
	previous, row := []int(nil), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		next := make([]int, len(b)+1)
		next[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next[j+1] = slices.Min([]int{row[j+1] + 1, next[j] + 1, row[j] + cost})
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				next[j+1] = min(next[j+1], previous[j-1]+1)
			}
		}
		previous, row = row, next
	}
	return row[len(b)]
}
