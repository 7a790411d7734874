package cli_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
)

func TestHangupAppliesADirectoryAgain(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	db.Exec(t, orders)
	s, url := receiver(t)
	dir := t.TempDir()
	put := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	put("shared.yml", "defaults: {on: {insert: true}, webhook: {url: \""+url+"/shared\"}}\n")
	put("a.yaml", "triggers: []\n")
	p := start(t, database(db.URL()), "run", "-f", dir)
	p.stderr.waitFor(t, "ready")
	put("b.yaml", "triggers: [{name: a, tabel: public.orders}]\n")
	p.signal(t, syscall.SIGHUP)
	p.stderr.waitFor(t, `b\.yaml:1:22: triggers\[0\]\.tabel: unknown key; did you mean table\?`)
	put("b.yaml", "triggers: [{name: b, table: public.orders}]\n")
	p.signal(t, syscall.SIGHUP)
	p.stderr.waitFor(t, "configuration loaded")
	db.Exec(t, "insert into orders values (1, 1, 'x')")
	require.Equal(t, "/shared", arrived(t, s, 1)[0].Path)
	p.signal(t, syscall.SIGTERM)
	require.Zero(t, p.exit(t))
}
