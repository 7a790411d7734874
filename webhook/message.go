package webhook

import (
	"context"
	"crypto/tls"
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

	"github.com/rowhook/rowhook/internal/template"
	"github.com/rowhook/rowhook/trigger"
)

// The headers that only messages have. A subscriber reads them without the body.
const (
	HeaderMsgID    = "Nats-Msg-Id"          // the id of the event, by which a stream drops duplicates
	HeaderStream   = "Nats-Expected-Stream" // the stream that has to store the message
	HeaderSequence = "Rowhook-Sequence"     // the place of the event within its key, of an ordered trigger
	HeaderAttempt  = "Rowhook-Attempt"      // the number of the attempt, from 1
)

// mostSubject bounds what data can make of a subject, in bytes. A server ends the connection for a line
// above 4 kB, which would cost other events their attempts.
const mostSubject = 1 << 10

// methodPublish is the method of a Preview of a message.
const methodPublish = "PUBLISH"

// Message makes what is published of events to NATS: subject, headers and body. It has the expanded
// references of its configuration. Headers, bodies and signatures are those of requests. It connects
// to nothing. Any number of goroutines may use it.
type Message struct {
	ep      *Endpoint // without a URL
	client  *Client   // makes requests, and sends none
	problem error
	stream  string
	subject *template.Text
	begins  bool // the subject begins with data
	shown   string
	names   map[string]string // of configured headers, as they are written, by their canonical names
	pool    sync.Pool

	servers []string
	origin  string
	login   Login
}

// Login is how a connection identifies itself. At most one of Creds, User and Token is set.
type Login struct {
	Creds          string // the content of a credentials file
	User, Password string
	Token          string
}

// MessageBody is what is published of an event. Header and Body are valid until it is freed.
type MessageBody struct {
	Subject string
	Header  http.Header // by names as they are published, which may not be canonical
	Body    []byte
}

// room is the memory of a message.
type room struct {
	scratch

	header  http.Header
	subject []byte
	own     [4]string // of the headers that only messages have
}

func newRoom() *room { return &room{header: http.Header{}} }

// set sets the header of a number, of those that only messages have.
func (r *room) set(number int, name, value string) {
	r.own[number] = value
	r.header[name] = r.own[number : number+1 : number+1]
}

// NewMessage expands the references of n and prepares its messages. maxBody is the largest body in bytes;
// 0 sets no limit. The Message is never nil. If nothing can be published, the error says why.
func NewMessage(n *trigger.NATS, source trigger.Source, maxBody int) (*Message, error) {
	source = source.Once()
	w := n.Message()
	ep := &Endpoint{cached: &atomic.Pointer[agentHeader]{}, sizer: &sync.Pool{}, timeout: w.Timeout.Std()}
	ep.header = http.Header{"Content-Type": {jsonType}}
	ep.request = &http.Request{Method: methodPublish, URL: &url.URL{Scheme: "https"}}
	m := &Message{ep: ep, client: &Client{maxRequest: maxBody}, stream: n.Stream, names: map[string]string{}}
	m.pool.New = func() any { return newRoom() }
	for name := range n.Headers {
		m.names[textproto.CanonicalMIMEHeaderKey(name)] = name
	}
	m.problem = errors.Join(m.prepareServers(n.URL, source), m.prepareSubject(n.Subject, source), ep.prepareFormat(w, source), ep.prepareHeaders(w, source),
		refuseHeaders(w.Headers), ep.prepareSecret(w.Secret, source), ep.prepareTLS(w.TLS, source), m.prepareLogin(n, source))
	if ep.templates != nil && ep.templates.Empty() {
		ep.templates = nil
	}
	if m.problem != nil {
		m.problem = errors.New(strings.ReplaceAll(m.problem.Error(), "\n", "; "))
	}
	return m, m.problem
}

// refuseHeaders refuses headers that a message can't have.
func refuseHeaders(headers map[string]string) error {
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		switch lower := strings.ToLower(name); {
		case strings.HasPrefix(lower, "nats-"):
			problems = append(problems, fmt.Errorf("header %q is for NATS itself: remove it", name))
		case lower == "host":
			problems = append(problems, fmt.Errorf("header %q is for requests: remove it", name))
		}
	}
	return errors.Join(problems...)
}

// defaultPort is that of NATS.
const defaultPort = "4222"

func (m *Message) prepareServers(configured string, source trigger.Source) error {
	var shown []string
	for one := range strings.SplitSeq(configured, ",") {
		shown = append(shown, showURL(strings.TrimSpace(one)))
	}
	m.shown = strings.Join(shown, ",")
	what := fmt.Sprintf("url %q", m.shown)
	expanded, err := trigger.Expand(configured, source)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	var servers, hosts []string
	for one := range strings.SplitSeq(expanded, ",") {
		u, err := url.Parse(strings.TrimSpace(one))
		switch {
		case err != nil, u.Hostname() == "", !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme):
			return fmt.Errorf("%s is not a URL of a server of NATS: write it like nats://nats.example.com:4222", what)
		case u.User != nil:
			password, _ := u.User.Password()
			m.ep.scrub.add(password, redacted)
			if password == "" {
				m.ep.scrub.add(u.User.Username(), redacted) // it is a token
			}
		}
		servers = append(servers, u.String())
		host := u.Host
		if u.Port() == "" && !strings.HasPrefix(u.Scheme, "ws") {
			host = net.JoinHostPort(u.Hostname(), defaultPort)
		}
		hosts = append(hosts, u.Scheme+"://"+strings.ToLower(host))
	}
	m.servers = servers
	m.shown = strings.Join(hosts, ",")
	slices.Sort(hosts)
	m.origin = strings.Join(hosts, ",")
	return nil
}

