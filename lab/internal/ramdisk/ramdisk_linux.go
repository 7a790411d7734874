package ramdisk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// Disk is a small file system in memory. Mount makes one.
type Disk struct {
	Dir string // where it is mounted
}

// Mount makes a file system in a new directory under the given one. It needs root.
func Mount(under string, megabytes int) (*Disk, error) {
	dir, err := os.MkdirTemp(under, "volume-")
	if err != nil {
		return nil, fmt.Errorf("make a mount point: %w", err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm,mode=755", megabytes)); err != nil {
		return nil, errors.Join(fmt.Errorf("mount a tmpfs: %w", err), os.Remove(dir))
	}
	return &Disk{dir}, nil
}

func (v *Disk) ballast() string { return filepath.Join(v.Dir, "ballast") }

// Fill leaves no byte free.
func (v *Disk) Fill() error {
	return v.fill(0, func(f *os.File, size int64) {
		page := make([]byte, 4096)
		for at := size; ; at += int64(len(page)) { // again and again, since space may be freed meanwhile
			if _, err := f.WriteAt(page, at); err != nil {
				return // full, as wanted
			}
		}
	})
}

// FillAllBut leaves a share of the file system free, from 0 to 1, or the space that is free already
// if that is less.
func (v *Disk) FillAllBut(share float64) error { return v.fill(share, func(*os.File, int64) {}) }

// fill writes the ballast file anew, and passes the file and its size in bytes to the function.
func (v *Disk) fill(share float64, more func(*os.File, int64)) (err error) {
	f, err := os.Create(v.ballast())
	if err != nil {
		return fmt.Errorf("fill the disk: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var fs syscall.Statfs_t
	if err := syscall.Statfs(v.Dir, &fs); err != nil {
		return fmt.Errorf("fill the disk: %w", err)
	}
	size := (int64(fs.Bavail) - int64(share*float64(fs.Blocks))) * fs.Bsize
	if err := syscall.Fallocate(int(f.Fd()), 0, 0, max(size, 1)); err != nil && !errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("fill the disk: %w", err)
	}
	more(f, size)
	return nil
}

// Free removes the ballast.
func (v *Disk) Free() error {
	if err := os.Remove(v.ballast()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("empty the disk: %w", err)
	}
	return nil
}

// Unmount unmounts the file system and removes its directory.
func (v *Disk) Unmount() error {
	if err := syscall.Unmount(v.Dir, syscall.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the tmpfs: %w", err)
	}
	return os.Remove(v.Dir)
}
