//go:build !linux

package localpg

// MemoryDir returns a directory in memory for Config.TempDir. Only Linux has one; elsewhere it
// returns "".
func MemoryDir(uint64) string { return "" }
