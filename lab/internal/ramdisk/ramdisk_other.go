//go:build !linux

package ramdisk

import "errors"

// Disk is a small file system in memory, which exists on Linux only.
type Disk struct{ Dir string }

// Mount fails.
func Mount(string, int) (*Disk, error) { return nil, errors.New("mount a tmpfs: needs Linux") }

// Fill does nothing.
func (d *Disk) Fill() error { return nil }

// FillAllBut does nothing.
func (d *Disk) FillAllBut(float64) error { return nil }

// Free does nothing.
func (d *Disk) Free() error { return nil }

// Unmount does nothing.
func (d *Disk) Unmount() error { return nil }
