//go:build !unix

package main

import "syscall"

// Where no signal makes a process stand still, these are none: sending them fails.
const (
	standStill = syscall.Signal(0)
	goOn       = syscall.Signal(0)
)
