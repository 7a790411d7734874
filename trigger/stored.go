package trigger

import (
	"encoding/json"
	"fmt"
	"maps"
)

// hidden is the URL that programs of the schema version before find in the stored form of a Spec
// with keys that they do not know. They can't call it, and say so. So they leave its events to
// dispatchers that know the keys, instead of sending something else.
const hidden = "needs a newer rowhook"

// IsNew reports whether a Spec has keys that programs of the schema version before do not know, and
// that matter when events are sent.
func (s *Spec) IsNew() bool {
	return !s.NATS.IsZero() || s.Webhook.hasOwnRequest() || s.Webhook.Format != "" || s.Webhook.Compress != "" || s.Payload.IsTrimmed() || s.On.Truncate || s.Rate.HeldBy != "" || s.Retry.hasOwnEnd() || s.Webhook.hasNewSecrets()
}

// plainSpec is a Spec without its methods.
type plainSpec Spec

// storedSpec is the stored form of a Spec with new keys.
type storedSpec struct {
	plainSpec
	Webhook storedWebhook `json:"webhook"`
}

// storedWebhook is a Webhook whose URL the version before does not find.
type storedWebhook struct {
	Webhook
	URL    string `json:"url"`
	Target string `json:"target"` // the URL
}

// MarshalJSON writes the form that rowhook.trigger.spec holds. A Spec with keys that are new in
// this schema version has its URL in webhook.target. One of NATS has none there.
func (s Spec) MarshalJSON() ([]byte, error) {
	if !s.IsNew() {
		return json.Marshal(plainSpec(s))
	}
	return json.Marshal(storedSpec{plainSpec(s), storedWebhook{s.Webhook, hidden, s.Webhook.URL}})
}

// UnmarshalJSON reads what MarshalJSON writes. Keys that are missing keep the values of s.
func (s *Spec) UnmarshalJSON(b []byte) error {
	plain := plainSpec(*s)
	if err := json.Unmarshal(b, &plain); err != nil {
		return err
	}
	var stored struct {
		Webhook struct {
			Target string `json:"target"`
		} `json:"webhook"`
	}
	if err := json.Unmarshal(b, &stored); err != nil {
		return fmt.Errorf("read the webhook: %w", err)
	}
	switch {
	case !plain.NATS.IsZero():
		plain.Webhook = Webhook{}
	case stored.Webhook.Target != "":
		plain.Webhook.URL = stored.Webhook.Target
	}
	*s = Spec(plain)
	return nil
}

// ShowStored puts the URL and the body of a stored form of a Spec where, and as, rowhook.yaml has
// them. It does so with the values of a [StoredRetention], too.
func ShowStored(spec map[string]any) {
	if general, ok := spec["general"].(map[string]any); ok {
		maps.Copy(spec, general)
		delete(spec, "general")
	}
	if nats, ok := spec["nats"].(map[string]any); ok {
		delete(spec, "webhook")
		showBody(nats)
	}
	webhook, ok := spec["webhook"].(map[string]any)
	if target, isNew := webhook["target"]; ok && isNew {
		webhook["url"] = target
		delete(webhook, "target")
	}
	if ok {
		showBody(webhook)
	}
}

// showBody puts a template of a body as rowhook.yaml has it.
func showBody(destination map[string]any) {
	text, isText := destination["body"].(string)
	if !isText {
		return
	}
	var body any
	if json.Unmarshal([]byte(text), &body) == nil {
		destination["body"] = body
	}
}

// storedRetention is the stored form of a general retention, beside triggers that keep history for
// longer.
type storedRetention struct {
	Retention
	Delivered Duration    `json:"delivered"`
	Attempts  Duration    `json:"attempts"`
	General   generalKept `json:"general"`
}

type generalKept struct {
	Delivered Duration `json:"delivered"`
	Attempts  Duration `json:"attempts"`
}

// StoredRetention returns the form of the general retention that rowhook.setting holds. Programs of
// the schema version before do not know that a trigger may have its own. They drop whole days by the
// general one, and empty the day of today if that is 0. So delivered and attempts hold the longest of
// all, and general holds what the Settings say.
func StoredRetention(general Retention, specs []Spec) any {
	stored := storedRetention{general, general.Delivered, general.Attempts, generalKept{general.Delivered, general.Attempts}}
	for i := range specs {
		own := specs[i].Retention.Of(general)
		stored.Delivered, stored.Attempts = max(stored.Delivered, own.Delivered), max(stored.Attempts, own.Attempts)
	}
	if stored.Delivered == general.Delivered && stored.Attempts == general.Attempts {
		return general
	}
	return stored
}

// UnmarshalJSON reads the form of rowhook.yaml and that of [StoredRetention]. Keys that are missing
// keep the values of r.
func (r *Retention) UnmarshalJSON(b []byte) error {
	type plainRetention Retention
	plain := plainRetention(*r)
	if err := json.Unmarshal(b, &plain); err != nil {
		return err
	}
	var stored struct {
		General *generalKept `json:"general"`
	}
	if err := json.Unmarshal(b, &stored); err != nil {
		return fmt.Errorf("read the general retention: %w", err)
	}
	if stored.General != nil {
		plain.Delivered, plain.Attempts = stored.General.Delivered, stored.General.Attempts
	}
	*r = Retention(plain)
	return nil
}
