package dispatcher

import (
	"context"
	"log/slog"
	"time"

	"github.com/rowhook/rowhook/internal/queue"
)

// troubleRecord keeps rowhook.instance.trouble: what this instance can't do. The command status
// shows it. The peers' loop owns it.
type troubleRecord struct {
	db        *database
	self      *identity
	scheduler *scheduler
	history   *history
	activity  *activityCounter
	log       *slog.Logger

	recorded queue.Trouble
	at       time.Time // when it was recorded
}

// troubleRepeat is how often trouble that has not changed is recorded again: the row may be a new
// one.
const troubleRepeat = 10 * time.Second

// update records what has changed.
func (r *troubleRecord) update(ctx context.Context, now time.Time) {
	trouble := queue.Trouble{Unable: r.scheduler.unable(), Hanging: r.scheduler.hanging(), Paced: r.scheduler.pacedEvents()}
	trouble.History, _ = r.history.problem()
	trouble.Activity = r.activity.problem()
	same := trouble.Equal(&r.recorded)
	if same && (trouble.IsZero() || now.Sub(r.at) < troubleRepeat) {
		return
	}
	err := r.db.onSchema(ctx, func(int32) error {
		return queue.RecordTrouble(ctx, r.db.writes, r.self.id, &trouble)
	})
	if err != nil {
		r.log.Debug("can't record this instance's problems; retrying", "error", err)
		return
	}
	r.recorded, r.at = trouble, now
}
