package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ticksPerSecond is the unit of CPU times in /proc. It is USER_HZ, which Linux shows as 100
// whatever it counts by.
const ticksPerSecond = 100

// treeCPU returns the CPU seconds of a process, of its living descendants, and of its ended
// descendants that were waited for.
func treeCPU(pid int) float64 {
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
	return float64(sum(pid)) / ticksPerSecond
}

// processCPU returns the CPU seconds of these processes alone, without those that have ended.
func processCPU(pids ...int) float64 {
	var total int64
	for _, pid := range pids {
		if s, ok := readStat(fmt.Sprintf("/proc/%d/stat", pid)); ok {
			total += s.own
		}
	}
	return float64(total) / ticksPerSecond
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

// loadAverage returns the machine's load over the last minute.
func loadAverage() float64 {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(b), " ")
	load, _ := strconv.ParseFloat(first, 64)
	return load
}

// machineCPU returns the CPU seconds that all processes have used, and that the host has used for
// other machines.
func machineCPU() float64 {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(b), "\n")
	f := strings.Fields(line)
	if len(f) < 9 {
		return 0
	}
	var busy float64
	for i, s := range f[1:9] { // user nice system idle iowait irq softirq steal
		if i == 3 || i == 4 {
			continue
		}
		n, _ := strconv.ParseFloat(s, 64)
		busy += n
	}
	return busy / ticksPerSecond
}

// cpuModel returns the name of the processor.
func cpuModel() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

// kernel returns the version of the operating system.
func kernel() string {
	b, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}
