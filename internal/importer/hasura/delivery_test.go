package hasura_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/importer"
	"github.com/rowhook/rowhook/internal/importer/hasura"
	"github.com/rowhook/rowhook/internal/importer/importertest"
	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

// request is what a receiver got.
type request struct {
	method, path, query, contentType, body string
	header                                 http.Header
}

// deliver sends an event by an imported trigger. Hosts of the file are those of the receiver here.
func deliver(t *testing.T, result *importer.Result, name string, e *webhook.Event) request {
	t.Helper()
	var got request
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got = request{r.Method, r.URL.EscapedPath(), r.URL.RawQuery, r.Header.Get("Content-Type"), string(body), r.Header}
	}))
	defer receiver.Close()
	client := webhook.NewClient(webhook.ClientConfig{})
	defer client.Close()
	var spec *trigger.Spec
	for i := range result.Triggers {
		if result.Triggers[i].Name == name {
			spec = &result.Triggers[i]
		}
	}
	require.NotNil(t, spec, name)
	w := spec.Webhook
	if u, err := url.Parse(strings.SplitN(w.URL, "$", 2)[0]); err == nil && u.Host != "" {
		w.URL = strings.Replace(w.URL, u.Scheme+"://"+u.Host, receiver.URL, 1)
	}
	host := strings.TrimPrefix(receiver.URL, "http://")
	address, port, _ := strings.Cut(host, ":")
	endpoint, err := webhook.NewEndpoint(w, func(name string) (string, bool) {
		value, ok := map[string]string{"PRESS_API": receiver.URL, "HOOKS_URL": receiver.URL, "PAID_URL": receiver.URL + "/paid", "HOOK_HOST": address, "HOOK_PORT": port, "STAGE": "live"}[name]
		if !ok {
			return "value-of-" + name, true
		}
		return value, true
	})
	require.NoError(t, err)
	e.Trigger, e.MaxRetries = name, spec.Retry.Limit
	e.Schema, e.Table, _ = strings.Cut(spec.Table, ".")
	sent := client.Send(t.Context(), endpoint, e, nil)
	require.True(t, sent.Delivered(), "%s: %s", name, sent.Err)
	return got
}

func article() *webhook.Event {
	return &webhook.Event{
		ID: [16]byte{0x7f}, CreatedAt: time.Date(2026, 11, 26, 14, 3, 10, 123456000, time.UTC), Op: 'I',
		New:     []byte(`{"id":9007199254740993,"slug":"a b/c","title":"He said \"hi\"","lead":null,"tags":["x",2],"Author Name":"Ada","editor":null,"spam":true,"text":"t"}`),
		Session: []byte(`{"x-hasura-user-id":"7","x-hasura-role":"editor"}`), Trace: []byte(`{"trace_id":"1","span_id":"2"}`),
	}
}

func imported(t *testing.T, dir string) *importer.Result {
	t.Helper()
	imp, err := hasura.Path("testdata/"+dir, hasura.Options{})
	return importertest.Finish(t, imp, err)
}

