package config

import (
	"slices"
	"strings"

	"github.com/rowhook/rowhook/internal/suggest"
)

// unknownKey reports a key that does not exist at this place. It returns the key that was probably
// meant, or "".
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
	if at.rule == sharedRule && isOwn(e.name) {
		d.reportAt(e.pos, path, "%s; move this key to the triggers", ownReason(e.name))
		return ""
	}
	if near := suggest.Near(e.name, names, 1); len(near) > 0 {
		d.reportAt(e.pos, path, "unknown key; did you mean %s?", near[0])
		return near[0]
	}
	// Those of a group come first, since most wrong keys in a group are meant for it.
	keys := "unknown key; the keys " + where + " are " + strings.Join(names, ", ")
	if parents := d.elsewhere(e.name, at); len(parents) > 0 {
		switch {
		case slices.Contains(parents, ""):
			d.reportAt(e.pos, path, "unknown key %s; it belongs at the top of the file, without indentation", where)
		case slices.Contains(parents, triggerRule):
			d.reportAt(e.pos, path, "unknown key %s; %s", where, triggerKeyRemedy(e.name, at))
		case at.rule != triggerRule && at.rule != sharedRule && apart(at.rule) != at.rule && at.rule != "":
			d.reportAt(e.pos, path, "%s; if %s of %s is meant, indent it under that", keys, e.name, strings.Join(parents, " or "))
		default:
			d.reportAt(e.pos, path, "unknown key %s; it belongs in %s, indent it under that", where, strings.Join(parents, " or "))
		}
		return ""
	}
	if right := foreign(e.name); right != "" && (strings.HasPrefix(at.rule, triggerRule) || strings.HasPrefix(at.rule, sharedRule)) {
		d.reportAt(e.pos, path, "unknown key; Rowhook calls it %s", right)
		return ""
	}
	d.reportAt(e.pos, path, "%s", keys)
	return ""
}

// ownReason says why each trigger has a key of its own.
func ownReason(name string) string {
	if name == "name" || name == "table" {
		return "each trigger has a " + name + " of its own"
	}
	return "each trigger says which tables it watches"
}

// triggerKeyRemedy says where a key of a trigger belongs.
func triggerKeyRemedy(name string, at place) string {
	switch {
	case strings.HasPrefix(at.rule, sharedRule):
		return "it belongs directly under defaults, indent it less"
	case at.rule == "" && !isOwn(name):
		return "it belongs to an entry of triggers, indent it like the name of the trigger, or to defaults for all triggers"
	}
	return "it belongs to an entry of triggers, indent it like the name of the trigger"
}

// elsewhere returns the groups that have a key of this name, if there are one or two: "" is the top
// of the file. The keys of defaults are those of triggers. What is in an entry of alerts or in a source
// is meant for that alone, and what is not is not meant for these, which have some of the same names.
func (d *decoder) elsewhere(name string, at place) (parents []string) {
	for _, rule := range sortedKeys(d.keys) {
		if strings.HasPrefix(rule, sharedRule+".") || apart(rule) != apart(at.rule) {
			continue
		}
		if rule == name || strings.HasSuffix(rule, "."+name) {
			parent := rule[:max(strings.LastIndex(rule, "."), 0)]
			parents = append(parents, strings.TrimPrefix(strings.TrimPrefix(parent, triggerRule+"."), alertRule+"."))
		}
	}
	if len(parents) > 2 {
		return nil
	}
	return parents
}

// apart returns the list or group of entries that a rule is in, if its keys are meant for that alone.
func apart(rule string) string {
	for _, group := range [...]string{alertRule, sourcesKey} {
		if strings.HasPrefix(rule, group) && rule != sourcesKey {
			return group
		}
	}
	return ""
}

// foreign translates keys of other event-trigger engines.
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
	case "exclude", "ignore", "exclude_tables", "skip":
		return "except: [...], beside tables"
	case "include", "table_names":
		return "tables: [...]"
	}
	return ""
}
