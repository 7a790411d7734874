package cli_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
)

const supabaseHook = `create trigger "To shop" after insert on public.orders for each row
  execute function supabase_functions.http_request('https://shop.example/hook', 'POST', '{"Authorization":"Bearer t0psecret"}', '{}', '1000');
`

func TestImportSupabaseReadsDatabasesDumpsAndMigrations(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	db.Exec(t, orders+`; create schema supabase_functions;
create function supabase_functions.http_request() returns trigger language plpgsql as 'begin return new; end';`+supabaseHook)
	project := t.TempDir()
	migrations := filepath.Join(project, "supabase", "migrations")
	require.NoError(t, os.MkdirAll(migrations, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(migrations, "1.sql"), []byte(supabaseHook), 0o600))
	dump := write(t, "dump.sql", supabaseHook)
	var files []string
	for name, run := range map[string]func(out string) (int, string, string){
		"database": func(out string) (int, string, string) {
			return rowhook(t, database(db.URL()), "import", "supabase", "--out", out, "--strict")
		},
		"project": func(out string) (int, string, string) {
			return rowhook(t, nil, "import", "supabase", project, "--out", out)
		},
		"dump": func(out string) (int, string, string) {
			return rowhook(t, nil, "import", "supabase", dump, "--out", out)
		},
		"stdin": func(out string) (int, string, string) {
			return rowhookReading(t, supabaseHook, nil, "import", "supabase", "-", "--out", out)
		},
	} {
		out := filepath.Join(t.TempDir(), "rowhook.yaml")
		code, stdout, stderr := run(out)
		require.Zero(t, code, "%s: %s", name, stderr)
		require.Contains(t, stderr, "Imported 1 trigger from Supabase's database webhooks (")
		text, err := os.ReadFile(out)
		require.NoError(t, err)
		require.NotContains(t, string(text)+stdout+stderr, "t0psecret")
		require.Contains(t, string(text), "Authorization: Bearer ${TO_SHOP_AUTHORIZATION}")
		files = append(files, out)
	}
	code, _, stderr := rowhook(t, append(database(db.URL()), "TO_SHOP_AUTHORIZATION=x"), "apply", "-f", files[0])
	require.Zero(t, code, stderr)

	code, _, stderr = rowhook(t, nil, "import", "supabase", filepath.Join(t.TempDir()))
	require.Equal(t, 2, code)
	require.Contains(t, stderr, "has no *.sql")
	code, _, stderr = rowhook(t, nil, "import", "supabase", write(t, "d.dump", "PGDMP\x01"))
	require.Equal(t, 2, code)
	require.Contains(t, stderr, "pg_restore")
}
