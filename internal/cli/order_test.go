package cli

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Whoever orders an apply has written the file. A watch must not take that for a change, and must
// not miss one that somebody else has made before an order that failed.
func TestWhatAnOrderWritesIsNoChangeToTheWatch(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "rowhook.yaml")
	put := func(text string) { require.NoError(t, os.WriteFile(file, []byte(text), 0o600)) }
	put("a")
	r := &reapplier{file: file, watch: true}
	r.contents.path = file
	r.contents.take()
	looks := func() (changed bool) {
		for range 3 {
			_, ok := r.contents.changed()
			changed = changed || ok
		}
		return changed
	}
	require.NoError(t, r.obey(t.Context(), order{do: func(context.Context) error {
		put("b")
		return nil
	}}))
	require.True(t, r.obeyed)
	require.False(t, looks())

	put("c")
	require.Error(t, r.obey(t.Context(), order{do: func(context.Context) error { return errors.New("conflict") }}))
	require.False(t, r.obeyed)
	require.True(t, looks())
}
