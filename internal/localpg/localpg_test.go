//go:build unix

package localpg

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/sethvargo/go-retry"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/rowhook/rowhook/internal/session"
)

// These variables tell a child process of these tests what to do; see helper.
const (
	helperEnv     = "LOCALPG_TEST_HELPER"
	helperCache   = "LOCALPG_TEST_CACHE"
	helperLeaving = "LOCALPG_TEST_LEAVING"
)

func TestMain(m *testing.M) {
	if dir, ok := os.LookupEnv(helperEnv); ok {
		os.Exit(helper(dir))
	}
	goleak.VerifyTestMain(m)
}

// helper starts a server, prints its directories and process ids, and waits to be killed. An empty
// data directory means temporary data. With helperLeaving it does not wait, but ends without Stop.
func helper(dir string) int {
	_, leaving := os.LookupEnv(helperLeaving)
	s, err := Start(context.Background(), Config{
		BinDir: testBinDir(), DataDir: dir, CacheDir: os.Getenv(helperCache), NoDownload: true, Unattended: leaving,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Printf("%d %s %s %s\n", s.PID(), s.DataDir(), s.SocketDir(), s.URL("postgres"))
	if leaving {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
	select {}
}

func testBinDir() string { return os.Getenv("ROWHOOK_TEST_POSTGRES_BIN") }

func testConfig(dataDir string) Config {
	return Config{BinDir: testBinDir(), DataDir: dataDir, TempDir: MemoryDir(1 << 30), NoDownload: true}
}

func start(t *testing.T, config Config) *Server {
	t.Helper()
	s, err := Start(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Stop(context.Background(), Immediate)) })
	return s
}

func query(t *testing.T, url, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	var value string
	require.NoError(t, conn.QueryRow(t.Context(), sql).Scan(&value))
	return value
}

func execute(t *testing.T, url, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	_, err = conn.Exec(t.Context(), sql)
	require.NoError(t, err)
}

// dataDirFor returns a directory that the server's user can enter even if the tests run as root.
func dataDirFor(t *testing.T) string {
	t.Helper()
	acct, err := chooseAccount("")
	require.NoError(t, err)
	parent, err := tempParent("", acct)
	require.NoError(t, err)
	dir, err := os.MkdirTemp(parent, "rowhook-test-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	require.NoError(t, os.Chmod(dir, 0o755))
	return filepath.Join(dir, "data")
}

// eventually waits until the condition's error is nil.
func eventually(t *testing.T, condition func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var last error
	err := retry.Do(ctx, retry.NewConstant(20*time.Millisecond), func(context.Context) error {
		last = condition()
		return retry.RetryableError(last)
	})
	require.NoError(t, err, "%v", last)
}

// ended returns an error while a process runs. A zombie counts as ended.
func ended(pid int) error {
	if !processAlive(pid) {
		return nil
	}
	out, err := exec.Command("ps", "-o", "stat=", "-p", strconv.Itoa(pid)).Output()
	if err != nil || strings.HasPrefix(strings.TrimSpace(string(out)), "Z") {
		return nil //nolint:nilerr // ps fails if there is no such process
	}
	return fmt.Errorf("process %d runs: %s", pid, out)
}

func gone(path string) error {
	if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("%s exists", path)
}

func TestServerTakesSettingsAndTellsItsVersion(t *testing.T) {
	t.Parallel()
	config := testConfig("")
	config.Settings = map[string]string{"work_mem": "7MB", "application_name": `it's a \ "name"`}
	s := start(t, config)

	require.Equal(t, strconv.Itoa(s.Version()), query(t, s.URL("postgres"), "show server_version_num"))
	require.Equal(t, "7MB", query(t, s.URL("postgres"), "show work_mem"))
	require.Equal(t, `it's a \ "name"`, query(t, s.URL("postgres"), "show application_name"))
	require.Equal(t, "UTF8", query(t, s.URL("postgres"), "show server_encoding"))
	require.DirExists(t, s.BinDir())
}

func TestOnlyTheSocketNeedsNoPassword(t *testing.T) {
	t.Parallel()
	s := start(t, testConfig(""))
	_, err := pgx.Connect(t.Context(), fmt.Sprintf("host=127.0.0.1 port=%d user=postgres password=wrong sslmode=disable", s.Port()))
	require.ErrorContains(t, err, "password authentication failed")

	require.Equal(t, "postgres", query(t, fmt.Sprintf("host=%s port=%d user=postgres", s.SocketDir(), s.Port()), "select current_user::text"))
	info, err := os.Stat(s.SocketDir())
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
}

func TestStopDeletesTemporaryDataAndEndsForGood(t *testing.T) {
	t.Parallel()
	s, err := Start(t.Context(), testConfig(""))
	require.NoError(t, err)
	pid, exited := s.PID(), s.Exited()
	require.NoError(t, s.Stop(t.Context(), Fast))

	<-exited
	require.NoError(t, ended(pid))
	require.NoError(t, gone(s.layout.temp))
	require.Zero(t, s.PID())
	require.NoError(t, s.Stop(t.Context(), Fast), "again")
	require.ErrorContains(t, s.Start(t.Context()), "Stop has removed this server")
}

func TestHaltedServerGoesOnWithItsDataAndPort(t *testing.T) {
	t.Parallel()
	s := start(t, testConfig(""))
	url := s.URL("postgres")
	execute(t, url, "create table kept as select 42 as n")

	for _, mode := range []Mode{Smart, Fast, Immediate} {
		pid := s.PID()
		require.NoError(t, s.Restart(t.Context(), mode))
		require.NotEqual(t, pid, s.PID())
		require.Equal(t, url, s.URL("postgres"))
		require.Equal(t, "42", query(t, url, "select n::text from kept"))
	}
	require.NoError(t, s.Halt(t.Context(), Immediate))
	require.NoError(t, s.Start(t.Context()))
	require.Equal(t, "42", query(t, url, "select n::text from kept"))
}

func TestServerStartsAgainAfterItsPostmasterWasKilled(t *testing.T) {
	t.Parallel()
	s := start(t, testConfig(""))
	exited := s.Exited()
	require.NoError(t, syscall.Kill(s.PID(), syscall.SIGKILL))
	<-exited
	// The children of the killed postmaster end a moment later. Until then PostgreSQL refuses to
	// start again.
	eventually(t, func() error { return s.Start(t.Context()) })
	require.Equal(t, "1", query(t, s.URL("postgres"), "select '1'"))
}

func TestStopDoesNotWaitForClientsLongerThanItsContext(t *testing.T) {
	t.Parallel()
	s, err := Start(t.Context(), testConfig(""))
	require.NoError(t, err)
	conn, err := pgx.Connect(t.Context(), s.URL("postgres"))
	require.NoError(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))

	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, s.Stop(ctx, Smart), context.DeadlineExceeded)
	require.NoError(t, gone(s.layout.temp))
}

