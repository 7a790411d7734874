//go:build unix

package process

import "syscall"

// The signals that stop a process, let it continue, and have it begin or end a profile.
const (
	StandStill = syscall.SIGSTOP
	GoOn       = syscall.SIGCONT
	Profile    = syscall.SIGUSR1
)
