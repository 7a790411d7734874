package hasura

import (
	"fmt"
	"math"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/internal/importer"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/trigger"
)

// conversion makes a trigger of one of Hasura.
type conversion struct {
	*reader
	node *node
	name string
	spec trigger.Spec
	base []importer.Piece // the webhook
}

// trigger imports a trigger, or says why not.
func (r *reader) trigger(n *node, t table) {
	if n.kind != group {
		r.imp.Find(importer.Finding{Kind: importer.Skipped, Place: n.place, Message: "is no event trigger, but a single value", Remedy: "correct it, and import again"})
		return
	}
	c := conversion{reader: r, node: n, name: n.get("name").scalar(), spec: fixedSpec()}
	if c.name == "" {
		r.imp.Find(importer.Finding{Kind: importer.Skipped, Place: n.place, Message: "is an event trigger without a name", Remedy: "give it one, and import again"})
		return
	}
	if before, taken := r.imp.Taken(c.name); taken {
		c.skip(fmt.Sprintf("has the name of another trigger, at %s", before.Place), "give it another name, and import again")
		return
	}
	if t.inconsistent != "" {
		c.skip(t.inconsistent, "write it as {schema: ..., name: ...}, and import again")
		return
	}
	c.repeated(n, "")
	c.unknownKeys(n, "", "name", "definition", "webhook", "webhook_from_env", "headers", "retry_conf", "request_transform", "response_transform",
		"cleanup_config", "trigger_on_replication", "comment", "table", "source", "replace")
	c.spec.Name, c.spec.Table = c.name, pg.PlainName(t.schema, t.name)
	c.definition()
	if c.spec.On.IsZero() {
		c.skip("captures nothing: Hasura records no event for it", "remove it there, or write insert, update, delete or enable_manual")
		return
	}
	if !c.webhook() {
		return
	}
	if wrong := c.fault(); wrong != "" {
		c.skip("can't be in a rowhook.yaml as it is: "+wrong, "change it there, and import again, or write the trigger by hand")
		return
	}
	c.headers()
	c.retries()
	c.transform()
	c.response()
	c.cleanup()
	c.replication()
	var comments []string
	if comment := n.get("comment").scalar(); comment != "" {
		comments = []string{comment}
	}
	r.imp.Add(importer.Trigger{Spec: c.spec, Place: n.place, Comments: comments})
}

func (c *conversion) find(kind importer.Kind, at *node, setting, key, message, remedy string) {
	place := c.node.place
	if at != nil {
		place = at.place
	}
	c.imp.Find(importer.Finding{Kind: kind, Trigger: c.name, Place: place, Setting: setting, Key: key, Message: message, Remedy: remedy})
}

func (c *conversion) lost(at *node, setting, key, message, remedy string) {
	c.find(importer.NotCarried, at, setting, key, message, remedy)
}

func (c *conversion) differs(at *node, setting, key, message, remedy string) {
	c.find(importer.Differs, at, setting, key, message, remedy)
}

func (c *conversion) skip(message, remedy string) {
	c.find(importer.Skipped, nil, "", "", "is not imported: it "+message, remedy)
}

func (c *conversion) use(at *node, setting string) importer.Use {
	return importer.Use{Trigger: c.name, Place: at.place, Setting: setting}
}

// unknownKeys names the keys of a group that nothing is known of.
func (c *conversion) unknownKeys(n *node, setting string, known ...string) {
	if n == nil {
		return
	}
	for _, e := range n.entries {
		if !slices.Contains(known, e.name) {
			c.imp.Find(importer.Finding{Kind: importer.NotCarried, Trigger: c.name, Place: e.place, Setting: join(setting, e.name),
				Message: "is a key that this import does not know", Remedy: "see what it does, and whether the trigger needs it"})
		}
	}
}

