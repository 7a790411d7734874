package process

import "syscall"

// Attributes put a child into a process group of its own. The kernel ends the child when this
// process is killed.
func Attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
