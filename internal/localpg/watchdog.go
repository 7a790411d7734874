package localpg

import (
	_ "embed"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"sync"
)

//go:embed watchdog.sh
var watchdogScript string

// watchdog is a shell in a session of its own that outlives this process and then ends PostgreSQL and removes what is temporary. It
// runs as PostgreSQL's user, and is started before there is anything to clean up but an empty directory.
type watchdog struct {
	cmd *exec.Cmd

	mu   sync.Mutex
	pipe io.WriteCloser // nil once closed; the operating system closes it when this process ends, however it ends
}

func startWatchdog(l layout, acct account) (*watchdog, error) {
	signal := "QUIT"
	if l.kept {
		signal = "INT" // a clean shutdown
	}
	script := filepath.Join(l.temp, "watchdog.sh") // a file, as the text itself would fill the lists of processes
	if err := l.write(script, watchdogScript); err != nil {
		return nil, err
	}
	cmd := exec.Command("/bin/sh", script, l.data, l.temp, signal) //nolint:noctx // it must outlive any context
	cmd.Dir = "/"
	cmd.Env = environment()
	cmd.SysProcAttr = acct.attributes(ownSession)
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start the watchdog: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the watchdog: %w", err)
	}
	return &watchdog{cmd: cmd, pipe: pipe}, nil
}

// note tells the watchdog what runs from now on: "starting", "postmaster PID", "initdb PID" or "stopped". A watchdog that someone
// killed can't be told; the server works without it.
func (w *watchdog) note(state string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pipe != nil {
		_, _ = io.WriteString(w.pipe, state+"\n")
	}
}

// stop ends the watchdog. It is called when the server has ended and the temporary directory is gone.
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
