package config

import (
	"maps"
	"reflect"
	"slices"
	"strconv"

	"github.com/goccy/go-yaml/ast"

	"github.com/rowhook/rowhook/trigger"
)

// top is the keys at the top of one file.
type top struct {
	file     string
	pos      Position
	entries  []entry
	complete bool // see entries
}

// files decodes the files of one configuration. It decodes defaults first, because a trigger is
// decoded on top of them, whatever file it is in.
func (d *decoder) files(files []file) {
	var tops []top
	for _, f := range files {
		d.names = append(d.names, f.name)
		d.name = f.name
		if t, ok := d.top(f.data); ok {
			tops = append(tops, t)
			d.hidden = d.hidden || !t.complete
		} else {
			d.hidden = true
		}
	}
	meant := d.settings(tops)
	for _, t := range tops {
		d.name = t.file
		for _, e := range t.entries {
			if e.name == "triggers" {
				meant[e.name] = true
				d.triggers(e)
			}
		}
	}
	if at := (place{}).key("triggers", Position{}); !d.hidden && !meant["triggers"] {
		d.name = tops[0].file
		where := map[bool]string{true: " in all files"}[len(tops) > 1]
		d.reportAt(tops[0].pos, at.path, "is missing%s; %s", where, d.remedy(at))
	}
	d.checkFor()
	d.checkHolders()
	d.uniqueNames()
}

// top reads the text of a file as far as its top keys.
func (d *decoder) top(data []byte) (top, bool) {
	d.mark(nil, Position{Line: 1, Column: 1})
	root := d.parse(data)
	if root == nil {
		return top{}, false
	}
	m, ok := root.(ast.MapNode)
	if !ok {
		d.reportAt(nodePosition(root), nil, "the file is %s, not keys; start with triggers: and an entry", describe(root))
		return top{}, false
	}
	t := top{file: d.name, pos: nodePosition(root)}
	d.mark(nil, t.pos)
	t.entries, t.complete = d.entries(m, place{pos: t.pos})
	return t, true
}

// settings decodes all top keys but triggers. Each of them may be in one file only. It returns the
// known keys that unknown ones probably mean.
func (d *decoder) settings(tops []top) (meant map[string]bool) {
	meant = map[string]bool{}
	fields := fieldsOf(reflect.TypeFor[document]())
	first := map[string]Position{}
	for _, t := range tops {
		d.name = t.file
		for _, e := range t.entries {
			i := slices.IndexFunc(fields, func(f field) bool { return f.name == e.name })
			other, twice := first[e.name]
			switch {
			case i < 0:
				name := d.unknownKey(e, place{pos: t.pos}, fields)
				meant[name] = true
				d.hidden = d.hidden || name == sharedRule
				continue
			case e.name == "triggers":
				continue
			case twice:
				all := map[bool]string{true: "the triggers of all files", false: "all files"}[e.name == sharedRule || e.name == sourcesKey]
				d.reportAt(e.pos, keyPath{e.name}, "is also given in %s:%d, and holds for %s; keep one", other.File, other.Line, all)
				continue
			}
			first[e.name] = Position{File: t.file, Line: e.pos.Line}
			switch e.name {
			case sharedRule:
				d.shared = t.file
			case sourcesKey:
				d.hasSources = true
			}
			d.value(e.value, reflect.ValueOf(&d.out).Elem().FieldByIndex(fields[i].index), place{}.key(e.name, e.pos))
		}
	}
	return meant
}

// triggers decodes the triggers of a file, and adds them to those of the files before it.
func (d *decoder) triggers(e entry) {
	var specs []trigger.Spec
	d.value(e.value, reflect.ValueOf(&specs).Elem(), place{}.key(e.name, e.pos))
	for i := range specs {
		d.origins = append(d.origins, origin{d.name, i})
	}
	if d.out.Triggers == nil {
		d.out.Triggers = specs
		return
	}
	d.out.Triggers = append(d.out.Triggers, specs...)
}

