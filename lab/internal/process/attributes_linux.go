package process

import "syscall"

// Attributes put a child into a process group of its own, and make the kernel end it when this process is killed.
func Attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
