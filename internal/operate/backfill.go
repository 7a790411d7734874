package operate

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// BackfillStatus is how far a backfill is.
type BackfillStatus struct {
	ID         int64      `json:"id"`
	Trigger    string     `json:"trigger"`
	Where      string     `json:"where,omitempty"` // the SQL condition; "": every row
	StartedAt  time.Time  `json:"started_at"`
	TouchedAt  time.Time  `json:"touched_at"` // when it last got on
	FinishedAt *time.Time `json:"finished_at,omitempty"`
	Expected   int64      `json:"expected"` // rows to read, estimated
	Scanned    int64      `json:"scanned"`  // rows read
	Recorded   int64      `json:"recorded"` // events recorded
}

func (s *Status) readBackfills(ctx context.Context, tx pgx.Tx) error {
	found, err := collect[BackfillStatus](ctx, tx, `
select b.id, coalesce(t.name, '') as trigger, b.condition as "where", b.started_at, b.touched_at, b.finished_at, b.expected, b.scanned, b.recorded
  from rowhook.backfill b left join rowhook.trigger t on t.id = b.trigger_id
 where b.finished_at is null order by b.id`)
	if err != nil {
		return fmt.Errorf("list the backfills: %w", err)
	}
	s.Backfills = append(s.Backfills, found...)
	return nil
}
