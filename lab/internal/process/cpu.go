package process

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// TicksPerSecond is the unit of CPU times in /proc. It is USER_HZ, which Linux shows as 100
// whatever it counts by.
const TicksPerSecond = 100

// TreeCPU returns the CPU seconds of a process, of its living descendants, and of its ended
// descendants that were waited for.
func TreeCPU(pid int) float64 {
	children := map[int][]int{}
	stats := map[int]procStat{}
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, f := range files {
		s, ok := readStat(f)
		if ok {
			stats[s.pid] = s
			children[s.parent] = append(children[s.parent], s.pid)
		}
	}
	var sum func(pid int) int64
	sum = func(pid int) int64 {
		total := stats[pid].ticks
		for _, c := range children[pid] {
			total += sum(c)
		}
		return total
	}
	return float64(sum(pid)) / TicksPerSecond
}

// CPU returns the CPU seconds of these processes alone, without those that have ended.
func CPU(pids ...int) float64 {
	var total int64
	for _, pid := range pids {
		if s, ok := readStat(fmt.Sprintf("/proc/%d/stat", pid)); ok {
			total += s.own
		}
	}
	return float64(total) / TicksPerSecond
}

type procStat struct {
	pid, parent int
	own         int64 // user and system time of the process, in ticks
	ticks       int64 // including children that were waited for
}

func readStat(path string) (procStat, bool) {
	b, err := os.ReadFile(path)
	if err != nil {
		return procStat{}, false // it has ended
	}
	return parseStat(b)
}

// parseStat parses a line of /proc/PID/stat. The name, in parentheses, may hold any characters.
func parseStat(b []byte) (procStat, bool) {
	end := bytes.LastIndexByte(b, ')')
	begin := bytes.IndexByte(b, '(')
	if begin < 1 || end < begin {
		return procStat{}, false
	}
	f := strings.Fields(string(b[end+1:]))
	if len(f) < 15 {
		return procStat{}, false
	}
	number := func(s string) int64 {
		n, _ := strconv.ParseInt(s, 10, 64)
		return n
	}
	own := number(f[11]) + number(f[12])
	return procStat{
		pid: int(number(strings.TrimSpace(string(b[:begin])))), parent: int(number(f[1])),
		own: own, ticks: own + number(f[13]) + number(f[14]),
	}, true
}
