// Package supabase imports the database webhooks of Supabase: triggers that execute
// supabase_functions.http_request. It reads them from SQL text, such as a dump, migrations, or the
// definitions that a database gives.
package supabase

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rowhook/rowhook/internal/importer"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/trigger"
)

// File is SQL text with its name.
type File struct {
	Name, Text string
	// Definition says that the text is of one object of a database, so that its lines mean nothing.
	Definition bool
}

// requestBody writes the body of a request as Supabase documents it: jsonb, whose members are sorted by
// the length of their names, then by the names. A row that no operation has is null: a placeholder for
// it would be refused.
func requestBody(on trigger.On) trigger.Body {
	record, old := "null", "null"
	if on.Insert || on.Update.Enabled {
		record = `"$new"`
	}
	if on.Update.Enabled || on.Delete {
		old = `"$old"`
	}
	return trigger.Body(`{"type":"$event.op","table":"$table.name","record":` + record + `,"schema":"$table.schema","old_record":` + old + `}`)
}

// Import imports the webhooks of files, in their order. from is what they are, for people.
func Import(from string, files []File) *importer.Import {
	imp := importer.New(from)
	imp.Say("Supabase makes one attempt, without a look at the answer, and gives up after a second unless the webhook says otherwise. That is kept: limit: 0, and timeout. " +
		"An attempt that fails is a dead letter here, to be seen and sent again. To retry, remove limit: 0 from retry.")
	imp.Say("Drop each webhook there when its trigger is applied here. Until then receivers get each change twice.")
	r := &reader{calls: map[string]*call{}}
	for _, f := range files {
		r.definition = f.Definition
		r.text(f.Name, f.Text)
	}
	for _, h := range r.hooks {
		switch {
		case h.isWebhook():
			take(imp, h)
		case r.calls[functionKey(h.function.schema, h.function.name)] != nil:
			c := r.calls[functionKey(h.function.schema, h.function.name)]
			c.used = true
			imp.Find(importer.Finding{Kind: importer.Skipped, Trigger: h.name, Place: h.place,
				Message: fmt.Sprintf("is not imported: on %s it runs the function %s (%s), which calls %s by itself, and what it sends is code", h.table, functionKey(h.function.schema, h.function.name), c.place, c.how),
				Remedy:  "write the trigger by hand: docs/requests.md shows bodies, queries and headers of your own"})
		}
	}
	for _, name := range sortedKeys(r.calls) {
		if c := r.calls[name]; !c.used {
			imp.Find(importer.Finding{Kind: importer.Note, Place: c.place, Message: fmt.Sprintf("makes the function %s, which calls %s by itself, and which no trigger in these files runs", name, c.how)})
		}
	}
	for _, f := range r.issues {
		imp.Find(f)
	}
	return imp
}

func sortedKeys(m map[string]*call) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// taking is one webhook that is taken over.
type taking struct {
	imp  *importer.Import
	hook *hook
	spec trigger.Spec
	args []string // texts; those that are missing or null are ""
}

// find adds a finding about the webhook.
func (t *taking) find(kind importer.Kind, setting, key, remedy, message string, args ...any) {
	t.imp.Find(importer.Finding{Kind: kind, Trigger: t.spec.Name, Place: t.hook.place, Setting: setting, Key: key, Message: fmt.Sprintf(message, args...), Remedy: remedy})
}

func (t *taking) use(setting string) importer.Use {
	return importer.Use{Trigger: t.spec.Name, Place: t.hook.place, Setting: setting}
}

