//go:build !unix

package cli_test

import (
	"os"
	"syscall"
)

// Where no signal makes a process stand still, these are none: sending them fails.
const (
	standStill = syscall.Signal(0)
	goOn       = syscall.Signal(0)
)

func isGone(pid int) bool {
	_, err := os.FindProcess(pid)
	return err != nil
}
