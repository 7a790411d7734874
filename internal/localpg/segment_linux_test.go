package localpg

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// segmentOf returns an error while there is System V shared memory that a process has made.
func segmentOf(pid int) error {
	table, err := os.ReadFile("/proc/sysvipc/shm")
	if err != nil {
		return err
	}
	for line := range bytes.Lines(table) {
		if fields := bytes.Fields(line); len(fields) > 4 && string(fields[4]) == strconv.Itoa(pid) {
			return fmt.Errorf("there is shared memory of process %d: %s", pid, line)
		}
	}
	return nil
}

func TestAKilledPostmasterLeavesNoSharedMemory(t *testing.T) {
	t.Parallel()
	t.Run("stopped", func(t *testing.T) {
		t.Parallel()
		s, err := Start(t.Context(), testConfig(""))
		require.NoError(t, err)
		require.Equal(t, "mmap", query(t, s.URL("postgres"), "show dynamic_shared_memory_type"))
		pid, exited := s.PID(), s.Exited()
		require.Error(t, segmentOf(pid))
		require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
		<-exited
		require.NoError(t, s.Stop(t.Context(), Fast))
		eventually(t, func() error { return segmentOf(pid) }) // its children detach from it
	})
	t.Run("by the watchdog", func(t *testing.T) {
		t.Parallel()
		child, line := startHelper(t, "")
		pid, err := strconv.Atoi(strings.Fields(line)[0])
		require.NoError(t, err)
		require.Error(t, segmentOf(pid))
		require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
		require.NoError(t, child.Kill())
		eventually(t, func() error { return segmentOf(pid) })
	})
}
