package operate

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/queue"
)

// warnOfNotifications warns when the server's notification queue fills. A session that executed
// LISTEN and does not read its notifications fills it.
func (s *Status) warnOfNotifications(ctx context.Context, tx pgx.Tx) error {
	var usage float64
	if err := tx.QueryRow(ctx, "select pg_catalog.pg_notification_queue_usage()").Scan(&usage); err != nil {
		return fmt.Errorf("read the usage of the notification queue: %w", err)
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
		Problem: fmt.Sprintf("the server's notification queue is %.0f %% full. When it is full, commits that notify fail. Rowhook's writers have stopped notifying, and dispatchers poll",
			100*usage),
		Remedy: "find the session that executed LISTEN and does not read, in any database of the server, and end it; the server's log names it from 50 % on",
	}
	if b != nil {
		w.Remedy = fmt.Sprintf("process %d of %q (%s), %s since %s, may have executed LISTEN and not read: repair that program, or end the session with select pg_terminate_backend(%d)",
			b.PID, b.User, b.Application, b.State, b.Since.UTC().Format(time.RFC3339), b.PID)
	}
	s.warn(w)
	return nil
}
