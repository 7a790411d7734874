package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// writing is a crowd of sessions that insert rows, each row in a transaction of its own, and record
// when each commit returned.
type writing struct {
	url     string
	tables  []string // row i goes to table i modulo their number
	writers int
	sql     func(table string) string // inserts a row; $1 is seq
	commits []int64                   // by seq: Unix time in ns; 0: not committed
	next    atomic.Int64
}

func newWriting(url string, writers, capacity int, tables ...string) *writing {
	return &writing{url: url, tables: tables, writers: writers, sql: insertRow, commits: make([]int64, capacity+1)}
}

// session is one writer's connection.
type session struct {
	conn *pgconn.PgConn
	w    *writing
	have map[string]bool
}

func (w *writing) session(ctx context.Context) (*session, error) {
	conn, err := pgconn.Connect(ctx, w.url)
	if err != nil {
		return nil, fmt.Errorf("connect a writer: %w", err)
	}
	return &session{conn: conn, w: w, have: map[string]bool{}}, nil
}

// insert commits the row with this number.
func (s *session) insert(ctx context.Context, seq int64) error {
	table := s.w.tables[seq%int64(len(s.w.tables))]
	if !s.have[table] {
		if _, err := s.conn.Prepare(ctx, table, s.w.sql(table), nil); err != nil {
			return fmt.Errorf("prepare an insert: %w", err)
		}
		s.have[table] = true
	}
	r := s.conn.ExecPrepared(ctx, table, [][]byte{strconv.AppendInt(nil, seq, 10)}, nil, nil).Read()
	s.w.commits[seq] = time.Now().UnixNano()
	if r.Err != nil {
		s.w.commits[seq] = 0
		return fmt.Errorf("insert a row: %w", r.Err)
	}
	return nil
}

// each runs a function in every session at once, and returns when all are done.
func (w *writing) each(ctx context.Context, work func(ctx context.Context, s *session) error) error {
	sessions := make([]*session, w.writers)
	var errs []error
	for i := range sessions {
		s, err := w.session(ctx)
		if err != nil {
			return err
		}
		defer s.conn.Close(context.WithoutCancel(ctx))
		sessions[i] = s
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	for _, s := range sessions {
		all.Go(func() {
			if err := work(ctx, s); err != nil {
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// flatOut writes as fast as possible for a time, and returns commits per second.
func (w *writing) flatOut(ctx context.Context, during time.Duration) (rate float64, err error) {
	var done atomic.Int64
	var took time.Duration
	var start time.Time
	var once sync.Once
	err = w.each(ctx, func(ctx context.Context, s *session) error {
		if err := s.conn.Exec(ctx, "select 1").Close(); err != nil {
			return err
		}
		once.Do(func() { start = time.Now() })
		end := start.Add(during)
		for time.Now().Before(end) && ctx.Err() == nil {
			seq := w.next.Add(1)
			if seq >= int64(len(w.commits)) {
				return errors.New("the writers were faster than maxCommitRate, for which the benchmark has room")
			}
			if err := s.insert(ctx, seq); err != nil {
				return err
			}
			done.Add(1)
		}
		return ctx.Err()
	})
	took = max(time.Since(start), during)
	return float64(done.Load()) / took.Seconds(), err
}

// paced writes n rows at a rate. Each row has its own moment, whether or not the one before is
// done. The moments are spread by half their distance, from a fixed seed, so that they do not
// coincide with the intervals of other programs.
func (w *writing) paced(ctx context.Context, rate float64, n int) error {
	first := w.next.Load()
	start := time.Now().Add(10 * time.Millisecond)
	spread := rand.New(rand.NewPCG(1, uint64(rate))) //nolint:gosec // no secret
	offsets := make([]time.Duration, n)
	for i := range offsets {
		offsets[i] = time.Duration((float64(i) + spread.Float64()/2) / rate * float64(time.Second))
	}
	return w.each(ctx, func(ctx context.Context, s *session) error {
		for ctx.Err() == nil {
			seq := w.next.Add(1)
			i := int(seq - first - 1)
			if i >= n {
				w.next.Add(-1)
				return nil
			}
			for wait := time.Until(start.Add(offsets[i])); wait > 0; wait = time.Until(start.Add(offsets[i])) {
				nap(wait)
			}
			if err := s.insert(ctx, seq); err != nil {
				return err
			}
		}
		return ctx.Err()
	})
}

// written returns how many rows were committed.
func (w *writing) written() int {
	n := 0
	for _, c := range w.commits {
		if c != 0 {
			n++
		}
	}
	return n
}

// nap waits for a short time. It must be a timer. A thread that sleeps keeps its processor for up
// to 10 ms from the sessions whose commits return meanwhile, and they would be stamped late.
func nap(d time.Duration) { <-time.After(d) }
