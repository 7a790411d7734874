//go:build !unix

package child

import (
	"context"
	"errors"
	"os"
)

var errUnix = errors.New("a command runs only on Linux and macOS")

// Ending returns the signals that ask a program to end.
func Ending() []os.Signal { return []os.Signal{os.Interrupt} }

// PassedOn returns the signals that a command should get if this process gets them.
func PassedOn() []os.Signal { return []os.Signal{os.Interrupt} }

// Run fails: on this system nothing ends the processes that a command leaves behind.
func Run(context.Context, Config) (code int, err error) { return 0, errUnix }

// Guard does nothing on this system.
type Guard struct{}

// StartGuard fails.
func StartGuard() (*Guard, error) { return nil, errUnix }

// Remove does nothing.
func (g *Guard) Remove(string, os.FileInfo) {}

// Dismiss does nothing.
func (g *Guard) Dismiss() error { return nil }
