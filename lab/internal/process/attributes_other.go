//go:build !linux

package process

import "syscall"

// Attributes change nothing on systems whose kernel can't end a child together with this process.
func Attributes() *syscall.SysProcAttr { return nil }
