package pgtest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Dump returns what pg_dump writes of the database.
func (db *DB) Dump(t testing.TB, arguments ...string) string {
	t.Helper()
	return program(t, "", "pg_dump", append(arguments, "--dbname", db.url)...)
}

// Load has psql run a script, which must not fail.
func (db *DB) Load(t testing.TB, script string) {
	t.Helper()
	program(t, script, "psql", "--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", db.url)
}

func program(t testing.TB, stdin, name string, arguments ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(os.Getenv(EnvBinDir), name), arguments...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	require.NoError(t, cmd.Run(), "%s: %s", name, &stderr)
	return stdout.String()
}
