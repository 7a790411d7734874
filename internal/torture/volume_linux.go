package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// volume is a small file system in memory that can be filled up.
type volume struct{ dir string }

// mountVolume makes one under a directory. It needs root.
func mountVolume(under string, megabytes int) (*volume, error) {
	dir, err := os.MkdirTemp(under, "volume-")
	if err != nil {
		return nil, fmt.Errorf("make a mount point: %w", err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm,mode=755", megabytes)); err != nil {
		return nil, errors.Join(fmt.Errorf("mount a tmpfs: %w", err), os.Remove(dir))
	}
	return &volume{dir}, nil
}

func (v *volume) ballast() string { return filepath.Join(v.dir, "ballast") }

// fill leaves no byte free.
func (v *volume) fill() (err error) {
	f, err := os.Create(v.ballast())
	if err != nil {
		return fmt.Errorf("fill the disk: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var fs syscall.Statfs_t
	if err := syscall.Statfs(v.dir, &fs); err != nil {
		return fmt.Errorf("fill the disk: %w", err)
	}
	size := int64(fs.Bavail) * fs.Bsize
	if err := syscall.Fallocate(int(f.Fd()), 0, 0, max(size, 1)); err != nil && !errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("fill the disk: %w", err)
	}
	page := make([]byte, 4096)
	for at := size; ; at += int64(len(page)) { // what was freed meanwhile
		if _, err := f.WriteAt(page, at); err != nil {
			return nil // that it is full is what was wanted
		}
	}
}

// free takes the ballast away.
func (v *volume) free() error {
	if err := os.Remove(v.ballast()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("empty the disk: %w", err)
	}
	return nil
}

func (v *volume) unmount() error {
	if err := syscall.Unmount(v.dir, syscall.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the tmpfs: %w", err)
	}
	return os.Remove(v.dir)
}
