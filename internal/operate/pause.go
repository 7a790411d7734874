package operate

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/internal/sorting"
	"github.com/rowhook/rowhook/sqlschema"
)

// Pause stops deliveries of triggers on all instances within about a second. No names means all
// triggers, including those that a later apply adds. Events are still recorded, and attempts in
// flight end normally. A pause lasts until Resume, across restarts and applies. Pause returns the
// names of the triggers that were not paused before.
func Pause(ctx context.Context, db DB, names ...string) ([]string, error) {
	return PauseFor(ctx, db, "", names...)
}

// PauseFor is Pause with a reason of at most maxReason characters, which the status shows.
func PauseFor(ctx context.Context, db DB, reason string, names ...string) ([]string, error) {
	reason, err := checkReason(reason)
	if err != nil {
		return nil, err
	}
	return setPaused(ctx, db, true, reason, names)
}

// Resume ends the pause of triggers. No names means all triggers, and triggers that a later apply
// adds no longer start paused. Resume returns the names of the triggers that were paused before.
func Resume(ctx context.Context, db DB, names ...string) ([]string, error) {
	return setPaused(ctx, db, false, "", names)
}

const maxReason = 500 // characters

// checkReason replaces control characters and invalid UTF-8, and rejects a reason that is too long.
func checkReason(reason string) (string, error) {
	reason = strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(reason, "\ufffd")))
	if n := utf8.RuneCountInString(reason); n > maxReason {
		return "", problem(ErrInvalid, "shorten it", "the reason must have at most %d characters, got %d", maxReason, n)
	}
	return reason, nil
}

func setPaused(ctx context.Context, db DB, paused bool, reason string, names []string) ([]string, error) {
	changed := []string{}
	err := transact(ctx, db, pgx.ReadCommitted, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "set local search_path = pg_catalog"); err != nil {
			return fmt.Errorf("begin: %w", err)
		}
		ts, err := readTriggers(ctx, tx)
		if err != nil {
			return err
		}
		ids := []int32{}
		for _, name := range names {
			t, err := ts.active(name)
			if err != nil {
				return err
			}
			ids = append(ids, t.ID)
		}
		for i := range ts {
			if paused || len(ids) > 0 && !slices.Contains(ids, ts[i].ID) {
				continue
			}
			if err := ts[i].unlessPrepared("resumption"); err != nil { // both would deliver
				return err
			}
		}
		// This comes first: its row lock makes this transaction and a concurrent apply wait for
		// each other.
		if err := sqlschema.RaiseGeneration(ctx, tx); err != nil {
			return err
		}
		p := pausing{paused: paused, reason: reason, ids: ids}
		if changed, err = p.run(ctx, tx); err != nil {
			return err
		}
		action, detail := "resume", map[string]any{"changed": changed}
		if paused {
			action = "pause"
		}
		if reason != "" {
			detail["reason"] = reason
		}
		if len(names) == 0 {
			detail["all"] = true
		}
		_, err = queue.RecordAudit(ctx, tx, queue.AuditEntry{Action: action, Targets: names, Detail: detail})
		return err
	})
	if err != nil {
		return nil, err
	}
	return changed, nil
}

// pausing pauses or resumes triggers, and stores who did it and why.
type pausing struct {
	paused bool
	reason string
	ids    []int32 // none: all
}

func (p *pausing) run(ctx context.Context, tx pgx.Tx) (changed []string, err error) {
	type row struct {
		ID   int32
		Name string
	}
	rows, err := pg.Collect[row](ctx, tx, `
update rowhook.trigger set paused = $1
 where removed_at is null and paused <> $1 and (cardinality($2::integer[]) = 0 or id = any($2)) returning id, name`, p.paused, p.ids)
	if err != nil {
		return nil, fmt.Errorf("pause or resume: %w", err)
	}
	sorting.By(rows, func(a, b row) int { return strings.Compare(a.Name, b.Name) })
	changed = []string{}
	touched := slices.Clone(p.ids)
	for _, r := range rows {
		changed = append(changed, r.Name)
		if !slices.Contains(touched, r.ID) {
			touched = append(touched, r.ID)
		}
	}
	all, err := queue.ReadPauses(ctx, tx)
	if err != nil {
		return nil, err
	}
	now := queue.Pause{Reason: p.reason}
	var role string
	if err := tx.QueryRow(ctx, "select clock_timestamp(), session_user").Scan(&now.At, &role); err != nil {
		return nil, fmt.Errorf("ask for the time: %w", err)
	}
	now.By = queue.By(ctx, role)
	if all.Triggers == nil {
		all.Triggers = map[int32]queue.Pause{}
	}
	if len(p.ids) == 0 {
		all.All = nil
		if p.paused {
			all.All = &now
		}
	}
	for _, id := range touched {
		was, known := all.Triggers[id]
		switch {
		case !p.paused:
			delete(all.Triggers, id)
		case !known || slices.ContainsFunc(rows, func(r row) bool { return r.ID == id }):
			all.Triggers[id] = now
		case p.reason != "": // it was paused already: the start of its pause stays
			was.Reason, was.By = p.reason, now.By
			all.Triggers[id] = was
		}
	}
	return changed, queue.WritePauses(ctx, tx, all)
}
