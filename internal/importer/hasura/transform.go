package hasura

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/rowhook/rowhook/internal/importer"
	"github.com/rowhook/rowhook/trigger"
)

const transforming = "request_transform"

// transform reads what changes the request.
func (c *conversion) transform() {
	n := c.node.get(transforming)
	if !n.isSet() {
		return
	}
	if n.kind != group {
		c.lost(n, transforming, "webhook", "is no group of keys, so it can't be read; the usual request is sent", "correct it, and import again")
		return
	}
	c.unknownKeys(n, transforming, "version", "template_engine", "method", "url", "query_params", "content_type", "request_headers", "body")
	if engine := n.get("template_engine"); engine.isSet() && !strings.EqualFold(engine.scalar(), "Kriti") {
		c.lost(n, transforming, "webhook", fmt.Sprintf("has the template engine %q, of which nothing is known; the usual request is sent", engine.scalar()), "write webhook by hand: see docs/requests.md")
		return
	}
	if version := n.get("version"); version.isSet() && version.scalar() != "1" && version.scalar() != "2" {
		c.differs(version, transforming+".version", "webhook", fmt.Sprintf("is %q, and 1 and 2 are known; it is read as 2", version.scalar()), "look at the request: rowhook test --print")
	}
	before := c.spec
	t := transformation{conversion: c, address: c.base, writer: writer{baseURL: c.base, retries: c.spec.Retry.Limit}}
	c.method(n.get("method"))
	t.url(n.get("url"))
	t.query(n.get("query_params"), n.get("url").isSet())
	t.body(n.get("body"))
	c.bodyOfMethod(n)
	t.requestHeaders(n.get("request_headers"))
	t.contentType(n.get("content_type"))
	if wrong := c.fault(); wrong != "" {
		c.spec = before
		c.lost(n, transforming, "webhook", "makes a request that rowhook.yaml can't have ("+wrong+"); the usual request is sent", "write webhook by hand: see docs/requests.md")
	}
}

type transformation struct {
	*conversion
	writer
	address []importer.Piece // the URL so far
}

// beyondReach reports what rowhook.yaml can't say.
func (t *transformation) beyondReach(at *node, setting, key string, err error, instead string) {
	what := err.Error()
	if e, ok := errors.AsType[*unreachableError](err); ok {
		what = e.what
	}
	t.lost(at, transforming+"."+setting, key, fmt.Sprintf("has what placeholders can't do: %s; %s", what, instead),
		"write "+key+" by hand, or do it in the receiver: docs/requests.md has what placeholders can do")
}

// secrets has a text of a template become a variable if it looks like a secret.
func (t *transformation) secrets(at *node, setting string) {
	t.variable = func(name, value string) (string, bool) {
		if !importer.SecretLike(name, value) || importer.Harmless(value) {
			return "", false
		}
		return t.imp.Variable(name, value, t.use(at, transforming+"."+setting)), true
	}
}

func (c *conversion) method(n *node) {
	method := strings.ToUpper(strings.TrimSpace(n.scalar()))
	switch {
	case !n.isSet() || method == trigger.MethodPost:
	case slices.Contains(trigger.Methods(), method):
		c.spec.Webhook.Method = method
	default:
		c.lost(n, transforming+".method", "webhook", fmt.Sprintf("is %q, which Rowhook does not send; it is POST here", method), "use one of "+strings.Join(trigger.Methods(), ", "))
	}
}

// bodyOfMethod says what becomes of the body of a GET, and gives a DELETE the usual one.
func (c *conversion) bodyOfMethod(n *node) {
	w := &c.spec.Webhook
	removed := n.get("body").get("action").scalar() == "remove"
	switch {
	case removed && w.Body == "" && len(w.Form) == 0 && w.HasBody():
		w.Body = "{}"
		c.differs(n.get("body"), transforming+".body", "webhook.body", "removes the body, and a "+methodOf(w)+" of Rowhook always has one; an empty object is sent", "use method: GET or DELETE if the receiver takes no body")
	case w.Method == trigger.MethodGet && !removed:
		w.Body, w.Form = "", nil
		c.differs(n.get("method"), transforming+".method", "webhook.method", "is GET, with which Hasura sends a body; Rowhook sends none with it", "write what the receiver needs into query, or use another method")
	case w.Method == trigger.MethodDelete && !removed && !w.IsTemplate():
		w.Body = trigger.Body((&writer{retries: c.spec.Retry.Limit}).usualBody())
		c.differs(n.get("method"), transforming+".method", "webhook.body", "is DELETE, whose body has to be written out; delivery_info.current_retry is not in it", "remove body if the receiver does not read it")
	}
}

