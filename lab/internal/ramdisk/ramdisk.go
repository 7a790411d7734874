// Package ramdisk makes small file systems in memory. Tests use them to see what happens when the
// disk is full.
package ramdisk
