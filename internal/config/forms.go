package config

import (
	"fmt"
	"reflect"
	"regexp"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/rowhook/rowhook/trigger"
)

// none is the word by which a trigger takes back a group of keys that defaults give.
const none = "none"

// orderKeys is the long form of order.
type orderKeys struct {
	By     keyColumns `yaml:"by"`
	Strict bool       `yaml:"strict"`
	OnDead string     `yaml:"on_dead"`
	Latest bool       `yaml:"latest"`
}

// keyColumns is order.by: the word row, or a list of columns.
type keyColumns []string

// concurrency is concurrency: a number for each dispatcher, or that and a total.
type concurrency struct {
	Each  int `yaml:"each"`
	Total int `yaml:"total"`
}

// order decodes row, none, or keys, which are merged with those of defaults.
func (d *decoder) order(n ast.Node, v reflect.Value, at place) {
	if _, ok := n.(ast.MapNode); ok {
		o := v.Interface().(trigger.Order)
		long := orderKeys{By: o.By, Strict: o.Strict, OnDead: o.OnDead, Latest: o.Latest}
		d.value(n, reflect.ValueOf(&long).Elem(), at)
		v.Set(reflect.ValueOf(trigger.Order{By: long.By, Strict: long.Strict, OnDead: long.OnDead, Latest: long.Latest}))
		return
	}
	if s, ok := n.(*ast.SequenceNode); ok {
		d.reportAt(nodePosition(n), at.path, "is a list; write order: {by: %s}", sample(s))
		return
	}
	var o trigger.Order
	switch text, _ := textOf(n); {
	case text == trigger.OrderByRow:
		o.By = []string{trigger.OrderByRow}
	case text == none:
	case isPlainKey(text):
		d.reportAt(nodePosition(n), at.path, "%q is not an order; write order: row, order: {by: [%s]} if that is a column, or order: none", text, text)
	default:
		d.wrongType(n, at, "row, none or keys are needed", d.remedy(at))
	}
	v.Set(reflect.ValueOf(o))
}

// keyColumns decodes row or a list of columns.
func (d *decoder) keyColumns(n ast.Node, v reflect.Value, at place) {
	var columns []string
	if _, list := n.(*ast.SequenceNode); list {
		if d.value(n, reflect.ValueOf(&columns).Elem(), at) && len(columns) == 1 && columns[0] == trigger.OrderByRow {
			d.reportAt(nodePosition(n), at.path, "a column with the name row can't be the whole key, because by: row means the primary key; add another column, or write by: row")
		}
		v.Set(reflect.ValueOf(keyColumns(columns)))
		return
	}
	switch text, _ := textOf(n); {
	case text == trigger.OrderByRow:
		v.Set(reflect.ValueOf(keyColumns{text}))
	case isPlainKey(text):
		d.reportAt(nodePosition(n), at.path, "%q is text; write by: [%s] for a column, or by: row for the primary key", text, text)
	default:
		d.wrongType(n, at, "row or a list of columns is needed", d.remedy(at))
	}
}

// groupOrNone decodes keys, which are merged with those of defaults, or none.
func (d *decoder) groupOrNone(n ast.Node, v reflect.Value, at place) {
	if text, ok := textOf(n); ok && text == none {
		v.SetZero()
		return
	}
	d.group(n, v, at)
}

// concurrency decodes a number, which replaces all, or keys.
func (d *decoder) concurrency(n ast.Node, v reflect.Value, at place) {
	if _, ok := n.(ast.MapNode); ok {
		d.group(n, v, at)
		return
	}
	var each int
	d.number(n, reflect.ValueOf(&each).Elem(), at)
	v.Set(reflect.ValueOf(concurrency{Each: each}))
}

// perTime decodes a number in a time, such as 50/s.
func (d *decoder) perTime(n ast.Node, v reflect.Value, at place) {
	text, ok := textOf(n)
	if _, number := n.(*ast.IntegerNode); number {
		d.reportAt(nodePosition(n), at.path, "%s has no unit; write %s/s for each second, or use /m or /h", n.GetToken().Value, n.GetToken().Value)
		return
	}
	if !ok {
		d.wrongType(n, at, "a number in a time is needed", d.remedy(at))
		return
	}
	rate, err := trigger.ParsePerTime(text)
	if err != nil || !d.matches(perTimePattern, text) {
		d.reportAt(nodePosition(n), at.path, "%s is not a rate; write a whole number from 1 to 1000000, a slash, and s, m or h, as in 50/s", quote(text))
		return
	}
	v.Set(reflect.ValueOf(rate))
}