func TestUnknownShutdownModeIsRefused(t *testing.T) {
	t.Parallel()
	s := start(t, testConfig(""))
	require.ErrorContains(t, s.Stop(t.Context(), "quick"), "smart, fast or immediate")
	require.NotZero(t, s.PID())
}

func TestKeptDataIsThereAtTheNextStart(t *testing.T) {
	t.Parallel()
	config := testConfig(dataDirFor(t))
	config.Settings = map[string]string{"work_mem": "7MB"}
	first := start(t, config)
	execute(t, first.URL("postgres"), "create table kept as select 42 as n")
	url := first.URL("postgres")

	_, err := Start(t.Context(), config)
	require.ErrorContains(t, err, fmt.Sprintf("another PostgreSQL, process %d, uses the data directory", first.PID()))

	require.NoError(t, first.Stop(t.Context(), Fast))
	require.NoError(t, gone(first.SocketDir()))
	config.Settings, config.Port = nil, first.Port()
	second := start(t, config)
	require.Equal(t, url, second.URL("postgres"))
	require.Equal(t, "42", query(t, url, "select n::text from kept"))
	require.Equal(t, "4MB", query(t, url, "show work_mem"), "back at the default")
}

func TestUnusableDataDirectoriesAreExplained(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		files map[string]string
		want  string
	}{
		"other files":       {map[string]string{"notes.txt": "mine"}, "contains no PostgreSQL data"},
		"another version":   {map[string]string{"PG_VERSION": "9\n", passwordFile: "x"}, "belongs to PostgreSQL 9"},
		"another's cluster": {map[string]string{"PG_VERSION": "current"}, "was not made by rowhook"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := testConfig(dataDirFor(t))
			require.NoError(t, os.Mkdir(config.DataDir, 0o755))
			for file, content := range test.files {
				if content == "current" {
					acct, err := chooseAccount("")
					require.NoError(t, err)
					b, err := findBinaries(t.Context(), config, acct)
					require.NoError(t, err)
					content = strconv.Itoa(b.version / 10000)
				}
				require.NoError(t, os.WriteFile(filepath.Join(config.DataDir, file), []byte(content), 0o644))
			}
			_, err := Start(t.Context(), config)
			require.ErrorContains(t, err, test.want)
			require.ErrorContains(t, err, config.DataDir)
			for file := range test.files {
				require.FileExists(t, filepath.Join(config.DataDir, file))
			}
		})
	}
}

