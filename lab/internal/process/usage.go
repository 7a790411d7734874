package process

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Usage is what a process uses now, from /proc. It is zero if there is no /proc, or no such
// process.
type Usage struct {
	Resident float64 `json:"resident_mb"` // MB in memory
	Peak     float64 `json:"peak_mb"`     // the most so far
	Threads  int     `json:"threads"`
	Files    int     `json:"files"` // open file descriptors, sockets included
	Sockets  int     `json:"sockets"`
}

// UsageOf reads the usage of a process.
func UsageOf(pid int) Usage {
	var u Usage
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return u
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		number, _, _ := strings.Cut(strings.TrimSpace(value), " ")
		switch name {
		case "VmRSS":
			u.Resident = megabytes(number)
		case "VmHWM":
			u.Peak = megabytes(number)
		case "Threads":
			u.Threads, _ = strconv.Atoi(number)
		}
	}
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid)) // fails on a bad pattern only
	u.Files = len(files)
	for _, f := range files {
		if to, err := os.Readlink(f); err == nil && strings.HasPrefix(to, "socket:") {
			u.Sockets++
		}
	}
	return u
}

func megabytes(kb string) float64 {
	n, _ := strconv.ParseFloat(kb, 64)
	return n / 1024
}

// PeakMemory returns the largest resident set of a process so far, in MB.
func PeakMemory(pid int) float64 { return UsageOf(pid).Peak }
