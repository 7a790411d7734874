package cutover

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/pg"
)

// Metadata is the interface by which Hasura's metadata is changed. URL is required.
type Metadata struct {
	URL    string // of Hasura, such as https://hasura.example
	Secret string // HASURA_GRAPHQL_ADMIN_SECRET; "": none
	Source string // of the watched database; "": the one that has the trigger
}

const metadataTimeout = 2 * time.Minute

// errNotThere says that Hasura does not know the trigger, or errThere, that it does.
var (
	errNotThere = errors.New("the trigger is not in Hasura's metadata")
	errThere    = errors.New("the trigger is in Hasura's metadata already")
)

// call calls an operation of the interface, and decodes its answer into out unless that is nil.
func (m *Metadata) call(ctx context.Context, path, kind string, args, out any) error {
	body, err := json.Marshal(map[string]any{"type": kind, "args": args})
	if err != nil {
		return fmt.Errorf("ask Hasura for %s: %w", kind, err)
	}
	ctx, cancel := context.WithTimeout(ctx, metadataTimeout)
	defer cancel()
	at := strings.TrimRight(m.URL, "/") + path
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, at, bytes.NewReader(body))
	if err != nil {
		return problem(operate.ErrInvalid, "write it as http://hasura:8080", "--hasura-url is no URL: %v", err)
	}
	request.Header.Set("Content-Type", "application/json")
	if m.Secret != "" {
		request.Header.Set("X-Hasura-Admin-Secret", m.Secret)
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Do(request)
	if err != nil {
		var failed *url.Error
		if errors.As(err, &failed) {
			err = failed.Err // the URL may hold a password
		}
		return problem(operate.ErrBusy, "check --hasura-url, and repeat the command: it goes on where it ended", "can't ask Hasura for %s: %v", kind, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 64<<20))
	if err != nil {
		return problem(operate.ErrBusy, "repeat the command", "read the answer of Hasura to %s: %v", kind, err)
	}
	if response.StatusCode == http.StatusOK {
		if out == nil {
			return nil
		}
		if err := json.Unmarshal(text, out); err != nil {
			return problem(operate.ErrRefused, "check --hasura-url: is that Hasura?", "the answer of Hasura to %s is not what is expected: %v", kind, err)
		}
		return nil
	}
	var refusal struct{ Code, Error string }
	_ = json.Unmarshal(text, &refusal) // another answer has neither
	switch {
	case response.StatusCode == http.StatusNotFound:
		return errNoSuchPath
	case refusal.Code == "not-exists":
		return errNotThere
	case refusal.Code == "already-exists":
		return errThere
	case refusal.Code == "access-denied", response.StatusCode == http.StatusUnauthorized, response.StatusCode == http.StatusForbidden:
		return problem(operate.ErrRefused, "set HASURA_GRAPHQL_ADMIN_SECRET to the admin secret of that Hasura", "Hasura denies %s: %s", kind, refusal.Error)
	}
	return problem(operate.ErrRefused, "repeat the command, or change the metadata by hand", "Hasura answers %s with status %d: %s", kind, response.StatusCode, refusal.Error)
}

var errNoSuchPath = problem(operate.ErrRefused, "check --hasura-url: it is the URL in front of /v1/metadata", "there is no Hasura of version 2 at --hasura-url")

// source is a source in Hasura's metadata.
type source struct {
	Name   string
	Tables []struct {
		Table    json.RawMessage
		Triggers []json.RawMessage `json:"event_triggers"`
	}
}

