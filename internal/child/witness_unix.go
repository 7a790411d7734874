//go:build unix

package child

import (
	"io"
	"os/exec"
	"time"
)

// witness is a process in this process's group that does nothing but die of a signal. It tells
// whether a signal was sent to the group, as a terminal does, or to this process alone. Only in the
// second case the command does not have the signal yet. Go does not tell who has sent a signal.
type witness struct {
	alibi io.Closer // its standard input: it ends when this process does
	died  chan struct{}
}

// testimony is how long the death of the witness may take to be seen, after a signal has come to this
// process. On a busy machine that is more than the moment that it should be.
const testimony = 500 * time.Millisecond

// newWitness starts a witness. If that fails, signals count as sent to the group.
func newWitness() *witness {
	w := &witness{died: make(chan struct{})}
	cmd := exec.Command("/bin/sh", "-c", "read -r _") //nolint:noctx // dismiss ends it
	cmd.Dir, cmd.Env = "/", []string{}
	pipe, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		close(w.died)
		return w
	}
	w.alibi = pipe
	go func() {
		defer close(w.died)
		_ = cmd.Wait()
	}()
	return w
}

// saw reports whether the witness died of the signal that has just come. Then a new one takes its
// place. It returns early if the command has ended.
func (w *witness) saw(ended <-chan struct{}) bool {
	if w == nil {
		return false
	}
	timer := time.NewTimer(testimony)
	defer timer.Stop()
	select {
	case <-w.died:
		w.dismiss()
		*w = *newWitness()
		return true
	case <-ended:
	case <-timer.C:
	}
	return false
}

func (w *witness) dismiss() {
	if w == nil {
		return
	}
	if w.alibi != nil {
		_ = w.alibi.Close()
	}
	<-w.died
}
