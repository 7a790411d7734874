//go:build unix

package child_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/rowhook/rowhook/internal/child"
)

// patience bounds what a busy machine may make slow.
const patience = time.Minute

// TestMain is also a program that runs a command, for the tests that end such a program.
func TestMain(m *testing.M) {
	script, ok := os.LookupEnv("CHILD_TEST_SCRIPT")
	if !ok {
		goleak.VerifyTestMain(m)
		return
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, child.PassedOn()...)
	code, err := child.Run(context.Background(), child.Config{
		Args: []string{"/bin/sh", "-c", script}, Env: os.Environ(), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Signals: signals, StopTimeout: time.Second,
		Started: func(int) { fmt.Println("started") },
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(99)
	}
	os.Exit(code)
}

func run(t *testing.T, config child.Config) (string, int) {
	t.Helper()
	out, err := os.CreateTemp(t.TempDir(), "")
	require.NoError(t, err)
	defer out.Close()
	config.Stdout, config.Stderr = out, out
	if config.StopTimeout == 0 {
		config.StopTimeout = patience
	}
	code, err := child.Run(t.Context(), config)
	require.NoError(t, err)
	text, err := os.ReadFile(out.Name())
	require.NoError(t, err)
	return string(text), code
}

func sh(script string, args ...string) []string {
	return append([]string{"/bin/sh", "-c", script, "sh"}, args...)
}

func TestACommandHasItsArgumentsInputAndEnvironment(t *testing.T) {
	t.Parallel()
	text, code := run(t, child.Config{
		Args: sh(`cat; printf '<%s>' "$@" "$A" "$B"`, "a b", "", "*"), Env: []string{"A=1", "B= "}, Stdin: strings.NewReader("in"),
	})
	require.Zero(t, code)
	require.Equal(t, "in<a b><><*><1>< >", text)
}

func TestTheExitCodeIsTheOneOfAShell(t *testing.T) {
	t.Parallel()
	for script, want := range map[string]int{"exit 0": 0, "exit 7": 7, "exit 255": 255, "kill -TERM $$": 143, "kill -KILL $$": 137, "kill -SEGV $$": 139} {
		_, code := run(t, child.Config{Args: sh(script)})
		require.Equal(t, want, code, script)
	}
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	require.NoError(t, os.WriteFile(plain, []byte("#!/nowhere/sh\n"), 0o600))
	for name, want := range map[string]int{
		"no-such-command-anywhere": child.NotFound, filepath.Join(dir, "nosuch"): child.NotFound, plain: child.NotExecutable, dir: child.NotExecutable,
	} {
		_, err := child.Run(t.Context(), child.Config{Args: []string{name}})
		var start *child.StartError
		require.ErrorAs(t, err, &start)
		require.Equal(t, want, start.Code, "%s: %s", name, err)
		require.Contains(t, err.Error(), name)
	}
	require.NoError(t, os.Chmod(plain, 0o700))
	_, err := child.Run(t.Context(), child.Config{Args: []string{plain}})
	var start *child.StartError
	require.ErrorAs(t, err, &start)
}

// alive reports whether any process has the mark in its command line.
func alive(t *testing.T, mark string) []string {
	t.Helper()
	out, err := exec.Command("ps", "-axww", "-o", "pid=,stat=,command=").Output()
	require.NoError(t, err)
	var found []string
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, mark) && !strings.Contains(line, "<defunct>") {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

// unusual is a number of seconds that no other sleep on this machine has.
func unusual(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("%d.%d", 7000+os.Getpid()%1000, time.Now().UnixNano())
}

// hiding are ways in which a process can leave the command that has started it.
func hiding(seconds string) map[string]string {
	return map[string]string{
		"in the background":              "sleep " + seconds + " &",
		"in a session of its own":        "setsid sleep " + seconds + " &",
		"as an orphan":                   "(sleep " + seconds + " &)",
		"in a group, deaf to TERM":       "setsid sh -c 'trap \"\" TERM; sleep " + seconds + "; sleep " + seconds + "' &",
		"with an environment of its own": "env -i sh -c 'sleep " + seconds + "; true' &",
		"stopped":                        "sleep " + seconds + " & kill -STOP $!",
	}
}

func TestNothingThatTheCommandHasStartedOutlivesIt(t *testing.T) {
	t.Parallel()
	for name, script := range hiding("SECONDS") {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seconds := unusual(t)
			script := strings.ReplaceAll(script, "SECONDS", seconds)
			_, code := run(t, child.Config{Args: sh(script + "\nsleep 0.2; exit 3"), Env: os.Environ(), StopTimeout: 300 * time.Millisecond})
			require.Equal(t, 3, code)
			require.Empty(t, alive(t, seconds))
		})
	}
}

