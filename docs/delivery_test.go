package docs_test

import (
	"encoding/json"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/alert"
	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/trigger"
)

var fenced = regexp.MustCompile("(?s)```(yaml|json)\n(.*?)```")

func TestExamplesOfDeliveryAreValid(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("delivery.md")
	require.NoError(t, err)
	examples := map[string]int{}
	for _, m := range fenced.FindAllStringSubmatch(string(text), -1) {
		examples[m[1]]++
		if m[1] == "json" {
			var shown, is map[string]any
			require.NoError(t, json.Unmarshal([]byte(m[2]), &shown))
			message := alert.Message{Kind: alert.Failing, Phase: alert.Begun, States: make([]alert.State, 1)}
			body, err := message.Body(trigger.AlertJSON)
			require.NoError(t, err)
			require.NoError(t, json.Unmarshal(body, &is))
			require.Equal(t, slices.Sorted(maps.Keys(is)), slices.Sorted(maps.Keys(shown)))
			continue
		}
		file := m[2] + "triggers: []\n"
		if !strings.HasPrefix(m[2], "alerts:") {
			file = "triggers:\n  - name: a\n    table: t\n    on: {insert: true}\n    webhook: {url: https://e.com}\n    " +
				strings.ReplaceAll(m[2], "\n", "\n    ")
		}
		_, err := config.Parse("delivery.md", []byte(file))
		require.NoError(t, err, "%s", file)
	}
	require.GreaterOrEqual(t, examples["yaml"], 8)
	require.Equal(t, 1, examples["json"])
}
