//go:build !unix

package localpg

import (
	"errors"
	"os"
	"syscall"
)

type account struct{ name string }

type isolation int

const (
	ownGroup isolation = iota
	ownSession
)

func chooseAccount(string) (account, error) {
	return account{}, errors.New("a private PostgreSQL runs only on Linux and macOS: start a server yourself and set DATABASE_URL")
}

func (a account) attributes(isolation) *syscall.SysProcAttr { return nil }

func (a account) own(...string) error { return nil }

func (a account) ownFile(*os.File) error { return nil }

func private(*os.File) error { return nil }

func (a account) canEnter(string) error { return nil }

func processAlive(int) bool { return false }

func reap(int) (ended bool, how error) { return true, errors.New("unknown") }
