package operate

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/internal/template"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

// TriggerDetail is a trigger with its configuration, and with what captures its changes.
type TriggerDetail struct {
	Trigger
	// YAML is a rowhook.yaml with this trigger alone. References are not expanded. What is stored in
	// plain text and may be a secret is the reference ${HIDDEN}.
	YAML        string                 `json:"yaml"`
	SQLTriggers []sqlschema.SQLTrigger `json:"sql_triggers"` // by name; none: it takes manual events alone, or was removed
}

// ShowTrigger returns one trigger with its configuration, also a removed one.
func ShowTrigger(ctx context.Context, db DB, name string) (*TriggerDetail, error) {
	out := &TriggerDetail{}
	err := read(ctx, db, func(tx pgx.Tx) (err error) {
		t, shown, err := readTrigger(ctx, tx, name)
		if err != nil {
			return err
		}
		out.Trigger = shown
		if out.YAML, err = asYAML(t.Spec); err != nil {
			return fmt.Errorf("write the configuration of %s: %w", name, err)
		}
		out.SQLTriggers, err = sqlschema.FindSQLTriggers(ctx, tx, name)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// hidden stands for a text that may be a secret. A reference is valid wherever such a text is.
const hidden = "${HIDDEN}"

// hidePlain returns names with values in which constants under the name of a credential are hidden.
func hidePlain(values map[string]string) map[string]string {
	shown := maps.Clone(values)
	for name, value := range shown {
		if webhook.IsCredential(name) && !strings.Contains(value, "$") {
			shown[name] = hidden
		}
	}
	return shown
}

// hideIn hides the constants of a template whose names are those of credentials.
func hideIn(body *trigger.Body) error {
	shown, err := template.Replace(json.RawMessage(*body), func(text string, path []string) string {
		if len(path) > 0 && webhook.IsCredential(path[len(path)-1]) && !strings.Contains(text, "$") {
			return hidden
		}
		return text
	})
	if err == nil {
		*body = trigger.Body(shown)
	}
	return err
}

// asYAML writes a stored spec without what may be a secret.
func asYAML(stored string) (string, error) {
	spec := trigger.DefaultSpec()
	if err := json.Unmarshal([]byte(stored), &spec); err != nil {
		return "", err
	}
	// The error does not matter: the endpoint has the URL in any case.
	shown, _ := webhook.NewEndpoint(trigger.Webhook{URL: spec.Webhook.URL}, func(string) (string, bool) { return "", false })
	if url := strings.ReplaceAll(shown.String(), "<redacted>", hidden); strings.Contains(url, hidden) {
		spec.Webhook.URL = url
	}
	n := &spec.NATS
	var servers []string
	for one := range strings.SplitSeq(n.URL, ",") {
		servers = append(servers, strings.ReplaceAll(webhook.ShowURL(strings.TrimSpace(one)), "<redacted>", hidden))
	}
	if all := strings.Join(servers, ","); strings.Contains(all, hidden) {
		n.URL = all
	}
	for _, secret := range []*string{&spec.Webhook.Secret, &spec.Webhook.OAuth2.ClientSecret, &n.Secret, &n.Creds, &n.Password, &n.Token} {
		if *secret != "" && !strings.Contains(*secret, "${") {
			*secret = hidden
		}
	}
	if o := &spec.Webhook.OAuth2; o.TokenURL != "" {
		if url := strings.ReplaceAll(webhook.ShowURL(o.TokenURL), "<redacted>", hidden); strings.Contains(url, hidden) {
			o.TokenURL = url
		}
	}
	for _, headers := range []*map[string]string{&spec.Webhook.Headers, &n.Headers} {
		*headers = maps.Clone(*headers)
		for name, value := range *headers {
			if !strings.Contains(value, "${") {
				(*headers)[name] = hidden
			}
		}
	}
	// Constants of a query, a form and a body may be secrets, too, if their names say so.
	spec.Webhook.Query, spec.Webhook.Form = hidePlain(spec.Webhook.Query), hidePlain(spec.Webhook.Form)
	for _, body := range []*trigger.Body{&spec.Webhook.Body, &n.Body} {
		if err := hideIn(body); err != nil {
			return "", err
		}
	}
	text, err := config.Write(spec)
	if err != nil {
		return "", err
	}
	if strings.Contains(string(text), hidden) {
		return "# " + hidden + " stands for what is stored in plain text and not shown here.\n" + string(text), nil
	}
	return string(text), nil
}
