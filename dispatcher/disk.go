package dispatcher

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
)

// diskSpace makes room on a full disk. The claimer and the settler use it.
type diskSpace struct {
	db   *database
	tell *observers
	log  *slog.Logger

	mu    sync.Mutex
	freed time.Time // when history was last dropped for a full disk, or there was none to drop
}

// freeEvery is how long to wait after history was dropped for a full disk before more of it is.
const freeEvery = 5 * time.Second

// diskFull is the SQLSTATE of a disk that has no room left.
const diskFull = pgerrcode.DiskFull

func isDiskFull(err error) bool { return pg.IsState(err, diskFull) }

// free drops the oldest day of history: events that are owed matter more than those that are over.
// It may be called by several at once.
func (s *diskSpace) free(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.freed) < freeEvery {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	var dropped []queue.Dropped
	tried := false
	err := s.db.underTidyLock(ctx, func(tx pgx.Tx) (err error) {
		tried = true
		dropped, err = queue.DropOldest(ctx, tx)
		return err
	})
	switch {
	case err != nil:
		s.log.Error("the database's disk is full, and old history can't be dropped to make room; free disk space on the database server", "error", err)
	case len(dropped) > 0:
		s.freed = time.Now()
		tellDropped(s.log, s.tell, "the database's disk is full: dropped the oldest history to make room; free disk space on the database server, or set retention.max_size", dropped)
	case tried:
		s.freed = time.Now()
		s.log.Error("the database's disk is full, and no old history is left to drop; free disk space on the database server")
	}
}

// tidyLock is the advisory lock of a transaction under which one instance tidies. Its bytes read
// "tidy".
const tidyLock = 0x74696479

// underTidyLock runs f in a transaction, unless another instance holds the lock.
func (db *database) underTidyLock(ctx context.Context, f func(pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, db.writes, func(tx pgx.Tx) error {
		var mine bool
		if err := tx.QueryRow(ctx, "select pg_try_advisory_xact_lock($1)", int64(tidyLock)).Scan(&mine); err != nil || !mine {
			return err
		}
		return f(tx)
	})
}

// tellDropped logs which history was dropped.
func tellDropped(log *slog.Logger, tell *observers, message string, dropped []queue.Dropped) {
	if len(dropped) == 0 {
		return
	}
	var rows, bytes int64
	names := make([]string, len(dropped))
	for i, p := range dropped {
		names[i] = p.Name
		rows += p.Rows
		bytes += p.Bytes
	}
	log.Info(message, "partitions", names, "rows_estimated", rows, "bytes", bytes)
	tell.dropped(dropped, bytes)
}
