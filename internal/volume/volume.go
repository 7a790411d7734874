// Package volume makes small file systems in memory, for tests of what happens when the disk is full.
package volume
