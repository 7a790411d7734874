package operate

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
)

// NotificationQueueFills is the code of the warning that the server's notification queue fills.
const NotificationQueueFills = "notification_queue_fills"

func (s *Status) warnOfNotifications(ctx context.Context, tx pgx.Tx) error {
	_, w, err := ReadNotificationQueue(ctx, tx)
	if w != nil {
		s.warn(*w)
	}
	return err
}

// ReadNotificationQueue returns the share of the server's notification queue that is in use, and a
// warning when the queue fills. A session that executed LISTEN and does not read its notifications
// fills it. It works without the schema rowhook.
func ReadNotificationQueue(ctx context.Context, db pg.Queryer) (usage float64, w *Warning, err error) {
	if err := db.QueryRow(ctx, "select pg_catalog.pg_notification_queue_usage()").Scan(&usage); err != nil {
		return 0, nil, fmt.Errorf("read the usage of the notification queue: %w", err)
	}
	if usage < queue.MuteFrom {
		return usage, nil, nil
	}
	b, err := queue.FindNotificationBlocker(ctx, db, 0)
	if err != nil {
		return usage, nil, err
	}
	w = &Warning{
		Code: NotificationQueueFills,
		Problem: fmt.Sprintf("the server's notification queue is %.0f %% full. When it is full, commits that notify fail. Rowhook's writers have stopped notifying, and dispatchers poll",
			100*usage),
		Remedy: "find the session that executed LISTEN and does not read, in any database of the server, and end it; the server's log names it from 50 % on",
	}
	if b != nil {
		w.Remedy = fmt.Sprintf("process %d of %q (%s), %s since %s, may have executed LISTEN and not read: repair that program, or end the session with select pg_terminate_backend(%d)",
			b.PID, b.User, b.Application, b.State, b.Since.UTC().Format(time.RFC3339), b.PID)
	}
	return usage, w, nil
}