func (m *Message) prepareSubject(configured string, source trigger.Source) error {
	what := fmt.Sprintf("subject %q", configured)
	m.subject = m.ep.set().Text(template.InSubject)
	m.shown += " " + configured
	parts, err := template.Parse(configured, template.Always)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	sample := ""
	for i, part := range parts {
		if part.Data != nil {
			m.begins = m.begins || i == 0
			sample += "0"
			if err := m.subject.Data(part.Data); err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			continue
		}
		text := part.Text
		if part.Reference != "" {
			if text, err = m.ep.expand(what, part.Reference, source); err != nil {
				return err
			}
		}
		sample += text
		m.subject.Raw(text)
	}
	if err := trigger.CheckSubject(sample); err != nil {
		return fmt.Errorf("%s %s", what, strings.Replace(err.Error(), "; ", ": ", 1))
	}
	return nil
}

func (m *Message) prepareLogin(n *trigger.NATS, source trigger.Source) error {
	var problems []error
	for _, of := range []struct {
		key, value string
		to         *string
	}{{"creds", n.Creds, &m.login.Creds}, {"user", n.User, &m.login.User}, {"password", n.Password, &m.login.Password}, {"token", n.Token, &m.login.Token}} {
		value, err := m.ep.expand(of.key, of.value, source)
		switch {
		case err != nil:
		case of.value != "" && value == "":
			err = fmt.Errorf("%s is empty", of.key)
		case of.key == "creds" && value != "" && !strings.Contains(value, "BEGIN NATS USER JWT"):
			err = errors.New("creds is not the content of a credentials file, which has BEGIN NATS USER JWT in it: write ${file:/PATH} with the path of the file")
		case of.key != "creds" && of.value == value:
			m.ep.scrub.add(value, redacted) // it is plain text in the configuration
		}
		problems = append(problems, err)
		*of.to = value
	}
	return errors.Join(problems...)
}

// Problem returns why nothing can be published, or nil. It is the error of NewMessage.
func (m *Message) Problem() error { return m.problem }

// Prepare returns why nothing can be published from here, or nil: the Problem, or a file that can't be
// used.
func (m *Message) Prepare() error {
	if m.problem != nil {
		return m.problem
	}
	_, err := m.TLS()
	return err
}

// Servers returns the URLs of the servers, with what may be secret in them.
func (m *Message) Servers() []string { return m.servers }

// Login returns how connections identify themselves.
func (m *Message) Login() Login { return m.login }

// Stream returns the stream that has to store the messages, or "".
func (m *Message) Stream() string { return m.stream }

// TLS returns the configuration with the files, as they are now. nil: there are none.
func (m *Message) TLS() (*tls.Config, error) {
	if !m.OwnTLS() {
		return nil, nil //nolint:nilnil // there is none
	}
	config, err := m.ep.tls.read(nil)
	if err != nil {
		return nil, errors.New(m.Scrub(oneLine(err.Error())))
	}
	return config, nil
}

// Files names the files for TLS, for those who keep connections by them.
func (m *Message) Files() [3]string { return [3]string{m.ep.tls.ca, m.ep.tls.cert, m.ep.tls.key} }

// Timeout returns the limit of one attempt.
func (m *Message) Timeout() time.Duration { return m.ep.timeout }

// Origin returns scheme, host and port of the servers, or "" if there is a Problem.
func (m *Message) Origin() string { return m.origin }

// OwnTLS reports whether there are files for TLS.
func (m *Message) OwnTLS() bool { return m.ep.OwnTLS() }

// Warning is that of an Endpoint.
func (m *Message) Warning() string { return m.ep.Warning() }

// PublicKeys returns the public keys of the private keys that sign messages.
func (m *Message) PublicKeys() []string { return m.ep.PublicKeys() }

// BodySize returns the length of the body of an event.
func (m *Message) BodySize(e *Event) int { return m.ep.BodySize(e) }

// String returns servers and subject for people. User names and passwords are left out.
func (m *Message) String() string { return m.shown }

// Scrub makes a line of a text for people: values from the environment are replaced by their
// references, and secrets are redacted.
func (m *Message) Scrub(text string) string { return m.ep.scrub.text(oneLine(text)) }

