package docs_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/webhook"
)

// TestTheRequestsOfThePageAreThoseOfItsConfigurations makes the request of each example.
func TestTheRequestsOfThePageAreThoseOfItsConfigurations(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("requests.md")
	require.NoError(t, err)
	row := regexp.MustCompile(`(?m)^    (\{"id": 7, .*\})$`).FindSubmatch(page)
	require.NotNil(t, row)
	e := &webhook.Event{CreatedAt: time.Now(), Schema: "public", Table: "orders", Trigger: "order_placed", Op: 'I', New: row[1]}
	made := 0
	for _, example := range strings.Split(string(page), "```yaml\n")[1:] {
		configured, request, _ := strings.Cut(example, "```\n")
		request, _, _ = strings.Cut(request, "\n## ")
		text := "triggers:\n  - name: order_placed\n    table: public.orders\n    on: {insert: true}\n    " + strings.ReplaceAll(strings.TrimSpace(configured), "\n", "\n    ") + "\n"
		c, err := config.Parse("requests.md", []byte(text))
		require.NoError(t, err, text)
		w := c.Triggers[0].Webhook
		p, _, err := webhook.Unexpanded(w, e, false)
		require.NoError(t, err)
		if w.IsTemplate() {
			made++
			require.Contains(t, request, "\n    "+string(p.Body)+"\n", "%s", text)
		}
		if first := regexp.MustCompile(`(?m)^    ([A-Z]+ /\S*) HTTP/1.1$`).FindStringSubmatch(request); first != nil {
			made++
			require.Equal(t, first[1], p.Method+" "+strings.TrimPrefix(p.URL, "https://api.example.com"))
		}
	}
	require.Greater(t, made, 6)
}