// repeated names keys that stand twice in a group, or in a group of it.
func (c *conversion) repeated(n *node, setting string) {
	seen := map[string]bool{}
	for _, e := range n.entries {
		if seen[e.name] {
			c.imp.Find(importer.Finding{Kind: importer.Differs, Trigger: c.name, Place: e.place, Setting: join(setting, e.name),
				Message: "is given twice, and the last one is imported", Remedy: "remove the other one, and look at the result"})
		}
		seen[e.name] = true
		c.repeated(e.value, join(setting, e.name))
	}
}

func join(setting, key string) string {
	if setting == "" {
		return key
	}
	return setting + "." + key
}

// definition reads the operations, their columns and their payload.
func (c *conversion) definition() {
	n := c.node.get("definition")
	c.unknownKeys(n, "definition", "insert", "update", "delete", "enable_manual")
	p := &c.spec.Payload
	c.spec.On.Insert = c.operation(n, "insert", &p.Insert)
	c.spec.On.Delete = c.operation(n, "delete", &p.Delete)
	c.update(n, &p.Update)
	c.spec.On.Manual = c.truth(n.get("enable_manual"), "definition.enable_manual")
	c.samePayload()
}

// operation reads insert or delete. Hasura records every one of them, whatever columns says.
func (c *conversion) operation(definition *node, name string, payload *trigger.PayloadOf) bool {
	n, setting := definition.get(name), "definition."+name
	if !n.isSet() {
		return false
	}
	if n.kind != group {
		c.lost(n, setting, "on."+name, "is no group with columns, so it can't be read; the "+name+"s are captured", "write "+name+`: {columns: "*"}`)
		return true
	}
	c.unknownKeys(n, setting, "columns", "payload")
	if columns := n.get("columns"); columns.isSet() && columns.kind == list {
		c.find(importer.Note, columns, setting+".columns", "on."+name, "has no effect in Hasura, which records every "+name+", and is left out; so every "+name+" is an event here, too", "")
	}
	payload.Columns = c.payload(n, setting)
	return true
}

func (c *conversion) update(definition *node, payload *trigger.PayloadOf) {
	n := definition.get("update")
	if !n.isSet() {
		return
	}
	const setting = "definition.update"
	if n.kind != group {
		c.lost(n, setting, "on.update", "is no group with columns, so it can't be read; all updates are captured", `write update: {columns: "*"}`)
		c.spec.On.Update.Enabled = true
		return
	}
	c.unknownKeys(n, setting, "columns", "payload")
	columns, all := c.columns(n.get("columns"), setting+".columns")
	if !all && len(columns) == 0 {
		c.lost(n, setting, "on", "names no columns, and then Hasura records no update: the trigger captures none here either", `remove it there, or write columns: "*" for all updates`)
		return
	}
	c.spec.On.Update = trigger.UpdateOn{Enabled: true, Columns: columns}
	payload.Columns = c.payload(n, setting)
}

// columns reads "*" or a list of columns. all is true for "*".
func (c *conversion) columns(n *node, setting string) (names []string, all bool) {
	switch {
	case !n.isSet():
		return nil, false
	case n.kind == text && n.text == "*":
		return nil, true
	case n.kind == list:
	default:
		c.lost(n, setting, "", `is neither "*" nor a list of columns; it is taken for "*"`, "correct it, and import again")
		return nil, true
	}
	for _, item := range n.items {
		name := item.scalar()
		switch {
		case name == "" || !config.CanName(name):
			c.lost(item, setting, "", fmt.Sprintf("has an entry %q, which is no name of a column that rowhook.yaml can have; it is left out", name), "correct it, and import again")
		case !slices.Contains(names, name):
			names = append(names, name)
		}
	}
	return names, false
}

// payload reads the columns of old and new. nil is every column.
func (c *conversion) payload(operation *node, setting string) []string {
	n := operation.get("payload")
	if !n.isSet() {
		return nil
	}
	names, all := c.columns(n, setting+".payload")
	if !all && len(names) == 0 {
		c.lost(n, setting+".payload", "payload", "names no columns, so old and new have every column", "name some, or remove it")
	}
	return names
}