func methodOf(w *trigger.Webhook) string {
	if w.Method == "" {
		return trigger.MethodPost
	}
	return w.Method
}

// url reads the template of the URL.
func (t *transformation) url(n *node) {
	if !n.isSet() {
		return
	}
	const key = "webhook.url"
	t.variable = func(string, string) (string, bool) { return "", false }
	pieces, err := t.texts(n.scalar(), inURL, "")
	if err == nil && n.scalar() == "" {
		err = beyond("it is empty")
	}
	if err != nil {
		t.beyondReach(n, "url", key, err, "the webhook alone is called")
		return
	}
	before := t.spec.Webhook.URL
	pieces = t.withoutFragment(pieces, n, transforming+".url")
	pieces = t.imp.URLPieces(pieces, t.use(n, transforming+".url"))
	t.spec.Webhook.URL = importer.Join(importer.Mixed, pieces...)
	if wrong := t.fault(); wrong != "" {
		t.spec.Webhook.URL = before
		t.lost(n, transforming+".url", key, "makes a URL that rowhook.yaml can't have ("+wrong+"); the webhook alone is called", "write url by hand: data of the event may stand behind the host only")
		return
	}
	t.address = pieces
	if importer.HasData(pieces) && !strings.Contains(n.text, "escapeUri") {
		t.find(importer.Note, n, transforming+".url", "", "has data of the event without escapeUri; Rowhook always escapes it, so a value stays one segment of the path", "")
	}
}

// query reads query_params, which replace the query of the URL.
func (t *transformation) query(n *node, hasURL bool) {
	path, has := importer.Cut(t.address, "?")
	if !n.isSet() {
		if _, before := importer.Cut(t.base, "?"); hasURL && has && !before {
			t.differs(t.node.get(transforming).get("url"), transforming+".url", "webhook.url", "has a query, which Hasura replaces by query_params; it is sent here", "remove it if the receiver was called without it so far")
		}
		return
	}
	values := map[string]string{}
	switch n.kind {
	case group:
		for _, e := range n.entries {
			t.parameter(e, values)
		}
	case text:
		t.parameters(n, values)
	default:
		t.lost(n, transforming+".query_params", "webhook", "are neither names with values nor a text, so they can't be read", "write webhook.query by hand")
		return
	}
	if has {
		t.find(importer.Note, n, transforming+".query_params", "webhook.url", "replaces the query of the URL, as in Hasura, so that query is not sent", "")
		t.spec.Webhook.URL = importer.Join(importer.Mixed, path...)
	}
	if len(values) > 0 {
		t.spec.Webhook.Query = values
	}
}

func (t *transformation) parameter(e entry, values map[string]string) {
	setting := "query_params." + e.name
	if strings.Contains(e.name, "{{") {
		t.beyondReach(e.value, setting, "webhook.query", beyond("a name that is computed"), "the parameter is not sent")
		return
	}
	t.setParameter(e.value, setting, e.name, e.value.scalar(), values)
}

func (t *transformation) setParameter(at *node, setting, name, source string, values map[string]string) {
	t.secrets(at, setting)
	pieces, err := t.texts(source, inQuery, name)
	if err != nil {
		t.beyondReach(at, setting, "webhook.query", err, "the parameter is not sent")
		return
	}
	if _, twice := values[name]; twice {
		t.lost(at, transforming+"."+setting, "webhook.query", "is a name that stands there before; Rowhook sends the first one", "keep the one that the receiver reads")
		return
	}
	if !at.isSet() {
		t.differs(at, transforming+"."+setting, "webhook.query", "is null, so that Hasura sends the name alone; it is sent with an empty value", "see whether the receiver tells the two apart")
	}
	values[name] = importer.Join(importer.Always, pieces...)
}

// parameters reads a query that is one text.
func (t *transformation) parameters(n *node, values map[string]string) {
	source := strings.TrimPrefix(n.text, "?")
	for _, pair := range splitOutside(source, '&') {
		if pair == "" {
			continue
		}
		parts := splitOutside(pair, '=')
		name, value := parts[0], strings.Join(parts[1:], "=")
		if strings.Contains(name, "{{") {
			t.beyondReach(n, "query_params", "webhook.query", beyond("a part of the query that is computed as a whole"), "that part is not sent")
			continue
		}
		t.setParameter(n, "query_params", unescape(name), unescapeOutside(value), values)
	}
}

