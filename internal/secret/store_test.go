package secret_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/secret"
	"github.com/rowhook/rowhook/trigger"
)

func open(t *testing.T, rules secret.Rules, environment ...string) *secret.Store {
	t.Helper()
	s, err := secret.New(func(name string) (string, bool) {
		for _, entry := range environment {
			if value, ok := strings.CutPrefix(entry, name+"="); ok {
				return value, true
			}
		}
		return "", false
	}, rules)
	require.NoError(t, err)
	return s
}

func write(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
}

// replace replaces a file at once, as one that rotates a secret should.
func replace(t *testing.T, path, text string) {
	t.Helper()
	write(t, path+".new", text)
	require.NoError(t, os.Rename(path+".new", path))
}

func TestNamesOfRowhookItselfAreNotGivenOut(t *testing.T) {
	t.Parallel()
	own := []string{"DATABASE_URL", "DATABASE_URL_FILE", "PGPASSWORD", "PGHOST", "ROWHOOK_HTTP_TOKEN", "ROWHOOK_LISTEN_URL_FILE", "ROWHOOK_X"}
	others := []string{"ORDERS_URL", "pgx", "MY_DATABASE_URL", "DATABASE"}
	var environment []string
	for _, name := range append(own, others...) {
		environment = append(environment, name+"=value of "+name)
	}
	for _, patterns := range [][]string{nil, {"*"}, {"D*", "P*", "R*", "O*", "p*", "M*"}, {"PG*", "ROWHOOK_*", "DATABASE_*", "ORDERS_URL", "pgx", "MY_*", "DATABASE"}} {
		s := open(t, secret.Rules{Env: patterns}, environment...)
		for _, name := range own {
			value, err := s.Get(name)
			require.ErrorContains(t, err, "the dispatcher does not give out "+name+": ", patterns)
			require.NotContains(t, err.Error(), "value of")
			require.Empty(t, value)
		}
		for _, name := range others {
			value, err := s.Get(name)
			require.NoError(t, err, "%s by %v", name, patterns)
			require.Equal(t, "value of "+name, value)
		}
	}
	// The operator may name one.
	value, err := open(t, secret.Rules{Env: []string{"ORDERS_*", "PGHOST"}}, environment...).Get("PGHOST")
	require.NoError(t, err)
	require.Equal(t, "value of PGHOST", value)
}

func TestOnlyNamesThatMatchAreGivenOut(t *testing.T) {
	t.Parallel()
	s := open(t, secret.Rules{Env: []string{"ORDERS_*", "STRIPE_KEY", "*_URL"}}, "ORDERS_=1", "ORDERS_TOKEN=2", "STRIPE_KEY=3", "X_URL=4", "STRIPE_KEY_2=5", "HOME=6", "orders_x=7", "X_URLS=8")
	for name, want := range map[string]string{"ORDERS_": "1", "ORDERS_TOKEN": "2", "STRIPE_KEY": "3", "X_URL": "4"} {
		value, err := s.Get(name)
		require.NoError(t, err)
		require.Equal(t, want, value)
	}
	for _, name := range []string{"STRIPE_KEY_2", "HOME", "orders_x", "X_URLS"} {
		_, err := s.Get(name)
		require.EqualError(t, err, "the dispatcher does not give out "+name+": --env names only ORDERS_*, STRIPE_KEY, *_URL; add it there, or use a variable that is named")
	}
	_, err := s.Get("ORDERS_MISSING")
	var unset *trigger.UnsetError
	require.ErrorAs(t, err, &unset)
}

func TestPatternsAreNamesWithStars(t *testing.T) {
	t.Parallel()
	all, err := secret.ParsePatterns(" ORDERS_*,STRIPE_KEY *_URL,")
	require.NoError(t, err)
	require.Equal(t, []string{"ORDERS_*", "STRIPE_KEY", "*_URL"}, all)
	for _, bad := range []string{",", "A-B", "[A]", "A?", "$A", "1A", "ORDERS_*;X", "é"} {
		_, err := secret.ParsePatterns(bad)
		require.ErrorContains(t, err, "write names such as", bad)
	}
}