func TestTheCommandIsKilledWhenItDoesNotEndInTime(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	seconds := unusual(t)
	code, err := child.Run(ctx, child.Config{
		Args: sh("trap '' TERM; sleep " + seconds + "; sleep " + seconds), Env: os.Environ(), StopTimeout: 50 * time.Millisecond, Started: func(int) { cancel() },
	})
	require.NoError(t, err)
	require.Contains(t, []int{137, 143}, code, "143: it got the signal before it could ignore it")
	require.Empty(t, alive(t, seconds))
}

// program is this test's program, with a command that it runs.
type program struct {
	*exec.Cmd
	lines *bufio.Scanner
}

func startProgram(t *testing.T, script string, env ...string) *program {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), "CHILD_TEST_SCRIPT="+script), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // no terminal
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return &program{cmd, bufio.NewScanner(out)}
}

func (p *program) line(t *testing.T) string {
	t.Helper()
	require.True(t, p.lines.Scan(), "the program ended")
	return p.lines.Text()
}

// ready waits until the command has said ready, and the program knows that it has started.
func (p *program) ready(t *testing.T) {
	t.Helper()
	require.ElementsMatch(t, []string{"started", "ready"}, []string{p.line(t), p.line(t)})
}

func (p *program) code(t *testing.T) int {
	t.Helper()
	err := p.Wait()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return exit.ExitCode()
	}
	require.NoError(t, err)
	return 0
}

func TestSignalsArePassedOn(t *testing.T) {
	t.Parallel()
	for s, name := range map[syscall.Signal]string{syscall.SIGINT: "INT", syscall.SIGTERM: "TERM", syscall.SIGHUP: "HUP", syscall.SIGUSR1: "USR1", syscall.SIGQUIT: "QUIT"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startProgram(t, "trap 'echo got' "+name+"; trap 'exit 9' USR2; echo ready; while :; do sleep 0.01; done")
			p.ready(t)
			require.NoError(t, p.Process.Signal(s))
			require.Equal(t, "got", p.line(t))
			require.NoError(t, p.Process.Signal(syscall.SIGUSR2))
			require.False(t, p.lines.Scan(), "%s came twice", name)
			require.Equal(t, 9, p.code(t))
		})
	}
}

func TestACommandEndsWithTheProgramThatIsKilled(t *testing.T) {
	t.Parallel()
	for name, script := range hiding("SECONDS") {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seconds := unusual(t)
			p := startProgram(t, strings.ReplaceAll(script, "SECONDS", seconds)+"\necho ready; sleep "+seconds+"; sleep "+seconds)
			p.ready(t)
			require.NoError(t, p.Process.Kill())
			require.Equal(t, -1, p.code(t))
			require.Eventually(t, func() bool { return len(alive(t, seconds)) == 0 }, patience, 50*time.Millisecond, "%v", alive(t, seconds))
		})
	}
}

func TestTheGuardNeedsNoPATH(t *testing.T) {
	t.Parallel()
	setsid, err := exec.LookPath("setsid")
	if err != nil {
		t.Skip("needs setsid")
	}
	sleep, err := exec.LookPath("sleep")
	require.NoError(t, err)
	for _, path := range []string{"", "/nowhere"} {
		seconds := unusual(t)
		p := startProgram(t, "("+setsid+" "+sleep+" "+seconds+" &)\necho ready; "+sleep+" "+seconds+"; true", "PATH="+path)
		p.ready(t)
		require.NoError(t, p.Process.Kill())
		require.Equal(t, -1, p.code(t))
		require.Eventually(t, func() bool { return len(alive(t, seconds)) == 0 }, patience, 50*time.Millisecond, "%v", alive(t, seconds))
	}
}

func TestTheFileIsRemovedWithTheGuardUnlessItIsAnothers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, replaced := range map[string]bool{"a name with  spaces ": false, "other": true} {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, nil, 0o600))
		info, err := os.Stat(path)
		require.NoError(t, err)
		g, err := child.StartGuard()
		require.NoError(t, err)
		g.Remove(path, info)
		if replaced {
			require.NoError(t, os.WriteFile(path+".new", nil, 0o600))
			require.NoError(t, os.Rename(path+".new", path))
		}
		require.NoError(t, g.Abandon())
		_, err = os.Stat(path)
		require.Equal(t, replaced, err == nil)
	}
}