// splitOutside splits a template at a character that is not within {{ }}.
func splitOutside(s string, at byte) (parts []string) {
	depth, from := 0, 0
	for i := range len(s) {
		switch {
		case strings.HasPrefix(s[i:], "{{"):
			depth++
		case strings.HasPrefix(s[i:], "}}") && depth > 0:
			depth--
		case s[i] == at && depth == 0:
			parts = append(parts, s[from:i])
			from = i + 1
		}
	}
	return append(parts, s[from:])
}

func unescape(s string) string {
	if plain, err := url.QueryUnescape(s); err == nil {
		return plain
	}
	return s
}

// unescapeOutside undoes the escapes of a query in a template, since Rowhook escapes values itself.
func unescapeOutside(s string) string {
	before, after, found := strings.Cut(s, "{{")
	if !found {
		return unescape(s)
	}
	inner, behind, closed := strings.Cut(after, "}}")
	if !closed {
		return s
	}
	return unescape(before) + "{{" + inner + "}}" + unescapeOutside(behind)
}

// body reads the body: a text of version 1, or what to do of version 2.
func (t *transformation) body(n *node) {
	if !n.isSet() {
		return
	}
	if n.isScalar() {
		t.template(n, "body")
		return
	}
	t.unknownKeys(n, transforming+".body", "action", "template", "form_template")
	switch action := n.get("action").scalar(); action {
	case "remove": // see bodyOfMethod
	case "transform":
		t.template(n.get("template"), "body.template")
	case "x_www_form_urlencoded":
		t.form(n.get("form_template"), n)
	default:
		t.lost(n, transforming+".body", "webhook", fmt.Sprintf("has the action %q, of which nothing is known; the usual body is sent", action), "write webhook.body by hand: see docs/requests.md")
	}
}

const usualBody = "the usual body is sent, which has the whole event"

func (t *transformation) template(n *node, setting string) {
	if !n.isSet() || !n.isScalar() {
		t.lost(n, transforming+"."+setting, "webhook", "is no template; "+usualBody, "write webhook.body by hand: see docs/requests.md")
		return
	}
	t.secrets(n, setting)
	e, err := parseTemplate(n.text)
	if err == nil && isUsual(e) {
		return
	}
	body := ""
	if err == nil {
		body, err = t.json(e, "")
	}
	if err != nil {
		t.beyondReach(n, setting, "webhook.body", err, usualBody)
		return
	}
	t.spec.Webhook.Body = trigger.Body(body)
	if wrong := t.fault(); wrong != "" && t.spec.Webhook.Method != trigger.MethodGet {
		t.spec.Webhook.Body = ""
		t.lost(n, transforming+"."+setting, "webhook", "makes a body that rowhook.yaml can't have ("+wrong+"); "+usualBody, "write webhook.body by hand")
		return
	}
	if strings.Contains(body, `"delivery_info":{"max_retries"`) {
		t.differs(n, transforming+"."+setting, "webhook.body", "holds $body, which is written out; delivery_info.current_retry is not in it", "$attempt is one more than it")
	}
}

// form reads the fields of a form.
func (t *transformation) form(n, at *node) {
	const setting = "body.form_template"
	if !n.isSet() || n.kind != group || len(n.entries) == 0 {
		t.lost(at, transforming+"."+setting, "webhook", "has no fields; "+usualBody, "write webhook.form by hand")
		return
	}
	form := map[string]string{}
	for _, e := range n.entries {
		t.secrets(e.value, setting+"."+e.name)
		pieces, err := t.texts(e.value.scalar(), inForm, e.name)
		if err != nil {
			t.beyondReach(e.value, setting+"."+e.name, "webhook.form", err, "the field is not sent")
			continue
		}
		form[e.name] = importer.Join(importer.Always, pieces...)
	}
	if len(form) > 0 {
		t.spec.Webhook.Form = form
	}
}

// sentHeaders are headers that Rowhook sends by itself. Another one is not there to be removed.
var sentHeaders = []string{"content-type", "user-agent", "content-length", "host", "accept-encoding", "traceparent", "tracestate"}