func TestAVariableThatHoldsThePasswordIsNotGivenOut(t *testing.T) {
	t.Parallel()
	own := func() secret.Own { return secret.Own{Values: []string{"correct-horse", "short", ""}} }
	environment := []string{"POSTGRES_PASSWORD=correct-horse", "POSTGRES_URL=postgres://a:correct-horse@db/x", "OTHER=shorter", "EMPTY="}
	s := open(t, secret.Rules{Own: own}, environment...)
	for _, name := range []string{"POSTGRES_PASSWORD", "POSTGRES_URL"} {
		_, err := s.Get(name)
		require.ErrorContains(t, err, "the dispatcher does not give out "+name+": its value holds a password or a token")
		require.NotContains(t, err.Error(), "horse")
	}
	for _, name := range []string{"OTHER", "EMPTY"} {
		_, err := s.Get(name)
		require.NoError(t, err)
	}
	_, err := open(t, secret.Rules{Own: own, Env: []string{"POSTGRES_PASSWORD"}}, environment...).Get("POSTGRES_PASSWORD")
	require.NoError(t, err, "named by the operator")
}

func TestFilesAreGivenOutOfTheDirectoriesOnly(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	dir, other := filepath.Join(root, "secrets"), filepath.Join(root, "secrets-of-others")
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "sub"), 0o700))
	require.NoError(t, os.Mkdir(other, 0o700))
	write(t, filepath.Join(dir, "token"), "t0ken\n")
	write(t, filepath.Join(dir, "windows"), "line\r\n")
	write(t, filepath.Join(dir, "two"), "a\n\n")
	write(t, filepath.Join(dir, "bare"), "bare")
	write(t, filepath.Join(dir, "sub", "deep"), "deep")
	write(t, filepath.Join(other, "password"), "hidden")
	require.NoError(t, os.Symlink("sub/deep", filepath.Join(dir, "within")))
	require.NoError(t, os.Symlink("../secrets-of-others/password", filepath.Join(dir, "up")))
	require.NoError(t, os.Symlink(filepath.Join(other, "password"), filepath.Join(dir, "absolute")))
	require.NoError(t, os.Symlink(other, filepath.Join(dir, "directory")))
	require.NoError(t, os.Symlink("/proc/self/environ", filepath.Join(dir, "environ")))
	require.NoError(t, os.Symlink("../../../../../../../../../proc/self/environ", filepath.Join(dir, "environ2")))

	s := open(t, secret.Rules{Dirs: []string{dir}})
	get := func(path string) (string, error) { return s.Get(trigger.FilePrefix + path) }
	for name, want := range map[string]string{
		"token": "t0ken", "windows": "line", "two": "a\n", "bare": "bare", "sub/deep": "deep", "within": "deep", "sub/../token": "t0ken", "./token": "t0ken", "/token": "t0ken",
	} {
		value, err := get(dir + "/" + name)
		require.NoError(t, err, name)
		require.Equal(t, want, value, name)
	}
	for path, want := range map[string]string{
		filepath.Join(other, "password"):       "it is not in " + dir,
		dir + "/../secrets-of-others/password": "it is not in " + dir,
		dir:                                    "it is not in " + dir,
		dir + "/":                              "it is not in " + dir,
		"/proc/self/environ":                   "it is not in " + dir,
		"/etc/passwd":                          "it is not in " + dir,
		dir + "/up":                            "leads out of the directory",
		dir + "/absolute":                      "leads out of the directory",
		dir + "/directory/password":            "leads out of the directory",
		dir + "/environ":                       "leads out of the directory",
		dir + "/environ2":                      "leads out of the directory",
		dir + "/sub":                           "it is no regular file",
		dir + "/gone":                          "does not exist",
		dir + "/token/x":                       "can't be read",
	} {
		value, err := get(path)
		require.ErrorContains(t, err, want, path)
		require.ErrorContains(t, err, path)
		require.NotContains(t, err.Error(), "hidden")
		require.Empty(t, value)
	}
	_, err := open(t, secret.Rules{}).Get(trigger.FilePrefix + dir + "/token")
	require.EqualError(t, err, "the dispatcher does not give out the file "+dir+"/token: it gives out no files; start it with --secrets-dir and the directory, such as "+dir)
}

