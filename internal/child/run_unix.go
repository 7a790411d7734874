//go:build unix

package child

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Ending returns the signals that ask a program to end. A hangup does not if it is ignored, as nohup
// has it.
func Ending() []os.Signal {
	if signal.Ignored(syscall.SIGHUP) {
		return []os.Signal{syscall.SIGINT, syscall.SIGTERM}
	}
	return []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP}
}

// PassedOn returns the signals that a command should get if this process gets them.
func PassedOn() []os.Signal {
	return append(Ending(), syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
}

// run is a command that runs.
type run struct {
	config  Config
	cmd     *exec.Cmd
	guard   *Guard
	witness *witness // nil: the command has a process group of its own
	ended   chan struct{}
	last    map[os.Signal]time.Time // when each signal came
	send    func(os.Signal)
}

// Run runs the command, and returns its exit code: 128 and the number of the signal if a signal
// ended it. When ctx ends, the command gets SIGTERM. Processes that the command leaves behind are
// ended before Run returns. An error says why the command could not be run.
func Run(ctx context.Context, config Config) (code int, err error) {
	path, err := Find(config.Args[0])
	if err != nil {
		return 0, err
	}
	r := &run{config: config, ended: make(chan struct{}), last: map[os.Signal]time.Time{}}
	r.send = r.signal
	if r.guard, err = StartGuard(); err != nil {
		return 0, err
	}
	id := rand.Text()
	r.guard.note("id " + id)
	if err := r.start(path, id); err != nil {
		return 0, errors.Join(err, r.guard.Dismiss())
	}
	defer r.witness.dismiss()
	if config.Started != nil {
		config.Started(r.cmd.Process.Pid)
	}
	r.wait(ctx)
	return exitCode(r.cmd.ProcessState), r.guard.sweep(config.StopTimeout)
}

func (r *run) start(path, id string) error {
	r.cmd = exec.Command(path, r.config.Args[1:]...) //nolint:noctx // it is told to end before it is killed
	r.cmd.Args[0] = r.config.Args[0]
	r.cmd.Env = withID(r.config.Env, id)
	r.cmd.Stdin, r.cmd.Stdout, r.cmd.Stderr = r.config.Stdin, r.config.Stdout, r.config.Stderr
	r.cmd.WaitDelay = time.Second // where these are not files, descendants may hold the pipes
	// With a terminal, the command stays in this process's group. So Ctrl-C and Ctrl-Z of the
	// terminal reach both, the shell's fg and bg, too, and the command may read from the terminal.
	shared := hasTerminal()
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: !shared}
	if shared {
		r.witness = newWitness() // before the command, so that no signal reaches only that
	}
	if err := r.cmd.Start(); err != nil {
		r.witness.dismiss()
		return &StartError{NotExecutable, errors.New(path + " can't be executed: " + reason(err).Error())}
	}
	pid := strconv.Itoa(r.cmd.Process.Pid)
	r.guard.note("root " + pid)
	if !shared {
		r.guard.note("group " + pid)
	}
	go func() {
		defer close(r.ended)
		_ = r.cmd.Wait() // ProcessState says how it ended
	}()
	return nil
}

// withID returns the environment with the variable that tells the command's processes.
func withID(env []string, id string) []string {
	out := make([]string, 0, len(env)+1)
	for _, entry := range env {
		if outer, ok := strings.CutPrefix(entry, IDVariable+"="); ok {
			id = outer + "," + id
			continue
		}
		out = append(out, entry)
	}
	return append(out, IDVariable+"="+id)
}

// hasTerminal reports whether this process has a controlling terminal.
func hasTerminal() bool {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	_ = tty.Close()
	return true
}

// wait passes signals on until the command has ended. Once the command was told to end, it has
// StopTimeout.
func (r *run) wait(ctx context.Context) {
	var kill <-chan time.Time
	deadline := func() {
		if kill == nil {
			kill = time.After(r.config.StopTimeout)
		}
	}
	done := ctx.Done()
	for {
		select {
		case <-r.ended:
			return
		case <-done:
			done = nil
			r.send(syscall.SIGTERM)
			deadline()
		case s := <-r.config.Signals:
			if r.pass(s) {
				deadline()
			}
		case <-kill:
			_ = r.cmd.Process.Kill()
			<-r.ended
			return
		}
	}
}

// sameSignal is the time within which two signals of a kind count as one. A terminal sends Ctrl-C to
// its whole foreground group, and a program that started this one may pass it on once more.
const sameSignal = 200 * time.Millisecond

// pass passes a signal on, unless the command has it already. It reports whether the command has to
// end now. The terminal's Ctrl-C does not say that: an interpreter ends its input's line by it.
func (r *run) pass(s os.Signal) (end bool) {
	now := time.Now()
	if now.Sub(r.last[s]) < sameSignal {
		return false
	}
	r.last[s] = now
	toGroup := r.witness.saw(r.ended)
	if !toGroup {
		r.send(s)
	}
	switch s {
	case syscall.SIGTERM, syscall.SIGHUP:
		return true
	case syscall.SIGINT, syscall.SIGQUIT:
		return !toGroup
	}
	return false
}

// signal sends the command a signal. Ctrl-C and Ctrl-\ go to its group, as from a terminal.
func (r *run) signal(s os.Signal) {
	number, ok := s.(syscall.Signal)
	if !ok {
		return
	}
	if r.witness == nil && (number == syscall.SIGINT || number == syscall.SIGQUIT) {
		_ = syscall.Kill(-r.cmd.Process.Pid, number) // it fails if the command has just ended
		return
	}
	_ = r.cmd.Process.Signal(number)
	if number == syscall.SIGTERM || number == syscall.SIGHUP {
		_ = r.cmd.Process.Signal(syscall.SIGCONT) // a stopped process would not see it
	}
}

func exitCode(state *os.ProcessState) int {
	status, ok := state.Sys().(syscall.WaitStatus)
	if ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return state.ExitCode()
}
