package sandbox

import (
	"crypto/rand"
	"encoding/base64"
	"slices"

	"github.com/rowhook/rowhook/trigger"
)

// The variables of a sandbox. Its triggers refer to them, and its commands see them as variables of
// their environment.
const (
	SinkURLVariable    = "ROWHOOK_SINK_URL"    // the address of the built-in receiver
	SinkSecretVariable = "ROWHOOK_SINK_SECRET" //nolint:gosec // its name; see MakeSecret
)

// Lookup reads a variable of the environment, as [os.LookupEnv] does.
type Lookup = func(name string) (value string, ok bool)

// Point returns the triggers as they send to the built-in receiver, each to the path /NAME. The
// receiver's address is a reference, which Variables resolves when an event is sent. So what is
// applied is the same for every receiver, and may be copied with its database.
//
// A secret whose variables are not set, or empty, becomes a reference to a secret that is made up.
// So requests are signed exactly if the configuration says so. TLS does not apply to the receiver.
func Point(specs []trigger.Spec, lookup Lookup) []trigger.Spec {
	pointed := slices.Clone(specs)
	for i := range pointed {
		w := &pointed[i].Webhook
		w.URL = "${" + SinkURLVariable + "}/" + pointed[i].Name
		w.TLS = trigger.TLS{}
		if secret, err := trigger.ExpandReferences(w.Secret, lookup); w.Secret != "" && (err != nil || secret == "") {
			w.Secret = "${" + SinkSecretVariable + "}"
		}
	}
	return pointed
}

// Reachable returns the settings without rules that may deny the address of the receiver.
func Reachable(s trigger.Settings) trigger.Settings {
	s.Network = trigger.Network{Deny: []string{}, Allow: []string{}}
	return s
}

// MakeSecret makes up a secret for webhooks whose own is not known here.
func MakeSecret() string {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // it never fails
	return "whsec_" + base64.StdEncoding.EncodeToString(key)
}

// Variables returns the lookup of a dispatcher whose triggers Point has pointed. Variables that are
// not set have a placeholder: a header that refers to one would prevent the delivery otherwise.
func Variables(receiver, secret string, lookup Lookup) Lookup {
	return func(name string) (string, bool) {
		switch name {
		case SinkURLVariable:
			return receiver, true
		case SinkSecretVariable:
			return secret, true
		}
		if value, ok := lookup(name); ok {
			return value, true
		}
		return name + "-is-not-set", true
	}
}

// Secrets returns the secret that each trigger signs with, by its name. Triggers that do not sign
// are left out.
func Secrets(specs []trigger.Spec, lookup Lookup) map[string]string {
	secrets := map[string]string{}
	for _, s := range specs {
		if secret, err := trigger.ExpandReferences(s.Webhook.Secret, lookup); err == nil && secret != "" {
			secrets[s.Name] = secret
		}
	}
	return secrets
}