// samePayload writes one list where all captured operations have it.
func (c *conversion) samePayload() {
	p, on := &c.spec.Payload, c.spec.On
	var lists [][]string
	for op, captured := range map[byte]bool{'I': on.Insert, 'U': on.Update.Enabled, 'D': on.Delete} {
		if captured {
			lists = append(lists, p.ColumnsOf(op))
		}
	}
	if len(lists) == 0 || lists[0] == nil || slices.ContainsFunc(lists, func(l []string) bool { return !slices.Equal(l, lists[0]) }) {
		return
	}
	*p = trigger.Payload{Columns: lists[0]}
}

// truth reads a boolean.
func (c *conversion) truth(n *node, setting string) bool {
	if !n.isSet() {
		return false
	}
	switch strings.ToLower(n.text) {
	case "true":
		return true
	case "false":
		return false
	}
	c.lost(n, setting, "", "is neither true nor false; false is taken", "correct it, and import again")
	return false
}

// webhook reads the address. It returns false if there is none.
func (c *conversion) webhook() bool {
	literal, env := c.node.get("webhook"), c.node.get("webhook_from_env")
	if literal.isSet() && literal.kind == group { // as the API shows it
		env, literal = literal.get("from_env"), nil
	}
	switch {
	case literal.isSet() && env.isSet():
		c.differs(env, "webhook_from_env", "webhook.url", "stands beside webhook, of which Hasura takes one alone; webhook is imported", "remove one of the two there")
		fallthrough
	case literal.isSet():
		if literal.scalar() == "" {
			c.skip("has an empty webhook", "write its URL, and import again")
			return false
		}
		c.base = c.imp.URLPieces(c.withoutFragment(c.environment(literal, "webhook"), literal, "webhook"), c.use(literal, "webhook"))
	case env.isSet():
		c.base = []importer.Piece{importer.Ref(c.imp.Refer(env.scalar(), c.use(env, "webhook_from_env")))}
	default:
		c.skip("has neither webhook nor webhook_from_env", "write one of them, and import again")
		return false
	}
	c.spec.Webhook.URL = importer.Join(importer.Mixed, c.base...)
	return true
}

// withoutFragment leaves out what stands behind a # in a URL, which nobody sends.
func (c *conversion) withoutFragment(pieces []importer.Piece, at *node, setting string) []importer.Piece {
	before, found := importer.Cut(pieces, "#")
	if found {
		c.find(importer.Note, at, setting, "webhook.url", "has a part behind a #, which Hasura does not send either; it is left out", "")
	}
	return before
}

// environment divides a text with {{NAME}} into texts and references.
func (c *conversion) environment(n *node, setting string) []importer.Piece {
	var out []importer.Piece
	rest := n.text
	for {
		before, after, found := strings.Cut(rest, "{{")
		name, behind, closed := strings.Cut(after, "}}")
		if name = strings.TrimSpace(name); !found || !closed || name == "" {
			return append(out, importer.Text(rest))
		}
		out = append(out, importer.Text(before), importer.Ref(c.imp.Refer(name, c.use(n, setting))))
		rest = behind
	}
}

// headers reads the headers of the trigger.
func (c *conversion) headers() {
	n := c.node.get("headers")
	if !n.isSet() {
		return
	}
	if n.kind != list {
		c.lost(n, "headers", "webhook", "are no list, so they can't be read", "write a list of {name, value} or {name, value_from_env}")
		return
	}
	for i, item := range n.items {
		c.header(item, "headers["+strconv.Itoa(i)+"]")
	}
}

