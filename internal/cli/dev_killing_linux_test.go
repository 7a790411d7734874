package cli_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// killingsVariable is the number of killings; by default each way is tried once.
const killingsVariable = "ROWHOOK_TEST_KILLINGS"

// killing is a way to end rowhook dev.
type killing struct {
	name     string
	terminal bool
	shell    bool // a shell is the parent
	do       func(t *testing.T, v *victim)
}

// victim is a rowhook dev with a command, and its parent or its terminal.
type victim struct {
	*process
	terminal *terminal
	dir      string // its temporary directory, which is in the environment of all its processes
}

// killings returns the ways. The process that was started is the shell, if there is one.
func killings() []killing {
	send := func(s syscall.Signal) func(*testing.T, *victim) {
		return func(t *testing.T, v *victim) { t.Helper(); v.signal(t, s) }
	}
	return []killing{
		{name: "SIGTERM to dev", do: send(syscall.SIGTERM)},
		{name: "SIGINT to dev", do: send(syscall.SIGINT)},
		{name: "SIGHUP to dev", do: send(syscall.SIGHUP)},
		{name: "SIGKILL to dev", do: send(syscall.SIGKILL)},
		{name: "SIGTERM to the parent", shell: true, do: send(syscall.SIGTERM)},
		{name: "SIGKILL to the parent", shell: true, do: send(syscall.SIGKILL)},
		{name: "SIGKILL to the command", do: func(t *testing.T, v *victim) {
			t.Helper()
			for _, pid := range processesOf(t, v.dir) {
				if line := commandLine(pid); strings.HasPrefix(line, "sh -c : the command") {
					_ = syscall.Kill(pid, syscall.SIGKILL)
				}
			}
		}},
		{name: "the terminal of dev", terminal: true, do: func(_ *testing.T, v *victim) { v.terminal.close() }},
		{name: "the terminal of the parent", terminal: true, shell: true, do: func(_ *testing.T, v *victim) { v.terminal.close() }},
		{name: "Ctrl-C at the terminal", terminal: true, shell: true, do: func(t *testing.T, v *victim) { t.Helper(); v.terminal.write(t, "\x03") }},
		{name: "SIGKILL to the group of the terminal", terminal: true, shell: true, do: func(_ *testing.T, v *victim) {
			_ = syscall.Kill(-v.cmd.Process.Pid, syscall.SIGKILL)
		}},
	}
}

// TestKillingsLeaveNothingBehind kills rowhook dev when its command runs, and at a random moment of
// its start. The command has started processes that try to stay.
func TestKillingsLeaveNothingBehind(t *testing.T) {
	t.Parallel()
	ways := killings()
	n := len(ways)
	if text := os.Getenv(killingsVariable); text != "" {
		var err error
		n, err = strconv.Atoi(text)
		require.NoError(t, err)
	}
	for i := range n {
		way := ways[i%len(ways)]
		early := i%3 == 2 && way.name != "SIGKILL to the command"
		t.Run(fmt.Sprintf("%d %s", i, way.name), func(t *testing.T) {
			t.Parallel()
			v := newVictim(t, way)
			if early {
				if way.shell {
					// Whose parent has ended before it begins has no way to know that it had another.
					require.Eventually(t, func() bool { return len(entries(t, v.dir)) > 0 }, patience, time.Millisecond)
				}
				<-time.After(time.Duration(rand.IntN(1000)) * time.Millisecond)
			} else {
				v.stdout.waitFor(t, "READY")
			}
			way.do(t, v)
			_ = v.cmd.Wait()
			require.Eventually(t, func() bool { return len(processesOf(t, v.dir)) == 0 }, patience, 20*time.Millisecond, "%v", v.left(t))
			require.Eventually(t, func() bool { return len(entries(t, v.dir)) == 0 }, patience, 20*time.Millisecond, "%v", v.left(t))
		})
	}
}

func newVictim(t *testing.T, way killing) *victim {
	t.Helper()
	dir := filepath.Dir(dataDir(t))
	args := []string{"dev", "--ready-file", filepath.Join(dir, "ready.json"), "--stop-timeout", "1s", "--", "sh", "-c", ": the command\n" +
		"sleep 7001 &\n(setsid sleep 7002 &)\nsetsid sh -c 'trap \"\" TERM HUP INT; sleep 7003; sleep 7004' &\nenv -i sh -c 'sleep 7005; true' &\n" +
		"sleep 0.1; echo READY; sleep 7006; sleep 7007"}
	var p *process
	if way.shell {
		p = shell(t, "sh", "ROWHOOK; exit $?", args...)
	} else {
		p = prepare(t, postgresBin(), args...)
	}
	p.cmd.Dir = dir
	p.cmd.Env = append(p.cmd.Env, "TMPDIR="+dir, "PATH="+os.Getenv("PATH")+":"+dir)
	v := &victim{process: p, dir: dir}
	if way.terminal {
		v.terminal = onTerminal(t, p)
		return v
	}
	// Descendants may hold the output after the end; a file has nobody wait for them.
	out, err := os.CreateTemp(t.TempDir(), "")
	require.NoError(t, err)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	require.NoError(t, p.cmd.Start())
	follow(t, out.Name(), p.stdout)
	return v
}

// follow copies what is written to a file until the test ends.
func follow(t *testing.T, path string, to *output) {
	t.Helper()
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		in, err := os.Open(path)
		if err != nil {
			return
		}
		defer in.Close()
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			buffer := make([]byte, 4096)
			if n, _ := in.Read(buffer); n > 0 {
				_, _ = to.Write(buffer[:n])
				continue
			}
			select {
			case <-done:
				return
			case <-tick.C:
			}
		}
	}()
	t.Cleanup(func() { close(done); <-ended })
}

// left describes what is left.
func (v *victim) left(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, pid := range processesOf(t, v.dir) {
		fmt.Fprintf(&b, "%d %s\n", pid, commandLine(pid))
	}
	return b.String() + strings.Join(entries(t, v.dir), "\n")
}

func entries(t *testing.T, dir string) []string {
	t.Helper()
	found, err := os.ReadDir(dir)
	if err != nil {
		t.Error(err)
	}
	var names []string
	for _, e := range found {
		names = append(names, e.Name())
	}
	return names
}

// processesOf returns the processes that have the directory in their environment or their arguments,
// or work in it.
func processesOf(t *testing.T, dir string) []int {
	t.Helper()
	all, err := os.ReadDir("/proc")
	if err != nil {
		t.Error(err)
	}
	var found []int
	for _, e := range all {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		environ, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		cwd, _ := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
		if bytes.Contains(environ, []byte(dir)) || strings.HasPrefix(cwd, dir) || strings.Contains(commandLine(pid), dir) {
			found = append(found, pid)
		}
	}
	return found
}

func commandLine(pid int) string {
	line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return strings.ReplaceAll(string(line), "\x00", " ")
}

func lookUp(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skip("needs " + name)
	}
	return path
}
