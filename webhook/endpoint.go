package webhook

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/idna"

	"github.com/rowhook/rowhook/internal/netrule"
	"github.com/rowhook/rowhook/internal/template"
	"github.com/rowhook/rowhook/trigger"
)

// Endpoint is a webhook that is ready to be called: its references are expanded, its URL is parsed
// and its headers are prepared. Any number of goroutines may use it. Make a new one when the
// configuration or the environment changes.
type Endpoint struct {
	template string // the URL as configured: references are not expanded
	shown    string // the URL for people: with its host, without what may be secret
	problem  error
	timeout  time.Duration
	address  string        // where a wire connects to; "": net/http carries the requests
	request  *http.Request // each attempt sends a shallow copy of it; read only
	header   http.Header   // without the User-Agent of the client; read only
	signer   *signer       // nil: requests are not signed
	tls      tlsFiles
	scrub    scrubber
	cached   *atomic.Pointer[agentHeader]
	issuer   *issuer // of tokens; nil: none is sent

	// What requests have beside a body as AppendBody makes it, and a URL and a header that are the
	// same for each event. Most endpoints have none of it.
	templates   *template.Set    // nil: there is no placeholder
	format      format           // nil: AppendBody
	target      *target          // nil: each event goes to the URL of request
	headers     []headerTemplate // with data of the event
	given       map[string]bool  // the headers of the configuration, by canonical names
	expandsBody bool             // the body has values from the environment
	compress    bool             // large bodies are compressed
	shownText   *template.Text   // the URL for people with data of the event; nil: shown
	sizer       *sync.Pool       // of *scratch, for BodySize
}

// set returns the templates of the endpoint, for one more.
func (ep *Endpoint) set() *template.Set {
	if ep.templates == nil {
		ep.templates = &template.Set{}
	}
	return ep.templates
}

type agentHeader struct {
	agent  string
	header http.Header
}

// NewEndpoint expands the ${NAME} references of w and prepares its requests. lookup has the shape
// of [os.LookupEnv]. NewEndpointFrom expands ${file:PATH}, too.
//
// The endpoint is never nil. If it can't be called, NewEndpoint also returns an error that says
// why, and each Send to it fails with KindBadURL and that text. The causes are a variable that is
// not set, a malformed URL or header, a secret that can't be read, and TLS keys that contradict
// each other. No error holds an expanded value.
func NewEndpoint(w trigger.Webhook, lookup func(string) (string, bool)) (*Endpoint, error) {
	return NewEndpointFrom(w, trigger.Variables(lookup))
}

// NewEndpointFrom is NewEndpoint with what a source gives out. Its errors are part of those of
// NewEndpointFrom. It is asked for each name once.
func NewEndpointFrom(w trigger.Webhook, source trigger.Source) (*Endpoint, error) {
	source = source.Once()
	ep := &Endpoint{cached: &atomic.Pointer[agentHeader]{}, sizer: &sync.Pool{}, template: showURL(w.URL), timeout: w.Timeout.Std()}
	if ep.timeout <= 0 {
		ep.timeout = trigger.DefaultTimeout.Std()
	}
	ep.problem = errors.Join(ep.prepareURL(w, source), ep.prepareFormat(w, source), ep.prepareHeaders(w, source), ep.prepareSecret(w.Secret, source), ep.prepareTLS(w.TLS, source), ep.prepareOAuth(w.OAuth2, source))
	if ep.problem == nil && ep.request != nil {
		ep.address = wireAddress(ep.request.URL, ep.request.Host)
	}
	if ep.templates != nil && ep.templates.Empty() {
		ep.templates = nil
	}
	if ep.problem != nil {
		ep.problem = errors.New(strings.ReplaceAll(ep.problem.Error(), "\n", "; "))
	}
	return ep, ep.problem
}

// Problem returns why this endpoint can't be called, or nil. It is the error of NewEndpoint.
func (ep *Endpoint) Problem() error { return ep.problem }

// Warning returns what is probably a mistake in an endpoint that can be called, or "". It warns of
// a signing key that is easy to guess.
func (ep *Endpoint) Warning() string {
	if ep.signer != nil && ep.signer.short {
		return "the secret has a key that is short enough to be guessed: make one with echo whsec_$(openssl rand -base64 32)"
	}
	return ""
}

