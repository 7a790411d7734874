package config

import (
	"fmt"
	"maps"
	"net/textproto"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
	"golang.org/x/net/http/httpguts"

	"github.com/rowhook/rowhook/internal/template"
	"github.com/rowhook/rowhook/trigger"
)

// decoder walks the syntax tree of the file and the structs in parallel. It records positions and
// problems and continues, so that all problems are reported at once.
type decoder struct {
	name      string   // the file that is being decoded
	names     []string // all files
	keys      map[string]key
	patterns  map[string]*regexp.Regexp // see matches
	lines     map[string]lines          // by file
	positions positions
	problems  []Problem
	wrong     map[string]bool // by positionID: there is a problem at or below it
	shared    string          // the file with defaults; "": none so far
	hidden    bool            // part of a file can't be read, so defaults may give what is missing
	origins   []origin
	out       document

	hasSources  bool     // a file has sources
	sourceNames []string // those of sources, valid or not
	forOf       forLists
}

func newDecoder() *decoder {
	return &decoder{
		keys: keys(), patterns: map[string]*regexp.Regexp{}, lines: map[string]lines{}, positions: positions{}, wrong: map[string]bool{}, forOf: forLists{},
		out: document{Defaults: trigger.DefaultSpec(), Settings: trigger.DefaultSettings()},
	}
}

// place is the value that is being decoded.
type place struct {
	path keyPath
	rule string   // its path in keys()
	pos  Position // the position of its key, or of the list entry
}

func (p place) key(name string, pos Position) place {
	rule := name
	if p.rule != "" {
		rule = p.rule + "." + name
	}
	return place{p.path.to(name), rule, pos}
}

func (p place) index(i int, pos Position) place {
	return place{p.path.to(strconv.Itoa(i)), p.rule + "[]", pos}
}

// name returns the key of the value, or "entry" for an entry of a list.
func (p place) name() string {
	if len(p.path) == 0 || isDigits(p.path[len(p.path)-1]) {
		return "entry"
	}
	return p.path[len(p.path)-1]
}

func (d *decoder) reportAt(pos Position, path keyPath, format string, args ...any) {
	if pos.File == "" {
		pos.File = d.name
	}
	d.problems = append(d.problems, Problem{
		Position: pos, Key: path.String(), Message: fmt.Sprintf(format, args...), Excerpt: d.lines[pos.File].excerptOf(path, pos),
	})
	for n := range len(path) + 1 {
		d.wrong[positionID(pos.File, path[:n])] = true
	}
}

// mark records where a value is in the file that is being decoded.
func (d *decoder) mark(path keyPath, pos Position) {
	pos.File = d.name
	d.positions[positionID(d.name, path)] = pos
}

// value decodes n into v. It returns whether it found no problem.
func (d *decoder) value(n ast.Node, v reflect.Value, at place) bool {
	d.mark(at.path, at.pos)
	n, ok := d.plain(n, at)
	if !ok {
		return false
	}
	if _, null := n.(*ast.NullNode); null {
		d.reportAt(at.pos, at.path, "has no value; %s", d.emptyRemedy(at))
		return false
	}
	if m, ok := n.(*ast.MappingNode); !ok || m.IsFlowStyle {
		d.mark(at.path, nodePosition(n))
	}
	before := len(d.problems)
	switch v.Addr().Interface().(type) {
	case *trigger.Duration:
		d.duration(n, v, at)
	case **trigger.Duration:
		own := reflect.New(v.Type().Elem())
		d.duration(n, own.Elem(), at)
		v.Set(own)
	case *trigger.Size:
		d.size(n, v, at)
	case *trigger.UpdateOn:
		d.update(n, v, at)
	case *trigger.Order:
		d.order(n, v, at)
	case *keyColumns:
		d.keyColumns(n, v, at)
	case *trigger.Batch, *trigger.Rate:
		d.groupOrNone(n, v, at)
	case *trigger.PerTime:
		d.perTime(n, v, at)
	case *trigger.Statuses:
		d.statuses(n, v, at)
	case *concurrency:
		d.concurrency(n, v, at)
	case *sourceGroup:
		d.sources(n, v, at)
	case *trigger.Body:
		d.body(n, v, at)
	case *map[string]string:
		if strings.HasSuffix(at.rule, ".headers") {
			d.headers(n, v, at)
			break
		}
		d.texts(n, v, at)
	default:
		switch v.Kind() {
		case reflect.Struct:
			d.group(n, v, at)
		case reflect.Slice:
			d.list(n, v, at)
		case reflect.Bool:
			d.boolean(n, v, at)
		case reflect.Int:
			d.number(n, v, at)
		default:
			d.text(n, v, at)
		}
	}
	return len(d.problems) == before
}

