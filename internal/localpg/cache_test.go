//go:build unix

package localpg

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// cachedConfig returns a configuration with a cache of its own, and the cache's directory.
func cachedConfig(t *testing.T) (Config, string) {
	t.Helper()
	config := testConfig("")
	config.CacheDir = filepath.Join(t.TempDir(), "initdb")
	return config, config.CacheDir
}

// identity tells which run of initdb a server's data comes from.
func identity(t *testing.T, s *Server) string {
	t.Helper()
	return query(t, s.URL("postgres"), "select system_identifier::text from pg_control_system()")
}

func theFileIn(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1)
	return filepath.Join(dir, entries[0].Name())
}

func TestLaterStartsCopyWhatInitdbMade(t *testing.T) {
	t.Parallel()
	config, dir := cachedConfig(t)
	first, second := start(t, config), start(t, config)
	require.Equal(t, identity(t, first), identity(t, second))

	info, err := os.Stat(theFileIn(t, dir))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	stat, ok := info.Sys().(*syscall.Stat_t)
	require.True(t, ok)
	require.Less(t, stat.Blocks*512, info.Size()-8<<20, "the zeros of the WAL take no space")

	// A copy writes what its own server says, and nothing of the others.
	execute(t, first.URL("postgres"), "create table mine ()")
	require.Equal(t, "true", query(t, second.URL("postgres"), "select (to_regclass('mine') is null)::text"))
	require.NoError(t, second.Restart(t.Context(), Fast))
	require.Equal(t, identity(t, first), identity(t, second))
}

func TestCopiesShareNoPassword(t *testing.T) {
	t.Parallel()
	config, dir := cachedConfig(t)
	first, second := start(t, config), start(t, config)
	require.NotEqual(t, first.layout.password, second.layout.password)
	to, err := pgx.ParseConfig(second.URL("postgres"))
	require.NoError(t, err)
	for _, password := range []string{first.layout.password, "", "postgres"} {
		to.Password = password
		_, err = pgx.ConnectConfig(t.Context(), to)
		require.Error(t, err)
	}
	kept, err := os.ReadFile(theFileIn(t, dir))
	require.NoError(t, err)
	for _, secret := range []string{first.layout.password, second.layout.password, "SCRAM-SHA-256$"} {
		require.False(t, bytes.Contains(kept, []byte(secret)), secret)
	}
}

func TestQuickConnectTakesOneStepAndStillNeedsThePassword(t *testing.T) {
	t.Parallel()
	config := testConfig("")
	config.QuickConnect = true
	s := start(t, config)
	require.Regexp(t, `^SCRAM-SHA-256\$1:`, query(t, s.URL("postgres"), "select rolpassword from pg_authid where rolname = 'postgres'"))
	to, err := pgx.ParseConfig(s.URL("postgres"))
	require.NoError(t, err)
	to.Password = "wrong"
	_, err = pgx.ConnectConfig(t.Context(), to)
	require.ErrorContains(t, err, "password authentication failed")
}

func TestUnusableKeptDataIsMadeAnew(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string]func(t *testing.T, file string){
		"a changed byte": func(t *testing.T, file string) {
			content, err := os.ReadFile(file)
			require.NoError(t, err)
			content[len(content)/3] ^= 1
			require.NoError(t, os.WriteFile(file, content, 0o600))
		},
		"half of it": func(t *testing.T, file string) {
			info, err := os.Stat(file)
			require.NoError(t, err)
			require.NoError(t, os.Truncate(file, info.Size()/2))
		},
		"nothing": func(t *testing.T, file string) { require.NoError(t, os.Truncate(file, 0)) },
		"another form": func(t *testing.T, file string) {
			require.NoError(t, os.WriteFile(file, bytes.Repeat([]byte("rowhook "), 1000), 0o600))
		},
		"writable by others": func(t *testing.T, file string) { require.NoError(t, os.Chmod(file, 0o666)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config, dir := cachedConfig(t)
			first := start(t, config)
			file := theFileIn(t, dir)
			harm(t, file)
			second, third := start(t, config), start(t, config)
			require.NotEqual(t, identity(t, first), identity(t, second))
			require.Equal(t, identity(t, second), identity(t, third))
			require.Equal(t, file, theFileIn(t, dir))
		})
	}
}