// Timeout returns the limit of one attempt, from connecting to the last byte of the response.
func (ep *Endpoint) Timeout() time.Duration { return ep.timeout }

// Origin returns scheme, host and port of the URL, as in https://example.com:443, or "" if the
// endpoint has a Problem. Endpoints of the same origin connect to the same address.
func (ep *Endpoint) Origin() string {
	if ep.request == nil {
		return ""
	}
	u := ep.request.URL
	port := u.Port()
	if port == "" {
		if port = "80"; u.Scheme == "https" {
			port = "443"
		}
	}
	return u.Scheme + "://" + net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}

// PublicKeys returns the public keys of the private keys that sign requests, each as whpk_ and base64.
func (ep *Endpoint) PublicKeys() []string {
	if ep.signer == nil {
		return nil
	}
	return ep.signer.publicKeys()
}

// OwnTLS reports whether the endpoint has TLS files of its own. A handshake may fail because of them,
// while it succeeds for other endpoints of the same origin.
func (ep *Endpoint) OwnTLS() bool { return ep.tls != tlsFiles{} }

// Method returns the HTTP method of the endpoint's requests; "": it has a problem, and makes none.
func (ep *Endpoint) Method() string {
	if ep.request == nil {
		return ""
	}
	return ep.request.Method
}

// String returns the URL for people. Scheme, host and port are those that are called. A user name,
// a password and the values of a query are redacted. References in the path and the query are not
// expanded. If the whole URL comes from one variable, this hides the path.
func (ep *Endpoint) String() string { return ep.shown }

// expand is resolve with errors that begin with what s is.
func (ep *Endpoint) expand(what, s string, source trigger.Source) (string, error) {
	expanded, err := ep.resolve(s, source)
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	return expanded, nil
}

// resolve returns s with its references expanded, and registers their values with the scrubber.
func (ep *Endpoint) resolve(s string, source trigger.Source) (string, error) {
	expanded, err := trigger.Expand(s, source)
	if err != nil {
		return "", err
	}
	names, err := trigger.References(s)
	if err != nil {
		return "", err
	}
	for _, name := range names {
		value, _ := source(name)
		ep.scrub.addVariable(name, value)
	}
	return expanded, nil
}