func (d *decoder) emptyRemedy(at place) string {
	if d.keys[at.rule].required {
		return d.remedy(at)
	}
	return d.remedy(at) + ", or remove it"
}

// remedy says what to write instead of a wrong value.
func (d *decoder) remedy(at place) string {
	k := d.keys[at.rule]
	if k.remedy != "" {
		return k.remedy
	}
	return "write it like " + k.example
}

// plain rejects anchors, aliases and tags. It returns the value inside, and false if there is none
// to check.
func (d *decoder) plain(n ast.Node, at place) (ast.Node, bool) {
	switch v := n.(type) {
	case *ast.AnchorNode:
		d.reportAt(nodePosition(n), at.path, "YAML anchors are not supported; remove &name, or put the value in quotes if the & belongs to it")
		if _, null := v.Value.(*ast.NullNode); v.Value == nil || null {
			return nil, false
		}
		return d.plain(v.Value, at)
	case *ast.AliasNode:
		d.reportAt(nodePosition(n), at.path, "YAML aliases are not supported; repeat the value itself, or put it in quotes if the * belongs to it")
		return nil, false
	case *ast.TagNode:
		d.reportAt(nodePosition(n), at.path, "YAML tags are not supported; remove the tag, or put the value in quotes if the ! belongs to it")
		return nil, false
	case nil:
		d.reportAt(at.pos, at.path, "has no value; %s", d.emptyRemedy(at))
		return nil, false
	}
	return n, true
}

// entry is one key of a group with its value.
type entry struct {
	name  string
	pos   Position
	value ast.Node
}

// entries lists the keys of a group. It reports keys that are not plain text, and repeated ones.
// complete is false if the group may have keys that are not in the list, such as those of a merge.
func (d *decoder) entries(n ast.MapNode, at place) (list []entry, complete bool) {
	complete = true
	first := map[string]Position{}
	for it := n.MapRange(); it.Next(); {
		k := it.Key()
		pos := position(k.GetToken())
		if k.IsMergeKey() {
			d.reportAt(pos, at.path, "YAML merge keys (<<) are not supported; repeat the keys")
			complete = false
			continue
		}
		name := k.GetToken().Value
		switch k := k.(type) {
		case *ast.StringNode:
			name = k.Value
		case *ast.MappingKeyNode:
			d.reportAt(pos, at.path, "a key that starts with ? is not supported; write key: value")
			complete = false
			continue
		case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode:
			d.reportAt(pos, at.path, "a key with a YAML anchor, alias or tag is not supported; write the key alone")
			complete = false
			continue
		}
		if other, twice := first[name]; twice {
			d.reportAt(pos, at.path.to(name), "is given twice; keep one (the first is on line %d)", other.Line)
			continue
		}
		first[name] = pos
		list = append(list, entry{name, pos, it.Value()})
	}
	return list, complete
}

