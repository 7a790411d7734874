package trigger

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/rowhook/rowhook/internal/template"
)

// DefaultNATSTimeout is the limit of an attempt whose NATS.Timeout is 0.
const DefaultNATSTimeout = Duration(10 * time.Second)

// NATS is a stream of NATS JetStream to which events are published, in the place of a Webhook. URL,
// Creds, User, Password, Token, header values, Body, Secret and the paths of TLS may hold references.
// Subject, header values and Body may hold placeholders for data of the event.
type NATS struct {
	// URL has one or several URLs of servers of one cluster, separated by commas: nats, tls, ws or
	// wss.
	URL string `json:"url,omitempty" yaml:"url,omitempty"`
	// Subject is what messages are published under. Data of the event make a part of a token, and
	// never a token, a wildcard or a blank: see template.InSubject.
	Subject string `json:"subject,omitempty" yaml:"subject,omitempty"`
	// Stream is the stream that has to store the messages. "": any that takes the subject.
	Stream string `json:"stream,omitempty" yaml:"stream,omitempty"`
	// Creds is the content of a credentials file, with a JWT and a seed.
	Creds string `json:"creds,omitempty" yaml:"creds,omitempty"`
	// User and Password, or Token, are what servers without JWTs ask for.
	User     string `json:"user,omitempty" yaml:"user,omitempty"`
	Password string `json:"password,omitempty" yaml:"password,omitempty"`
	Token    string `json:"token,omitempty" yaml:"token,omitempty"`
	// Headers, Body, Format and Secret are as those of a Webhook.
	Headers map[string]string `json:"headers,omitempty" yaml:"headers,omitempty"`
	Body    Body              `json:"body,omitempty" yaml:"body,omitempty"`
	Format  string            `json:"format,omitempty" yaml:"format,omitempty"`
	Secret  string            `json:"secret,omitempty" yaml:"secret,omitempty"`
	// Timeout bounds one attempt, from connecting to the acknowledgement. 0: DefaultNATSTimeout.
	Timeout Duration `json:"timeout,omitzero" yaml:"timeout,omitempty"`
	// TLS has files for connections with TLS. Without it, TLS is used if a server asks for it.
	TLS TLS `json:"tls,omitzero" yaml:"tls,omitempty"`
}

// IsZero reports whether nothing is configured, so that events go to a Webhook.
func (n NATS) IsZero() bool {
	return n.URL == "" && n.Subject == "" && n.Stream == "" && n.Creds == "" && n.User == "" && n.Password == "" && n.Token == "" &&
		len(n.Headers) == 0 && n.Body == "" && n.Format == "" && n.Secret == "" && n.Timeout == 0 && n.TLS.IsZero()
}

// Message returns what messages have in common with the requests of a Webhook: headers, body, format,
// secret, time-out and files.
func (n *NATS) Message() Webhook {
	timeout := n.Timeout
	if timeout <= 0 {
		timeout = DefaultNATSTimeout
	}
	return Webhook{Headers: n.Headers, Body: n.Body, Format: n.Format, Secret: n.Secret, Timeout: timeout, TLS: n.TLS}
}

// eachText is Webhook.EachText. The URL has no data of the event.
func (n *NATS) eachText(visit func(text string, mode template.Mode, path ...string)) error {
	visit(n.Subject, template.Always, "nats", "subject")
	for _, name := range slices.Sorted(maps.Keys(n.Headers)) {
		visit(n.Headers[name], template.Mixed, "nats", "headers", name)
	}
	return n.Body.eachText(visit, "nats")
}

// The kinds of destinations: the keys of a Spec that say where events go.
const (
	KindWebhook = "webhook"
	KindNATS    = "nats"
)

// Kind returns the key that says where events go.
func (s *Spec) Kind() string {
	if s.NATS.IsZero() {
		return KindWebhook
	}
	return KindNATS
}

// Request returns what is sent: the Webhook, or what messages have in common with one.
func (s *Spec) Request() Webhook {
	if s.NATS.IsZero() {
		return s.Webhook
	}
	return s.NATS.Message()
}

// Address returns where events go, as configured. Attempts that hang are given up when it changes.
func (s *Spec) Address() string {
	if s.NATS.IsZero() {
		return s.Webhook.URL
	}
	return s.NATS.URL + " " + s.NATS.Subject
}

// Lease returns how long a claimed event belongs to its claimer. See [Webhook.Lease].
func (s *Spec) Lease() time.Duration { return s.Request().Lease() }

// EachText visits the texts that may hold placeholders for data of the event, in a fixed order, each
// with its path in rowhook.yaml. See [Webhook.EachText].
func (s *Spec) EachText(visit func(text string, mode template.Mode, path ...string)) error {
	if s.NATS.IsZero() {
		return s.Webhook.EachText(visit)
	}
	return s.NATS.eachText(visit)
}

// CheckSubject checks a subject under which a message can be published. The error says what is wrong
// and, after a semicolon, what to do.
func CheckSubject(subject string) error {
	if subject == "" {
		return errors.New("is empty; write it like orders.$new.id")
	}
	if strings.ContainsFunc(subject, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return errors.New("contains white space, which separates; remove it")
	}
	for i, token := range strings.Split(subject, ".") {
		switch {
		case token == "":
			return errors.New("has an empty token: a dot at its begin, at its end, or beside another dot; remove the dot")
		case token == "*" || token == ">":
			return fmt.Errorf("has the wildcard %s, and a message is published under one subject; write data of the event, as in orders.$new.id, or a word", token)
		case i == 0 && token[0] == '$':
			return errors.New("begins with $, which is for the servers' own subjects; begin with a word, as in orders.$new.id")
		case i == 0 && strings.HasPrefix(token, "_INBOX"):
			return errors.New("begins with _INBOX, where answers are sent; begin with another word")
		}
	}
	return nil
}
