//go:build unix

package child

import (
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestASignalThatComesTwiceIsPassedOnOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var sent []os.Signal
		r := &run{last: map[os.Signal]time.Time{}, send: func(s os.Signal) { sent = append(sent, s) }}
		require.True(t, r.pass(syscall.SIGINT), "from a program, it asks for the end")
		require.False(t, r.pass(syscall.SIGINT), "a wrapper has passed it on, too")
		require.True(t, r.pass(syscall.SIGTERM))
		require.False(t, r.pass(syscall.SIGUSR1))
		<-time.After(sameSignal)
		require.True(t, r.pass(syscall.SIGINT), "the user is impatient")
		require.Equal(t, []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGINT}, sent)

		sent = nil
		<-time.After(sameSignal)
		r.witness = &witness{died: make(chan struct{})}
		close(r.witness.died)
		r.ended = make(chan struct{})
		require.False(t, r.pass(syscall.SIGINT), "Ctrl-C at the terminal need not end the command")
		require.Empty(t, sent, "the command has it from the terminal")
		r.witness.dismiss()
	})
}