func (c *conversion) header(n *node, setting string) {
	c.unknownKeys(n, setting, "name", "value", "value_from_env")
	name, value, env := n.get("name").scalar(), n.get("value"), n.get("value_from_env")
	var pieces []importer.Piece
	if value.isSet() && env.isSet() {
		c.differs(env, setting+".value_from_env", "webhook.headers", "stands beside value, of which Hasura takes one alone; value is imported", "remove one of the two there")
	}
	switch {
	case value.isScalar():
		pieces = c.environment(value, setting+".value")
		if importer.IsText(pieces) {
			pieces = c.imp.HeaderPieces(name, value.text, c.use(value, setting+".value"))
		} else {
			pieces = c.hideIn(name, pieces, value, setting+".value")
		}
	case env.scalar() != "":
		pieces = []importer.Piece{importer.Ref(c.imp.Refer(env.scalar(), c.use(env, setting+".value_from_env")))}
	default:
		c.lost(n, setting, "webhook", fmt.Sprintf("is the header %q without a value", name), "write value or value_from_env, and import again")
		return
	}
	c.setHeader(n, setting, name, pieces)
}

// hideIn has parts of a value with references become variables if they look like secrets.
func (c *conversion) hideIn(name string, pieces []importer.Piece, at *node, setting string) []importer.Piece {
	for i, p := range pieces {
		if literal := importer.Plain([]importer.Piece{p}); importer.SecretLike("", strings.TrimSpace(literal)) {
			pieces[i] = importer.Ref(c.imp.Variable(name, literal, c.use(at, setting)))
		}
	}
	return pieces
}

// ownHeaders are set by Rowhook, or frame the request.
var ownHeaders = []string{"Content-Length", "Transfer-Encoding", "Trailer", "Te", "Connection", "Keep-Alive", "Proxy-Connection", "Upgrade", "Expect"}

// setHeader adds a header, unless rowhook.yaml can't have it.
func (c *conversion) setHeader(at *node, setting, name string, pieces []importer.Piece) {
	canonical := textproto.CanonicalMIMEHeaderKey(name)
	if slices.Contains(ownHeaders, canonical) {
		c.lost(at, setting, "webhook", fmt.Sprintf("is the header %s, which belongs to the connection, and which Rowhook sets itself", name), "remove it")
		return
	}
	if other, taken := c.headerLike(name); taken {
		c.lost(at, setting, "webhook.headers", fmt.Sprintf("is the header %s once more, beside %s: Hasura sends both, and Rowhook the first one", name, other), "keep the one that the receiver reads")
		return
	}
	before := c.spec
	headers := map[string]string{name: importer.Join(importer.Mixed, pieces...)}
	for key, value := range c.spec.Webhook.Headers {
		headers[key] = value
	}
	c.spec.Webhook.Headers = headers
	if wrong := c.fault(); wrong != "" {
		c.spec = before
		c.lost(at, setting, "webhook", fmt.Sprintf("is the header %q, which rowhook.yaml can't have: %s", name, wrong), "correct it, and import again")
	}
}

func (c *conversion) headerLike(name string) (string, bool) {
	for other := range c.spec.Webhook.Headers {
		if strings.EqualFold(other, name) {
			return other, true
		}
	}
	return "", false
}

// fault returns what is wrong with the trigger as it is; "": nothing.
func (c *conversion) fault() string { return importer.Invalid(c.spec) }

// retries reads the number of attempts, the wait between them and their timeout.
func (c *conversion) retries() {
	n := c.node.get("retry_conf")
	if n.isSet() {
		c.unknownKeys(n, "retry_conf", "num_retries", "interval_sec", "timeout_sec", "tolerance_seconds")
	}
	r := &c.spec.Retry
	r.Limit = int(c.number(n.get("num_retries"), "retry_conf.num_retries", 0, math.MaxInt32-1))
	const mostSeconds = math.MaxInt64 / int64(time.Second) / 4
	r.Interval = seconds(c.number(n.get("interval_sec"), "retry_conf.interval_sec", 10, mostSeconds))
	r.MaxInterval = max(r.MaxInterval, r.Interval)
	timeout := c.number(n.get("timeout_sec"), "retry_conf.timeout_sec", 60, mostSeconds)
	if timeout == 0 {
		c.differs(n.get("timeout_sec"), "retry_conf.timeout_sec", "webhook.timeout", "is 0, which no attempt can meet; it is 60 seconds, the default, here", "write the longest time for one attempt")
		timeout = 60
	}
	c.spec.Webhook.Timeout = seconds(timeout)
	if tolerance := n.get("tolerance_seconds"); tolerance.isSet() {
		c.lost(tolerance, "retry_conf.tolerance_seconds", "retry", "is for schedules and has no meaning for event triggers", "to give old events up, write retry: {max_age: ...}")
	}
}

