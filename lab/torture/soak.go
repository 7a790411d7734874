package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rowhook/rowhook/lab/internal/process"
)

// watch samples what the dispatchers use during a run.
type watch struct {
	lab     *lab
	stop    context.CancelFunc
	done    chan struct{}
	samples [][]usage // by slot
}

// usage is what a dispatcher used at a moment.
type usage struct {
	process.Usage
	pid        int
	Sessions   int `json:"sessions"` // in the database
	Goroutines int `json:"goroutines"`
}

// watchEvery is the interval of samples.
const watchEvery = 2 * time.Second

func (l *lab) startWatch(ctx context.Context) *watch {
	ctx, stop := context.WithCancel(ctx)
	w := &watch{lab: l, stop: stop, done: make(chan struct{}), samples: make([][]usage, len(l.slots))}
	go func() {
		defer close(w.done)
		for ctx.Err() == nil {
			wait(ctx, watchEvery)
			w.sample(ctx)
		}
	}()
	return w
}

func (w *watch) sample(ctx context.Context) {
	for i, s := range w.lab.slots {
		c := s.running()
		if c == nil {
			continue
		}
		u := usage{Usage: process.UsageOf(c.PID()), pid: c.PID()}
		err := w.lab.admin.QueryRow(ctx, "select count(*) from pg_stat_activity where application_name = 'rowhook ' || $1", s.name()).Scan(&u.Sessions)
		if err == nil {
			u.Goroutines, err = goroutines(ctx, s.metrics)
		}
		if err == nil { // otherwise, for instance while it is stopped, the next sample sees it
			w.samples[i] = append(w.samples[i], u)
		}
	}
}

// goroutines reads their number from a dispatcher's metrics.
func goroutines(ctx context.Context, url string) (int, error) {
	metrics, err := get(ctx, url)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(metrics) {
		if value, is := strings.CutPrefix(line, "go_goroutines "); is {
			n, err := strconv.Atoi(strings.TrimSpace(value))
			if err != nil {
				return 0, fmt.Errorf("read the number of goroutines: %w", err)
			}
			return n, nil
		}
	}
	return 0, fmt.Errorf("read metrics: %s has no go_goroutines", url)
}

// finish ends the sampling and compares.
func (w *watch) finish() []*soaked {
	w.stop()
	<-w.done
	var all []*soaked
	for i, samples := range w.samples {
		all = append(all, compare(w.lab.slots[i].name(), samples))
	}
	return all
}

// soaked holds medians of what a dispatcher used in the second and in the last quarter of a run.
type soaked struct {
	Name     string `json:"name"`
	Samples  int    `json:"samples"`
	Restarts int    `json:"restarts"`
	Early    usage  `json:"early"`
	Late     usage  `json:"late"`
}

func compare(name string, samples []usage) *soaked {
	s := &soaked{Name: name, Samples: len(samples)}
	n := len(samples)
	for i := 1; i < n; i++ {
		if samples[i].pid != samples[i-1].pid {
			s.Restarts++
		}
	}
	if n >= 8 {
		s.Early, s.Late = median(samples[n/4:n/2]), median(samples[n-n/4:])
	}
	return s
}

func median(samples []usage) usage {
	middle := func(of func(usage) float64) float64 {
		var all []float64
		for _, s := range samples {
			all = append(all, of(s))
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	var u usage
	u.Resident = middle(func(s usage) float64 { return s.Resident })
	u.Peak = middle(func(s usage) float64 { return s.Peak })
	u.Threads = int(middle(func(s usage) float64 { return float64(s.Threads) }))
	u.Files = int(middle(func(s usage) float64 { return float64(s.Files) }))
	u.Sockets = int(middle(func(s usage) float64 { return float64(s.Sockets) }))
	u.Goroutines = int(middle(func(s usage) float64 { return float64(s.Goroutines) }))
	u.Sessions = int(middle(func(s usage) float64 { return float64(s.Sessions) }))
	return u
}

// growth returns what has grown. It allows some growth, since the load varies.
func (s *soaked) growth() []string {
	if s.Samples < 8 {
		return []string{fmt.Sprintf("%s was seen only %d times", s.Name, s.Samples)}
	}
	var all []string
	for _, g := range []struct {
		what        string
		early, late float64
		slack       float64
	}{
		{"MB of memory", s.Early.Resident, s.Late.Resident, max(8, s.Early.Resident/5)},
		{"threads", float64(s.Early.Threads), float64(s.Late.Threads), 3},
		{"goroutines", float64(s.Early.Goroutines), float64(s.Late.Goroutines), max(20, float64(s.Early.Goroutines)/5)},
		{"open files", float64(s.Early.Files), float64(s.Late.Files), 10},
		{"sessions", float64(s.Early.Sessions), float64(s.Late.Sessions), 2},
	} {
		if g.late > g.early+g.slack {
			all = append(all, fmt.Sprintf("%s used %.0f %s in the second quarter and %.0f in the last", s.Name, g.early, g.what, g.late))
		}
	}
	if s.Restarts > 0 {
		all = append(all, fmt.Sprintf("%s was started again %d times", s.Name, s.Restarts))
	}
	return all
}

// String compares the two quarters.
func (s *soaked) String() string {
	return fmt.Sprintf("%s, second quarter and last: memory %.1f and %.1f MB, threads %d and %d, goroutines %d and %d, open files %d and %d, sessions %d and %d; %d samples",
		s.Name, s.Early.Resident, s.Late.Resident, s.Early.Threads, s.Late.Threads,
		s.Early.Goroutines, s.Late.Goroutines, s.Early.Files, s.Late.Files, s.Early.Sessions, s.Late.Sessions, s.Samples)
}
