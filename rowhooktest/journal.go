package rowhooktest

import (
	"fmt"
	"strings"
	"sync"
)

// keptLines is how many lines of the dispatcher's log a failed test shows: the first and the last.
const keptLines = 40

// journal keeps the log of the dispatcher, without its middle.
type journal struct {
	mu          sync.Mutex
	first, last []string
	left        int // lines between the two
}

// Write takes one line, as slog's handlers write.
func (j *journal) Write(line []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	text := strings.TrimRight(string(line), "\n")
	if len(j.first) < keptLines/2 {
		j.first = append(j.first, text)
		return len(line), nil
	}
	if j.last = append(j.last, text); len(j.last) > keptLines/2 {
		j.last = j.last[1:]
		j.left++
	}
	return len(line), nil
}

func (j *journal) text() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	lines := append([]string{}, j.first...)
	if j.left > 0 {
		lines = append(lines, fmt.Sprintf("... %d lines ...", j.left))
	}
	return strings.Join(append(lines, j.last...), "\n")
}
