package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowhook/rowhook/internal/queue"
)

// history is whether the history can be written: the archive of delivered events, and the log of
// attempts. If it can't, for instance because a partition is missing and can't be made, events are
// settled without it. Otherwise they would be sent again at the end of each lease, without end.
type history struct {
	db  *database
	log *slog.Logger

	mu     sync.Mutex
	err    string    // why it can't be written; "": it can
	since  time.Time // when that began
	next   time.Time // when it is tried again
	told   time.Time // when the last line about it was logged
	events int       // how many were settled without it since the last line of the log
	// ahead is for how many days after today there are partitions. It is valid if looked is set.
	ahead  int
	looked bool
	ending string // why no partitions can be made
}

const (
	historyRetry = 10 * time.Second // until history that failed is tried again
	historyTell  = time.Minute      // between two lines of the log about it
	// A settlement has to fail this often before it is tried without history. The limit is higher
	// where the failure may pass by itself.
	historyFailures  = 3
	historyTransient = 8
	historyDiskFull  = 10 // some 15 s. Meanwhile old history is dropped to make room
)

// avoided reports that a batch is to be settled without history.
func (h *history) avoided(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err != "" && now.Before(h.next)
}

// mayBlame reports that history may be at fault for a settlement that has failed this often. It is
// not, where the server has said nothing or takes no writes at all.
func mayBlame(err error, failures int) bool {
	var pg *pgconn.PgError
	var connect *pgconn.ConnectError
	if !errors.As(err, &pg) || errors.As(err, &connect) || pg.Code == pgerrcode.TooManyConnections {
		// The server accepts no connection: the limit is reached, or the password was changed.
		return false
	}
	switch pg.Code[:min(2, len(pg.Code))] {
	case "08", "57":
		return pg.Code == pgerrcode.QueryCanceled && failures >= historyTransient // by a timeout
	case "40", "55":
		return failures >= historyTransient
	}
	if isDiskFull(err) {
		return failures >= historyDiskFull
	}
	return pg.Code != pgerrcode.ReadOnlySQLTransaction && failures >= historyFailures
}

// failed records that events were settled without history, and logs so each historyTell. err is nil
// if history was not tried.
func (h *history) failed(err error, events int) {
	now := time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err == "" {
		h.since = now
	}
	if err != nil {
		h.err, h.next = err.Error(), now.Add(historyRetry)
	}
	h.events += events
	if now.Sub(h.told) < historyTell {
		return
	}
	h.log.Error("history can't be written, so events are settled without it: deliveries continue, but are not recorded; see \"When history can't be written\" in docs/operations.md",
		"events", h.events, "since", h.since.UTC().Format(time.RFC3339), "error", h.err)
	h.told, h.events = now, 0
}

// written records that history was written.
func (h *history) written() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err == "" {
		return
	}
	h.log.Info("history is written again", "events_without", h.events)
	h.err, h.told, h.events = "", time.Time{}, 0
}

// lookAhead records for how many days there are partitions. made is why they could not be made
// ahead of time.
func (h *history) lookAhead(ctx context.Context, made error) {
	days, err := queue.DaysAhead(ctx, h.db.writes)
	if err != nil {
		return // tidy reports failures of the database
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ahead, h.looked, h.ending = days, true, ""
	if made != nil {
		h.ending = made.Error()
	}
}

// problem returns why history is not written now, and why it will not be written soon; "": it is.
func (h *history) problem() (now, soon string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err != "" {
		now = "history has not been writable since " + h.since.UTC().Format(time.RFC3339) + ", so events are settled without it: " + h.err
	}
	if h.looked && h.ahead < queue.LeastDaysAhead {
		soon = fmt.Sprintf("there are partitions for %d days after today, and no more are made", max(h.ahead, 0))
		if h.ending != "" {
			soon += ": " + h.ending
		}
	}
	return now, soon
}
