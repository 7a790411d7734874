package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/rule"
	"github.com/rowhook/rowhook/trigger"
)

// checkMerged checks what only a whole trigger can tell, with all that comes from defaults. ownURL
// says that the trigger has a webhook, where a missing url was reported already.
func (d *decoder) checkMerged(spec *trigger.Spec, at place, ownURL bool) {
	t := merged{d: d, spec: spec, at: at}
	if _, given := d.positions.at(d.shared, sharedPath("webhook")); given && !ownURL && spec.Kind() == trigger.KindWebhook {
		if url := at.key("webhook", at.pos).key("url", at.pos); !d.inherits(url.path) {
			d.missing(at.pos, url)
		}
	}
	t.checkTables()
	t.checkOn()
	t.checkWhen()
	t.checkPayload()
	t.checkRetry()
	t.checkSigned()
	t.checkFormat()
	t.checkCompress()
	t.checkTLS()
	t.checkOAuth2()
	t.checkOrder()
	t.checkConcurrency()
	t.checkRequest()
	t.checkNATS()
	t.checkRules()
}

// checkRules reports what an apply would report, too, and needs no database to be seen.
func (t merged) checkRules() {
	for _, key := range []string{"on", "payload", "when", "order", "at", "capture", "webhook", "nats"} {
		if !t.clean(key) {
			return
		}
	}
	for _, f := range rule.Faults(t.spec) {
		t.conflict(f.Problem+"; "+f.Remedy, append([][]string{f.Path}, f.Beside...)...)
	}
}

// merged is a trigger with all that comes from defaults.
type merged struct {
	d    *decoder
	spec *trigger.Spec
	at   place
}

// clean reports whether a value has no problem, wherever it comes from.
func (t merged) clean(path ...string) bool {
	return t.d.cleanIn(t.d.name, t.own(path)) && t.d.cleanIn(t.d.shared, sharedPath(path...))
}

func (t merged) own(path []string) keyPath { return append(slices.Clone(t.at.path), path...) }

// place returns where a value is: in the trigger, or in defaults. ok is false if it is in neither.
func (t merged) place(path []string) (pos Position, key keyPath, ok bool) {
	key = t.own(path)
	if pos, ok = t.d.positions.at(t.d.name, key); ok {
		return pos, key, true
	}
	key = sharedPath(path...)
	pos, ok = t.d.positions.at(t.d.shared, key)
	return pos, key, ok
}

// conflict reports that values of a trigger do not fit together. It reports at the first of them
// that is the trigger's own. If all come from defaults, that is one problem for all triggers.
func (t merged) conflict(message string, values ...[]string) {
	var pos Position
	var key keyPath
	var inherited []string
	var from Position
	for _, path := range values {
		p, k, ok := t.place(path)
		switch {
		case !ok:
		case k[0] == sharedRule:
			inherited = append(inherited, keyPath(path).String())
			from = p
			if key == nil {
				pos, key = p, k
			}
		case key == nil || key[0] == sharedRule:
			pos, key = p, k
		}
	}
	switch {
	case key == nil:
		pos, key = t.at.pos, t.at.path
	case key[0] == sharedRule:
		if !t.d.cleanIn(t.d.shared, key) {
			return // said for an earlier trigger
		}
	case len(inherited) > 0:
		message += fmt.Sprintf(" (the trigger %q; %s from defaults, %s)", t.spec.Name, comes(inherited), from.from(pos.File))
	}
	t.d.reportAt(pos, key, "%s", message)
}

func comes(keys []string) string {
	if len(keys) == 1 {
		return keys[0] + " comes"
	}
	return strings.Join(keys, " and ") + " come"
}

// checkTables reports what does not fit together of the keys that say which tables are watched.
func (t merged) checkTables() {
	s, tables := t.spec, []string{"tables"}
	if s.Table != "" && s.Many() {
		t.conflict("is beside table, and a trigger has one of the two; move the table into the list, or remove one of the keys", tables)
		return
	}
	for _, name := range []string{"except", "follow"} {
		path := []string{name}
		_, _, given := t.place(path)
		_, _, listed := t.place(tables)
		switch {
		case !given || !t.clean("tables") || !t.clean(name):
		case !listed:
			t.conflict("is of use with tables alone, and this trigger watches one table; remove it, or write tables: [...] instead of table", path)
		case !slices.ContainsFunc(s.Tables, isPattern):
			t.conflict("is of use with a pattern in tables, and these are names; remove it, or write a pattern such as \"billing.*\"", path)
		}
	}
	for i, name := range s.Except {
		if !isPattern(name) && slices.Contains(s.Tables, name) {
			t.conflict("is in tables, too; remove one of the two", []string{"except", strconv.Itoa(i)})
		}
	}
}

