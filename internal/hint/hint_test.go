package hint_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/hint"
)

func TestCommandsNameTheSource(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`run "rowhook migrate"`:                     `run "rowhook migrate --source eu"`,
		"rowhook redeliver 7 or rowhook discard 7":  "rowhook redeliver --source eu 7 or rowhook discard --source eu 7",
		"rowhook events list --state dead":          "rowhook events list --source eu --state dead",
		"rowhook cutover hasura a -f rowhook.yaml":  "rowhook cutover hasura --source eu a -f rowhook.yaml",
		"the schema rowhook is at version 7":        "the schema rowhook is at version 7",
		"none runs (rowhook run), rowhook.activity": "none runs (rowhook run), rowhook.activity",
		"look: rowhook events":                      "look: rowhook events --source eu",
		"rowhook events -h, rowhook ":               "rowhook events --source eu -h, rowhook ",
		"rowhook statuses":                          "rowhook statuses",
	} {
		require.Equal(t, want, hint.Of("eu", text))
		require.Equal(t, text, hint.Of("", text), "there is one database")
	}
}