func TestServersStartWhereNothingCanBeKept(t *testing.T) {
	t.Parallel()
	config, _ := cachedConfig(t)
	config.CacheDir = filepath.Join(t.TempDir(), "file", "initdb")
	require.NoError(t, os.WriteFile(filepath.Dir(config.CacheDir), nil, 0o600))
	require.Equal(t, "1", query(t, start(t, config).URL("postgres"), "select '1'"))

	// A directory at the place of the file: it is neither read nor replaced.
	config, dir := cachedConfig(t)
	start(t, config)
	file := theFileIn(t, dir)
	require.NoError(t, os.Remove(file))
	require.NoError(t, os.MkdirAll(filepath.Join(file, "full"), 0o700))
	require.Equal(t, "1", query(t, start(t, config).URL("postgres"), "select '1'"))
	require.Equal(t, file, theFileIn(t, dir))
}

func TestManyMayFillTheCacheAtOnce(t *testing.T) {
	t.Parallel()
	config, dir := cachedConfig(t)
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		wg.Go(func() {
			s, err := Start(t.Context(), config)
			if err == nil {
				err = s.Stop(t.Context(), Immediate)
			}
			errs[i] = err
		})
	}
	wg.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
	theFileIn(t, dir)
}

func TestUnusedKeptDataIsDeleted(t *testing.T) {
	t.Parallel()
	config, dir := cachedConfig(t)
	require.NoError(t, os.MkdirAll(dir, 0o700))
	for name, age := range map[string]time.Duration{
		"postgresql-9.6-old.tar": unusedAfter + time.Hour, ".new-1": abandonedAfter + time.Hour,
		"postgresql-9.5-young.tar": time.Hour, ".new-2": 0, "of-somebody-else": 2 * unusedAfter,
	} {
		file := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(file, nil, 0o600))
		require.NoError(t, os.Chtimes(file, time.Now(), time.Now().Add(-age)))
	}
	start(t, config)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var left []string
	for _, entry := range entries {
		left = append(left, entry.Name())
	}
	require.Len(t, left, 4)
	require.Subset(t, left, []string{".new-2", "postgresql-9.5-young.tar", "of-somebody-else"})
}

func TestUnattendedServerHasNoGoroutineAndEndsWithItsProcess(t *testing.T) {
	t.Parallel()
	cmd := helperCommand(t, "")
	cmd.Env = append(cmd.Env, helperLeaving+"=1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "%s", &stderr)
	fields := bytes.Fields(out)
	require.Len(t, fields, 4)
	eventually(t, func() error { return gone(filepath.Dir(string(fields[1]))) })
}

func TestUnattendedServerStopsAndRestarts(t *testing.T) {
	t.Parallel()
	config := testConfig("")
	config.Unattended = true
	s := start(t, config)
	require.Nil(t, s.Exited())
	require.NoError(t, s.Start(t.Context()), "again")
	for _, mode := range []Mode{Fast, Immediate} {
		require.NoError(t, s.Restart(t.Context(), mode))
		require.Equal(t, "1", query(t, s.URL("postgres"), "select '1'"))
	}
	require.NoError(t, s.Stop(t.Context(), Fast))
	require.NoError(t, gone(s.layout.temp))

	config.Settings = map[string]string{"no_such_setting": "on"}
	_, err := Start(t.Context(), config)
	require.ErrorContains(t, err, `unrecognized configuration parameter "no_such_setting"`)
	require.ErrorContains(t, err, "postgres ended: exit status 1")
}
