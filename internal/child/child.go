// Package child runs a command whose life is bound to this process: the command, and everything that
// it starts, ends when the command ends, when it is told to end, and when this process is killed.
package child

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"time"
)

// IDVariable is set in the environment of a command. Its value is unique, and holds the values of
// the commands that the command runs in. Processes that have it belong to the command, also if they
// left its process group or its session.
const IDVariable = "ROWHOOK_DEV_ID"

// The exit codes of a command that could not be started, as shells return them.
const (
	NotExecutable = 126
	NotFound      = 127
)

// Config says what to run.
type Config struct {
	// Args are the program and its arguments. The program is looked up in PATH.
	Args []string
	// Env is the environment, as [os.Environ] returns one.
	Env            []string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Signals are passed on to the command. Optional.
	Signals <-chan os.Signal
	// StopTimeout is how long the command may take to end once it was told to. Then it is killed.
	StopTimeout time.Duration
	// Started is called with the command's process id. Optional.
	Started func(pid int)
}

// StartError says that the command could not be started.
type StartError struct {
	Code int // NotFound or NotExecutable
	err  error
}

func (e *StartError) Error() string { return e.err.Error() }
func (e *StartError) Unwrap() error { return e.err }

// Find returns the path of a program. The error is a *StartError.
func Find(name string) (string, error) {
	path, err := exec.LookPath(name)
	switch {
	case err == nil, errors.Is(err, exec.ErrDot): // shells run it, too
		return path, nil
	case errors.Is(err, fs.ErrPermission), isDirectory(name):
		return "", &StartError{NotExecutable, fmt.Errorf("%s can't be executed: %w; check its mode and its path", name, reason(err))}
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		return "", &StartError{NotFound, fmt.Errorf("the command %s was not found; check its path, or PATH", name)}
	}
	return "", &StartError{NotExecutable, fmt.Errorf("%s can't be executed: %w", name, reason(err))}
}

func isDirectory(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}

// reason returns the error of the operating system, without a path that the message names already.
func reason(err error) error {
	if inner, ok := errors.AsType[*exec.Error](err); ok {
		err = inner.Err
	}
	if inner, ok := errors.AsType[*fs.PathError](err); ok {
		err = inner.Err
	}
	return err
}
