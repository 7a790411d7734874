package localpg

import (
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
)

//go:embed watchdog.sh
var watchdogScript string

// watchdog is a shell in its own session. When this process ends, it stops PostgreSQL and removes
// the temporary directory. It runs as PostgreSQL's user. It starts before there is anything to clean
// up.
type watchdog struct {
	cmd *exec.Cmd

	mu   sync.Mutex
	pipe io.WriteCloser // nil: closed; the operating system closes it whenever this process ends
}

func startWatchdog(l layout, acct account) (*watchdog, error) {
	signal := "QUIT"
	if l.kept {
		signal = "INT" // a fast shutdown, with a checkpoint
	}
	// The text comes by a pipe. As an argument it would fill process lists, and a file would be left
	// behind if this process is killed before the watchdog runs.
	script, text, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start the watchdog: %w", err)
	}
	defer script.Close()
	cmd := exec.Command("/bin/sh", "/dev/fd/3", l.data, l.temp, signal) //nolint:noctx // the watchdog must outlive any context
	cmd.Dir = "/"
	cmd.Env = environment()
	cmd.ExtraFiles = []*os.File{script}
	cmd.SysProcAttr = acct.attributes(ownSession)
	pipe, err := cmd.StdinPipe()
	if err == nil {
		err = acct.ownFile(script) // the shell opens the pipe again, as its user
	}
	if err == nil {
		err = cmd.Start()
	}
	if err == nil {
		_, err = io.WriteString(text, watchdogScript)
	}
	if err = errors.Join(err, text.Close()); err != nil {
		return nil, fmt.Errorf("start the watchdog: %w", err)
	}
	return &watchdog{cmd: cmd, pipe: pipe}, nil
}

// note tells the watchdog what runs from now on: "starting", "postmaster PID", "initdb PID" or
// "stopped". It ignores the error of a killed watchdog, because the server works without one.
func (w *watchdog) note(state string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pipe != nil {
		_, _ = io.WriteString(w.pipe, state+"\n")
	}
}

// stop ends the watchdog. Call it after the server has ended and the temporary directory is
// removed.
func (w *watchdog) stop() {
	if w == nil {
		return
	}
	w.mu.Lock()
	pipe := w.pipe
	w.pipe = nil
	w.mu.Unlock()
	if pipe != nil {
		_ = pipe.Close()
		_ = w.cmd.Wait()
	}
}
