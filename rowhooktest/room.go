package rowhooktest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/clone"
)

const (
	// sessionsEach is how many sessions of the server a test is reckoned to need: up to 8 of the
	// dispatcher, one of the harness, and some of the program under test. So at Postgres' default of
	// 100 sessions, 8 tests run at once, and the others wait.
	sessionsEach = 12
	// roomPatience is how long Start waits for room while no other test ends. Then it goes on: each
	// test that has a harness may be waiting for a second one.
	roomPatience = 5 * time.Second
	roomLook     = 25 * time.Millisecond
)

// room bounds the tests of this process that use a server at once.
type room struct {
	most  int   // sessions that the server allows
	ended *bell // rings when a test ends

	mu   sync.Mutex
	used int // tests that are in
}

// roomOf returns the room of a server.
func (p *process) roomOf(ctx context.Context, server string) (*room, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r := p.rooms[server]; r != nil {
		return r, nil
	}
	admin, err := clone.Connect(ctx, server)
	if err != nil {
		return nil, fmt.Errorf("connect to the server of the tests: %w", err)
	}
	defer admin.Close(context.WithoutCancel(ctx))
	most, _, err := sessions(ctx, admin)
	if err != nil {
		return nil, err
	}
	r := &room{most: most, ended: &bell{}}
	p.rooms[server] = r
	return r, nil
}

// sessions returns how many sessions the server allows to ordinary roles, and how many there are.
func sessions(ctx context.Context, admin *pgx.Conn) (most, used int, err error) {
	err = admin.QueryRow(ctx, `
select current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
       - coalesce(current_setting('reserved_connections', true)::int, 0),
       (select count(*) from pg_catalog.pg_stat_activity where datid is not null)`).Scan(&most, &used)
	if err != nil {
		return 0, 0, fmt.Errorf("look how many sessions the server allows: %w", err)
	}
	return most, used, nil
}

// enter waits until there is room for one more test of this process. It holds no session meanwhile.
func (r *room) enter(ctx context.Context) (leave func(), err error) {
	patience := time.NewTimer(roomPatience)
	defer patience.Stop()
	for {
		ended := r.ended.rings()
		if r.take(false) {
			return sync.OnceFunc(r.leave), nil
		}
		select {
		case <-ended:
			patience.Reset(roomPatience)
		case <-patience.C:
			r.take(true)
			return sync.OnceFunc(r.leave), nil
		case <-ctx.Done():
			return func() {}, fmt.Errorf("wait for other tests to end: %w", context.Cause(ctx))
		}
	}
}

// take counts a test in, unless there is no room and it does not insist.
func (r *room) take(insist bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.used > 0 && (r.used+1)*sessionsEach > r.most && !insist {
		return false
	}
	r.used++
	return true
}

func (r *room) leave() {
	r.mu.Lock()
	r.used--
	r.mu.Unlock()
	r.ended.ring()
}

// await waits until the server has sessions left beside those of other processes, too, as far as it
// shows. admin is a session there.
func (r *room) await(ctx context.Context, admin *pgx.Conn) error {
	patience := time.NewTimer(roomPatience)
	defer patience.Stop()
	look := time.NewTicker(roomLook)
	defer look.Stop()
	for {
		most, used, err := sessions(ctx, admin)
		if err != nil || used+sessionsEach <= most {
			return err
		}
		select {
		case <-look.C:
		case <-patience.C:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("wait for sessions of the server: %w", context.Cause(ctx))
		}
	}
}
