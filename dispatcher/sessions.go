package dispatcher

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rowhook/rowhook/internal/pg"
)

// sessions hands out the sessions of a pool. Each kind of work has a share of them, so that none waits
// for another for long.
//
// An idle dispatcher keeps one session, and a hundred of them a hundred. So whoever finds all open
// sessions in use waits a little before another one is opened: most statements take less time than
// that, and much less than to connect. Where that happens often there is work, and nobody waits. What
// was not needed for narrowAfter is closed.
type sessions struct {
	pool *pgxpool.Pool
	most int // of all shares

	mu      sync.Mutex
	used    int       // in use
	width   int       // how many may be in use before somebody has waited
	peak    int       // the most that were in use since
	since   time.Time // when peak began anew
	waits   int       // how often all were in use since
	counted time.Time // when waits began anew
	full    time.Time // until then the server lets no more in
	waiting []*waiter
}

// sessionShare is the part of the sessions that one kind of work may use at a time. It is a [pg.Queryer].
type sessionShare struct {
	of       *sessions
	most     int
	patience time.Duration
	used     int // guarded by the mutex of sessions
}

type waiter struct {
	share   *sessionShare
	granted chan struct{} // closed when it may go on
	done    bool
}

const (
	// hotPatience is how long an event's own statements wait for a session, and coldPatience how long
	// those do that show or look for life. To connect and to prepare a statement takes as long as
	// hotPatience, and costs the server much more than to wait for a beat.
	hotPatience  = 10 * time.Millisecond
	coldPatience = 500 * time.Millisecond
	// After mostWaits in a second nobody waits any more before another session is opened.
	mostWaits = 3
	// narrowAfter is how long sessions are used side by side that are not needed side by side any more.
	// Then those that are not used are closed after closeAfter to closeAfter + checkEvery. closeAfter is
	// below checkEvery, since each check of the pool has all sessions used once, in turn.
	narrowAfter = 10 * time.Second
	closeAfter  = 8 * time.Second
	checkEvery  = 10 * time.Second
	// fullFor is how long no further session is tried after the server has refused one.
	fullFor = time.Second
)

func newSessions(pool *pgxpool.Pool) *sessions {
	return &sessions{pool: pool, width: 1}
}

// share makes the share of a kind of work.
func (s *sessions) share(most int, patience time.Duration) *sessionShare {
	s.most += most
	return &sessionShare{of: s, most: most, patience: patience}
}

// held is a session in use. Release gives it back.
type held struct {
	*poolConn

	share *sessionShare // nil: it was given back
}

// poolConn has a name that does not hide its method Conn.
type poolConn = pgxpool.Conn

// Release gives the session back. A second call does nothing.
func (h *held) Release() {
	if h.share == nil {
		return
	}
	h.poolConn.Release()
	h.share.leave()
	h.share = nil
}

// Acquire waits for a session. If the server lets no more in, it waits for one that is open, but not for
// long: whoever holds that may be waiting, too.
func (s *sessionShare) Acquire(ctx context.Context) (*held, error) {
	var refusal error
	for {
		if err := s.enterWithin(ctx, refusal); err != nil {
			return nil, err
		}
		conn, err := s.of.pool.Acquire(ctx)
		if err == nil {
			return &held{conn, s}, nil
		}
		if !s.refused(err) {
			return nil, err
		}
		refusal = err
	}
}

