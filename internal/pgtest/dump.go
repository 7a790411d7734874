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

// CanDump reports whether the server's programs include pg_dump and psql. npm's packages lack them,
// and Debian's have them. A test that needs them must return if CanDump returns false.
func CanDump(t testing.TB) bool {
	t.Helper()
	for _, name := range []string{"pg_dump", "psql"} {
		if _, err := os.Stat(filepath.Join(os.Getenv(EnvBinDir), name)); err != nil {
			t.Logf("not tested: %v", err)
			return false
		}
	}
	return true
}

// Dump returns the output of pg_dump for the database.
func (db *DB) Dump(t testing.TB, arguments ...string) string {
	t.Helper()
	return program(t, "", "pg_dump", append(arguments, "--dbname", db.url)...)
}

// Load runs a script by psql. It fails the test if the script fails.
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
