//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package access

import (
	"io/fs"
	"os"
	"syscall"
)

// modes says that the mode of a file tells who may read and write it.
const modes = true

// lock makes other writers in the same directory wait until unlock is called. The lock ends with the
// process, too.
func lock(directory string) (unlock func(), err error) {
	d, err := os.Open(directory)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(d.Fd()), syscall.LOCK_EX)
		if err != syscall.EINTR { //nolint:errorlint // it is bare
			break
		}
	}
	if err != nil {
		_ = d.Close()
		return nil, &fs.PathError{Op: "lock", Path: directory, Err: err}
	}
	return func() { _ = d.Close() }, nil // that ends the lock
}

// own gives f the owner and the group of a file.
func own(f *os.File, like os.FileInfo) error {
	want, ok := like.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	now, err := f.Stat()
	if err != nil {
		return err
	}
	if have, ok := now.Sys().(*syscall.Stat_t); ok && have.Uid == want.Uid && have.Gid == want.Gid {
		return nil
	}
	return f.Chown(int(want.Uid), int(want.Gid))
}
