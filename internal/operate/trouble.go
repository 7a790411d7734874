package operate

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
)

// troubled is a dispatcher that has recorded a Trouble.
type troubled struct {
	ID      int32
	Name    string
	Trouble string // JSON of sqlschema.Trouble
}

// warnOfTrouble warns of what living dispatchers can't do.
func (s *Status) warnOfTrouble(ctx context.Context, tx pgx.Tx) error {
	found, err := pg.Collect[troubled](ctx, tx, "select id, name, trouble::text as trouble from rowhook.instance where trouble is not null order by id")
	if err != nil {
		return fmt.Errorf("read the troubles of the dispatchers: %w", err)
	}
	for _, in := range found {
		if !slices.ContainsFunc(s.Instances, func(i Instance) bool { return i.ID == in.ID && i.Alive }) {
			continue
		}
		var t queue.Trouble
		if err := json.Unmarshal([]byte(in.Trouble), &t); err != nil {
			return fmt.Errorf("read the trouble of dispatcher %d: %w", in.ID, err)
		}
		for _, trigger := range slices.Sorted(maps.Keys(t.Unable)) {
			s.warn(Warning{
				Code: "cannot_send", Trigger: trigger,
				Problem: fmt.Sprintf("dispatcher %d (%s) can't send for this trigger, and its events wait for a dispatcher that can: %s", in.ID, in.Name, t.Unable[trigger]),
				Remedy:  "correct its webhook and apply, or give that dispatcher what is missing: a variable and a restart, or a file, which needs none",
			})
		}
		if t.History != "" {
			s.warn(Warning{Code: "no_history", Problem: fmt.Sprintf("dispatcher %d (%s) can't write history: %s", in.ID, in.Name, t.History), Remedy: historyRemedy})
		}
		if t.Activity != "" {
			s.warn(Warning{
				Code:    "no_activity",
				Problem: fmt.Sprintf("dispatcher %d (%s) can't write what it does, so the figures of the last hour are too low: %s", in.ID, in.Name, t.Activity),
				Remedy:  activityRemedy,
			})
		}
	}
	return nil
}

const activityRemedy = "check for revoked rights on rowhook.activity (rowhook apply --grant-to), for a lock on it, and for a full disk"

const historyRemedy = "check for event triggers that forbid DDL, for revoked rights, and for a full disk; see \"When history can't be written\" in docs/operations.md"

// warnOfHistory warns when the history has partitions for fewer than LeastDaysAhead days after
// today.
func (s *Status) warnOfHistory(ctx context.Context, tx pgx.Tx) error {
	var err error
	if s.daysAhead, err = queue.DaysAhead(ctx, tx); err != nil {
		return err
	}
	if s.daysAhead >= queue.LeastDaysAhead || !slices.ContainsFunc(s.Instances, func(i Instance) bool { return i.Alive }) {
		return nil
	}
	s.warn(Warning{
		Code: "history_ends", Problem: fmt.Sprintf("history has partitions for %d days after today, and no dispatcher creates more; without one, delivered events are not kept", max(s.daysAhead, 0)),
		Remedy: historyRemedy,
	})
	return nil
}

// HistoryUntil returns the end of the last day for which the history has partitions.
func (s *Status) HistoryUntil() time.Time {
	const day = 24 * time.Hour
	return s.Now.UTC().Truncate(day).Add(time.Duration(s.daysAhead+1) * day)
}
