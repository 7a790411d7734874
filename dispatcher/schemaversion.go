package dispatcher

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/sqlschema"
)

// schemaVersion is which version of the schema rowhook there is, as last seen. It can change while a
// dispatcher runs: "rowhook migrate" of any program moves it, and "rowhook uninstall" removes the
// schema. While it is one that this program can't work on, the dispatcher stands still: it claims and
// sends nothing, gives back what has not begun, and leaves its lanes and shares to others. What is in
// flight ends, and its outcome is written as soon as that succeeds. When the version is one of those
// again, the dispatcher goes on.
type schemaVersion struct {
	log     *slog.Logger
	halt    func() // has everything stand still
	resume  func() // has it go on
	version atomic.Int32

	mu      sync.Mutex                 // held by one look at a time
	problem atomic.Pointer[unworkable] // nil: this program can work on it
}

// unworkable says why a program can't work on the schema rowhook, and what to do.
type unworkable struct{ err error }

// unworkable returns why this program can't work on the schema rowhook. nil: it can.
func (v *schemaVersion) unworkable() error {
	if p := v.problem.Load(); p != nil {
		return p.err
	}
	return nil
}

// standsStill reports whether the dispatcher claims and sends nothing on account of the schema's
// version.
func (v *schemaVersion) standsStill() bool { return v.problem.Load() != nil }

// level is that of failures which this says already while the dispatcher stands still.
func (v *schemaVersion) level() slog.Level {
	if v.standsStill() {
		return slog.LevelDebug
	}
	return slog.LevelError
}

// seen reports whether a version is the one that is known, and this program can work on it.
func (v *schemaVersion) seen(version int32) bool {
	return v.version.Load() == version && !v.standsStill()
}

// look reads which version there is, and has the dispatcher stand still or go on accordingly. The
// error says that it could not be read.
func (v *schemaVersion) look(ctx context.Context, by *sessionShare) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	conn, err := by.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("connect to the database: %w", err)
	}
	have, _, err := sqlschema.Compatible(ctx, conn.Conn())
	conn.Release()
	if err != nil && !sqlschema.IsUnworkable(err) {
		return err
	}
	was, before := v.version.Swap(have), v.unworkable()
	switch {
	case err != nil:
		if before == nil {
			v.log.Error("this program can't work on the schema rowhook as it is now; nothing is claimed and sent until that changes", "error", err)
		}
		v.problem.Store(&unworkable{err})
		if before == nil {
			v.halt()
		}
	case before != nil:
		v.log.Info("this program can work on the schema rowhook again; events are claimed again", "schema", have)
		v.problem.Store(nil)
		v.resume()
	case was != have:
		v.log.Info("the schema rowhook has been migrated", "from", was, "to", have)
	}
	return nil
}

// recheck has the version looked at if it is another one than before. It costs one short query. The
// error is why this program can't work on the schema, or why its version can't be read.
func (db *database) recheck(ctx context.Context) error {
	now, err := pg.SchemaVersion(ctx, db.writes)
	if err == nil && db.schema.seen(now) {
		return nil
	}
	if err := db.schema.look(ctx, db.writes); err != nil {
		return err
	}
	return db.schema.unworkable()
}

// onSchema runs a statement that depends on the version of the schema rowhook. Dispatchers go on
// while the schema is migrated up or down by one version. A statement that fails because the schema
// has changed is run once more, for the version that there is now.
func (db *database) onSchema(ctx context.Context, f func(schema int32) error) error {
	was := db.schema.version.Load()
	err := f(was)
	if err == nil || !pg.IsOtherSchema(err) || db.schema.look(ctx, db.writes) != nil {
		return err
	}
	if problem := db.schema.unworkable(); problem != nil {
		return fmt.Errorf("%w (%w)", problem, err)
	}
	if now := db.schema.version.Load(); now != was {
		return f(now)
	}
	return err
}
