package sandbox

import (
	"crypto/rand"
	"encoding/base64"
	"maps"
	"slices"
	"strings"

	"github.com/rowhook/rowhook/internal/sink"
	"github.com/rowhook/rowhook/internal/template"
	"github.com/rowhook/rowhook/trigger"
)

// The variables of a sandbox. Its triggers refer to them, and its commands see them as variables of
// their environment.
const (
	SinkURLVariable    = "ROWHOOK_SINK_URL"    // the address of the built-in receiver
	SinkSecretVariable = "ROWHOOK_SINK_SECRET" //nolint:gosec // its name; see MakeSecret
	NATSURLVariable    = "ROWHOOK_NATS_URL"    // the server of NATS that was started
)

// Point returns the triggers as they send to the built-in receiver, each to the path /NAME. The
// receiver's address is a reference, which Variables resolves when an event is sent. So what is
// applied is the same for every receiver, and may be copied with its database.
//
// A trigger whose requests are not events as they are, but made by a template, or sent by another method or
// to addresses with data, tells the receiver by headers which event each is of. It has no batches.
//
// A secret whose variables are not set, or empty, or whose files are not there, becomes a reference to
// a secret that is made up. So requests are signed exactly if the configuration says so. TLS and
// OAuth2 do not apply to the receiver. A trigger with nats sends what it would publish.
func Point(specs []trigger.Spec, source trigger.Source) []trigger.Spec {
	pointed := slices.Clone(specs)
	for i := range pointed {
		if pointed[i].Kind() == trigger.KindNATS { // it is shown what would be published
			pointed[i].Webhook, pointed[i].NATS = pointed[i].NATS.Message(), trigger.NATS{}
		}
		w := &pointed[i].Webhook
		behind := ""
		if template.HasData(w.URL) {
			behind = behindHost(w.URL)
		}
		if behind != "" || w.URLHasData() || !w.HasBody() || w.IsTemplate() || w.Method != "" || len(w.Query) > 0 {
			w.Headers = maps.Clone(w.Headers)
			if w.Headers == nil {
				w.Headers = map[string]string{}
			}
			maps.Copy(w.Headers, sink.Told())
			pointed[i].Batch = trigger.Batch{} // headers are of one event
		}
		w.URL = receiverURL + "/" + pointed[i].Name + behind
		w.TLS, w.OAuth2 = trigger.TLS{}, trigger.OAuth2{}
		if secret, err := trigger.Expand(w.Secret, source); w.Secret != "" && (err != nil || secret == "") {
			w.Secret = madeUpSecret
		}
	}
	return pointed
}

// PointNATS returns a trigger with nats as it publishes to the server that was started. Logins and TLS do
// not apply there.
func PointNATS(spec trigger.Spec, source trigger.Source) trigger.Spec {
	n := &spec.NATS
	n.URL, n.Creds, n.User, n.Password, n.Token, n.TLS = "${"+NATSURLVariable+"}", "", "", "", "", trigger.TLS{}
	if secret, err := trigger.Expand(n.Secret, source); n.Secret != "" && (err != nil || secret == "") {
		n.Secret = madeUpSecret
	}
	return spec
}

// behindHost returns the path and the query of a configured URL. What a variable stands for is not known;
// one that the URL begins with is the host.
func behindHost(configured string) string {
	_, rest, found := strings.Cut(configured, "://")
	if !found {
		_, rest, _ = strings.Cut(configured, "}")
	}
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		return rest[i:]
	}
	return ""
}

// The references of a trigger that is pointed.
const (
	receiverURL  = "${" + SinkURLVariable + "}"
	madeUpSecret = "${" + SinkSecretVariable + "}"
)

// IsPointed reports whether Point has pointed a webhook.
func IsPointed(w trigger.Webhook) bool { return strings.HasPrefix(w.URL, receiverURL+"/") }

// SignsMadeUp reports whether one of the triggers signs with the secret that is made up.
func SignsMadeUp(specs []trigger.Spec) bool {
	return slices.ContainsFunc(specs, func(s trigger.Spec) bool { return s.Webhook.Secret == madeUpSecret })
}

// Reachable returns the settings without rules that may deny the address of the receiver, and
// without alerts, which would tell people of trouble that is none.
func Reachable(s trigger.Settings) trigger.Settings {
	s.Network = trigger.Network{Deny: []string{}, Allow: []string{}}
	s.Alerts = []trigger.Alert{}
	return s
}

// MakeSecret makes up a secret for webhooks whose own is not known here.
func MakeSecret() string {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // it never fails
	return "whsec_" + base64.StdEncoding.EncodeToString(key)
}

// Variables returns the source of a dispatcher whose triggers Point has pointed. What is not given out
// has a placeholder: a header that refers to it would prevent the delivery otherwise.
func Variables(receiver, secret string, source trigger.Source) trigger.Source {
	return func(name string) (string, error) {
		switch name {
		case SinkURLVariable:
			return receiver, nil
		case SinkSecretVariable:
			return secret, nil
		}
		if value, err := source(name); err == nil {
			return value, nil
		}
		return Placeholder(name), nil
	}
}

// Placeholder is what stands for a variable that is not set, or for a file that is not there.
func Placeholder(name string) string { return name + "-is-not-set" }

// Unset returns the variables and files for which a placeholder stands in the headers of the triggers,
// sorted.
func Unset(specs []trigger.Spec, source trigger.Source) []string {
	unset := map[string]bool{}
	for _, s := range specs {
		for _, value := range s.Webhook.Headers {
			found, _ := trigger.References(value) // malformed references are errors of the configuration
			for _, name := range found {
				if _, err := source(name); err != nil {
					unset[name] = true
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(unset))
}

// VisitorVariables returns the source of a program that calls a webhook from outside of the sandbox,
// with what source gives out. If Point has pointed the webhook, its headers have the placeholders that
// the dispatcher sends, too. Its URL and its secret have none: with one nothing would arrive, or not
// with a valid signature.
func VisitorVariables(w trigger.Webhook, source trigger.Source) trigger.Source {
	if !IsPointed(w) {
		return source
	}
	needed, _ := trigger.References(w.Secret) // as above
	return func(name string) (string, error) {
		value, err := source(name)
		if err == nil || name == SinkURLVariable || slices.Contains(needed, name) {
			return value, err
		}
		return Placeholder(name), nil
	}
}

// Secrets returns the secret that each trigger signs with, by its name. Triggers that do not sign
// are left out.
func Secrets(specs []trigger.Spec, source trigger.Source) map[string]string {
	secrets := map[string]string{}
	for _, s := range specs {
		if secret, err := trigger.Expand(s.Webhook.Secret, source); err == nil && secret != "" {
			secrets[s.Name] = secret
		}
	}
	return secrets
}