// take takes one webhook over, or says why not.
func take(imp *importer.Import, h *hook) {
	t := &taking{imp: imp, hook: h, spec: trigger.DefaultSpec()}
	t.spec.Name = imp.FreeName(h.name, h.table.name)
	if reason, remedy := t.refusal(); reason != "" {
		imp.Find(importer.Finding{Kind: importer.Skipped, Trigger: h.name, Place: h.place, Message: reason, Remedy: remedy})
		return
	}
	if t.spec.Name != h.name {
		why := "names have letters, digits, _ and -, and up to 42 of them"
		if importer.TriggerName(h.name) == h.name {
			why = "a trigger of another table has that name, too"
		}
		t.find(importer.Differs, "name", "", "", "is %q there: %s", h.name, why)
	}
	t.spec.Table = pg.PlainName(h.table.schema, h.table.name)
	if h.noSchema {
		t.find(importer.Note, "table", "table", "", "has no schema there, and is taken to be in public")
	}
	if slices.Contains(supabasesOwn, h.table.schema) {
		t.find(importer.Note, "table", "table", "", "belongs to Supabase itself (schema %s): the role that applies needs TRIGGER on it", h.table.schema)
	}
	t.on()
	t.request()
	t.spec.Retry = trigger.Retry{Limit: 0, Interval: trigger.DefaultRetryInterval, Backoff: trigger.BackoffFixed, MaxInterval: trigger.DefaultMaxInterval}
	t.spec.Breaker = trigger.BreakerOff
	t.timing()
	if t.hook.within {
		t.find(importer.Note, "", "", "", "stands in a block of code (DO), which may not have run: see that it is in the database")
	}
	imp.Add(importer.Trigger{Spec: t.spec, Place: h.place})
}

// supabasesOwn are the schemas of Supabase.
var supabasesOwn = []string{"auth", "storage", "realtime", "vault", "supabase_functions"}

// refusal returns why a webhook can't be a trigger of Rowhook.
func (t *taking) refusal() (reason, remedy string) {
	h := t.hook
	for _, a := range h.arguments {
		if a.kind == bound || a.is("|") || a.is("(") {
			return "is not imported, because an argument is an expression or a variable of psql, which is known when it runs alone", "import from the database instead, where the trigger is"
		}
	}
	t.args = argumentsOf(h.arguments)
	switch {
	case t.argument(0) == "":
		return "is not imported: it has no URL, and so fails each write there", "drop it"
	case h.timing == "instead of":
		return fmt.Sprintf("is not imported: %s is a view (INSTEAD OF), and rows change in the tables that it reads", h.table), "write a trigger on one of those"
	case h.disabled != "":
		return "is not imported: it " + h.disabled, "enable it there, and import again, or write the trigger by hand"
	case !h.each && !slices.Equal(h.events, []string{"truncate"}):
		return fmt.Sprintf("is not imported: it runs once for a statement (%s), and so sends no row", h.operations()), "write a trigger by hand, which sends each row"
	}
	return "", ""
}

// argumentsOf reads the arguments, which are texts, numbers or words, with commas between them.
func argumentsOf(tokens []token) []string {
	var args []string
	for i, t := range tokens {
		if !t.is(",") {
			if i > 0 && !tokens[i-1].is(",") {
				args[len(args)-1] += t.text
				continue
			}
			args = append(args, t.text)
		}
	}
	return args
}

// argument returns an argument; "" if it is missing, or null as the function has it.
func (t *taking) argument(i int) string {
	if i >= len(t.args) || t.args[i] == "null" {
		return ""
	}
	return t.args[i]
}

// on says which changes the webhook is about.
func (t *taking) on() {
	h := t.hook
	for _, event := range h.events {
		switch event {
		case "insert":
			t.spec.On.Insert = true
		case "update":
			t.spec.On.Update = trigger.UpdateOn{Enabled: true, Columns: h.columns}
		case "delete":
			t.spec.On.Delete = true
		case "truncate":
			t.spec.On.Truncate = true
		}
	}
	t.spec.When, t.spec.OnReplication = h.when, h.always
	if len(h.columns) > 0 {
		t.find(importer.Differs, "update of", "on.update", "", "is for each update that names one of the columns there, and for each that changes one of them here")
	} else if t.spec.On.Update.Enabled {
		t.find(importer.Note, "update", "", "", "sends an update that changes nothing, too, there; here that is no event")
	}
	if h.timing == "before" {
		t.find(importer.Differs, "before", "", "", "runs before the write there, and sends the row before other BEFORE triggers have changed it; it is captured after the write here, as it is stored")
	}
	if h.deferred {
		t.find(importer.Differs, "constraint", "", "to capture at the end of the transaction, add at: commit", "is a constraint trigger there, which may run at the end of the transaction; it is captured at the write here")
	}
}

