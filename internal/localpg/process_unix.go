//go:build unix

package localpg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is the operating system user that runs PostgreSQL, which refuses to run as root.
type account struct {
	name     string
	uid, gid int
	drop     bool // it is not this process's user
}

// isolation says what a child process shares with this one.
type isolation int

const (
	ownGroup   isolation = iota // it does not get a Ctrl-C in the terminal
	ownSession                  // it does not get the hangup of the terminal, either
)

// chooseAccount returns this process's user unless that is root. For root it returns the owner of
// an existing data directory, or the user postgres or nobody.
func chooseAccount(dataDir string) (account, error) {
	if os.Geteuid() != 0 {
		return account{name: strconv.Itoa(os.Geteuid()), uid: os.Geteuid(), gid: os.Getegid()}, nil
	}
	if dataDir != "" {
		if info, err := os.Stat(filepath.Join(dataDir, "PG_VERSION")); err == nil {
			if owner, ok := info.Sys().(*syscall.Stat_t); ok && owner.Uid != 0 {
				return account{name: strconv.Itoa(int(owner.Uid)), uid: int(owner.Uid), gid: int(owner.Gid), drop: true}, nil
			}
		}
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uidErr := strconv.Atoi(u.Uid)
		gid, gidErr := strconv.Atoi(u.Gid)
		if uidErr == nil && gidErr == nil {
			return account{name: name, uid: uid, gid: gid, drop: true}, nil
		}
	}
	return account{}, errors.New("PostgreSQL can't run as root, and the users postgres and nobody do not exist: run as a normal user")
}

func (a account) attributes(iso isolation) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{}
	if iso == ownSession {
		attr.Setsid = true
	} else {
		attr.Setpgid = true
	}
	if a.drop {
		attr.Credential = &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}
	}
	return attr
}

// own makes the account the owner of files.
func (a account) own(paths ...string) error {
	if !a.drop {
		return nil
	}
	for _, path := range paths {
		if err := os.Chown(path, a.uid, a.gid); err != nil {
			return fmt.Errorf("change the owner of %s to %s: %w", path, a.name, err)
		}
	}
	return nil
}

// ownFile makes the account the owner of an open file or directory.
func (a account) ownFile(f *os.File) error {
	if !a.drop {
		return nil
	}
	if err := f.Chown(a.uid, a.gid); err != nil {
		return fmt.Errorf("change the owner of %s to %s: %w", f.Name(), a.name, err)
	}
	return nil
}

// private returns an error unless a file is this process's user's, and nobody else may write it.
func private(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.Mode().IsRegular():
		return errors.New("it is not a file")
	case !ok || int(stat.Uid) != os.Geteuid():
		return errors.New("it belongs to another user")
	case info.Mode().Perm()&0o022 != 0:
		return errors.New("others may write it")
	}
	return nil
}

// canEnter returns an error if the account can't change into a directory. It tries to, because
// modes, groups and access lists are hard to evaluate.
func (a account) canEnter(dir string) error {
	cmd := exec.CommandContext(context.Background(), "/bin/sh", "-c", `cd -- "$1"`, "sh", dir)
	cmd.Dir = "/"
	cmd.SysProcAttr = a.attributes(ownGroup)
	return cmd.Run()
}

// reap returns how a child process has ended, or false if it runs. After the end it may not be called
// again.
func reap(pid int) (ended bool, how error) {
	var status syscall.WaitStatus
	got, err := syscall.Wait4(pid, &status, syscall.WNOHANG, nil)
	switch {
	case got == 0 || errors.Is(err, syscall.EINTR):
		return false, nil
	case err != nil:
		return true, fmt.Errorf("wait for process %d: %w", pid, err)
	case status.Signaled():
		return true, fmt.Errorf("signal: %s", status.Signal())
	}
	return true, fmt.Errorf("exit status %d", status.ExitStatus())
}

func processAlive(pid int) bool {
	err := syscall.Kill(pid, 0)
	return err == nil || errors.Is(err, syscall.EPERM)
}
