//go:build unix

package rowhooktest_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/rowhooktest"
)

func TestTheVariableNamesTheServer(t *testing.T) {
	server := givenServer(t)
	t.Setenv(rowhooktest.ServerVariable, server)
	h := shop(t)
	order(t, h, 1)
	h.Wait(t, "order_placed")
	name, _, _ := strings.Cut(h.URL()[strings.LastIndex(h.URL(), "/")+1:], "?")
	require.Contains(t, databases(t, server, name), name)

	t.Setenv(rowhooktest.ServerVariable, "postgres://127.0.0.1:1/x")
	require.Contains(t, failure(t, func(t testing.TB) { shop(t) }), "connect to the server of the tests")
}

// whatTheKilledPrints is set in the process that TestAPrivateServerEndsWithItsProcess kills.
const whatTheKilledPrints = "ROWHOOKTEST_KILLED"

func TestAPrivateServerEndsWithItsProcess(t *testing.T) {
	t.Parallel()
	if os.Getenv(whatTheKilledPrints) != "" {
		h := shop(t)
		fmt.Printf("\nstarted %s\n", h.URL())
		<-t.Context().Done() // never: the process is killed
	}
	temp := filepath.Join("/tmp", fmt.Sprintf("rowhook-killed-%d", os.Getpid()))
	require.NoError(t, os.Mkdir(temp, 0o755))
	require.NoError(t, os.Chmod(temp, 0o777)) // the server may run as another user
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(temp)) })
	program, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(program, "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), whatTheKilledPrints+"=1", "TMPDIR="+temp, rowhooktest.ServerVariable+"=")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "started ") {
	}
	left, err := filepath.Glob(filepath.Join(temp, "*"))
	require.NoError(t, err)
	require.NotEmpty(t, left)
	require.NoError(t, cmd.Process.Signal(syscall.SIGKILL))
	require.Error(t, cmd.Wait())
	require.Eventually(t, func() bool {
		left, err := filepath.Glob(filepath.Join(temp, "*"))
		return err == nil && len(left) == 0
	}, time.Minute, 20*time.Millisecond)
}
