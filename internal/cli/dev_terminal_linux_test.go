package cli_test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// terminal is a pseudo terminal and the program that it controls.
type terminal struct {
	*process
	master *os.File
	ended  chan struct{} // what the program writes has been read
}

// onTerminal starts a program as the leader of a terminal's session.
func onTerminal(t *testing.T, p *process) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	require.NoError(t, err)
	var number, unlock int32
	ioctl(t, master, syscall.TIOCSPTLCK, &unlock)
	ioctl(t, master, syscall.TIOCGPTN, &number)
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	require.NoError(t, err)
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = slave, slave, slave
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	require.NoError(t, p.cmd.Start())
	require.NoError(t, slave.Close())
	term := &terminal{process: p, master: master, ended: make(chan struct{})}
	go func() {
		defer close(term.ended)
		buffer := make([]byte, 4096)
		for {
			n, err := master.Read(buffer)
			_, _ = p.stdout.Write(buffer[:n])
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(term.close)
	return term
}

func ioctl(t *testing.T, f *os.File, request uintptr, argument *int32) {
	t.Helper()
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), request, uintptr(unsafe.Pointer(argument)))
	require.Zero(t, errno)
	require.NoError(t, syscall.SetNonblock(int(f.Fd()), true)) // Fd made it block, so that close would not end Read
}

// close closes the terminal, as closing its window does.
func (term *terminal) close() {
	_ = term.master.Close()
	<-term.ended
}

func (term *terminal) write(t *testing.T, text string) {
	t.Helper()
	_, err := term.master.WriteString(text)
	require.NoError(t, err)
}

// shell has a shell run what rowhook dev with these flags is.
func shell(t *testing.T, name, script string, args ...string) *process {
	t.Helper()
	p := prepare(t, postgresBin(), args...)
	words := make([]string, len(p.cmd.Args))
	for i, word := range p.cmd.Args {
		words[i] = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
	}
	p.cmd.Path = lookUp(t, name)
	p.cmd.Args = []string{name, "-c", strings.ReplaceAll(script, "ROWHOOK", strings.Join(words, " "))}
	return p
}

func TestCtrlCReachesTheCommandOnceAndMayBeIgnored(t *testing.T) {
	t.Parallel()
	const command = `trap 'echo GOT $((n += 1))' INT; trap 'exit 6' TERM; echo READY; while :; do sleep 0.05; done`
	for name, interrupt := range map[string]func(*terminal){
		"at the terminal": func(term *terminal) { term.write(t, "\x03") },
		"from elsewhere":  func(term *terminal) { term.signal(t, syscall.SIGINT) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			term := onTerminal(t, prepare(t, postgresBin(), "dev", "--stop-timeout", "1m", "--", "sh", "-c", command))
			term.stdout.waitFor(t, "READY")
			interrupt(term)
			term.stdout.waitFor(t, "GOT 1")
			<-time.After(time.Second) // another one comes within that, if at all
			term.signal(t, syscall.SIGTERM)
			require.Equal(t, 6, term.exit(t))
			<-term.ended
			require.NotContains(t, term.stdout.String(), "GOT 2")
		})
	}
}

func TestCtrlZStopsDevAndItsCommandAndTheShellGoesOn(t *testing.T) {
	t.Parallel()
	p := shell(t, "bash", "set -m; ROWHOOK; echo BACK; fg; echo END $?", "dev", "--", "sh", "-c", "echo READY; read -r line; echo got $line; exit 4")
	term := onTerminal(t, p)
	term.stdout.waitFor(t, "READY")
	term.write(t, "\x1a")
	term.stdout.waitFor(t, "BACK")
	term.write(t, "hello\n")
	term.stdout.waitFor(t, "got hello")
	term.stdout.waitFor(t, "END 4")
	term.exit(t)
}
