package webhook_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

// someEvents makes n events with the ids 1 to n.
func someEvents(n int) (events []*webhook.Event) {
	for i := range n {
		e := &webhook.Event{CreatedAt: time.Unix(int64(i), 0), Schema: "public", Table: "t", Trigger: "b", Op: 'I', New: fmt.Appendf(nil, `{"n": %d}`, i)}
		e.ID[15], e.ID[14] = byte(i+1), byte((i+1)>>8)
		events = append(events, e)
	}
	return events
}

// sendBatch sends events to a receiver that answers as given.
func sendBatch(t *testing.T, w trigger.Webhook, events []*webhook.Event, answer http.HandlerFunc) (webhook.Result, []int) {
	t.Helper()
	server := httptest.NewServer(answer)
	t.Cleanup(server.Close)
	w.URL = server.URL
	ep, err := webhook.NewEndpoint(w, func(string) (string, bool) { return "", false })
	require.NoError(t, err)
	client := webhook.NewClient(webhook.ClientConfig{})
	t.Cleanup(client.Close)
	return client.SendBatch(t.Context(), ep, events)
}

func TestABatchIsAnArrayOfTheSingleBodiesUnderOneSignature(t *testing.T) {
	t.Parallel()
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	events := someEvents(100)
	var ids []string
	for range 2 {
		var body []byte
		var header http.Header
		r, failed := sendBatch(t, trigger.Webhook{Secret: secret}, events, func(_ http.ResponseWriter, req *http.Request) {
			body, _ = io.ReadAll(req.Body)
			header = req.Header
		})
		require.True(t, r.Delivered())
		require.Empty(t, failed)
		var parts []json.RawMessage
		require.NoError(t, json.Unmarshal(body, &parts))
		require.Len(t, parts, 100)
		for i, p := range parts {
			require.Equal(t, string(webhook.AppendBody(nil, events[i])), string(p))
		}
		require.Equal(t, "100", header.Get(webhook.HeaderBatch))
		require.Equal(t, "application/json", header.Get("Content-Type"))
		require.NoError(t, webhook.Verify(secret, header, body, time.Now()))
		ids = append(ids, header.Get(webhook.HeaderID))
	}
	require.Equal(t, ids[0], ids[1], "the same events have the same id")
	require.Equal(t, webhook.BatchID(events), ids[0])
	require.NotEqual(t, webhook.BatchID(events[1:]), ids[0])
	require.Regexp(t, "^batch_[0-9a-f]{32}$", ids[0])
}