// Make makes the message of an event for an attempt that began at a time. free gives the memory of its
// header and body back. bad is not nil if no message can be made of this event: it is the Result of the attempt.
func (m *Message) Make(ctx context.Context, e *Event, at time.Time) (made MessageBody, free func(), bad *Result) {
	r := m.pool.Get().(*room)
	free = func() {
		if cap(r.request) > keepBuffer {
			r.request = nil
		}
		m.pool.Put(r)
	}
	made, fault := m.make(ctx, e, at, r)
	if fault != nil {
		free()
		bad = &Result{StartedAt: at}
		fault.tell(bad)
		bad.Duration = time.Since(at)
		return MessageBody{}, func() {}, bad
	}
	return made, free, nil
}

func (m *Message) make(ctx context.Context, e *Event, at time.Time, r *room) (MessageBody, *refusal) {
	request, bad := m.client.make(ctx, m.ep, parcel{event: e}, nil, at, &r.scratch)
	if bad != nil {
		return MessageBody{}, bad
	}
	r.subject = m.subject.Append(r.subject[:0], &r.values)
	subject := r.subject
	if m.begins && subject[0] == '_' { // _INBOX is where answers are sent
		subject = append([]byte("%5F"), subject[1:]...)
	}
	if len(subject) > mostSubject {
		return MessageBody{}, &refusal{KindBadURL, fmt.Sprintf("the subject has %d bytes with the data of this event, and %d are allowed", len(subject), mostSubject)}
	}
	h := r.header
	clear(h)
	for name, values := range request.header {
		if len(values) > 0 && (name != "User-Agent" || m.ep.given[name]) {
			h[m.header(name)] = values
		}
	}
	r.set(0, HeaderMsgID, parcel{event: e}.id())
	if m.stream != "" {
		r.set(1, HeaderStream, m.stream)
	}
	if e.Sequence > 0 {
		r.set(2, HeaderSequence, strconv.FormatInt(e.Sequence, 10))
	}
	r.set(3, HeaderAttempt, strconv.Itoa(e.CurrentRetry+1))
	return MessageBody{Subject: string(subject), Header: h, Body: request.body}, nil
}

// header returns the name of a header as it is published. Names of NATS are case-sensitive. A
// configured one is as it is written. The names of other specifications are in lower case, as these
// write them.
func (m *Message) header(canonical string) string {
	if name, ok := m.names[canonical]; ok {
		return name
	}
	switch canonical {
	case headerParent, headerState, headerTraceID, headerSpanID, headerSampled, HeaderID, HeaderTimestamp, HeaderSignature:
		return strings.ToLower(canonical)
	}
	if strings.HasPrefix(canonical, "Ce-") {
		return strings.ToLower(canonical)
	}
	return canonical
}

// Preview returns the message of an event as it would be published now, for people. An error says why
// there is none.
func (m *Message) Preview(e *Event) (Preview, error) {
	made, bad := m.make(context.Background(), e, time.Now(), newRoom())
	if bad != nil {
		return Preview{}, bad
	}
	shown, _, _ := appendHeader(nil, made.Header, &m.ep.scrub, nil, nil)
	return Preview{Method: methodPublish, URL: m.at(made.Subject), Template: m.shown, Header: shown, Body: m.ep.shownBody(made.Body)}, nil
}

// at returns servers and a subject for people.
func (m *Message) at(subject string) string {
	servers, _, _ := strings.Cut(m.shown, " ")
	return servers + " " + m.ep.scrub.text(subject)
}

// UnexpandedMessage is Unexpanded for a message.
func UnexpandedMessage(n *trigger.NATS, e *Event) (Preview, map[string]string, error) {
	m, _ := NewMessage(n, func(name string) (string, error) { return "${" + name + "}", nil }, 0)
	p := Preview{Method: methodPublish, URL: m.shown, Template: m.shown}
	s := newScratch()
	if m.ep.templates != nil {
		if bad := s.fill(m.ep, e); bad != nil {
			return p, nil, bad
		}
	}
	if m.subject != nil {
		p.URL = m.at(string(m.subject.Append(nil, &s.values)))
	}
	headers := maps.Clone(n.Headers)
	if of := m.ep.ownHeader(parcel{event: e}); len(of) > 0 {
		if headers == nil {
			headers = map[string]string{}
		}
		for name, values := range of {
			headers[m.header(name)] = values[0]
		}
	}
	for _, t := range m.ep.headers {
		headers[m.header(t.name)] = string(t.value.Append(nil, &s.values))
	}
	body, bad := s.build(m.ep, parcel{event: e}, nil)
	if bad != nil {
		return p, nil, bad
	}
	p.Body = body
	return p, headers, nil
}

// Dialer returns a dialer that connects only to addresses that the guard allows.
func (g Guard) Dialer() *net.Dialer { return &net.Dialer{ControlContext: g.control} }

// DescribeCancel says in one line why a context has ended.
func DescribeCancel(ctx context.Context) string { return describeCancel(ctx) }

// Describe says in one line what went wrong with a connection to host, and of which kind it is.
func Describe(err error, host string) (Kind, string) {
	kind := Classify(err)
	return kind, describe(err, kind, host)
}
