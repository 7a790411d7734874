// Package process runs rowhook and other programs as children of a benchmark or test. It reads
// their logs, and asks the kernel which resources they use.
package process

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

// Process is a started program whose standard error has log lines in JSON.
type Process struct {
	name  string
	cmd   *exec.Cmd
	ready chan struct{}
	done  chan struct{}
	err   error // how it ended; set before done is closed

	mu    sync.Mutex
	tail  []string // its last log lines
	stack []string // what it printed at SIGQUIT
	bad   int      // log lines of warnings and errors
	worst []string // the first of these
}

// Command says which program to start, and how.
type Command struct {
	Name string // in messages
	Path string
	Args []string
	Env  []string  // beside those that every program needs
	Log  io.Writer // a copy of the log; optional
}

const (
	tailLines  = 20 // log lines that are kept to explain a failure
	worstLines = 3  // warnings and errors that are kept

	// quits is the line with which a Go program begins to print its goroutines at SIGQUIT.
	quits      = "SIGQUIT: quit"
	stackLines = 50_000 // of them that are kept
)

// expectedWarning is how the warning about a backlog begins. Benchmarks and tests make many
// backlogs.
const expectedWarning = "falling behind"

// environment returns the variables that every program needs, and the given ones.
func (c *Command) environment() (all []string) {
	for _, v := range []string{"PATH", "HOME", "TMPDIR", "GOGC", "GOMEMLIMIT", "GODEBUG"} {
		if value, ok := os.LookupEnv(v); ok {
			all = append(all, v+"="+value)
		}
	}
	return append(all, c.Env...)
}

// Output runs a program until it ends, in the same environment as Start, and returns its output. An
// error ends with the output, too.
func Output(ctx context.Context, c Command) (string, error) {
	cmd := exec.CommandContext(ctx, c.Path, c.Args...)
	cmd.Env = c.environment()
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s", c.Name, strings.Join(c.Args, " "), err, out)
	}
	return string(out), err
}

// Start starts a program with the given variables and those that every program needs.
func Start(c Command) (*Process, error) {
	cmd := exec.Command(c.Path, c.Args...) //nolint:noctx // Stop ends it
	cmd.Env = c.environment()
	cmd.SysProcAttr = Attributes()
	out, err := cmd.StderrPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Name, err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Name, err)
	}
	child := &Process{name: c.Name, cmd: cmd, ready: make(chan struct{}), done: make(chan struct{})}
	go func() {
		child.read(out, c.Log)
		child.err = cmd.Wait()
		close(child.done)
	}()
	return child, nil
}

// read reads the log.
func (c *Process) read(out io.Reader, log io.Writer) {
	in := bufio.NewScanner(out)
	in.Buffer(nil, 1<<20)
	isReady := false
	for in.Scan() {
		line := in.Text()
		if log != nil {
			_, _ = io.WriteString(log, line+"\n") // a copy for people
		}
		var entry struct{ Level, Msg string }
		if json.Unmarshal([]byte(line), &entry) == nil && (entry.Msg == "ready" || strings.HasPrefix(entry.Msg, standsBy)) && !isReady {
			isReady = true
			close(c.ready)
		}
		c.mu.Lock()
		if line == quits || len(c.stack) > 0 {
			if len(c.stack) < stackLines {
				c.stack = append(c.stack, line)
			}
			c.mu.Unlock()
			continue
		}
		if entry.Level == "ERROR" || entry.Level == "WARN" && !strings.HasPrefix(entry.Msg, expectedWarning) {
			if c.bad++; len(c.worst) < worstLines {
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

// PID returns its process id.
func (c *Process) PID() int { return c.cmd.Process.Pid }

// standsBy begins what a process says of a source that another one serves. If that is so of all its sources, it has
// no dispatcher that could say "ready".
const standsBy = "standing by: "

// Ready is closed at the log line "ready", or at one that begins with standsBy.
func (c *Process) Ready() <-chan struct{} { return c.ready }

// Done is closed when the program has ended.
func (c *Process) Done() <-chan struct{} { return c.done }

// Err returns how it ended, after Done is closed; nil: with exit code 0.
func (c *Process) Err() error { return c.err }

// Signal sends a signal. It is no error if the program has ended.
func (c *Process) Signal(s os.Signal) error {
	if err := c.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s: %w", c.name, err)
	}
	return nil
}

// Log returns the last log lines, indented, to append to a message.
func (c *Process) Log() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.tail) == 0 {
		return " (it logged nothing)"
	}
	return "; its log ends with:\n  " + strings.Join(c.tail, "\n  ")
}

// Complaints returns how many warnings and errors the program logged, without those about backlogs,
// and the first ones.
func (c *Process) Complaints() (n int, first []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bad, append([]string(nil), c.worst...)
}

// WaitReady waits until Ready is closed.
func (c *Process) WaitReady(ctx context.Context, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	select {
	case <-c.ready:
		return nil
	case <-c.done:
		return fmt.Errorf("%s ended before it was ready: %w%s", c.name, OrExited(c.err), c.Log())
	case <-ctx.Done():
		return fmt.Errorf("%s was not ready within %s%s", c.name, within, c.Log())
	}
}

var errExited = errors.New("exit status 0")

// OrExited returns the error of a program that ended too early, also if it ended without one.
func OrExited(err error) error {
	if err == nil {
		return errExited
	}
	return err
}

// Stop ends the program by SIGTERM. If that takes longer than patience, Stop kills it and returns
// an error.
func (c *Process) Stop(patience time.Duration) error {
	_ = c.Signal(syscall.SIGTERM) // it may have ended
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-c.done:
		return nil
	case <-timer.C:
		c.Kill()
		return fmt.Errorf("%s did not stop within %s and was killed%s", c.name, patience, c.Log())
	}
}

// Kill ends the program by SIGKILL, and waits until it has ended.
func (c *Process) Kill() {
	_ = c.cmd.Process.Kill() // it may have ended
	<-c.done
}