func (ep *Endpoint) prepareURL(w trigger.Webhook, source trigger.Source) error {
	what := fmt.Sprintf("url %q", ep.template)
	text, err := markURL(w.URL)
	if err != nil {
		ep.shown = ep.template
		return fmt.Errorf("%s: %w", what, err)
	}
	if err := ep.show(showURL(text.marked), w.Query, text); err != nil { // until it is known to be one
		return err
	}
	expanded, err := trigger.Expand(text.marked, source)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	u, err := parseURL(text.sample(expanded))
	if err == nil && !text.behindHost(expanded) {
		err = errors.New("has data of the event in its scheme, user name, host or port: data may stand behind the host only")
	}
	if err != nil {
		return fmt.Errorf("%s %w", what, err)
	}
	if err := ep.show(showExpanded(text.marked, source), w.Query, text); err != nil {
		return err
	}
	configured := w.URL
	ep.scrub.host, ep.scrub.hostname = u.Host, u.Hostname()
	names, err := trigger.References(configured)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	for _, name := range names {
		value, _ := source(name)
		// A host is not secret.
		if !strings.Contains(u.Scheme+"://"+u.Host, strings.TrimRight(value, "/")) {
			ep.scrub.addVariable(name, value)
		}
	}
	ep.header = http.Header{"Content-Type": {"application/json"}}
	if user := u.User; user != nil {
		password, _ := user.Password()
		pair := base64.StdEncoding.EncodeToString([]byte(user.Username() + ":" + password))
		ep.header["Authorization"] = []string{"Basic " + pair}
		ep.scrub.add(pair, redacted)
		ep.scrub.add(password, redacted)
	}
	u.User, u.Fragment, u.RawFragment = nil, "", ""
	if err := ep.prepareTarget(u, w.Query, text, expanded, source); err != nil {
		return err
	}
	ep.request = &http.Request{
		Method: methodOf(&w), URL: u, Host: u.Host,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	return nil
}

// methodOf returns the method of requests.
func methodOf(w *trigger.Webhook) string { return cmp.Or(w.Method, trigger.MethodPost) }

// prepareFormat compiles what says how bodies are made.
func (ep *Endpoint) prepareFormat(w trigger.Webhook, source trigger.Source) error {
	expand := func(reference string) (string, error) {
		ep.expandsBody = true
		return ep.resolve(reference, source)
	}
	ep.compress = w.Compress == trigger.CompressGzip
	switch {
	case !w.HasBody():
		ep.format = bodiless{}
	case w.Format == trigger.FormatCloudEvents:
		ep.format = cloudEvents{}
	case w.Format == trigger.FormatCloudEventsBinary:
		ep.format = binaryCloudEvents{}
	case w.Body == trigger.BodyForm:
		ep.format = rowForm{}
	case w.Body != "":
		body, err := ep.set().Body(json.RawMessage(w.Body), expand)
		if err != nil {
			return fmt.Errorf("body: %w", err)
		}
		ep.format = bodyTemplate{body}
	case len(w.Form) > 0:
		fields, err := ep.pairs(template.InForm, w.Form, expand)
		if err != nil {
			return fmt.Errorf("form: %w", err)
		}
		ep.format = formTemplate{fields}
	}
	switch {
	case ep.format == nil || ep.header == nil:
	case ep.format.contentType(false) == "":
		delete(ep.header, "Content-Type")
	default:
		ep.header["Content-Type"] = []string{ep.format.contentType(false)}
	}
	return nil
}

// pairs compiles names and values that are separated by = and &, sorted by name.
func (ep *Endpoint) pairs(place template.Place, values map[string]string, expand template.Expand) (*template.Text, error) {
	t := ep.set().Text(place)
	for i, name := range slices.Sorted(maps.Keys(values)) {
		if i > 0 {
			t.Raw("&")
		}
		t.Plain(name)
		t.Raw("=")
		parts, err := template.Parse(values[name], template.Always)
		if err == nil {
			err = t.Parts(parts, expand)
		}
		if err != nil {
			return nil, fmt.Errorf("%q: %w", name, err)
		}
	}
	return t, nil
}

// parseURL parses a URL to which a request can be sent. Its errors say what is wrong with the URL
// and quote nothing of it.
func parseURL(s string) (*url.URL, error) {
	switch {
	case s == "":
		return nil, errors.New("is empty")
	case strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		return nil, errors.New("has a space, a line break or another control character (at the end of a variable's value?)")
	}
	u, err := url.Parse(s)
	var escape url.EscapeError
	var host url.InvalidHostError
	switch {
	case errors.As(err, &escape):
		return nil, errors.New("has a % that is not followed by two hexadecimal digits: write it as %25")
	case errors.As(err, &host), err == nil && strings.ContainsAny(u.Host, "<>\""):
		return nil, errors.New("has a host name with a character that no host name can have")
	case err != nil && strings.Contains(err.Error(), "invalid port"):
		return nil, errors.New("has a port that is not a number")
	case err != nil && !strings.Contains(s, "://"):
		return nil, errors.New("does not begin with http:// or https://")
	case err != nil:
		return nil, errors.New("is not a URL")
	case u.Scheme != "http" && u.Scheme != "https" && !strings.Contains(s, "://"):
		return nil, errors.New("does not begin with http:// or https://")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("has a scheme other than http and https")
	case u.Hostname() == "":
		return nil, errors.New("has no host")
	case toASCII(u) != nil:
		return nil, errors.New("has a host name with a character that no host name can have")
	case netrule.IsNumericHost(u.Hostname()):
		return nil, errors.New("has a number for a host: write an IPv4 address like 192.0.2.1")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return nil, errors.New("has a port that is not between 1 and 65535")
		}
	}
	return u, nil
}

// toASCII writes the host in the form in which it is looked up. net/http does the same, but only
// after all checks. A full stop of another script, for instance, turns a text that passed for a
// name into an IP address.
func toASCII(u *url.URL) error {
	host := u.Hostname()
	if !strings.ContainsFunc(host, func(r rune) bool { return r > '~' }) {
		return nil
	}
	ascii, err := idna.Lookup.ToASCII(host)
	if err != nil {
		return err
	}
	u.Host = strings.Replace(u.Host, host, ascii, 1)
	return nil
}

// ShowURL returns a configured URL for people. What may be secret is redacted: see Endpoint.String.
// References are not expanded.
func ShowURL(configured string) string { return showURL(configured) }