// enterWithin is enter. After a refusal it returns that if it takes long, or if ctx ends.
func (s *sessionShare) enterWithin(ctx context.Context, refusal error) error {
	if refusal == nil {
		return s.enter(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, fullFor)
	defer cancel()
	if s.enter(ctx) != nil {
		return refusal
	}
	return nil
}

// enter waits until a session may be used.
func (s *sessionShare) enter(ctx context.Context) error {
	all := s.of
	all.mu.Lock()
	all.review(time.Now())
	if s.used < s.most && (all.used < all.width || all.crowded()) {
		all.begin(s)
		all.mu.Unlock()
		return nil
	}
	w := &waiter{share: s, granted: make(chan struct{})}
	all.waiting = append(all.waiting, w)
	all.mu.Unlock()
	timer := time.NewTimer(s.patience)
	defer timer.Stop()
	for {
		select {
		case <-w.granted:
			return nil
		case <-timer.C:
			if again := all.widen(w); again > 0 {
				timer.Reset(again)
			}
		case <-ctx.Done():
			if all.forget(w) {
				s.leave()
			}
			return ctx.Err()
		}
	}
}

// review forgets the sessions that were not needed of late. The mutex is held.
func (s *sessions) review(now time.Time) {
	if now.Sub(s.since) >= narrowAfter {
		s.width, s.peak, s.since = max(s.peak, 1), s.used, now
	}
	if now.Sub(s.counted) >= time.Second {
		s.waits, s.counted = 0, now
	}
}

// crowded reports whether another session is to be used at once. The mutex is held.
func (s *sessions) crowded() bool {
	s.waits++
	if s.waits <= mostWaits || s.width >= s.most || time.Now().Before(s.full) {
		return false
	}
	s.width++
	return true
}

// widen lets another session be used for one who has waited long enough. It returns when to try again,
// if the server lets no more in; 0: there is no need.
func (s *sessions) widen(w *waiter) (again time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.done || w.share.used >= w.share.most {
		return 0 // it goes on when one of its share is given back
	}
	if rest := time.Until(s.full); rest > 0 {
		return rest
	}
	s.width = min(s.width+1, s.most)
	s.grant()
	return 0
}

// grant lets those go on who wait and may. The mutex is held.
func (s *sessions) grant() {
	s.waiting = slices.DeleteFunc(s.waiting, func(w *waiter) bool {
		if s.used >= s.width || w.share.used >= w.share.most {
			return false
		}
		s.begin(w.share)
		w.done = true
		close(w.granted)
		return true
	})
}

func (s *sessions) begin(of *sessionShare) {
	of.used++
	s.used++
	s.peak = max(s.peak, s.used)
}

// forget ends a wait. It reports whether a session was granted meanwhile.
func (s *sessions) forget(w *waiter) (granted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = slices.DeleteFunc(s.waiting, func(other *waiter) bool { return other == w })
	return w.done
}

func (s *sessionShare) leave() {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	s.used--
	s.of.used--
	s.of.grant()
}

// refused takes in that no session could be opened. It reports whether to wait for one that is open:
// the server, the database or the role has as many as it may have.
func (s *sessionShare) refused(err error) (wait bool) {
	s.leave()
	if !pg.IsState(err, pgerrcode.TooManyConnections) {
		return false
	}
	all := s.of
	all.mu.Lock()
	defer all.mu.Unlock()
	if all.used > 0 {
		all.width, all.full = all.used, time.Now().Add(fullFor)
	}
	return all.used > 0 || all.pool.Stat().IdleConns() > 0
}

// Query runs a query. Its session is given back when the rows are closed.
func (s *sessionShare) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	h, err := s.Acquire(ctx)
	if err != nil {
		return noRows{err: err}, err
	}
	rows, err := h.poolConn.Query(ctx, sql, args...)
	if err != nil {
		h.Release()
		return rows, err
	}
	return &heldRows{rows, h}, nil
}

// QueryRow runs a query for one row.
func (s *sessionShare) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	h, err := s.Acquire(ctx)
	if err != nil {
		return &heldRow{err: err}
	}
	return &heldRow{row: h.poolConn.QueryRow(ctx, sql, args...), session: h}
}

// SendBatch runs a batch.
func (s *sessionShare) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	h, err := s.Acquire(ctx)
	if err != nil {
		return failedBatch{err}
	}
	return &heldBatch{h.poolConn.SendBatch(ctx, b), h}
}

// Exec runs a statement.
func (s *sessionShare) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	h, err := s.Acquire(ctx)
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	defer h.Release()
	return h.poolConn.Exec(ctx, sql, args...)
}

// Begin begins a transaction. Its session is given back at its end.
func (s *sessionShare) Begin(ctx context.Context) (pgx.Tx, error) {
	h, err := s.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	tx, err := h.Conn().Begin(ctx)
	if err != nil {
		h.Release()
		return nil, err
	}
	return &heldTx{tx, h}, nil
}

type heldRows struct {
	pgx.Rows

	session *held
}

func (r *heldRows) Next() bool {
	if r.Rows.Next() {
		return true
	}
	r.Close()
	return false
}

func (r *heldRows) Close() {
	r.Rows.Close()
	r.session.Release()
}

type heldRow struct {
	row     pgx.Row
	session *held
	err     error // there is no session
}

func (r *heldRow) Scan(into ...any) error {
	if r.err != nil {
		return r.err
	}
	defer r.session.Release()
	return r.row.Scan(into...)
}

type heldBatch struct {
	pgx.BatchResults

	session *held
}

func (b *heldBatch) Close() error {
	defer b.session.Release()
	return b.BatchResults.Close()
}

type heldTx struct {
	pgx.Tx

	session *held
}

func (t *heldTx) Commit(ctx context.Context) error {
	defer t.session.Release()
	return t.Tx.Commit(ctx)
}

func (t *heldTx) Rollback(ctx context.Context) error {
	defer t.session.Release()
	return t.Tx.Rollback(ctx)
}

// failedBatch is a batch for which there is no session.
type failedBatch struct{ err error }

func (b failedBatch) Exec() (pgconn.CommandTag, error) { return pgconn.CommandTag{}, b.err }
func (b failedBatch) Query() (pgx.Rows, error)         { return noRows{err: b.err}, b.err }
func (b failedBatch) QueryRow() pgx.Row                { return &heldRow{err: b.err} }
func (b failedBatch) Close() error                     { return b.err }
func (b failedBatch) Tx() pgx.Tx                       { return nil }

// noRows are the rows of a query for which there is no session.
type noRows struct {
	pgx.Rows // nil

	err error
}

func (r noRows) Next() bool { return false }
func (r noRows) Close()     {}
func (r noRows) Err() error { return r.err }