// placeholders are what other programs fill in before the SQL runs: ${NAME}, {{NAME}}, $NAME.
var placeholders = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)\}|\{\{ *([A-Za-z_][A-Za-z0-9_]*) *\}\}|\$([A-Z_][A-Z0-9_]+)\b`)

// filled divides a text at what other programs fill in, which become variables.
func (t *taking) filled(setting, text string) (out []importer.Piece) {
	from := 0
	for _, m := range placeholders.FindAllStringSubmatchIndex(text, -1) {
		name := ""
		for g := 2; g < len(m); g += 2 {
			if m[g] >= 0 {
				name = text[m[g]:m[g+1]]
			}
		}
		out = append(out, importer.Text(text[from:m[0]]), importer.Ref(t.imp.Refer(name, t.use(setting))))
		from = m[1]
	}
	return append(out, importer.Text(text[from:]))
}

// here are hosts that mean the machine of the database.
var here = regexp.MustCompile(`(?i)^https?://(?:localhost|127\.|\[::1\]|host\.docker\.internal|kong\b|172\.17\.|0\.0\.0\.0)`)

// request sets URL, method, headers, query and body.
func (t *taking) request() {
	w := &t.spec.Webhook
	address := strings.TrimSpace(t.argument(0))
	w.URL = importer.Join(importer.Mixed, t.imp.URLPieces(t.filled("url", address), t.use("url"))...)
	if here.MatchString(address) {
		t.find(importer.Differs, "url", "webhook.url", "see that the dispatcher reaches it under this name", "names a host as the database sees it, which may be another one for the dispatcher")
	}
	w.Body = requestBody(t.spec.On)
	switch method := strings.ToUpper(t.argument(1)); method {
	case "POST":
	case "GET":
		w.Method, w.Body = "GET", ""
	case "PUT", "PATCH", "DELETE":
		w.Method = method
		t.find(importer.Differs, "method", "webhook.method", "", "is %s, which the function of Supabase refuses, so that each write fails there", method)
	case "":
		t.find(importer.Differs, "method", "webhook.method", "", "is missing, so that each write fails there; it is POST here")
	default:
		t.find(importer.Differs, "method", "webhook.method", "correct it there or here", "is %q, which the function of Supabase refuses, so that each write fails there; it is POST here", method)
	}
	t.headers()
	t.query()
}

// members reads the members of a JSON object in their order. Later ones of the same name win.
func members(text string) (names []string, values map[string]string, err error) {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &raw); err != nil {
		return nil, nil, err
	}
	values = map[string]string{}
	for name, v := range raw {
		var s string
		switch {
		case string(v) == "null":
			continue
		case json.Unmarshal(v, &s) == nil:
		default:
			s = string(v)
		}
		names, values[name] = append(names, name), s
	}
	slices.Sort(names)
	return names, values, nil
}

// never are headers that a request has by itself.
var never = []string{"content-length", "transfer-encoding", "trailer", "te", "connection", "keep-alive", "proxy-connection", "upgrade", "expect"}

