package rowhooktest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/clone"
)

const (
	// sessionsEach is how many sessions of the server a test is reckoned to need: up to 8 of the
	// dispatcher, two of the harness, and three of the program under test. So at Postgres' default of
	// 100 sessions, 7 tests run at once, and the others wait.
	sessionsEach = 13
	// roomPatience is how long Start waits for room while no test enters or leaves. Then it goes on:
	// each test that has a harness may be waiting for a second one.
	roomPatience = 3 * time.Second
	roomLook     = 10 * time.Millisecond
	// roomLock is the first key of the advisory locks that tests in the room hold.
	roomLock = 0x726f6f6d
)

// room bounds the tests that use a server at once, those of other processes included. A test that is
// in holds one of the server's advisory locks by a session, so that a process that is killed leaves.
type room struct {
	gate chan struct{} // held by the test that is next; the others of this process have no session yet

	once  sync.Once
	slots int
	err   error
}

// roomOf returns the room of a server.
func (p *process) roomOf(server string) *room {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rooms[server] == nil {
		p.rooms[server] = &room{gate: make(chan struct{}, 1)}
	}
	return p.rooms[server]
}

// enter waits until there is room for one more test, and returns a session of the server. The end of
// the session makes room for another test.
func (r *room) enter(ctx context.Context, server string) (*pgx.Conn, error) {
	select {
	case r.gate <- struct{}{}:
		defer func() { <-r.gate }()
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for other tests to end: %w", context.Cause(ctx))
	}
	admin, err := clone.Connect(ctx, server)
	if err != nil {
		return nil, fmt.Errorf("connect to the server of the tests: %w", err)
	}
	if err := r.takeSlot(ctx, admin); err != nil {
		_ = admin.Close(context.WithoutCancel(ctx)) // the first error is what matters
		return nil, err
	}
	return admin, nil
}

// takeSlot takes one of the locks. It gives up after roomPatience in which their holders stayed the
// same.
func (r *room) takeSlot(ctx context.Context, admin *pgx.Conn) error {
	patience := time.NewTimer(roomPatience)
	defer patience.Stop()
	look := time.NewTicker(roomLook)
	defer look.Stop()
	if err := r.count(ctx, admin); err != nil {
		return err
	}
	var before []uint32
	for {
		taken, holders, err := r.try(ctx, admin)
		if err != nil || taken {
			return err
		}
		if !slices.Equal(holders, before) {
			before = holders
			patience.Reset(roomPatience)
		}
		select {
		case <-look.C:
		case <-patience.C:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("wait for other tests to end: %w", context.Cause(ctx))
		}
	}
}

// count reads once how many tests the server has sessions for.
func (r *room) count(ctx context.Context, admin *pgx.Conn) error {
	r.once.Do(func() {
		r.err = admin.QueryRow(ctx, `
select greatest(1, (current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
       - coalesce(current_setting('reserved_connections', true)::int, 0)) / $1)`, sessionsEach).Scan(&r.slots)
	})
	if r.err != nil {
		return fmt.Errorf("look how many sessions the server allows: %w", r.err)
	}
	return nil
}

// try takes a lock that is free, or returns the sessions that hold one.
func (r *room) try(ctx context.Context, admin *pgx.Conn) (taken bool, holders []uint32, err error) {
	const free = "select exists (select from pg_catalog.generate_series(1, $1) slot where pg_catalog.pg_try_advisory_lock($2, slot))"
	if err = admin.QueryRow(ctx, free, r.slots, roomLock).Scan(&taken); err == nil && !taken {
		err = admin.QueryRow(ctx, `
select coalesce(array_agg(pid::oid order by pid), '{}') from pg_catalog.pg_locks
 where locktype = 'advisory' and classid = $1::int::oid and objsubid = 2 and granted`, roomLock).Scan(&holders)
	}
	if err != nil {
		return false, nil, fmt.Errorf("look for room on the server of the tests: %w", err)
	}
	return taken, holders, nil
}