func TestFilesOfRowhookItselfAreNotGivenOut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "database_url"), "postgres://app:correct-horse@db/shop\n")
	write(t, filepath.Join(dir, "copy"), "url=postgres://app:correct-horse@db/shop\n")
	write(t, filepath.Join(dir, "token"), "fine\n")
	require.NoError(t, os.Link(filepath.Join(dir, "database_url"), filepath.Join(dir, "hard")))
	require.NoError(t, os.Symlink("database_url", filepath.Join(dir, "soft")))
	s := open(t, secret.Rules{Dirs: []string{dir}, Own: func() secret.Own {
		return secret.Own{Files: []string{filepath.Join(dir, "database_url")}, Values: []string{"correct-horse"}}
	}})
	for _, name := range []string{"database_url", "hard", "soft", "copy"} {
		value, err := s.Get(trigger.FilePrefix + filepath.Join(dir, name))
		require.ErrorContains(t, err, "it holds a password or a token of Rowhook itself", name)
		require.NotContains(t, err.Error(), "horse")
		require.Empty(t, value)
	}
	_, err := s.Get(trigger.FilePrefix + filepath.Join(dir, "token"))
	require.NoError(t, err)
}

func TestAFileIsReadAgainWhenKubernetesSwapsItsDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	version := func(name, text string) {
		require.NoError(t, os.Mkdir(filepath.Join(dir, name), 0o700))
		write(t, filepath.Join(dir, name, "token"), text)
		require.NoError(t, os.Symlink(name, filepath.Join(dir, "..data_tmp")))
		require.NoError(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
	}
	version("..2026_11_25", "first")
	require.NoError(t, os.Symlink("..data/token", filepath.Join(dir, "token")))
	s := open(t, secret.Rules{Dirs: []string{dir}})
	value, err := s.Get(trigger.FilePrefix + filepath.Join(dir, "token"))
	require.NoError(t, err)
	require.Equal(t, "first", value)
	version("..2026_11_26", "other")
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "..2026_11_25")))
	value, err = s.Get(trigger.FilePrefix + filepath.Join(dir, "token"))
	require.NoError(t, err)
	require.Equal(t, "other", value)
}

func TestAFileThatIsWrittenInPlaceWithinItsTimesPrecisionIsReadAgain(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "token")
	s := open(t, secret.Rules{Dirs: []string{filepath.Dir(path)}})
	at := time.Now()
	for _, text := range []string{"one", "two", "six"} {
		write(t, path, text)
		require.NoError(t, os.Chtimes(path, at, at))
		value, err := s.Get(trigger.FilePrefix + path)
		require.NoError(t, err)
		require.Equal(t, text, value)
	}
	old := at.Add(-time.Hour)
	require.NoError(t, os.Chtimes(path, old, old))
	_, err := s.Get(trigger.FilePrefix + path)
	require.NoError(t, err)
	require.NoError(t, os.Remove(path))
	_, err = s.Get(trigger.FilePrefix + path)
	require.ErrorContains(t, err, "does not exist")
}

func TestASecretThatIsReplacedIsNeverSeenInPart(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "token")
	version := func(n int) string { return strings.Repeat(fmt.Sprintf("%06d", n), 5000) }
	replace(t, path, version(0))
	s := open(t, secret.Rules{Dirs: []string{filepath.Dir(path)}})
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				value, err := s.Get(trigger.FilePrefix + path)
				if err != nil || len(value) != 30000 || value != strings.Repeat(value[:6], 5000) {
					t.Errorf("read %d bytes: %v", len(value), err)
					return
				}
			}
		})
	}
	for n := range 200 {
		replace(t, path, version(n))
	}
	close(done)
	readers.Wait()
}

func TestDirectoriesThatHoldMoreThanSecretsAreRejected(t *testing.T) {
	t.Parallel()
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink("/proc", link))
	for _, dir := range []string{"/", "/proc", "/proc/self", "/sys/kernel", "/dev", "/run/../proc", "secrets", "", link} {
		_, err := secret.CheckDir(dir)
		require.Error(t, err, dir)
		_, err = secret.New(func(string) (string, bool) { return "", false }, secret.Rules{Dirs: []string{dir}})
		require.Error(t, err, dir)
	}
	for _, dir := range []string{"/run/secrets", "/dev/shm/secrets", "/processes", t.TempDir()} {
		_, err := secret.CheckDir(dir)
		require.NoError(t, err, dir)
	}
}
