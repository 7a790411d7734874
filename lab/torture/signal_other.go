//go:build !unix

package main

import "syscall"

// On systems without these signals, sending them fails.
const (
	standStill = syscall.Signal(0)
	goOn       = syscall.Signal(0)
)