// showURL redacts the user name, the password and the values of the query of a configured URL.
// References may make the URL impossible to parse.
func showURL(configured string) string {
	scheme, rest, ok := strings.Cut(configured, "://")
	if !ok {
		return hideQuery(configured)
	}
	authority, _, _ := strings.Cut(rest, "/")
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		rest = redacted + rest[i:]
	}
	return scheme + "://" + hideQuery(rest)
}

// showExpanded returns Endpoint.String of a URL that can be called.
func showExpanded(configured string, source trigger.Source) string {
	// Control characters mark where values begin and end. Neither values nor URLs can hold them.
	marked, _ := trigger.Expand(configured, func(name string) (string, error) {
		value, err := source(name)
		return "\x01" + name + "\x02" + value + "\x03", err
	})
	scheme, authority, rest := "", "", ""
	plain := &scheme // text before the path is shown unchanged
	for marked != "" {
		text, name := marked, ""
		if after, ok := strings.CutPrefix(marked, "\x01"); ok {
			name, after, _ = strings.Cut(after, "\x02")
			text, marked, _ = strings.Cut(after, "\x03")
		} else if i := strings.IndexByte(marked, 1); i >= 0 {
			text, marked = marked[:i], marked[i:]
		} else {
			marked = ""
		}
		if plain != nil {
			scheme += text
			before, after, found := strings.Cut(scheme, "://")
			end := strings.IndexAny(after, "/?#")
			if !found || end < 0 {
				continue
			}
			scheme, authority, text, plain = before, after[:end], after[end:], nil
			if name != "" && text != "/" { // the rest of a value that began with the host
				rest, text = text[:1], text[1:]
			}
		}
		if name != "" && text != "" && text != "/" {
			text = "${" + name + "}"
		}
		rest += text
	}
	if plain != nil {
		scheme, authority, _ = strings.Cut(scheme, "://")
	}
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		authority = redacted + authority[i:]
	}
	return scheme + "://" + authority + hideQuery(rest)
}

// hideQuery redacts the values of a query, except references, and removes a fragment.
func hideQuery(rest string) string {
	rest, _, _ = strings.Cut(rest, "#")
	path, query, found := strings.Cut(rest, "?")
	if !found {
		return path
	}
	pairs := strings.Split(query, "&")
	for i, pair := range pairs {
		key, value, ok := strings.Cut(pair, "=")
		if ok && value != "" && !strings.HasPrefix(value, "${") && !strings.Contains(value, markBegin) {
			pairs[i] = key + "=" + redacted
		}
	}
	return path + "?" + strings.Join(pairs, "&")
}

// prepareHeaders sets the configured headers on top of the default ones. It also runs if the URL
// could not be parsed, to report the faults of the headers.
func (ep *Endpoint) prepareHeaders(w trigger.Webhook, source trigger.Source) error {
	var problems []error
	given := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(w.Headers)) {
		what := fmt.Sprintf("header %q", name)
		canonical := textproto.CanonicalMIMEHeaderKey(name)
		place := template.InHeader
		if w.Format == trigger.FormatCloudEventsBinary && strings.HasPrefix(canonical, "Ce-") {
			place = template.InAttribute
		}
		value, data, err := ep.headerValue(what, w.Headers[name], place, source)
		switch {
		case err != nil:
			problems = append(problems, err)
		case !httpguts.ValidHeaderFieldName(name):
			problems = append(problems, fmt.Errorf("%s has a character that no header name can have", what))
		case isReservedHeader(canonical) || w.Secret != "" && isSignatureHeader(canonical):
			problems = append(problems, fmt.Errorf("%s is set by Rowhook itself: remove it", what))
		case given[canonical] != "":
			problems = append(problems, fmt.Errorf("%s is given twice, also as %q", what, given[canonical]))
		case !httpguts.ValidHeaderFieldValue(value):
			problems = append(problems, fmt.Errorf("%s has a value with a line break or another control character (at the end of a variable's value?)", what))
		case canonical == "Host" && data != nil:
			problems = append(problems, fmt.Errorf("%s has data of the event: a host can't", what))
		case canonical == "Host" && !httpguts.ValidHostHeader(value):
			problems = append(problems, fmt.Errorf("%s has a value that is not a host name", what))
		default:
			given[canonical] = name
			if data != nil {
				ep.headers = append(ep.headers, headerTemplate{canonical, data})
				delete(ep.header, canonical)
				continue
			}
			if place == template.InAttribute {
				value = template.Encoded(value)
			}
			ep.setHeader(canonical, value)
		}
	}
	ep.given = make(map[string]bool, len(given))
	for name := range given {
		ep.given[name] = true
	}
	return errors.Join(problems...)
}