// find returns the source that has the trigger on the table, and the trigger's definition. Hasura
// knows tables as {"schema": ..., "name": ...}, or as a name in the schema public.
func (m *Metadata) find(ctx context.Context, s *subject) (name string, definition json.RawMessage, err error) {
	var answer struct{ Metadata struct{ Sources []source } }
	if err := m.call(ctx, "/v1/metadata", "export_metadata", map[string]any{}, &answer); err != nil {
		return "", nil, err
	}
	// Without a version it answers with the metadata itself.
	if len(answer.Metadata.Sources) == 0 {
		var plain struct{ Sources []source }
		if err := m.call(ctx, "/v1/metadata", "export_metadata", map[string]any{}, &plain); err != nil {
			return "", nil, err
		}
		answer.Metadata.Sources = plain.Sources
	}
	var names []string
	for _, src := range answer.Metadata.Sources {
		if m.Source != "" && src.Name != m.Source {
			continue
		}
		for _, t := range src.Tables {
			for _, raw := range t.Triggers {
				var head struct{ Name string }
				if json.Unmarshal(raw, &head) == nil && head.Name == s.Name && s.isTable(t.Table) {
					names, definition = append(names, src.Name), raw
				}
			}
		}
	}
	switch len(names) {
	case 0:
		return "", nil, errNotThere
	case 1:
		return names[0], definition, nil
	}
	return "", nil, problem(operate.ErrInvalid, "name the source of this database by --hasura-source: "+strings.Join(names, " or "), "several sources of Hasura have a trigger %s on %s", s.Name, s.plain())
}

func (s *subject) isTable(raw json.RawMessage) bool {
	var name string
	if json.Unmarshal(raw, &name) == nil {
		return s.Schema == "public" && name == s.Table
	}
	var qualified struct{ Schema, Name string }
	if json.Unmarshal(raw, &qualified) != nil {
		return false
	}
	return qualified.Name == s.Table && (qualified.Schema == s.Schema || qualified.Schema == "" && s.Schema == "public")
}

// remove deletes the trigger from the metadata. Hasura then archives its events and drops its
// functions. errNotThere says that it was not there.
func (m *Metadata) remove(ctx context.Context, source, name string) error {
	err := m.call(ctx, "/v1/metadata", "pg_delete_event_trigger", map[string]any{"source": source, "name": name}, nil)
	if errors.Is(err, errNoSuchPath) { // version 1
		err = m.call(ctx, "/v1/query", "delete_event_trigger", map[string]any{"name": name}, nil)
	}
	return err
}

// create adds the trigger to the metadata, as it was defined there. Hasura then makes its functions
// and SQL triggers.
func (m *Metadata) create(ctx context.Context, source string, s *subject, definition json.RawMessage) error {
	args := map[string]any{}
	if err := json.Unmarshal(definition, &args); err != nil {
		return fmt.Errorf("read the definition of %s in Hasura's metadata: %w", s.Name, err)
	}
	if on, ok := args["definition"].(map[string]any); ok {
		delete(args, "definition")
		for k, v := range on {
			args[k] = v
		}
	}
	args["source"], args["name"], args["table"] = source, s.Name, map[string]string{"schema": s.Schema, "name": s.Table}
	err := m.call(ctx, "/v1/metadata", "pg_create_event_trigger", args, nil)
	if errors.Is(err, errThere) {
		return nil
	}
	return err
}

// storable returns the definition if it holds nothing that may be a secret: headers and a webhook from
// the environment, or a URL without user, query and fragment.
func storable(definition json.RawMessage) json.RawMessage {
	var d struct {
		Webhook string
		Headers []struct{ Value *string }
	}
	if json.Unmarshal(definition, &d) != nil {
		return nil
	}
	for _, h := range d.Headers {
		if h.Value != nil && !strings.Contains(*h.Value, "{{") {
			return nil
		}
	}
	if u, err := url.Parse(strings.NewReplacer("{{", "", "}}", "").Replace(d.Webhook)); err != nil || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil
	}
	if bytes.Contains(definition, []byte("request_transform")) {
		return nil // its templates may hold anything
	}
	return definition
}

// byHand says how the trigger is deleted from Hasura's metadata without this program.
func byHand(s *subject, source string) string {
	if source == "" {
		source = "default"
	}
	args, err := json.Marshal(map[string]any{"type": "pg_delete_event_trigger", "args": map[string]string{"source": source, "name": s.Name}})
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("delete the event trigger %s of %s in Hasura, and from the directory of its metadata, so that no later \"hasura metadata apply\" brings it back: "+
		"in its console, or by POST /v1/metadata with %s; then repeat the command, which takes away the fence", s.Name, pg.PlainName(s.Schema, s.Table), args)
}
