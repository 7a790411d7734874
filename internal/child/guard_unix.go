//go:build unix

package child

import (
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

//go:embed guard.sh
var guardScript string

// Guard is a shell in its own session, which cleans up when this process is gone.
type Guard struct {
	cmd  *exec.Cmd
	pipe io.WriteCloser // the operating system closes it whenever this process ends
}

// StartGuard starts a guard. The caller must call Dismiss.
func StartGuard() (*Guard, error) {
	script, in, err := os.Pipe() // neither a file to remove nor an argument, which would fill process lists
	if err != nil {
		return nil, fmt.Errorf("start the guard of the command: %w", err)
	}
	cmd := exec.Command("/bin/sh", "/dev/fd/3") //nolint:noctx // the guard must outlive any context
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"} // without the variable that tells the command's processes
	cmd.ExtraFiles = []*os.File{script}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	g := &Guard{cmd: cmd}
	if g.pipe, err = cmd.StdinPipe(); err == nil {
		err = cmd.Start()
	}
	_ = script.Close()
	if err == nil {
		_, err = io.WriteString(in, guardScript)
	}
	err = errors.Join(err, in.Close())
	if err != nil {
		return nil, fmt.Errorf("start the guard of the command: %w", err)
	}
	return g, nil
}

// Remove has the guard remove the file if this process is gone.
func (g *Guard) Remove(path string, info os.FileInfo) {
	if status, ok := info.Sys().(*syscall.Stat_t); ok {
		g.note("inode " + strconv.FormatUint(status.Ino, 10))
		g.note("file " + path)
	}
}

// note tells the guard something. It ignores the error of a killed guard: all works without one.
func (g *Guard) note(line string) { _, _ = io.WriteString(g.pipe, line+"\n") }

// sweep has the guard end what is left of the command, which has ended itself.
func (g *Guard) sweep(grace time.Duration) error {
	g.note("root ") // another process may get the id
	g.note("grace " + strconv.Itoa(int(grace/(100*time.Millisecond))))
	return g.wait()
}

// Dismiss ends the guard.
func (g *Guard) Dismiss() error {
	g.note("done")
	return g.wait()
}

func (g *Guard) wait() error {
	err := g.pipe.Close()
	if waitErr := g.cmd.Wait(); waitErr != nil {
		return fmt.Errorf("end what the command left behind: %w", waitErr)
	}
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}