// requestHeaders reads which headers are removed, and which are added behind that.
func (t *transformation) requestHeaders(n *node) {
	if !n.isSet() {
		return
	}
	const setting = transforming + ".request_headers"
	t.unknownKeys(n, setting, "add_headers", "remove_headers")
	if remove := n.get("remove_headers"); remove.isSet() {
		for _, item := range remove.items {
			t.removeHeader(item, setting+".remove_headers", n.get("add_headers"))
		}
	}
	add := n.get("add_headers")
	if !add.isSet() {
		return
	}
	if add.kind != group {
		t.lost(add, setting+".add_headers", "webhook", "are no names with values, so they can't be read", "write webhook.headers by hand")
		return
	}
	for _, e := range add.entries {
		t.addHeader(e, "request_headers.add_headers."+e.name)
	}
}

func (t *transformation) removeHeader(item *node, setting string, added *node) {
	name := item.scalar()
	other, taken := t.headerLike(name)
	again := added != nil && slices.ContainsFunc(added.entries, func(e entry) bool { return strings.EqualFold(e.name, name) })
	switch lower := strings.ToLower(name); {
	case taken:
		headers := maps.Clone(t.spec.Webhook.Headers)
		delete(headers, other)
		if len(headers) == 0 {
			headers = nil
		}
		t.spec.Webhook.Headers = headers
		t.find(importer.Note, item, setting, "webhook", fmt.Sprintf("removes the header %s, which is left out", name), "")
	case again: // it is replaced
	case lower == "content-type" && (t.spec.Webhook.Method == trigger.MethodGet || t.spec.Webhook.Method == trigger.MethodDelete && t.spec.Webhook.Body == ""):
		t.find(importer.Note, item, setting, "", "removes the header "+name+", which Rowhook does not send without a body", "")
	case slices.Contains(sentHeaders, lower):
		t.lost(item, setting, "webhook", fmt.Sprintf("removes the header %s, which Rowhook sends in any case", name), "check that the receiver takes it; headers can give it another value")
	default:
		t.find(importer.Note, item, setting, "", fmt.Sprintf("removes the header %s, which Rowhook does not send", name), "")
	}
}

func (t *transformation) addHeader(e entry, setting string) {
	t.variable = func(string, string) (string, bool) { return "", false }
	pieces, err := t.texts(e.value.scalar(), inForm, e.name)
	if err != nil {
		t.beyondReach(e.value, setting, "webhook.headers", err, "the header is not sent")
		return
	}
	if importer.IsText(pieces) {
		pieces = t.imp.HeaderPieces(e.name, importer.Plain(pieces), t.use(e.value, transforming+"."+setting))
	} else {
		pieces = t.hideIn(e.name, pieces, e.value, transforming+"."+setting)
	}
	if other, taken := t.headerLike(e.name); taken {
		headers := maps.Clone(t.spec.Webhook.Headers)
		delete(headers, other)
		t.spec.Webhook.Headers = headers
		t.differs(e.value, transforming+"."+setting, "webhook.headers", fmt.Sprintf("is the header %s once more: Hasura sends both, and Rowhook this one", other), "keep the one that the receiver reads")
	}
	t.setHeader(e.value, transforming+"."+setting, e.name, pieces)
}

// contentType reads a key of version 1.
func (t *transformation) contentType(n *node) {
	if !n.isSet() {
		return
	}
	const json, form = "application/json", "application/x-www-form-urlencoded"
	value := strings.ToLower(strings.TrimSpace(n.scalar()))
	isForm := len(t.spec.Webhook.Form) > 0
	if value == json && !isForm || value == form && isForm {
		return
	}
	if _, taken := t.headerLike("Content-Type"); taken {
		t.lost(n, transforming+".content_type", "webhook.headers", "stands beside a header Content-Type, which is sent", "keep one of the two")
		return
	}
	if value == form { // the body is JSON, and a receiver would read it as a form
		t.lost(n, transforming+".content_type", "webhook", "asks for a form, and the body is JSON, which is sent as such", "write webhook.form in the place of body: see docs/requests.md")
		return
	}
	t.setHeader(n, transforming+".content_type", "Content-Type", []importer.Piece{importer.Text(n.scalar())})
	t.differs(n, transforming+".content_type", "webhook.headers", "is another type than the body has; newer versions of Hasura ignore it, and it is sent here", "remove the header if the receiver was called without it")
}
