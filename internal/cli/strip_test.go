package cli_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
)

func TestStripTakesADumpToWhatItWasWithoutRowhook(t *testing.T) {
	t.Parallel()
	if !pgtest.CanDump(t) {
		return
	}
	db := pgtest.NewEmpty(t)
	db.Exec(t, orders)
	before := db.Dump(t, "--schema-only")
	_, url := receiver(t)
	code, _, stderr := rowhook(t, database(db.URL()), "apply", "-f", ordersConfig(t, url))
	require.Zero(t, code, stderr)
	db.Exec(t, "create view mine as select id from rowhook.events")
	file := filepath.Join(t.TempDir(), "structure.sql")
	require.NoError(t, os.WriteFile(file, []byte(db.Dump(t, "--schema-only")), 0o640))

	code, stdout, stderr := rowhook(t, nil, "strip", file)
	require.Zero(t, code, stderr)
	require.Contains(t, stderr, "CREATE VIEW public.mine")
	require.Contains(t, stdout, "CREATE VIEW public.mine")
	require.NotContains(t, stdout, "CREATE TRIGGER")
	code, nothing, stderr := rowhook(t, nil, "strip", "--in-place", file)
	require.Zero(t, code, stderr)
	require.Empty(t, nothing)
	written, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, stdout, string(written))
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o640), info.Mode().Perm())
	require.Greater(t, len(written), len(before))
	require.Less(t, len(written), len(before)+1500, "the view")

	code, _, stderr = rowhook(t, nil, "strip", "--in-place")
	require.Equal(t, 2, code, stderr)
	require.NoError(t, os.WriteFile(file, []byte("create view a as select 'b;\n"), 0o640))
	code, _, stderr = rowhook(t, nil, "strip", "-i", file)
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "it is incomplete")
	left, err := os.ReadDir(filepath.Dir(file))
	require.NoError(t, err)
	require.Len(t, left, 1)
	written, err = os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "create view a as select 'b;\n", string(written))
}

func TestUninstallNamesWhatWouldGoAlong(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, "create view mine as select id from rowhook.events")
	code, stdout, stderr := rowhook(t, database(db.URL()), "uninstall", "--yes")
	require.Equal(t, 1, code)
	require.Contains(t, stdout, "view public.mine")
	require.Contains(t, stderr, "view public.mine: change or drop them first, or use --cascade")
	db.Exec(t, "select from mine")
	code, _, stderr = rowhook(t, database(db.URL()), "uninstall", "--yes", "--cascade")
	require.Zero(t, code, stderr)
}
