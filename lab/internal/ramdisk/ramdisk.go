// Package ramdisk makes small file systems in memory, for tests of what happens when the disk is full.
package ramdisk