// group decodes keys into a struct.
func (d *decoder) group(n ast.Node, v reflect.Value, at place) {
	m, ok := n.(ast.MapNode)
	if !ok {
		d.wrongType(n, at, "keys are needed", d.groupRemedy(n, v, at))
		return
	}
	fields := fieldsOf(v.Type())
	if at.rule == sharedRule {
		fields = slices.DeleteFunc(fields, func(f field) bool { return isOwn(f.name) })
	}
	found, complete := d.entries(m, at)
	seen := map[string]bool{}
	for _, e := range found {
		i := slices.IndexFunc(fields, func(f field) bool { return f.name == e.name })
		if i < 0 {
			seen[d.unknownKey(e, at, fields)] = true
			continue
		}
		seen[e.name] = true
		if fields[i].index == nil { // no field of the struct
			d.forNames(e.value, at.key(e.name, e.pos))
			continue
		}
		if spec, ok := v.Addr().Interface().(*trigger.Spec); ok && e.name == "concurrency" {
			c := concurrency{spec.Concurrency, spec.ConcurrencyTotal} // one key, two fields
			d.value(e.value, reflect.ValueOf(&c).Elem(), at.key(e.name, e.pos))
			spec.Concurrency, spec.ConcurrencyTotal = c.Each, c.Total
			continue
		}
		d.value(e.value, v.FieldByIndex(fields[i].index), at.key(e.name, e.pos))
	}
	for _, f := range fields {
		k := at.key(f.name, at.pos)
		if d.keys[k.rule].required && !seen[f.name] && complete && !d.inherits(k.path) {
			d.missing(at.pos, k)
		}
	}
	if spec, ok := v.Addr().Interface().(*trigger.Spec); ok && at.rule == triggerRule {
		if !seen["table"] && !seen["tables"] && complete {
			d.missing(at.pos, at.key("table", at.pos))
		}
		if d.destination(spec, at, seen, complete) {
			d.checkMerged(spec, at, seen["webhook"] || !complete)
		}
	}
}

// missing reports that a required key is missing.
func (d *decoder) missing(pos Position, k place) {
	remedy := d.remedy(k)
	if inherited, ok := strings.CutPrefix(k.rule, triggerRule+"."); ok && !isOwn(inherited) {
		remedy += ", here or for all triggers in defaults"
	}
	d.reportAt(pos, k.path, "is missing; %s", remedy)
}

// field is a struct field that is a key of the file, or with index nil a key that is no field.
type field struct {
	name  string
	index []int
	typ   reflect.Type
}

// in returns the field of a struct; its zero value for a key that is no field.
func (f field) in(v reflect.Value) reflect.Value {
	if f.index == nil {
		return reflect.New(f.typ).Elem()
	}
	return v.FieldByIndex(f.index)
}

// fieldsOf lists the keys in a struct's yaml tags, including those of inlined structs.
func fieldsOf(t reflect.Type) []field {
	var fields []field
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if name == "-" {
			continue
		}
		if options == "inline" {
			for _, inner := range fieldsOf(f.Type) {
				inner.index = append([]int{i}, inner.index...)
				fields = append(fields, inner)
			}
			continue
		}
		fields = append(fields, field{name, []int{i}, f.Type})
		if t == reflect.TypeFor[trigger.Spec]() && name == "follow" {
			fields = append(fields, field{forKey, nil, reflect.TypeFor[[]string]()})
		}
	}
	return fields
}

func (d *decoder) list(n ast.Node, v reflect.Value, at place) {
	s, ok := n.(*ast.SequenceNode)
	if !ok {
		d.wrongType(n, at, "a list is needed", d.remedy(at))
		return
	}
	k := d.keys[at.rule]
	if len(s.Values) == 0 && k.nonEmpty {
		d.reportAt(nodePosition(n), at.path, "is empty; %s", d.remedy(at))
	}
	v.Set(reflect.MakeSlice(v.Type(), len(s.Values), len(s.Values)))
	for i, n := range s.Values {
		// The position of a null is that of the next token. The position of the dash is more
		// useful.
		pos := nodePosition(n)
		if _, null := n.(*ast.NullNode); null && i < len(s.Entries) && s.Entries[i] != nil && s.Entries[i].Start != nil {
			pos = position(s.Entries[i].Start)
		}
		if spec, ok := v.Index(i).Addr().Interface().(*trigger.Spec); ok {
			*spec = cloneSpec(d.out.Defaults)
		}
		alert, isAlert := v.Index(i).Addr().Interface().(*trigger.Alert)
		if isAlert {
			*alert = defaultAlert()
		}
		if d.value(n, v.Index(i), at.index(i, pos)) && isAlert {
			d.checkAlert(alert, at.index(i, pos))
		}
	}
	if alerts, ok := v.Interface().([]trigger.Alert); ok {
		d.uniqueAlerts(alerts, at)
	}
	if texts, ok := v.Interface().([]string); ok && k.unique {
		for i, text := range texts {
			if first := slices.Index(texts, text); first < i && text != "" {
				d.reportAt(nodePosition(s.Values[i]), at.path.to(strconv.Itoa(i)), "%q is listed twice; keep one", text)
			}
		}
	}
}