func TestFailedStartShowsTheLogAndLeavesNothing(t *testing.T) {
	t.Parallel()
	config := testConfig("")
	config.Settings = map[string]string{"no_such_setting": "on"}
	_, err := Start(t.Context(), config)
	require.ErrorContains(t, err, `unrecognized configuration parameter "no_such_setting"`)
	dir, _, found := strings.Cut(err.Error()[strings.Index(err.Error(), " in /")+4:], "/data")
	require.True(t, found)
	require.NoError(t, gone(dir))
}

func TestCancelledStartLeavesNothing(t *testing.T) {
	t.Parallel()
	dataDir := dataDirFor(t)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond) // ends during initdb
	defer cancel()
	_, err := Start(ctx, testConfig(dataDir))
	require.Error(t, err)
	entries, err := os.ReadDir(dataDir)
	if !errors.Is(err, os.ErrNotExist) {
		require.NoError(t, err)
		require.Empty(t, entries)
	}
}

func TestAStartThatIsCancelledEarlyDownloadsNothing(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	cancel(enough)
	_, err := Start(ctx, Config{})
	require.ErrorIs(t, err, enough)
	require.NotContains(t, err.Error(), "download")
}

func TestServersStartInDirectoriesWithOddNames(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(filepath.Dir(dataDirFor(t)), `o'n, 'e" \ $x`)
	require.NoError(t, os.Mkdir(dir, 0o700))
	acct, err := chooseAccount("")
	require.NoError(t, err)
	require.NoError(t, acct.own(dir))
	config := testConfig("")
	config.TempDir = dir
	s := start(t, config)
	require.Contains(t, s.SocketDir(), dir)
	require.Equal(t, "1", query(t, s.URL("postgres"), "select 1::text"))
}

func TestTakenPortIsAnErrorWhenAskedForAndAvoidedOtherwise(t *testing.T) {
	t.Parallel()
	first := start(t, testConfig(""))
	config := testConfig("")
	config.Port = first.Port()
	_, err := Start(t.Context(), config)
	require.ErrorContains(t, err, "Address already in use")
	require.NotEqual(t, first.Port(), start(t, testConfig("")).Port())
}