func seconds(n int64) trigger.Duration {
	return trigger.Duration(time.Duration(n) * time.Second)
}

// number reads a whole number from 0 to most.
func (c *conversion) number(n *node, setting string, otherwise, most int64) int64 {
	if !n.isSet() {
		return otherwise
	}
	value, err := strconv.ParseInt(strings.TrimSpace(n.scalar()), 10, 64)
	if float, ferr := strconv.ParseFloat(strings.TrimSpace(n.scalar()), 64); err != nil && ferr == nil && float == math.Trunc(float) && math.Abs(float) < 1<<53 {
		value, err = int64(float), nil
	}
	if err != nil || value < 0 || value > most {
		c.lost(n, setting, "", fmt.Sprintf("is no whole number from 0 to %d; %d is taken, the default", most, otherwise), "correct it, and import again")
		return otherwise
	}
	return value
}

// response names a transformation of answers.
func (c *conversion) response() {
	if n := c.node.get("response_transform"); n.isSet() {
		c.lost(n, "response_transform", "webhook", "changes what Hasura logs of an answer; Rowhook keeps answers as they are", "see whether somebody reads that log")
	}
}

// cleanup reads how long history is kept.
func (c *conversion) cleanup() {
	n := c.node.get("cleanup_config")
	if !n.isSet() {
		return
	}
	const setting = "cleanup_config"
	if n.kind != group {
		c.lost(n, setting, "", "is no group of keys, so it can't be read", "correct it, and import again")
		return
	}
	c.unknownKeys(n, setting, "schedule", "batch_size", "clear_older_than", "timeout", "clean_invocation_logs", "paused")
	if c.truth(n.get("paused"), setting+".paused") {
		c.differs(n, setting, "retention", "is paused, so Hasura keeps all delivered events; Rowhook keeps them for 7 days", "to keep them for longer, write retention: {delivered: ...}")
		return
	}
	const mostHours = 24 * 365 * 1000
	hours := c.number(n.get("clear_older_than"), setting+".clear_older_than", 168, mostHours)
	kept := trigger.Duration(time.Duration(hours) * time.Hour)
	c.spec.Retention.Delivered = &kept
	if c.truth(n.get("clean_invocation_logs"), setting+".clean_invocation_logs") {
		c.spec.Retention.Attempts = &kept
	} else {
		c.differs(n, setting+".clean_invocation_logs", "retention", "is not true, so Hasura keeps the log of attempts for ever; Rowhook keeps it for 7 days", "to keep it for longer, write retention: {attempts: ...}")
	}
	c.differs(n, setting+".clear_older_than", "retention", "removes failed events from Hasura, too; Rowhook keeps dead letters until somebody redelivers or discards them", "rowhook discard removes them")
	var own []string
	for _, key := range []string{"schedule", "batch_size", "timeout"} {
		if n.get(key).isSet() {
			own = append(own, key)
		}
	}
	if len(own) > 0 {
		c.lost(n, setting+"."+strings.Join(own, ", "), "retention", "says when and in what steps Hasura deletes; Rowhook drops old history by itself, a partition at a time", "")
	}
}

func (c *conversion) replication() {
	c.spec.OnReplication = c.truth(c.node.get("trigger_on_replication"), "trigger_on_replication")
}