func (t *taking) headers() {
	given := t.argument(2)
	if given == "" {
		return // Content-Type: application/json, as here
	}
	names, values, err := members(given)
	if err != nil {
		t.find(importer.NotCarried, "headers", "", "write headers by hand", "is no JSON object, so that each write fails there")
		return
	}
	seen := map[string]string{}
	for _, name := range names {
		value, setting := strings.TrimSpace(values[name]), "headers."+name
		lower := strings.ToLower(strings.TrimSpace(name))
		first, twice := seen[lower]
		switch {
		case lower == "content-type" && strings.EqualFold(value, "application/json"):
			continue // as here
		case lower == "content-type" && t.spec.Webhook.Body == "":
			t.find(importer.Note, setting, "", "", "is left out, since a GET has no body")
			continue
		case slices.Contains(never, lower):
			t.find(importer.NotCarried, setting, "", "", "is set by the request itself")
			continue
		case twice:
			t.find(importer.NotCarried, setting, "", "", "is the same header as %s, of which one is sent here", first)
			continue
		}
		pieces := t.filled(setting, value)
		if importer.IsText(pieces) {
			pieces = t.imp.HeaderPieces(name, value, t.use(setting))
		}
		text := importer.Join(importer.Mixed, pieces...)
		if wrong := importer.InvalidHeader(strings.TrimSpace(name), text); wrong != "" {
			t.find(importer.NotCarried, setting, "webhook", "correct it, and import again", "is a header that rowhook.yaml can't have: %s", wrong)
			continue
		}
		seen[lower] = name
		if t.spec.Webhook.Headers == nil {
			t.spec.Webhook.Headers = map[string]string{}
		}
		t.spec.Webhook.Headers[strings.TrimSpace(name)] = text
	}
}

func (t *taking) query() {
	given := t.argument(3)
	if given == "" {
		return
	}
	names, values, err := members(given)
	if err != nil {
		t.find(importer.NotCarried, "params", "", "write query by hand", "is no JSON object, so that each write fails there")
		return
	}
	for _, name := range names {
		if t.spec.Webhook.Query == nil {
			t.spec.Webhook.Query = map[string]string{}
		}
		value, setting := values[name], "params."+name
		pieces := t.filled(setting, value)
		if importer.IsText(pieces) && importer.SecretLike(name, value) {
			pieces = []importer.Piece{importer.Ref(t.imp.Variable(name, value, t.use(setting)))}
		}
		t.spec.Webhook.Query[name] = importer.Join(importer.Always, pieces...)
	}
}

// The time-outs of http_request: of the usual one, and of the one that retries.
const (
	usualTimeout    = time.Second
	retryingTimeout = 3 * time.Second
)

// timing sets the time-out, and the retries of the function that has a sixth argument for them.
func (t *taking) timing() {
	timeout := usualTimeout
	if t.argument(5) != "" {
		timeout = retryingTimeout
	}
	given := t.argument(4)
	switch ms, err := strconv.Atoi(given); {
	case given == "":
		t.find(importer.Note, "timeout", "webhook.timeout", "", "is not given there, where it is %s then", trigger.Duration(timeout))
	case err != nil || ms <= 0:
		t.find(importer.Differs, "timeout", "webhook.timeout", "", "is %q there, which no request can keep to; it is %s here", given, trigger.Duration(timeout))
	default:
		timeout = time.Duration(ms) * time.Millisecond
	}
	t.spec.Webhook.Timeout = trigger.Duration(timeout)
	if len(t.args) > 6 {
		t.find(importer.NotCarried, "arguments", "", "", "has more than the six that the function knows")
	}
	given = t.argument(5)
	if given == "" {
		return
	}
	retries, err := strconv.Atoi(given)
	if err != nil || retries < 0 {
		t.find(importer.NotCarried, "retries", "", "", "is %q there, which is no number", given)
		return
	}
	waits := []trigger.Duration{trigger.Duration(250 * time.Millisecond), trigger.Duration(500 * time.Millisecond), trigger.Duration(time.Second), trigger.Duration(2500 * time.Millisecond), trigger.Duration(5 * time.Second)}
	if retries > 0 {
		t.spec.Retry = trigger.Retry{Limit: retries, Schedule: waits[:min(retries, len(waits))], MaxInterval: trigger.DefaultMaxInterval}
		t.find(importer.Differs, "retries", "retry.schedule", "", "waits within the writer's transaction there, which it holds up; the writer does not wait here")
	}
}