func TestNothingIsLeftWhenTheProcessIsKilled(t *testing.T) {
	t.Parallel()
	for name, kept := range map[string]bool{"temporary": false, "kept": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dataDir := ""
			if kept {
				dataDir = dataDirFor(t)
			}
			child, line := startHelper(t, dataDir)
			fields := strings.Fields(line)
			require.Len(t, fields, 4)
			pid, err := strconv.Atoi(fields[0])
			require.NoError(t, err)
			data, sockets, url := fields[1], fields[2], fields[3]
			execute(t, url, "create table kept as select 42 as n")

			require.NoError(t, child.Kill())

			eventually(t, func() error { return ended(pid) })
			eventually(t, func() error { return gone(filepath.Dir(sockets)) })
			if !kept {
				require.NoError(t, gone(data))
				return
			}
			require.NoError(t, gone(filepath.Join(data, "postmaster.pid")))
			again := start(t, testConfig(dataDir))
			require.Equal(t, "42", query(t, again.URL("postgres"), "select n::text from kept"))
			log, err := os.ReadFile(again.LogFile())
			require.NoError(t, err)
			require.NotContains(t, string(log), "not properly shut down")
		})
	}
}

func TestNothingIsLeftWhenTheProcessIsKilledDuringInitdb(t *testing.T) {
	t.Parallel()
	temp := filepath.Dir(dataDirFor(t))
	require.NoError(t, os.Chmod(temp, 0o777))
	cmd := helperCommand(t, "")
	cmd.Env = append(cmd.Env, "TMPDIR="+temp, helperCache+"="+t.TempDir())
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	eventually(t, func() error {
		if found, err := filepath.Glob(filepath.Join(temp, "rowhook-pg-*", "data", "base")); err != nil || len(found) == 0 {
			return errors.New("initdb hasn't begun")
		}
		return nil
	})
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	eventually(t, func() error {
		if found, err := filepath.Glob(filepath.Join(temp, "*")); err != nil || len(found) != 0 {
			return fmt.Errorf("left: %v", found)
		}
		return nil
	})
}

func TestCtrlCDoesNotReachPostgres(t *testing.T) {
	t.Parallel()
	cmd := helperCommand(t, "")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	pid, err := strconv.Atoi(strings.Fields(line)[0])
	require.NoError(t, err)

	group, err := syscall.Getpgid(pid)
	require.NoError(t, err)
	require.NotEqual(t, cmd.Process.Pid, group)
	// Signal the whole process group, like a terminal. The watchdog must survive that to clean up.
	require.NoError(t, syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL))
	_ = cmd.Wait()
	eventually(t, func() error { return ended(pid) })
}

func helperCommand(t *testing.T, dataDir string) *exec.Cmd {
	t.Helper()
	executable, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(executable)
	cmd.Env = append(os.Environ(), helperEnv+"="+dataDir)
	return cmd
}

func startHelper(t *testing.T, dataDir string) (*os.Process, string) {
	t.Helper()
	cmd := helperCommand(t, dataDir)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err, stderr.String())
	return cmd.Process, line
}

func TestVersionsAreReadAsServerVersionNum(t *testing.T) {
	t.Parallel()
	for output, want := range map[string]int{
		"postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n": 150018,
		"postgres (PostgreSQL) 18.4\n":                           180004,
		"initdb (PostgreSQL) 19devel\n":                          190000,
		"postgres (PostgreSQL) 18beta1\n":                        180000,
	} {
		got, err := parseVersion(output)
		require.NoError(t, err)
		require.Equal(t, want, got, output)
	}
	_, err := parseVersion("bash 5.2")
	require.Error(t, err)
}

func TestUnusableBinariesAreExplained(t *testing.T) {
	t.Parallel()
	dir := filepath.Dir(dataDirFor(t))
	_, err := Start(t.Context(), Config{BinDir: dir})
	require.ErrorContains(t, err, "the PostgreSQL binaries in "+dir+" don't run")

	for _, name := range []string{"postgres", "initdb"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\necho 'postgres (PostgreSQL) 12.9'\n"), 0o755))
	}
	_, err = Start(t.Context(), Config{BinDir: dir})
	require.ErrorContains(t, err, "install version 14 or newer")

	require.NoError(t, os.Chmod(filepath.Join(dir, "initdb"), 0o600))
	_, err = Start(t.Context(), Config{BinDir: dir})
	require.ErrorContains(t, err, "can't run the PostgreSQL binaries in")
}