func isPattern(name string) bool {
	p, err := pg.ParsePattern(name)
	return err == nil && !p.Exact()
}

func (t merged) checkOn() {
	if _, _, given := t.place([]string{"on"}); !given || !t.clean("on") || !t.spec.On.IsZero() {
		return
	}
	const message = "captures nothing; set insert, update, delete, truncate or manual to true"
	t.conflict(message, []string{"on"})
}

// checkWhen reports a condition on rows of a trigger that captures none.
func (t merged) checkWhen() {
	if on := t.spec.On; t.spec.When == "" || !t.clean("on") || !t.clean("when") || !on.Truncate || on.Rows() {
		return
	}
	t.conflict("has no row to look at, since a TRUNCATE has none and the trigger captures no other change; remove it", []string{"when"}, []string{"on"})
}

// checkPayload reports what a trigger says of the payload of operations that it does not capture, and
// columns that differ although changes of several operations are sent as one.
func (t merged) checkPayload() {
	p, on := t.spec.Payload, t.spec.On
	if !t.clean("payload") || !t.clean("on") {
		return
	}
	for key, own := range map[string]trigger.PayloadOf{"insert": p.Insert, "update": p.Update, "delete": p.Delete} {
		if _, _, given := t.place([]string{"payload", key}); given && own.IsZero() {
			t.conflict(fmt.Sprintf("names no columns; write it like %s: {columns: [id, status]}, or remove it", key), []string{"payload", key})
		}
	}
	if p.IsZero() {
		return
	}
	unused := func(captured bool, operation string, path ...string) {
		_, key, given := t.place(path)
		if captured || !given || key[0] == sharedRule { // defaults are for other triggers, too
			return
		}
		t.conflict(fmt.Sprintf("is for %ss, which the trigger does not capture; add %[1]s: true to on, or remove it", operation), path, []string{"on"})
	}
	unused(on.Insert, "insert", "payload", "insert")
	unused(on.Update.Enabled, "update", "payload", "update")
	unused(on.Delete, "delete", "payload", "delete")
	if p.Old != "" && p.Old != trigger.OldAll {
		unused(on.Update.Enabled, "update", "payload", "old")
	}
	if p.Changed {
		unused(on.Update.Enabled, "update", "payload", "changed")
	}
	if !t.spec.Order.Latest || t.spec.Order.IsZero() || !t.clean("order") {
		return
	}
	var lists [][]string
	for op, captured := range map[byte]bool{'I': on.Insert, 'U': on.Update.Enabled, 'D': on.Delete} {
		if captured {
			lists = append(lists, p.ColumnsOf(op))
		}
	}
	if slices.ContainsFunc(lists, func(l []string) bool { return !slices.Equal(l, lists[0]) }) {
		t.conflict("order.latest sends changes of several operations as one, so all operations need the same columns; write payload: {columns: [...]}, or remove latest",
			[]string{"payload", "insert"}, []string{"payload", "update"}, []string{"payload", "delete"}, []string{"order", "latest"})
	}
}

func (t merged) checkRetry() {
	r := &t.spec.Retry
	t.checkStatuses()
	if len(r.Schedule) > 0 && t.clean("retry") {
		t.checkSchedule()
		return
	}
	interval, bound := []string{"retry", "interval"}, []string{"retry", "max_interval"}
	if r.Interval <= r.MaxInterval || !t.clean(interval...) || !t.clean(bound...) {
		return
	}
	// Rowhook's own defaults are consistent, so at least one of the two is in a file.
	byDefault := " by default"
	if _, _, ok := t.place(bound); ok {
		byDefault = ""
	}
	t.conflict(fmt.Sprintf("max_interval bounds every wait and is %v%s, but interval is %v; write max_interval: %v or more",
		r.MaxInterval, byDefault, r.Interval, r.Interval), bound, interval)
}

