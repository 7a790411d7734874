package pg

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSettingsAreWrittenInOneOrder(t *testing.T) {
	t.Parallel()
	s := Settings{"jit": "off", "search_path": "a"}.With(Settings{"search_path": "it's"})
	require.Equal(t, `set local jit = E'off'; set local search_path = E'it''s'`, s.Local())
	require.Equal(t, `set_config(E'jit', E'off', true), set_config(E'search_path', E'it''s', true)`, s.LocalCalls())
}
