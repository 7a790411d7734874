//go:build !linux

package main

import "errors"

// volume is a small file system that can be filled up, which is made on Linux only.
type volume struct{ dir string }

func mountVolume(string, int) (*volume, error) { return nil, errors.New("needs Linux") }

func (v *volume) fill() error    { return nil }
func (v *volume) free() error    { return nil }
func (v *volume) unmount() error { return nil }