// checkSchedule reports what does not go with a schedule, and takes the limit from it.
func (t merged) checkSchedule() {
	r, schedule := &t.spec.Retry, []string{"retry", "schedule"}
	for _, name := range []string{"interval", "backoff"} {
		if _, _, given := t.place([]string{"retry", name}); given {
			t.conflict(fmt.Sprintf("schedule has every wait, and %s has others; remove one of the two", name), schedule, []string{"retry", name})
			return
		}
	}
	r.Interval, r.Backoff = 0, ""
	limit := []string{"retry", "limit"}
	switch _, _, given := t.place(limit); {
	case !given:
		r.Limit = len(r.Schedule)
	case r.Limit < len(r.Schedule):
		t.conflict(fmt.Sprintf("schedule has %d waits, but limit allows %d retries; write limit: %d, or remove some of the waits", len(r.Schedule), r.Limit, len(r.Schedule)), schedule, limit)
	}
}

// checkStatuses reports ranges of statuses that overlap, and a pause that would stop all for one. It
// looks at the entries that are right by themselves, so that all problems are reported at once.
func (t merged) checkStatuses() {
	const key, list = "retry", "statuses"
	if t.spec.Webhook.URLHasData() && t.clean("webhook") {
		for _, r := range t.spec.Retry.Statuses {
			if r.Then == trigger.StatusPause {
				t.conflict("pause would stop all events for one, since the URL has data of the event; write dead, or take the data from url and query",
					[]string{key, list, r.Range()})
			}
		}
	}
	var before *trigger.StatusRule
	for i := range t.spec.Retry.Statuses {
		r := &t.spec.Retry.Statuses[i]
		if !r.IsRange() {
			continue
		}
		if before != nil && r.From <= before.To {
			t.conflict(fmt.Sprintf("the ranges %s and %s overlap; divide them, or name single statuses, which have precedence over ranges", before.Range(), r.Range()),
				[]string{key, list, r.Range()}, []string{key, list, before.Range()})
		}
		if before == nil || r.To > before.To {
			before = r
		}
	}
}

// checkSigned reports configured headers that signing sets.
func (t merged) checkSigned() {
	w, key := t.spec.Request(), t.spec.Kind()
	if w.Secret == "" {
		return
	}
	for _, name := range sortedKeys(w.Headers) {
		if slices.Contains([]string{"webhook-id", "webhook-timestamp", "webhook-signature"}, strings.ToLower(name)) {
			t.conflict(fmt.Sprintf("secret makes Rowhook set the header %s itself; remove one of the two", name),
				[]string{key, "headers", name}, []string{key, "secret"})
		}
	}
}

// checkFormat reports what contradicts a format of CloudEvents: batches of the binary mode, and
// headers by which a receiver would not recognise the event.
func (t merged) checkFormat() {
	w, key := t.spec.Request(), t.spec.Kind()
	if w.Format == "" || w.Format == trigger.FormatHasura || !t.clean(key, "format") {
		return
	}
	format, binary := []string{key, "format"}, w.Format == trigger.FormatCloudEventsBinary
	switch {
	case w.Form != nil && t.clean("webhook", "form"):
		t.conflict(fmt.Sprintf("format: %s and form both say what the body holds; remove one of the two", w.Format), format, []string{"webhook", "form"})
		return
	case w.Body != "" && t.clean(key, "body"):
		t.conflict(fmt.Sprintf("format: %s and body both say what the body holds; write format: hasura, or body: none", w.Format), format, []string{key, "body"})
		return
	case !w.HasBody() && t.clean("webhook", "method"):
		t.conflict(fmt.Sprintf("format: %s needs a body, and a %s has none; write method: POST or PUT, or format: hasura", w.Format, w.Method), format, []string{"webhook", "method"})
		return
	}
	needs := "application/cloudevents+json"
	switch {
	case binary:
		needs = "application/json"
	case !t.spec.Batch.IsZero():
		needs = "application/cloudevents-batch+json"
	}
	if binary && !t.spec.Batch.IsZero() && t.clean("batch") {
		t.conflict("cloudevents-binary sends one event in a request, because its attributes are headers, and batch asks for several; write format: cloudevents, or batch: none",
			format, []string{"batch"})
	}
	for _, name := range sortedKeys(w.Headers) {
		header := []string{key, "headers", name}
		switch lower, value := strings.ToLower(name), strings.ToLower(w.Headers[name]); {
		case lower == "content-type" && !strings.HasPrefix(value, needs) && !strings.Contains(value, "$"):
			t.conflict(fmt.Sprintf("format: %s is recognised by its Content-Type, which is %s; remove the header", w.Format, needs), header, format)
		case binary && slices.Contains([]string{"ce-id", "ce-specversion", "ce-datacontenttype"}, lower):
			t.conflict(fmt.Sprintf("format: %s makes Rowhook set the header %s itself; remove the header", w.Format, name), header, format)
		}
	}
}

