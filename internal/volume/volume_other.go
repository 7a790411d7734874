//go:build !linux

package volume

import "errors"

// Volume is a small file system that can be filled up, which is made on Linux only.
type Volume struct{ Dir string }

// Mount fails.
func Mount(string, int) (*Volume, error) { return nil, errors.New("mount a tmpfs: needs Linux") }

// Fill does nothing.
func (v *Volume) Fill() error { return nil }

// FillAllBut does nothing.
func (v *Volume) FillAllBut(float64) error { return nil }

// Free does nothing.
func (v *Volume) Free() error { return nil }

// Unmount does nothing.
func (v *Volume) Unmount() error { return nil }
