package main

import (
	"context"
	"sync/atomic"
	"time"
)

// traffic is the writers.
type traffic struct{ committed, failed atomic.Int64 }

const (
	writeEvery   = 50 * time.Millisecond
	writeTimeout = 2 * time.Second
)

// write inserts into both tables until ctx is done. Its failures during some outages are expected.
func (l *lab) write(ctx context.Context) {
	ticker := time.NewTicker(writeEvery)
	defer ticker.Stop()
	for ctx.Err() == nil {
		for _, table := range []string{orders, mails} {
			ctx, cancel := context.WithTimeout(ctx, writeTimeout)
			if _, err := l.admin.Exec(ctx, "insert into "+table+" (note) values ('x')"); err != nil {
				l.traffic.failed.Add(1)
			} else {
				l.traffic.committed.Add(1)
			}
			cancel()
		}
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
}
