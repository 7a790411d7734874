package operate

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/queue"
)

// warnOfNotifications looks at the server's queue of notifications, which a session that listens and does not read fills up.
func (s *Status) warnOfNotifications(ctx context.Context, tx pgx.Tx) error {
	var usage float64
	if err := tx.QueryRow(ctx, "select pg_catalog.pg_notification_queue_usage()").Scan(&usage); err != nil {
		return fmt.Errorf("ask for the queue of notifications: %w", err)
	}
	if usage < queue.MuteFrom {
		return nil
	}
	b, err := queue.FindNotificationBlocker(ctx, tx, 0)
	if err != nil {
		return err
	}
	w := Warning{
		Code: "notification_queue_fills",
		Problem: fmt.Sprintf("the server's queue of notifications is %.0f %% full: once it is full, commits that notify fail. Rowhook's writers notify no more, and dispatchers look by themselves",
			100*usage),
		Remedy: "find the session that listens (LISTEN) and does not read, in any database of the server, and end it; the server's log names it from 50 % on",
	}
	if b != nil {
		w.Remedy = fmt.Sprintf("it may be process %d of %q (%s), %s since %s, that listens (LISTEN) and does not read: see to it, or end it by select pg_terminate_backend(%d)",
			b.PID, b.User, b.Application, b.State, b.Since.UTC().Format(time.RFC3339), b.PID)
	}
	s.warn(w)
	return nil
}
