//go:build !linux

package process

import "syscall"

// Attributes are the usual ones where the kernel can't end a child together with this process.
func Attributes() *syscall.SysProcAttr { return nil }
