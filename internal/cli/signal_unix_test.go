//go:build unix

package cli_test

import "syscall"

// What makes a process stand still, and go on.
const (
	standStill = syscall.SIGSTOP
	goOn       = syscall.SIGCONT
)

func isGone(pid int) bool { return syscall.Kill(pid, 0) == syscall.ESRCH }
