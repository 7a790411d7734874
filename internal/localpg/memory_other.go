//go:build !linux

package localpg

// MemoryDir is a directory in memory for Config.TempDir; there is one on Linux only.
func MemoryDir(uint64) string { return "" }
