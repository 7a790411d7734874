package main

import (
	"context"
	"os"
	"strings"
	"time"

	"github.com/rowhook/rowhook/lab/internal/process"
)

// sample is the result of one repetition of a scenario for one build.
type sample struct {
	// Load is the machine's load average over the minute before it began. Foreign is how many cores
	// were used meanwhile by programs that are not part of the benchmark, and by other virtual
	// machines if the host reports that.
	Load    float64              `json:"load"`
	Foreign float64              `json:"foreign"`
	Values  map[string]float64   `json:"values"`
	Series  map[string][]float64 `json:"series,omitempty"`
}

func newSample() *sample {
	return &sample{Load: loadAverage(), Values: map[string]float64{}, Series: map[string][]float64{}}
}

func (s *sample) set(name string, v float64) { s.Values[name] = v }

// noise measures the share of the machine that others used.
type noise struct {
	start        time.Time
	machine, own float64
}

func (l *lab) ownCPU() float64 { return process.TreeCPU(os.Getpid()) }

func (l *lab) listenForNoise() noise { return noise{time.Now(), machineCPU(), l.ownCPU()} }

func (l *lab) foreign(n noise) float64 {
	return max(0, (machineCPU()-n.machine)-(l.ownCPU()-n.own)) / time.Since(n.start).Seconds()
}

// meter counts what a database and its dispatchers use between two moments.
type meter struct {
	db                                *database
	dispatchers                       []*process.Process
	start                             time.Time
	dispatching, server, sessions     float64
	receiving, tookReceiving          float64
	wal, dead                         float64
	tookDispatching, tookServer, took float64
	tookSessions, wrote               float64
}

func (d *database) startMeter(ctx context.Context, dispatchers ...*process.Process) (*meter, error) {
	m := &meter{db: d, dispatchers: dispatchers}
	var err error
	if m.dead, err = d.deadTuples(ctx); err != nil {
		return nil, err
	}
	if err := m.read(ctx); err != nil {
		return nil, err
	}
	m.start = time.Now()
	return m, nil
}

func (m *meter) read(ctx context.Context) error {
	m.dispatching = 0
	for _, c := range m.dispatchers {
		m.dispatching += process.CPU(c.PID())
	}
	m.receiving = process.CPU(m.db.receiverPID)
	m.server = process.TreeCPU(m.db.lab.server.PID())
	pids, err := m.db.sessions(ctx)
	if err != nil {
		return err
	}
	m.sessions = process.CPU(pids...)
	m.wal, err = m.db.walPosition(ctx)
	return err
}

// pause ends the counting.
func (m *meter) pause(ctx context.Context) error {
	before := *m
	m.took = time.Since(m.start).Seconds()
	if err := m.read(ctx); err != nil {
		return err
	}
	m.tookDispatching, m.tookServer = m.dispatching-before.dispatching, m.server-before.server
	m.tookReceiving = m.receiving - before.receiving
	m.tookSessions, m.wrote = m.sessions-before.sessions, m.wal-before.wal
	return nil
}

// finish stops the dispatchers and writes the use for each event into the sample.
func (m *meter) finish(ctx context.Context, s *sample, events int) error {
	thousands := float64(events) / 1000
	s.set("cpu_dispatcher", m.tookDispatching/thousands)
	s.set("cpu_postgres", m.tookServer/thousands)
	s.set("cpu_sessions", m.tookSessions/thousands)
	s.set("cpu_receiver", m.tookReceiving/thousands)
	s.set("wal", m.wrote/float64(events))
	s.set("memory", 0)
	for _, c := range m.dispatchers {
		s.set("memory", max(s.Values["memory"], process.PeakMemory(c.PID())))
	}
	for _, c := range m.dispatchers {
		if err := c.Stop(stopPatience); err != nil {
			return err
		}
		if n, first := c.Complaints(); n > 0 {
			m.db.lab.logf("the dispatcher logged %d warnings and errors, the first ones:\n  %s", n, strings.Join(first, "\n  "))
		}
	}
	if err := m.db.sessionsGone(ctx); err != nil { // the server counts what a session did when it ends
		return err
	}
	dead, err := m.db.deadTuples(ctx)
	if err != nil {
		return err
	}
	s.set("dead", (dead-m.dead)/float64(events))
	return nil
}