func TestWhatAResponseSaysOfABatch(t *testing.T) {
	t.Parallel()
	id := func(n byte) string { return uuid.UUID{15: n}.String() }
	long := `{"failed": ["` + id(2) + `"], "log": "` + strings.Repeat("x", 40<<10) + `"}`
	for name, c := range map[string]struct {
		contentType, body string
		failed            []int
		fails             string // the error of the whole batch
	}{
		"nothing":                            {"application/json", "", nil, ""},
		"blanks":                             {"application/json", " \n", nil, ""},
		"a text":                             {"text/plain", "ok", nil, ""},
		"a text that is called JSON":         {"application/json", "ok", nil, ""},
		"a text with a bracket":              {"text/plain", "[info] got it", nil, ""},
		"HTML":                               {"text/html", "<p>{failed}</p>", nil, ""},
		"a JSON string":                      {"application/json", `"failed"`, nil, ""},
		"an array":                           {"application/json", `[{"failed": ["x"]}]`, nil, ""},
		"an object without the key":          {"application/json", `{"ok": true, "errors": {"failed": ["x"]}, "Failed": 3}`, nil, ""},
		"an empty list":                      {"application/json", `{"failed": []}`, nil, ""},
		"null, as Go writes an empty list":   {"application/json", `{"failed": null}`, nil, ""},
		"two of them":                        {"application/json", `{"n": 1, "failed": ["` + id(3) + `", "` + id(1) + `"]}`, []int{2, 0}, ""},
		"one of them twice":                  {"application/json", `{"failed": ["` + id(1) + `", "` + id(1) + `"]}`, []int{0}, ""},
		"capitals":                           {"application/json", `{"failed": ["` + strings.ToUpper(uuid.UUID{14: 0, 15: 3}.String()) + `"]}`, []int{2}, ""},
		"JSON by any other type":             {"text/html", `{"failed": ["` + id(1) + `"]}`, []int{0}, ""},
		"a mark of the byte order":           {"application/json", "\xef\xbb\xbf" + `{"failed": ["` + id(1) + `"]}`, []int{0}, ""},
		"JSON of another kind":               {"application/problem+json; charset=utf-8", `{"failed": ["` + id(1) + `"]}`, []int{0}, ""},
		"a list behind what is stored":       {"application/json", long, []int{1}, ""},
		"an id of another batch":             {"application/json", `{"failed": ["` + id(1) + `", "` + id(9) + `"]}`, nil, `which is not the id of an event in this batch`},
		"an id in another form":              {"application/json", `{"failed": ["{` + id(1) + `}"]}`, nil, "not the id"},
		"a number in the list":               {"application/json", `{"failed": [1]}`, nil, "an element that is not a string"},
		"a list in the list":                 {"application/json", `{"failed": [["` + id(1) + `"]]}`, nil, "an element that is not a string"},
		"one id without a list":              {"application/json", `{"failed": "` + id(1) + `"}`, nil, `its "failed" is not a list of ids`},
		"a number of failed events":          {"application/json", `{"failed": 0}`, nil, `its "failed" is not a list of ids`},
		"false":                              {"application/json", `{"failed": false}`, nil, `its "failed" is not a list of ids`},
		"the key twice":                      {"application/json", `{"failed": [], "failed": ["` + id(1) + `"]}`, nil, `the key "failed" twice`},
		"an object that ends too early":      {"application/json", `{"failed": ["` + id(1) + `"`, nil, "its JSON is cut off"},
		"an object that ends behind the key": {"text/plain", `{"failed"`, nil, "its JSON is cut off"},
		"no object after all":                {"text/plain", `{ok}`, nil, "begins as a JSON object and is none"},
		"two objects":                        {"application/json", `{"failed": []} {"failed": ["` + id(1) + `"]}`, nil, "followed by something else"},
		"more than is read":                  {"application/json", `{"log": "` + strings.Repeat("x", webhook.MaxVerdict) + `"}`, nil, "longer than the 1048576 bytes"},
		"a long text":                        {"text/plain", strings.Repeat("x", webhook.MaxVerdict+1), nil, ""},
		"a long array":                       {"application/json", `["` + strings.Repeat("x", webhook.MaxVerdict) + `"]`, nil, "longer than"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, failed := sendBatch(t, trigger.Webhook{}, someEvents(3), func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", c.contentType)
				_, _ = io.WriteString(w, c.body)
			})
			require.Equal(t, 200, r.Status)
			if c.fails != "" {
				require.False(t, r.Delivered())
				require.Equal(t, webhook.KindBadAnswer, r.Kind)
				require.Contains(t, r.Err, c.fails)
				require.Contains(t, r.Err, "all events of the batch count as failed")
				return
			}
			require.True(t, r.Delivered(), r.Err)
			require.Equal(t, c.failed, failed)
			require.LessOrEqual(t, len(r.Body), webhook.DefaultKeepBody)
		})
	}
}

func TestAResponseThatBreaksOffFailsABatchIfItMayHaveListedEvents(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		contentType, body string
		delivered         bool
	}{
		"an object":              {"application/json", `{"failed": [`, false},
		"an object without type": {"", `{"failed": [`, false},
		"a JSON array":           {"application/json", `[1, `, false},
		"JSON without a byte":    {"application/json", ``, false},
		"a text":                 {"text/plain", `ok, thank`, true},
		"a text without a byte":  {"text/plain", ``, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, _ := sendBatch(t, trigger.Webhook{}, someEvents(3), func(w http.ResponseWriter, _ *http.Request) {
				conn, out, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				fmt.Fprintf(out, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n")
				if c.contentType != "" {
					fmt.Fprintf(out, "Content-Type: %s\r\n", c.contentType)
				}
				fmt.Fprintf(out, "\r\n%s", c.body)
				_ = out.Flush()
				_ = conn.Close()
			})
			require.Equal(t, c.delivered, r.Delivered(), r.Err)
			if !c.delivered {
				require.Contains(t, r.Err, "cut off")
			}
		})
	}
}

func TestABatchOfThousandsOfFailedEventsIsUnderstood(t *testing.T) {
	t.Parallel()
	events := someEvents(5000)
	r, failed := sendBatch(t, trigger.Webhook{}, events, func(w http.ResponseWriter, _ *http.Request) {
		var ids []string
		for _, e := range events {
			ids = append(ids, uuid.UUID(e.ID).String())
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"failed": ids})
	})
	require.True(t, r.Delivered(), r.Err)
	require.Len(t, failed, 5000)
	rejected := r.Rejected()
	require.False(t, rejected.Delivered())
	require.Equal(t, webhook.KindRejected, rejected.Kind)
}
