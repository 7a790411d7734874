package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// child is a program that the benchmark started, whose standard error is JSON log lines.
type child struct {
	name  string
	cmd   *exec.Cmd
	ready chan struct{} // closed at the log line "ready"
	done  chan struct{} // closed when it has ended
	err   error         // how; set before done is closed

	mu   sync.Mutex
	tail []string // its last log lines
	bad  int      // log lines of warnings and errors

	worst []string // the first of those
}

// tailLines is how many log lines are kept to explain a failure.
const tailLines = 20

// expectedWarning begins what a dispatcher says of a backlog, of which the benchmark makes many.
const expectedWarning = "falling behind"

// startChild starts a program with only the given variables and those that programs need.
func startChild(name, path string, args []string, env ...string) (*child, error) {
	cmd := exec.Command(path, args...) //nolint:noctx // stop ends it
	for _, v := range []string{"PATH", "HOME", "TMPDIR", "GOGC", "GOMEMLIMIT", "GODEBUG"} {
		if value, ok := os.LookupEnv(v); ok {
			cmd.Env = append(cmd.Env, v+"="+value)
		}
	}
	cmd.Env = append(cmd.Env, env...)
	cmd.SysProcAttr = childAttributes()
	out, err := cmd.StderrPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	c := &child{name: name, cmd: cmd, ready: make(chan struct{}), done: make(chan struct{})}
	go func() {
		c.read(out)
		c.err = cmd.Wait()
		close(c.done)
	}()
	return c, nil
}

// read takes in the log.
func (c *child) read(out io.Reader) {
	in := bufio.NewScanner(out)
	in.Buffer(nil, 1<<20)
	isReady := false
	for in.Scan() {
		line := in.Text()
		var entry struct{ Level, Msg string }
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "ready" && !isReady {
			isReady = true
			close(c.ready)
		}
		c.mu.Lock()
		if entry.Level == "ERROR" || entry.Level == "WARN" && !strings.HasPrefix(entry.Msg, expectedWarning) {
			if c.bad++; len(c.worst) < 3 {
				c.worst = append(c.worst, line)
			}
		}
		if len(c.tail) == tailLines {
			c.tail = c.tail[1:]
		}
		c.tail = append(c.tail, line)
		c.mu.Unlock()
	}
	_, _ = io.Copy(io.Discard, out)
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// log returns the last log lines, indented.
func (c *child) log() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.tail) == 0 {
		return " (it logged nothing)"
	}
	return "; its log ends with:\n  " + strings.Join(c.tail, "\n  ")
}

// waitReady waits for the log line "ready".
func (c *child) waitReady(ctx context.Context, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	select {
	case <-c.ready:
		return nil
	case <-c.done:
		return fmt.Errorf("%s ended before it was ready: %w%s", c.name, orNil(c.err), c.log())
	case <-ctx.Done():
		return fmt.Errorf("%s was not ready within %s%s", c.name, within, c.log())
	}
}

var errExited = errors.New("exit status 0")

func orNil(err error) error {
	if err == nil {
		return errExited
	}
	return err
}

// stop ends the child: by SIGTERM, and if that takes longer than patience by SIGKILL, which is an error.
func (c *child) stop(patience time.Duration) error {
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-c.done:
		return nil
	case <-timer.C:
		_ = c.cmd.Process.Kill()
		<-c.done
		return fmt.Errorf("%s did not stop within %s and was killed%s", c.name, patience, c.log())
	}
}
