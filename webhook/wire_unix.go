//go:build unix

package webhook

import (
	"errors"
	"io"
	"syscall"
)

// idles reports whether an idle wire is open, and its receiver has sent nothing that belongs to no
// request.
func (w *wire) idles() bool {
	err := w.raw.Control(w.probe)
	return err == nil && (errors.Is(w.probed, syscall.EAGAIN) || errors.Is(w.probed, syscall.EWOULDBLOCK))
}

func (w *wire) readOne(fd uintptr) {
	if _, w.probed = syscall.Read(int(fd), w.one[:]); w.probed == nil {
		w.probed = io.EOF // or a byte
	}
}
