package operate

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/queue"
)

// troubled is what a dispatcher has recorded that it can't do.
type troubled struct {
	ID      int32
	Name    string
	Trouble string
}

// warnOfTrouble tells what the dispatchers that are alive can't do.
func (s *Status) warnOfTrouble(ctx context.Context, tx pgx.Tx) error {
	if s.Schema.Database < queue.TroubleSchema {
		return nil
	}
	found, err := collect[troubled](ctx, tx, "select id, name, trouble::text as trouble from rowhook.instance where trouble is not null order by id")
	if err != nil {
		return fmt.Errorf("ask what the dispatchers can't do: %w", err)
	}
	for _, in := range found {
		if !slices.ContainsFunc(s.Instances, func(i Instance) bool { return i.ID == in.ID && i.Alive }) {
			continue
		}
		var t queue.Trouble
		if err := json.Unmarshal([]byte(in.Trouble), &t); err != nil {
			return fmt.Errorf("read what dispatcher %d can't do: %w", in.ID, err)
		}
		for _, trigger := range slices.Sorted(maps.Keys(t.Unable)) {
			s.warn(Warning{
				Code: "cannot_send", Trigger: trigger,
				Problem: fmt.Sprintf("dispatcher %d (%s) can't send for it, so its events wait for one that can: %s", in.ID, in.Name, t.Unable[trigger]),
				Remedy:  "correct its webhook and apply, or set the variable and restart that dispatcher",
			})
		}
		if t.History != "" {
			s.warn(Warning{Code: "no_history", Problem: fmt.Sprintf("dispatcher %d (%s) keeps no history: %s", in.ID, in.Name, t.History), Remedy: historyRemedy})
		}
	}
	return nil
}

const historyRemedy = "look for event triggers that forbid DDL, for rights that were revoked, and at the disk; see \"When history can't be written\" in docs/operations.md"

// warnOfHistory tells a day ahead that there will be no partition for what is delivered.
func (s *Status) warnOfHistory(ctx context.Context, tx pgx.Tx) error {
	var err error
	if s.daysAhead, err = queue.DaysAhead(ctx, tx); err != nil {
		return err
	}
	if s.daysAhead >= queue.LeastDaysAhead || !slices.ContainsFunc(s.Instances, func(i Instance) bool { return i.Alive }) {
		return nil
	}
	s.warn(Warning{
		Code: "history_ends", Problem: fmt.Sprintf("history has partitions for %d days after today, and no more are made: then nothing of what is delivered is kept", max(s.daysAhead, 0)),
		Remedy: historyRemedy,
	})
	return nil
}

// HistoryUntil is when the last day ends for which the history has partitions.
func (s *Status) HistoryUntil() time.Time {
	const day = 24 * time.Hour
	return s.Now.UTC().Truncate(day).Add(time.Duration(s.daysAhead+1) * day)
}