func (d *decoder) update(n ast.Node, v reflect.Value, at place) {
	if _, ok := n.(ast.MapNode); ok {
		long := updateColumns{Columns: v.Interface().(trigger.UpdateOn).Columns} // those of defaults
		d.value(n, reflect.ValueOf(&long).Elem(), at)
		v.Set(reflect.ValueOf(trigger.UpdateOn{Enabled: true, Columns: long.Columns}))
		return
	}
	var on bool
	if s, ok := n.(*ast.SequenceNode); ok {
		d.reportAt(nodePosition(n), at.path, "is a list; write update: {columns: %s}", sample(s))
		return
	}
	d.boolean(n, reflect.ValueOf(&on).Elem(), at)
	v.Set(reflect.ValueOf(trigger.UpdateOn{Enabled: on}))
}

// sample returns a short list of plain words as YAML, and [...] for any other list.
func sample(s *ast.SequenceNode) string {
	var words []string
	for _, n := range s.Values {
		if text, ok := n.(*ast.StringNode); ok && isPlainKey(text.Value) {
			words = append(words, text.Value)
		}
	}
	if len(words) == 0 || len(words) != len(s.Values) || len(words) > 8 {
		return "[...]"
	}
	return "[" + strings.Join(words, ", ") + "]"
}

func (d *decoder) headers(n ast.Node, v reflect.Value, at place) {
	found, headers := d.named(n, v, at, "header names")
	for _, e := range found {
		maps.DeleteFunc(headers, func(name, _ string) bool { return strings.EqualFold(name, e.name) })
	}
	spelled := map[string]string{}
	for _, e := range found {
		here := place{at.path.to(e.name), at.rule + ".*", e.pos}
		canonical := textproto.CanonicalMIMEHeaderKey(e.name)
		switch other, twice := spelled[canonical]; {
		case !httpguts.ValidHeaderFieldName(e.name):
			d.reportAt(e.pos, here.path, "%q is not a header name; use letters, digits and dashes, as in X-Team", e.name)
		case isReservedHeader(canonical):
			d.reportAt(e.pos, here.path, "the header %s is set by Rowhook itself; remove it", e.name)
		case template.HasData(e.name):
			d.reportAt(e.pos, here.path, "data of the event can't name a header; write the placeholder as a value")
		case twice:
			d.reportAt(e.pos, here.path, "repeats the header %s, because header names ignore case; keep one", other)
		}
		spelled[canonical] = e.name
		var value string
		if d.value(e.value, reflect.ValueOf(&value).Elem(), here) {
			headers[e.name] = value
			if canonical == "Host" && template.HasData(value) {
				d.reportAt(nodePosition(e.value), here.path, "data of the event can't say for which host a request is; write the host itself, or ${NAME} for the environment's")
			}
		}
	}
	if len(found) > 0 {
		v.Set(reflect.ValueOf(headers))
	}
}