// checkCompress reports another encoding of what is compressed.
func (t merged) checkCompress() {
	w := t.spec.Webhook
	if w.Compress == "" || w.Compress == trigger.CompressNone {
		return
	}
	if !w.HasBody() && t.clean("webhook", "method") {
		t.conflict(fmt.Sprintf("compress needs a body, and a %s has none; write compress: none, or method: POST", w.Method), []string{"webhook", "compress"}, []string{"webhook", "method"})
	}
	for _, name := range sortedKeys(w.Headers) {
		if strings.EqualFold(name, "Content-Encoding") {
			t.conflict("compress makes Rowhook set the header Content-Encoding itself; remove one of the two",
				[]string{"webhook", "headers", name}, []string{"webhook", "compress"})
		}
	}
}

// checkTLS reports a certificate without a key, a key without a certificate, and files for a URL
// without TLS.
func (t merged) checkTLS() {
	w, key := t.spec.Request(), t.spec.Kind()
	if w.TLS.IsZero() || !t.clean(key, "tls") {
		return
	}
	tls := []string{key, "tls"}
	switch {
	case w.TLS.CertFile == "" && w.TLS.KeyFile != "":
		t.conflict("has a key_file but no cert_file; add the certificate of that key, or remove key_file", tls)
	case w.TLS.CertFile != "" && w.TLS.KeyFile == "":
		t.conflict("has a cert_file but no key_file; add the file of its private key, which may be the same file", tls)
	case len(w.URL) > 7 && strings.EqualFold(w.URL[:7], "http://"):
		t.conflict("needs https, but the url is http://; write https:// in url, or remove tls", tls, []string{"webhook", "url"})
	}
}

// checkOAuth2 reports what a grant lacks, and a header that the token would take the place of.
func (t merged) checkOAuth2() {
	w := t.spec.Webhook
	if w.OAuth2.IsZero() || !t.clean("webhook", "oauth2") {
		return
	}
	oauth2 := []string{"webhook", "oauth2"}
	for _, need := range []struct{ key, value string }{
		{"token_url", w.OAuth2.TokenURL}, {"client_id", w.OAuth2.ClientID}, {"client_secret", w.OAuth2.ClientSecret},
	} {
		if need.value == "" {
			t.conflict(fmt.Sprintf("has no %s; oauth2 needs token_url, client_id and client_secret", need.key), oauth2)
			return
		}
	}
	for _, name := range sortedKeys(w.Headers) {
		if strings.EqualFold(name, "authorization") {
			t.conflict("oauth2 makes Rowhook set the header Authorization itself; remove one of the two", []string{"webhook", "headers", name}, oauth2)
		}
	}
}

// checkOrder reports an order of what has no key.
func (t merged) checkOrder() {
	if t.spec.Order.IsZero() || !t.clean("order") || !t.clean("on") {
		return
	}
	switch on := t.spec.On; {
	case on.Rows() || on.IsZero():
	case on.Truncate:
		t.conflict("has nothing to order: the trigger captures no rows, whose events have keys; write order: none", []string{"order"})
	default:
		t.conflict("has nothing to order: manual events have no key, and the trigger captures nothing else; write order: none", []string{"order"})
	}
}

func (t merged) checkConcurrency() {
	each, total := t.spec.Concurrency, t.spec.ConcurrencyTotal
	if total == 0 || each <= total || !t.clean("concurrency") {
		return
	}
	t.conflict(fmt.Sprintf("each is %d, but all dispatchers together may have only %d; write each: %d or less, or raise total", each, total, total),
		[]string{"concurrency", "each"}, []string{"concurrency", "total"})
}