// headerValue returns the value of a header. data is not nil if it has data of the event; then value
// is what there is of it without data.
func (ep *Endpoint) headerValue(what, configured string, place template.Place, source trigger.Source) (value string, data *template.Text, err error) {
	parts, err := template.Parse(configured, template.Mixed)
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w", what, err)
	}
	if parts == nil {
		value, err = ep.expand(what, configured, source)
		return value, nil, err
	}
	data = ep.set().Text(place)
	for _, part := range parts {
		switch {
		case part.Data != nil:
			err = data.Data(part.Data)
		case part.Reference != "":
			part.Text, err = ep.expand(what, part.Reference, source)
		}
		if err != nil {
			return "", nil, err
		}
		value += part.Text
		if place == template.InAttribute {
			part.Text = template.Encoded(part.Text)
		}
		data.Raw(part.Text)
	}
	if data.Fixed() {
		data = nil
	}
	return value, data, nil
}

func (ep *Endpoint) setHeader(canonical, value string) {
	switch {
	case ep.request == nil: // the URL could not be parsed, and nothing will be sent
	case canonical == "Host":
		ep.request.Host = value
	default:
		ep.header[canonical] = []string{value}
	}
}

// isReservedHeader reports whether a header frames the message or belongs to the connection.
// net/http sets such headers.
func isReservedHeader(canonical string) bool {
	switch canonical {
	case "Content-Length", "Transfer-Encoding", "Trailer", "Te", "Connection", "Keep-Alive", "Proxy-Connection", "Upgrade", "Expect":
		return true
	}
	return false
}

func isSignatureHeader(canonical string) bool {
	return canonical == HeaderID || canonical == HeaderTimestamp || canonical == HeaderSignature
}

func (ep *Endpoint) prepareSecret(configured string, source trigger.Source) error {
	if configured == "" {
		return nil
	}
	expanded, err := ep.expand("secret", configured, source)
	if err != nil {
		return err
	}
	ep.signer, err = newSigner(expanded)
	return err
}

func (ep *Endpoint) prepareTLS(configured trigger.TLS, source trigger.Source) error {
	if configured.IsZero() {
		return nil
	}
	var problems []error
	for _, f := range []struct {
		key, path string
		to        *string
	}{{"tls.ca_file", configured.CAFile, &ep.tls.ca}, {"tls.cert_file", configured.CertFile, &ep.tls.cert}, {"tls.key_file", configured.KeyFile, &ep.tls.key}} {
		path, err := ep.expand(f.key, f.path, source)
		if err == nil && f.path != "" && path == "" {
			err = fmt.Errorf("%s %q is empty", f.key, f.path)
		}
		problems = append(problems, err)
		*f.to = path
	}
	switch {
	case errors.Join(problems...) != nil:
	case (ep.tls.cert == "") != (ep.tls.key == ""):
		problems = append(problems, errors.New("tls.cert_file and tls.key_file must be set together"))
	case ep.request != nil && ep.request.URL.Scheme != "https":
		problems = append(problems, fmt.Errorf("tls needs an https url, and %q is http: remove tls, or write https", ep.template))
	}
	return errors.Join(problems...)
}

// headerFor returns the header of an unsigned request. agent is the User-Agent of the client.
// Callers must not change the header.
func (ep *Endpoint) headerFor(agent string) http.Header {
	if c := ep.cached.Load(); c != nil && c.agent == agent {
		return c.header
	}
	h := maps.Clone(ep.header)
	if _, ok := h["User-Agent"]; !ok {
		h["User-Agent"] = []string{agent}
	}
	// A key without a value is not sent. It tells net/http that it may repeat the request if the
	// receiver closed a kept connection before it answered a byte. Delivery is at least once
	// anyway, and a stale connection should not cost an attempt.
	if _, ok := h["Idempotency-Key"]; !ok {
		h["Idempotency-Key"] = []string{}
	}
	ep.cached.Store(&agentHeader{agent, h})
	return h
}