func (d *decoder) text(n ast.Node, v reflect.Value, at place) {
	text, ok := textOf(n)
	if b, isBool := n.(*ast.BoolNode); isBool && d.keys[at.rule].onOff {
		// A program that follows YAML 1.1 writes on as true.
		text, ok = map[bool]string{true: trigger.BreakerOn, false: trigger.BreakerOff}[b.Value], true
	}
	if !ok {
		remedy := d.remedy(at)
		if _, scalar := n.(ast.ScalarNode); scalar {
			remedy = "put it in quotes"
			if !d.keys[at.rule].secret {
				remedy += ": " + strconv.Quote(n.GetToken().Value)
			}
		}
		d.wrongType(n, at, "text is needed", remedy)
		return
	}
	k := d.keys[at.rule]
	switch {
	case (k.nonEmpty || k.pattern != "") && strings.TrimSpace(text) == "":
		d.reportAt(nodePosition(n), at.path, "is empty; %s", d.emptyRemedy(at))
		return
	case !utf8.ValidString(text) || strings.ContainsRune(text, 0):
		d.reportAt(nodePosition(n), at.path, "contains a character that Postgres can't store (NUL, or half of a UTF-16 pair); remove the escape")
		return
	case len(k.enum) > 0 && !slices.Contains(k.enum, text):
		d.reportAt(nodePosition(n), at.path, "%q is not a valid value; write %s", text, strings.Join(k.enum, " or "))
		return
	case k.pattern != "" && !d.matches(k.pattern, text):
		if strings.Contains(text, "${") {
			d.reportAt(nodePosition(n), at.path, "${NAME} is not read here, only in a webhook's url, query, headers, body, form and secret, and in nats; write the %s itself", at.name())
			return
		}
		d.reportAt(nodePosition(n), at.path, "%s is not %s; %s", quote(text), k.noun, k.rule)
		return
	case k.check != nil:
		if err := k.check(text); err != nil {
			d.reportIn(n, text, at.path, err)
			return
		}
	}
	v.SetString(text)
}

// matches matches a pattern of keys(). It compiles each one once: with 60,000 triggers, compiling
// for each value took a third of the time.
func (d *decoder) matches(pattern, text string) bool {
	re := d.patterns[pattern]
	if re == nil {
		re = regexp.MustCompile(pattern)
		d.patterns[pattern] = re
	}
	return re.MatchString(text)
}

// textOf returns the text of a plain, quoted or block string.
func textOf(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return strings.TrimRight(n.Value.Value, "\n"), true
	}
	return "", false
}

func (d *decoder) boolean(n ast.Node, v reflect.Value, at place) {
	if b, ok := n.(*ast.BoolNode); ok {
		v.SetBool(b.Value)
		return
	}
	if text, ok := textOf(n); ok {
		switch strings.ToLower(text) {
		case "true", "yes", "y", "on":
			d.reportAt(nodePosition(n), at.path, "%s is text; write %s: true, without quotes", quote(text), at.name())
			return
		case "false", "no", "n", "off":
			d.reportAt(nodePosition(n), at.path, "%s is text; write %s: false, without quotes", quote(text), at.name())
			return
		}
	}
	d.wrongType(n, at, "true or false is needed", d.remedy(at))
}

func (d *decoder) number(n ast.Node, v reflect.Value, at place) {
	written := n.GetToken().Value
	_, isInteger := n.(*ast.IntegerNode)
	text, isText := textOf(n)
	k := d.keys[at.rule]
	switch {
	case isText && n.GetToken().Type != token.StringType && isDigits(text):
		d.reportAt(nodePosition(n), at.path, "%q is text; write %s: %s, without quotes", text, at.name(), text)
		return
	case isText && isDigits(text): // the parser treats a number that overflows as text
		d.reportAt(nodePosition(n), at.path, "%s is too large; the largest is %d", text, k.max)
		return
	case isInteger:
	default:
		d.wrongType(n, at, "a whole number is needed", d.remedy(at))
		return
	}
	number, err := strconv.ParseInt(written, 10, 64)
	switch {
	case err != nil || strconv.FormatInt(number, 10) != written:
		d.reportAt(nodePosition(n), at.path, "%s is not a plain whole number; write digits only, as in %s", written, k.example)
	case number < k.min:
		d.reportAt(nodePosition(n), at.path, "%d is too small; write %d or more", number, k.min)
	case number > k.max:
		d.reportAt(nodePosition(n), at.path, "%d is too large; the largest is %d", number, k.max)
	default:
		v.SetInt(number)
	}
}