// cloneSpec returns a copy that shares no memory that a decoder writes.
func cloneSpec(s trigger.Spec) trigger.Spec {
	s.On.Update.Columns = slices.Clone(s.On.Update.Columns)
	for _, columns := range []*[]string{&s.Payload.Columns, &s.Payload.Insert.Columns, &s.Payload.Update.Columns, &s.Payload.Delete.Columns} {
		*columns = slices.Clone(*columns)
	}
	s.Payload.Mask = slices.Clone(s.Payload.Mask)
	s.Webhook.Headers = maps.Clone(s.Webhook.Headers)
	s.Webhook.Query = maps.Clone(s.Webhook.Query)
	s.Webhook.Form = maps.Clone(s.Webhook.Form)
	s.NATS.Headers = maps.Clone(s.NATS.Headers)
	s.Order.By = slices.Clone(s.Order.By)
	s.Retry.Schedule = slices.Clone(s.Retry.Schedule)
	s.Retry.Statuses = slices.Clone(s.Retry.Statuses)
	return s
}

// origin says which entry of triggers in which file a trigger is.
type origin struct {
	file  string
	index int
}

func (o origin) path(rest ...string) keyPath {
	return append(keyPath{"triggers", strconv.Itoa(o.index)}, rest...)
}

func sharedPath(rest ...string) keyPath { return append(keyPath{sharedRule}, rest...) }

// positions has the place of each value of the files, by positionID.
type positions map[string]Position

func positionID(file string, path keyPath) string { return file + "\x00" + path.id() }

func (p positions) at(file string, path keyPath) (Position, bool) {
	pos, ok := p[positionID(file, path)]
	return pos, ok
}

// find returns the place of a value, or of its nearest parent, and its path in its file. shared
// says that it is in defaults.
func (c *Config) find(trigger int, path []string) (at Position, key keyPath, shared bool) {
	if trigger < 0 || trigger >= len(c.origins) {
		at, key = c.findTop(trigger, path)
		return at, key, false
	}
	o := c.origins[trigger]
	key = o.path(path...)
	for n := len(path); ; n-- {
		if p, ok := c.positions.at(o.file, o.path(path[:n]...)); ok || n == 0 {
			return p, key, false
		}
		if p, ok := c.positions.at(c.shared, sharedPath(path[:n]...)); ok {
			return p, sharedPath(path...), true
		}
	}
}

// findTop finds a value that is no trigger's, in the file that has its top key.
func (c *Config) findTop(trigger int, path []string) (at Position, key keyPath) {
	key = slices.Clone(path)
	if trigger >= 0 {
		key = origin{index: trigger}.path(path...)
	}
	for n := len(key); n > 0; n-- {
		for _, file := range c.Files {
			if p, ok := c.positions.at(file, key[:n]); ok {
				return p, key
			}
		}
	}
	at, _ = c.positions.at(c.Files[0], nil)
	return at, key
}

// inherits reports whether the value at a path of the present file, which it does not have, may
// come from defaults. It is true after a problem in defaults, so that this does not lead to others.
func (d *decoder) inherits(path keyPath) bool {
	if len(path) < 3 || path[0] != "triggers" || isOwn(path[2]) {
		return false
	}
	if d.hidden || !d.cleanIn(d.shared, sharedPath()) {
		return true
	}
	if path[len(path)-1] == "by" && !d.out.Defaults.Order.IsZero() {
		return true // order: row gives it, too
	}
	_, ok := d.positions.at(d.shared, sharedPath(path[2:]...))
	return ok
}

// cleanIn reports whether there is no problem at or below a path of a file. Checks of several
// values run only on clean ones, so that they do not repeat a problem.
func (d *decoder) cleanIn(file string, path keyPath) bool { return !d.wrong[positionID(file, path)] }

// soundAt reports whether a value of a trigger has no problem, wherever it comes from.
func (d *decoder) soundAt(o origin, path ...string) bool {
	return d.cleanIn(o.file, o.path(path...)) && d.cleanIn(d.shared, sharedPath(path...))
}
