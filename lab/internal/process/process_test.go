package process_test

import (
	"bytes"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/lab/internal/process"
)

const patience = 20 * time.Second

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