// statuses decodes what answers mean, which is merged with that of defaults, or none.
func (d *decoder) statuses(n ast.Node, v reflect.Value, at place) {
	if text, ok := textOf(n); ok && text == none {
		v.SetZero()
		return
	}
	m, ok := n.(ast.MapNode)
	if !ok {
		d.wrongType(n, at, "statuses with what they mean are needed", d.remedy(at))
		return
	}
	rules, _ := v.Interface().(trigger.Statuses)
	found, _ := d.entries(m, at)
	for _, e := range found {
		here := place{at.path.to(e.name), at.rule + ".*", e.pos}
		rule, err := trigger.ParseStatuses(e.name)
		switch {
		case err == nil:
		case twoHundred.MatchString(e.name):
			d.reportAt(e.pos, here.path, "a status from 200 to 299 always means that the event is delivered; name statuses from %d on", trigger.LeastStatus)
			continue
		default:
			d.reportAt(e.pos, here.path, "%s is neither a status nor a range of statuses; write 404, or 400-499 with the lower one first, from %d to %d",
				quote(e.name), trigger.LeastStatus, trigger.MostStatus)
			continue
		}
		d.value(e.value, reflect.ValueOf(&rule.Then).Elem(), here)
		rules = rules.Set(rule) // with a wrong word, too, so that an overlap is reported as well
	}
	v.Set(reflect.ValueOf(rules))
}

var twoHundred = regexp.MustCompile(`^2[0-9]{2}(?:-[0-9]{3})?$`)

// leastAge is the least retry.max_age: whoever wants less wants no retries.
const leastAge = trigger.Duration(time.Second)

// longestDelay bounds delay.
const longestDelay = trigger.Duration(365 * 24 * time.Hour)

func checkDelay(s string) error {
	d, err := trigger.ParseDuration(s)
	switch {
	case err != nil || d > longestDelay:
		return fmt.Errorf("%s is too long; the longest is %v", s, longestDelay)
	case d%trigger.Duration(time.Millisecond) != 0:
		return fmt.Errorf("%s is finer than Postgres counts; write whole milliseconds, as in 250ms", s)
	}
	return nil
}

// The bounds of a batch.
const (
	leastBatch, mostBatch           = 2, 2000
	leastBatchBytes, mostBatchBytes = trigger.Size(1 << 10), trigger.Size(64 << 20)
	longestBatchWait                = trigger.Duration(20 * time.Second) // a lease lasts for 30 s beyond the timeout
	mostBurst                       = 1_000_000
)

func checkBatchBytes(s string) error {
	if size, err := trigger.ParseSize(s); err != nil || size < leastBatchBytes || size > mostBatchBytes {
		return fmt.Errorf("%s is out of bounds; write a size from %v to %v", s, leastBatchBytes, mostBatchBytes)
	}
	return nil
}

func checkBatchWait(s string) error {
	if wait, err := trigger.ParseDuration(s); err != nil || wait > longestBatchWait {
		return fmt.Errorf("%s is too long; the longest is %v", s, longestBatchWait)
	}
	return nil
}

// normalize writes a trigger in the one way in which it is stored, so that an apply of another
// spelling changes nothing.
func normalize(s *trigger.Spec) {
	if s.At == trigger.AtChange {
		s.At = ""
	}
	if s.Capture == trigger.CaptureAuto {
		s.Capture = ""
	}
	if s.Webhook.Method == trigger.MethodPost {
		s.Webhook.Method = ""
	}
	if s.Webhook.Format == trigger.FormatHasura {
		s.Webhook.Format = ""
	}
	if s.Webhook.Compress == trigger.CompressNone {
		s.Webhook.Compress = ""
	}
	if s.NATS.Format == trigger.FormatHasura {
		s.NATS.Format = ""
	}
	if s.Breaker == trigger.BreakerOn {
		s.Breaker = ""
	}
	if s.Payload.Old == trigger.OldAll {
		s.Payload.Old = ""
	}
	if s.Payload.Numbers == trigger.NumbersJSON {
		s.Payload.Numbers = ""
	}
	if s.Order.OnDead == trigger.OnDeadSkip {
		s.Order.OnDead = ""
	}
	// What defaults say of an order, a batch or a rate that the trigger does not have.
	if s.Order.IsZero() {
		s.Order = trigger.Order{}
	}
	if s.Rate.IsZero() {
		s.Rate = trigger.Rate{}
	}
	switch {
	case s.Batch.IsZero():
		s.Batch = trigger.Batch{}
	case s.Batch.Bytes == 0:
		s.Batch.Bytes = trigger.DefaultBatchBytes
	}
}
