//go:build unix

package main

import "syscall"

// The signals that stop a process and let it continue.
const (
	standStill = syscall.SIGSTOP
	goOn       = syscall.SIGCONT
)
