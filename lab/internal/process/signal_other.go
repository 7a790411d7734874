//go:build !unix

package process

import "syscall"

// On systems without these signals, sending them fails.
const (
	StandStill = syscall.Signal(0)
	GoOn       = syscall.Signal(0)
	Profile    = syscall.Signal(0)
)
