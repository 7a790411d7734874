package process_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/lab/internal/process"
)

const patience = time.Minute

func shell(t *testing.T, script string, log *bytes.Buffer) *process.Process {
	t.Helper()
	command := process.Command{Name: "the script", Path: "/bin/sh", Args: []string{"-c", script}, Env: []string{"WORD=ready"}}
	if log != nil {
		command.Log = log
	}
	c, err := process.Start(command)
	require.NoError(t, err)
	t.Cleanup(c.Kill)
	return c
}

func TestChildIsReadyAtItsLogLineAndStopsBySignal(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	c := shell(t, `echo '{"level":"WARN","msg":"odd"}' >&2; echo '{"level":"WARN","msg":"falling behind: much"}' >&2
		trap 'exit 0' TERM; echo "{\"msg\":\"$WORD\"}" >&2; while :; do sleep 0.05; done`, &log)
	require.NoError(t, c.WaitReady(t.Context(), patience))
	require.NoError(t, c.Stop(patience))
	n, first := c.Complaints()
	require.Equal(t, 1, n)
	require.Equal(t, []string{`{"level":"WARN","msg":"odd"}`}, first)
	require.Contains(t, log.String(), "falling behind")
}

func TestChildThatStandsByForAllIsReady(t *testing.T) {
	t.Parallel()
	c := shell(t, `trap 'exit 0' TERM; echo '{"msg":"working on sources"}' >&2; echo '{"msg":"standing by: another process serves the source"}' >&2
		echo '{"msg":"ready"}' >&2; while :; do sleep 0.05; done`, nil)
	require.NoError(t, c.WaitReady(t.Context(), patience))
	require.NoError(t, c.Stop(patience))
}

func TestChildThatEndsEarlySaysHow(t *testing.T) {
	t.Parallel()
	c := shell(t, "echo no luck >&2; exit 3", nil)
	err := c.WaitReady(t.Context(), patience)
	require.ErrorContains(t, err, "exit status 3")
	require.ErrorContains(t, err, "no luck")
	require.NoError(t, c.Stop(patience))
}

func TestChildThatIgnoresTheSignalIsKilled(t *testing.T) {
	t.Parallel()
	c := shell(t, `trap '' TERM; echo '{"msg":"ready"}' >&2; while :; do sleep 0.1; done`, nil)
	require.NoError(t, c.WaitReady(t.Context(), patience))
	require.ErrorContains(t, c.Stop(50*time.Millisecond), "was killed")
}

func TestUsageOfThisProcess(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/self/status"); err != nil {
		t.Log("no /proc here: usage is not measured")
		return
	}
	u := process.UsageOf(os.Getpid())
	require.Positive(t, u.Resident)
	require.GreaterOrEqual(t, u.Peak, u.Resident)
	require.Positive(t, u.Threads)
	require.Positive(t, u.Files)
	require.Positive(t, process.PeakMemory(os.Getpid()))
}

func TestStacksAreThoseOfTheModuleAndEachIsShownOnce(t *testing.T) {
	t.Parallel()
	dump := `SIGQUIT: quit
PC=0x1 m=0 sigcode=0

goroutine 0 gp=0x1 m=0 mp=0x2 [idle]:
runtime.futex(0x1, 0x2)
	/go/runtime/sys.s:557 +0x21

goroutine 7 gp=0x3 m=nil [IO wait, 2 minutes]:
net.(*conn).Read(0x1, {0x2, 0x3})
	/go/net/net.go:5 +0x1
example.com/m/a.(*T).work(...)
	/src/a/t.go:12
created by example.com/m/a.Start in goroutine 1
	/src/a/t.go:9 +0x3

goroutine 8 [IO wait]:
net.(*conn).Read(0x1, {0x9, 0x9})
	/go/net/net.go:5 +0x1
example.com/m/a.(*T).work(...)
	/src/a/t.go:12
created by example.com/m/a.Start in goroutine 1
	/src/a/t.go:9 +0x3
`
	file := filepath.Join(t.TempDir(), "dump")
	require.NoError(t, os.WriteFile(file, []byte(dump), 0o600))
	c := shell(t, `trap 'cat `+file+` >&2; exit 2' QUIT; echo '{"msg":"ready"}' >&2; while :; do sleep 0.05; done`, nil)
	require.NoError(t, c.WaitReady(t.Context(), patience))
	require.Equal(t, "2 x [IO wait] net.(*conn).Read net.go:5 < a.(*T).work t.go:12 < a.Start t.go:9", c.Stacks("example.com/m", patience))
	require.NotContains(t, c.Log(), "goroutine")
}
