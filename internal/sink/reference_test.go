package sink

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/webapi/apitest"
	"github.com/rowhook/rowhook/webhook"
)

var update = flag.Bool("update", false, "rewrite the list in docs/receiver.md and openapi.yaml.gz")

const (
	page     = "../../docs/receiver.md"
	listHead = "-update -->\n"
)

func TestReferenceListsTheOperations(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	prose, list, ok := strings.Cut(string(text), listHead)
	require.True(t, ok)
	doc := apitest.NewDocument(t, apitest.Packed(t, *update))
	want := doc.Reference()
	if *update {
		require.NoError(t, os.WriteFile(page, []byte(prose+listHead+want), 0o644))
		return
	}
	require.Equal(t, want, list, "rewrite it: go test ./internal/sink -run Reference -update")
	for _, schema := range []string{"Problem", "Miss"} {
		code := doc.Components.Schemas[schema].Value.Properties["code"].Value
		for _, value := range code.Enum {
			require.Contains(t, prose, fmt.Sprintf("`%s`", value), "the page names each code")
		}
	}
}

// TestTheExamplesOfThePageWork sends the requests of the page, with the events that it talks of.
func TestTheExamplesOfThePageWork(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	s := &Sink{}
	d := newDesk(t, s)
	paid := order(7, "Ada")
	paid.Op, paid.Old, paid.New = 'U', []byte(`{"id":7,"status":"placed"}`), []byte(`{"id":7,"status":"paid"}`)
	paid.ID[0] = 1
	for _, e := range []*webhook.Event{order(6, "Grace"), order(8, "Ada")} {
		d.send("/order_placed", e)
	}
	_, miss := s.Await(over(), Match{Trigger: "order_placed", Where: where(t, "new.id", 7)}, 1)
	lines := strings.ReplaceAll(miss.String(), "\n", "\n    ")
	require.Contains(t, string(text), strings.Replace(lines, "has arrived", "arrived within 5s", 1), "the page shows this miss")
	d.send("/order_placed", order(7, "Ada"))
	d.send("/order_placed", paid)

	example := regexp.MustCompile(`(?m)^    curl (?:-X (\w+) )?(?:-d '([^']*)' )?'?http://127.0.0.1:8080([^'\s]*)'?$`)
	found := example.FindAllStringSubmatch(string(text), -1)
	require.Len(t, found, strings.Count(string(text), "    curl "))
	for _, m := range found {
		method := m[1]
		switch {
		case method == "" && m[2] != "":
			method = http.MethodPost
		case method == "":
			method = http.MethodGet
		}
		if strings.Contains(m[2], `"count": 1`) {
			d.ask("DELETE", "/deliveries?op=update", "")
		}
		status, answer := d.ask(method, m[3], m[2])
		require.Equal(t, 200, status, "%s: %s", m[0], answer)
	}
	require.Len(t, s.Rules(), 3)
}