func TestFailedDownloadSaysWhatToInstall(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	repository := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(repository.Close)
	acct, err := chooseAccount("")
	require.NoError(t, err)
	_, err = downloadTo(t.Context(), t.TempDir(), acct, testLogger(t), repository.URL)
	require.ErrorContains(t, err, "no PostgreSQL is installed, and the download failed")
	require.ErrorContains(t, err, "install it with")
	left, err := os.ReadDir(temp)
	require.NoError(t, err)
	require.Empty(t, left)
}

func testLogger(t *testing.T) *slog.Logger {
	t.Helper()
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

// Each of them breaks a connection to the private server, or its connection string.
func TestVariablesOfOtherServersDontMatter(t *testing.T) {
	variables := map[string]string{
		"PGHOST": "nowhere.invalid", "PGHOSTADDR": "192.0.2.1", "PGPORT": "x", "PGUSER": "nobody", "PGPASSWORD": "wrong", "PGPASSFILE": "/nowhere",
		"PGDATABASE": "nowhere", "PGSERVICE": "nowhere", "PGSERVICEFILE": "/nowhere", "PGAPPNAME": "x", "PGCONNECT_TIMEOUT": "abc", "PGOPTIONS": "-c nothing=x",
		"PGTZ": "Nowhere/Land", "PGSSLMODE": "verify-full", "PGSSLKEY": "/nowhere", "PGSSLCERT": "/nowhere", "PGSSLCERTMODE": "x",
		"PGSSLROOTCERT": "/nowhere", "PGSSLPASSWORD": "x", "PGSSLSNI": "x", "PGSSLNEGOTIATION": "direct", "PGTARGETSESSIONATTRS": "standby",
		"PGMINPROTOCOLVERSION": "3.2", "PGMAXPROTOCOLVERSION": "x", "PGCHANNELBINDING": "require", "PGREQUIREAUTH": "none", "PGREQUIREPEER": "nobody",
		"PGSSLCRL": "/nowhere", "PGSSLCRLDIR": "/nowhere", "PGGSSENCMODE": "require", "PGSSLMINPROTOCOLVERSION": "x", "PGSSLMAXPROTOCOLVERSION": "x",
		"PGLOADBALANCEHOSTS": "random", "PGCLIENTENCODING": "x",
	}
	var s *Server
	t.Run("all, at the start", func(t *testing.T) {
		for variable, value := range variables {
			t.Setenv(variable, value)
		}
		var err error
		s, err = Start(t.Context(), testConfig(""))
		require.NoError(t, err)
	})
	t.Cleanup(func() { require.NoError(t, s.Stop(context.Background(), Immediate)) })
	for variable, value := range variables {
		t.Run(variable, func(t *testing.T) {
			t.Setenv(variable, value)
			config, err := session.ParsePool(s.OwnURL("template1"))
			require.NoError(t, err)
			conn, err := session.Connect(t.Context(), config.ConnConfig)
			require.NoError(t, err)
			var database, options, zone string
			require.NoError(t, conn.QueryRow(t.Context(), "select current_database(), current_setting('application_name'), source from pg_settings where name = 'TimeZone'").
				Scan(&database, &options, &zone))
			require.NoError(t, conn.Close(t.Context()))
			require.Equal(t, "template1", database)
			require.Empty(t, options)
			require.Equal(t, "configuration file", zone)
			require.Equal(t, s.URL("template1"), s.Public(s.OwnURL("template1")))
		})
	}
}

func TestAnErrorThatStaysEndsTheStart(t *testing.T) {
	t.Parallel()
	dir := dataDirFor(t)
	s := start(t, testConfig(dir))
	require.NoError(t, s.Stop(t.Context(), Fast))
	require.NoError(t, os.WriteFile(filepath.Join(dir, passwordFile), []byte("another\n"), 0o600))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := Start(ctx, testConfig(dir))
	require.ErrorContains(t, err, "it accepts no connection")
	require.ErrorContains(t, err, "password authentication failed")
}
