//go:build unix

package cli_test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"regexp"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
)

func TestDevNeedsNothingOfTheShellsPostgresVariables(t *testing.T) {
	t.Parallel()
	code, stdout, stderr := rowhook(t, []string{
		"PGHOST=nowhere.invalid", "PGPORT=1", "PGDATABASE=other", "PGUSER=other", "PGPASSWORD=other", "PGSERVICE=nosuch", "PGSERVICEFILE=/nowhere",
		"PGPASSFILE=/nowhere", "PGOPTIONS=-c nonsense=1", "PGSSLMODE=verify-full", "PGSSLROOTCERT=/nowhere", "PGCLIENTENCODING=LATIN1", "PGTZ=nowhere",
		"PGCONNECT_TIMEOUT=x", "PGTARGETSESSIONATTRS=standby", "PGREQUIREAUTH=gss", "PGCHANNELBINDING=require", "PGSSLNEGOTIATION=direct", "PGHOSTADDR=1.2.3.4",
		"PGREQUIREPEER=x", "PGDATA=/nowhere", "PGMINPROTOCOLVERSION=x", "PGAPPNAME=x", "DATABASE_URL=postgres://nowhere.invalid/x",
	}, "dev", "--once", "--no-download", "--postgres-bin", os.Getenv(pgtest.EnvBinDir))
	require.Zero(t, code, "%s%s", stdout, stderr)
}

var devPort = regexp.MustCompile(`postgres://[^\s]*127\.0\.0\.1:(\d+)`)

// TestDevAndItsPostgresEndWithWhoeverStartedThem ends the process that was started, in each way
// that there is.
func TestDevAndItsPostgresEndWithWhoeverStartedThem(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		command []string
		signal  syscall.Signal
	}{
		"scripts/dev by SIGTERM": {[]string{"scripts/dev"}, syscall.SIGTERM},
		"scripts/dev by SIGKILL": {[]string{"scripts/dev"}, syscall.SIGKILL},
		"go run by SIGTERM":      {[]string{"go", "run", ".", "dev"}, syscall.SIGTERM},
		"go run by SIGKILL":      {[]string{"go", "run", ".", "dev"}, syscall.SIGKILL},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out := &output{changed: make(chan struct{})}
			args := append(c.command[1:], "--no-download", "--postgres-bin", os.Getenv(pgtest.EnvBinDir))
			cmd := exec.CommandContext(context.WithoutCancel(t.Context()), c.command[0], args...)
			cmd.Dir, cmd.Stdout, cmd.Stderr = "../..", out, out
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			require.NoError(t, cmd.Start())
			t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
			require.Eventually(t, func() bool { return devPort.MatchString(out.String()) }, 3*patience, 50*time.Millisecond, "%v", out)
			address := "127.0.0.1:" + devPort.FindStringSubmatch(out.String())[1]
			require.NoError(t, dial(t, address))
			require.NoError(t, cmd.Process.Signal(c.signal))
			ended := make(chan struct{})
			go func() { defer close(ended); _ = cmd.Wait() }() // as long as anyone may write to its output
			select {
			case <-ended:
			case <-time.After(patience):
				require.FailNow(t, "rowhook dev goes on", "%v", out)
			}
			require.Eventually(t, func() bool { return dial(t, address) != nil }, patience, 50*time.Millisecond, "its Postgres goes on")
		})
	}
}

func dial(t *testing.T, address string) error {
	t.Helper()
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(t.Context(), "tcp", address)
	if err == nil {
		_ = conn.Close()
	}
	return err
}
