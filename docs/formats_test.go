package docs_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/webhook"
)

var shownRequest = regexp.MustCompile("(?s)```yaml\n([^`]*?)```\n(?:\n[^`]*?|\n)```http\n(.*?)```")

// Each request on the page is what a trigger with the keys before it sends.
func TestRequestsInFormatsAreWhatIsSent(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("formats.md")
	require.NoError(t, err)
	got := make(chan string, 1)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- written(r, body)
	}))
	t.Cleanup(receiver.Close)
	client := webhook.NewClient(webhook.ClientConfig{})
	t.Cleanup(client.Close)
	event := &webhook.Event{
		ID: uuid.MustParse("019aa3f4-7c1e-7d52-9d0c-5f1b2a3c4d5e"), CreatedAt: time.Date(2026, 11, 26, 14, 3, 10, 123456000, time.UTC), Sequence: 8,
		Schema: "public", Table: "orders", Trigger: "order_changed", Op: 'U', MaxRetries: 12, Session: []byte(`{"x-user":"ada"}`),
		Old: []byte(`{"id":1,"amount":1.10,"status":"placed"}`), New: []byte(`{"id":1,"amount":1.10,"status":"paid"}`),
	}
	shown := shownRequest.FindAllStringSubmatch(string(page), -1)
	require.Len(t, shown, 4)
	for _, m := range shown {
		file := "triggers:\n  - name: a\n    table: t\n    on: {insert: true}\n    " + strings.ReplaceAll(m[1], "\n", "\n    ")
		c, err := config.Parse("formats.md", []byte(file))
		require.NoError(t, err, "%s", file)
		w := c.Triggers[0].Webhook
		w.URL = receiver.URL + "/hooks"
		endpoint, err := webhook.NewEndpoint(w, os.LookupEnv)
		require.NoError(t, err)
		if c.Triggers[0].Batch.IsZero() {
			result := client.Send(t.Context(), endpoint, event, nil)
			require.True(t, result.Delivered())
		} else {
			result, _ := client.SendBatch(t.Context(), endpoint, []*webhook.Event{event})
			require.True(t, result.Delivered())
		}
		head, body, _ := strings.Cut(m[2], "\n\n")
		var compact bytes.Buffer
		require.NoError(t, json.Compact(&compact, []byte(body)))
		lines := strings.Split(head, "\n")
		slices.Sort(lines[1:])
		require.Equal(t, strings.Join(lines, "\n")+"\n\n"+compact.String(), <-got)
	}
}

// written returns a request as the page has it: its first line, its headers in the order of their
// names without those of every request, and its body.
func written(r *http.Request, body []byte) string {
	var head []string
	for name, values := range r.Header {
		if !slices.Contains([]string{"User-Agent", "Content-Length", "Accept-Encoding"}, name) {
			head = append(head, name+": "+values[0])
		}
	}
	slices.Sort(head)
	return fmt.Sprintf("%s %s %s\n%s\n\n%s", r.Method, r.URL.Path, r.Proto, strings.Join(head, "\n"), body)
}

func TestKeysInFormatsAreValid(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("formats.md")
	require.NoError(t, err)
	examples := fenced.FindAllStringSubmatch(string(page), -1)
	require.GreaterOrEqual(t, len(examples), 5)
	for _, m := range examples {
		file := "triggers:\n  - name: a\n    table: t\n    on: {insert: true}\n    " + strings.ReplaceAll(m[2], "\n", "\n    ")
		_, err := config.Parse("formats.md", []byte(file))
		require.NoError(t, err, "%s", file)
	}
}
