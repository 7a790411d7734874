package secret_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/secret"
)

func TestAFileThatCantBeReadSaysWhatToDo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, err := secret.Read(filepath.Join(dir, "token"))
	require.ErrorContains(t, err, "token does not exist: create it, or correct the path")
	_, err = secret.Read(dir)
	require.ErrorContains(t, err, "it is no regular file: name a file that holds the text alone")
}
