package localpg

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"syscall"
)

// MemoryDir returns a directory in memory with at least free bytes available, for Config.TempDir,
// or "" if there is none. Cloning a database takes some 25 ms there, and 130 ms or more on a
// virtual disk; making the files of a server takes 50 ms, and 700 ms. In containers it is often
// small.
func MemoryDir(free uint64) string {
	const dir = "/dev/shm"
	const tmpfs = 0x01021994 // TMPFS_MAGIC of statfs(2)
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil || int64(fs.Type) != tmpfs || fs.Bavail*uint64(fs.Bsize) < free { //nolint:unconvert // sizes differ by platform
		return ""
	}
	if available, known := memoryAvailable(); known && available < free {
		return "" // the file system promises more than there is
	}
	return dir
}

// memoryAvailable returns the memory, in bytes, that programs can get without swapping.
func memoryAvailable() (bytesFree uint64, known bool) {
	content, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, false
	}
	lines := bufio.NewScanner(bytes.NewReader(content))
	for lines.Scan() {
		if n, err := fmt.Sscanf(lines.Text(), "MemAvailable: %d kB", &bytesFree); n == 1 && err == nil {
			return bytesFree << 10, true
		}
	}
	return 0, false
}