// TestTransformsDeliverWhatKritiWouldMake compares requests with what Hasura's template language makes
// of the same templates. JSON is compared byte for byte, in the order of the template.
func TestTransformsDeliverWhatKritiWouldMake(t *testing.T) {
	t.Parallel()
	result := imported(t, "press")
	const usual = `{"id":"7f000000-0000-0000-0000-000000000000","created_at":"2026-11-26T14:03:10.123456Z","table":{"schema":"public","name":"articles"},`
	row, event := string(article().New), `{"op":"INSERT","data":{"old":null,"new":`+string(article().New)+`},"session_variables":{"x-hasura-user-id":"7","x-hasura-role":"editor"},"trace_context":{"trace_id":"1","span_id":"2"}}`
	for name, want := range map[string]request{
		"article_indexed": {"POST", "/index/a%20b%2Fc", "", "application/json",
			`{"id":9007199254740993,"key":"9007199254740993","title":"No. 9007199254740993: He said \"hi\"","lead":"-","tags":["x",2],"first":"x","author":"Ada","who":"7","op":"INSERT",` +
				`"at":"2026-11-26T14:03:10.123456Z","from":"public.articles","trigger":"article_indexed","fixed":[1.50,true,null,{"a":"b"}],"price":"$5"}`, nil},
		"article_put":     {"PUT", "/articles/9007199254740993", "editor=&source=press&title=t-He%20said%20%22hi%22", "application/json", row, nil},
		"article_form":    {"POST", "/in", "a=9007199254740993&b=x%20y", "application/x-www-form-urlencoded", "api_key=value-of-ARTICLE_FORM_API_KEY&id=9007199254740993&text=Article+He+said+%22hi%22", nil},
		"article_got":     {"GET", "/ping", "id=9007199254740993", "", "", nil},
		"article_whole":   {"POST", "/", "", "application/json", usual + `"trigger":{"name":"article_whole"},"event":` + event + `,"delivery_info":{"current_retry":0,"max_retries":2}}`, nil},
		"article_v1":      {"POST", "/", "", "application/json", `{"payload":` + usual + `"trigger":{"name":"article_v1"},"event":` + event + `,"delivery_info":{"max_retries":2}},"n":2,"base":"BASE/x"}`, nil},
		"comment_secret":  {"POST", "/", "", "application/json", `{"token":"value-of-COMMENT_SECRET_TOKEN","text":"t"}`, nil},
		"article_deleted": {"DELETE", "/articles/3", "", "", "", nil},
	} {
		e := article()
		if strings.HasPrefix(name, "article_deleted") {
			e.Op, e.Old, e.New = 'D', []byte(`{"id":3}`), nil
		}
		got := deliver(t, result, name, e)
		if name == "article_v1" { // the receiver's address
			i, j := strings.Index(got.body, `"base":"`)+8, strings.LastIndex(got.body, "/x")
			got.body = got.body[:i] + "BASE" + got.body[j:]
		}
		if name == "article_indexed" {
			require.Equal(t, "value-of-PRESS_KEY", got.header.Get("Authorization"))
		}
		if name == "article_put" {
			require.Equal(t, "7f000000-0000-0000-0000-000000000000", got.header.Get("X-Request-Id"))
			require.Equal(t, "editor", got.header.Get("X-Role"))
		}
		got.header = nil
		if got.path == "" {
			got.path = "/"
		}
		require.Equal(t, want, got, name)
	}
}

// TestTheUsualBodyIsTheOneThatHasuraDocuments compares with the payload of Hasura's documentation:
// event {session_variables, op, data, trace_context}, created_at, id, delivery_info, trigger and table.
func TestTheUsualBodyIsTheOneThatHasuraDocuments(t *testing.T) {
	t.Parallel()
	result := imported(t, "shop")
	e := article()
	e.Op, e.Old, e.New = 'U', []byte(`{"id":"42","name":"john doe"}`), []byte(`{"id":"42","name":"jane doe"}`)
	got := deliver(t, result, "order_paid", e)
	require.JSONEq(t, `{
	  "event": {
	    "session_variables": {"x-hasura-role": "editor", "x-hasura-user-id": "7"},
	    "op": "UPDATE",
	    "data": {"old": {"id": "42", "name": "john doe"}, "new": {"id": "42", "name": "jane doe"}},
	    "trace_context": {"trace_id": "1", "span_id": "2"}
	  },
	  "created_at": "2026-11-26T14:03:10.123456Z",
	  "id": "7f000000-0000-0000-0000-000000000000",
	  "delivery_info": {"max_retries": 6, "current_retry": 0},
	  "trigger": {"name": "order_paid"},
	  "table": {"schema": "public", "name": "orders"}
	}`, got.body)
	require.Equal(t, "/paid", got.path)
	require.Equal(t, "Bearer value-of-ORDER_PAID_AUTHORIZATION", got.header.Get("Authorization"))
	require.Equal(t, "live-eu", got.header.Get("X-Env"))
	removed := deliver(t, result, "order-removed", article())
	require.Equal(t, "/removed", removed.path)
	require.Equal(t, "source=hasura&token=value-of-ORDER_REMOVED_TOKEN", removed.query)
}
