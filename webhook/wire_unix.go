//go:build unix

package webhook

import (
	"errors"
	"io"
	"syscall"
	"time"
)

// idles reports whether an idle wire is open, and its receiver has sent nothing that belongs to no
// request. until is any time to come.
func (w *wire) idles(until time.Time) bool {
	if w.conn.SetReadDeadline(until) != nil {
		return false
	}
	err := w.raw.Read(w.probe)
	return err == nil && (errors.Is(w.probed, syscall.EAGAIN) || errors.Is(w.probed, syscall.EWOULDBLOCK))
}

func (w *wire) readOne(fd uintptr) bool {
	if _, w.probed = syscall.Read(int(fd), w.one[:]); w.probed == nil {
		w.probed = io.EOF // or a byte
	}
	return true
}