func (d *decoder) duration(n ast.Node, v reflect.Value, at place) {
	text, ok := textOf(n)
	if _, number := n.(*ast.IntegerNode); number {
		text, ok = n.GetToken().Value, true
	}
	if !ok {
		d.wrongType(n, at, "a duration is needed", d.remedy(at))
		return
	}
	parsed, err := trigger.ParseDuration(text)
	switch {
	case isDigits(text) && text != "0":
		d.reportAt(nodePosition(n), at.path, "%s has no unit; write %ss for seconds, or use ms, m, h, d or w", text, text)
		return
	case strings.HasPrefix(text, "-"):
		d.reportAt(nodePosition(n), at.path, "%s is negative; write a duration without a sign, as in %s", quote(text), d.keys[at.rule].example)
		return
	case !d.matches(durationPattern, text):
		d.reportAt(nodePosition(n), at.path, "%s is not a duration; write numbers with the units ms, s, m, h, d or w, largest first and without spaces, as in 250ms, 10s, 1h30m or 7d", quote(text))
		return
	case err != nil:
		d.reportAt(nodePosition(n), at.path, "%s is too long; the longest is 292 years (106751d)", quote(text))
		return
	}
	if check := d.keys[at.rule].check; check != nil {
		if err := check(parsed.String()); err != nil {
			d.reportAt(nodePosition(n), at.path, "%v", err)
			return
		}
	}
	v.SetInt(int64(parsed))
}

func (d *decoder) size(n ast.Node, v reflect.Value, at place) {
	text, ok := textOf(n)
	if _, number := n.(*ast.IntegerNode); number {
		text, ok = n.GetToken().Value, true
	}
	if !ok {
		d.wrongType(n, at, "a size is needed", d.remedy(at))
		return
	}
	parsed, err := trigger.ParseSize(text)
	if err != nil || !d.matches(sizePattern, text) {
		form := "a whole number with the unit KiB, MiB, GiB or TiB and no space between, as in 512MiB or 20GiB, or 0"
		if d.keys[at.rule].check != nil { // it excludes 0
			form = "a whole number with the unit KiB or MiB and no space between, " + d.keys[at.rule].rule
		}
		d.reportAt(nodePosition(n), at.path, "%s is not a size; write %s", quote(text), form)
		return
	}
	if check := d.keys[at.rule].check; check != nil {
		if err := check(text); err != nil {
			d.reportAt(nodePosition(n), at.path, "%v", err)
			return
		}
	}
	v.SetInt(int64(parsed))
}

func (d *decoder) wrongType(n ast.Node, at place, needed, remedy string) {
	what := describe(n)
	if _, scalar := n.(ast.ScalarNode); scalar && d.keys[at.rule].secret {
		what = "not text"
	}
	d.reportAt(nodePosition(n), at.path, "is %s where %s; %s", what, needed, remedy)
}

// groupRemedy returns the right form for on: insert and on: [insert, update], which are common
// first attempts.
func (d *decoder) groupRemedy(n ast.Node, v reflect.Value, at place) string {
	if v.Type() != reflect.TypeFor[trigger.On]() {
		return d.remedy(at)
	}
	nodes := []ast.Node{n}
	if s, ok := n.(*ast.SequenceNode); ok {
		nodes = s.Values
	}
	var operations []string
	for _, n := range nodes {
		text, _ := textOf(n)
		operation := strings.ToLower(text)
		if !slices.Contains([]string{"insert", "update", "delete", "truncate", "manual"}, operation) || len(operations) == 5 {
			return d.remedy(at)
		}
		operations = append(operations, operation+": true")
	}
	if len(operations) == 0 {
		return d.remedy(at)
	}
	return "write on: {" + strings.Join(operations, ", ") + "}"
}

// quote quotes a value so that it can't break the line. It shortens a long one.
func quote(s string) string {
	if r := []rune(s); len(r) > 60 {
		s = string(r[:57]) + "..."
	}
	return strconv.Quote(s)
}
