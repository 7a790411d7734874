package process

import (
	"cmp"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Stacks ends a Go program by SIGQUIT, and returns what its goroutines did: each different stack
// that has a function of the module once, the most frequent one first. It waits for the end for some
// time at most.
func (c *Process) Stacks(module string, patience time.Duration) string {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	if err := c.Signal(syscall.SIGQUIT); err != nil {
		return err.Error()
	}
	select {
	case <-c.done:
	case <-timer.C:
		return fmt.Sprintf("%s did not end within %s of SIGQUIT", c.name, patience)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return condense(c.stack, module)
}

var (
	goroutine = regexp.MustCompile(`^goroutine \d+ (?:gp=\S+ m=\S+ (?:mp=\S+ )?)?\[([^,\]]+)`)
	arguments = regexp.MustCompile(`\([^()]*\)$`)
	position  = regexp.MustCompile(`^\t(\S+\.go:\d+)`)
)

// condense groups the goroutines of a dump by their stacks.
func condense(lines []string, module string) string {
	counts := map[string]int{}
	var state string
	var frames []string
	end := func() {
		if slices.ContainsFunc(frames, func(f string) bool { return strings.HasPrefix(f, module) }) {
			for i, f := range frames {
				frames[i] = strings.TrimPrefix(f, module+"/")
			}
			counts["["+state+"] "+strings.Join(frames, " < ")]++
		}
		frames = nil
	}
	for _, line := range lines {
		if m := goroutine.FindStringSubmatch(line); m != nil {
			end()
			state = m[1]
			continue
		}
		if m := position.FindStringSubmatch(line); m != nil && len(frames) > 0 {
			frames[len(frames)-1] += " " + path.Base(m[1])
			continue
		}
		if name, _, created := strings.Cut(strings.TrimPrefix(line, "created by "), " in goroutine"); line != "" && !strings.HasPrefix(line, "\t") && state != "" {
			if !created {
				name = arguments.ReplaceAllString(name, "")
			}
			frames = append(frames, name)
		}
	}
	end()
	stacks := make([]string, 0, len(counts))
	for s := range counts {
		stacks = append(stacks, s)
	}
	slices.SortFunc(stacks, func(a, b string) int { return cmp.Or(counts[b]-counts[a], cmp.Compare(a, b)) })
	for i, s := range stacks {
		stacks[i] = fmt.Sprintf("%d x %s", counts[s], s)
	}
	return strings.Join(stacks, "\n")
}
