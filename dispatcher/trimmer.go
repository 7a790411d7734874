package dispatcher

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/trigger"
)

// trimmer deletes history that is past its retention and in a day that is still needed: of triggers
// with a retention of their own, or with a retention that is no whole number of days. Whole days are
// dropped by the maintenance. One of the instances does it, as its load is on the database.
//
// History has no index by time, since each attempt would pay for it. So the pages of a day are read
// one after another, and not more often than after an eighth of the retention: a day is read some
// times while it is trimmed, and not at all before and after. The decision is in
// docs/decisions/0031-history-is-trimmed-by-pages.md.
type trimmer struct {
	db            *database
	self          *identity
	configuration *configuration
	log           *slog.Logger

	plans  map[string]trimPlan  // what passes went by, by the table
	passes map[string]time.Time // when the last complete pass over a partition began, by its name
	failed bool
}

// trimPlan says how long rows of one table are kept.
type trimPlan struct {
	general trigger.Duration
	own     map[int32]trigger.Duration // by trigger
	due     []time.Duration            // the times after which rows are deleted that the drop of a day does not delete
}

const (
	// trimPages bounds a statement to a megabyte, which takes some 10 ms where all is deleted.
	trimPages = 128
	// trimShare is the part of the time in which statements of the trimmer run: one in trimShare.
	trimShare = 5
	// A day is read again after an eighth of the retention, within these bounds.
	soonestTrim, latestTrim = time.Minute, time.Hour
)

// run trims until ctx is done.
func (t *trimmer) run(ctx context.Context) {
	t.passes, t.plans = map[string]time.Time{}, map[string]trimPlan{}
	every(ctx, tidyEvery, func() {
		if t.db.schema.standsStill() {
			return
		}
		switch err := t.look(ctx); {
		case ctx.Err() != nil:
		case err != nil && !t.failed:
			t.failed = true
			t.log.Error("can't delete history that is past its retention; retrying", "in", tidyEvery, "error", err)
		case err == nil && t.failed:
			t.failed = false
			t.log.Info("history that is past its retention is deleted again")
		}
	})
}

// widest is the retention by which whole days are dropped: nothing is needed for longer.
func widest(general trigger.Retention, own map[int32]trigger.Retention) trigger.Retention {
	for _, r := range own {
		general.Delivered, general.Attempts = max(general.Delivered, r.Delivered), max(general.Attempts, r.Attempts)
	}
	return general
}

// trimPlans returns what is to be deleted of the two tables. One without is not in it.
func trimPlans(general trigger.Retention, own map[int32]trigger.Retention) map[string]trimPlan {
	plans := map[string]trimPlan{}
	for table, keep := range map[string]func(trigger.Retention) trigger.Duration{
		"event_archive":  func(r trigger.Retention) trigger.Duration { return r.Delivered },
		"invocation_log": func(r trigger.Retention) trigger.Duration { return r.Attempts },
	} {
		p, most := trimPlan{general: keep(general)}, keep(widest(general, own))
		all := []trigger.Duration{p.general}
		for id, r := range own {
			if k := keep(r); k != p.general {
				if p.own == nil {
					p.own = map[int32]trigger.Duration{}
				}
				p.own[id] = k
				all = append(all, k)
			}
		}
		for _, k := range all {
			if k < most || k%trigger.Duration(24*time.Hour) != 0 {
				p.due = append(p.due, k.Std())
			}
		}
		slices.Sort(p.due)
		if p.due = slices.Compact(p.due); len(p.due) > 0 {
			plans[table] = p
		}
	}
	return plans
}

// same reports whether passes by either plan delete the same.
func (p trimPlan) same(o trimPlan) bool { return p.general == o.general && maps.Equal(p.own, o.own) }

// dueFor reports whether a day is to be read now. pass is when the last pass over it began; zero:
// there was none.
func (p *trimPlan) dueFor(day, now, pass time.Time) bool {
	for _, keep := range p.due {
		from, to := day.Add(keep), day.Add(24*time.Hour+keep)
		again := pass.Add(min(max(keep/8, soonestTrim), latestTrim))
		if keep == 0 { // nothing is written; what is there is from before
			again = pass.Add(latestTrim)
		}
		done := !pass.Before(to)
		if !done && !now.Before(from) && (!now.Before(again) || !now.Before(to)) {
			return true
		}
	}
	return false
}

func (t *trimmer) look(ctx context.Context) error {
	general, own := t.configuration.retention()
	plans := trimPlans(general, own)
	for table, p := range plans {
		if !p.same(t.plans[table]) {
			clear(t.passes)
		}
	}
	if t.plans = plans; len(plans) == 0 {
		return nil
	}
	days, now, err := queue.HistoryDays(ctx, t.db.writes, t.self.id)
	if err != nil {
		return err
	}
	for _, d := range days {
		p, ok := plans[d.Parent]
		if !ok || !p.dueFor(d.Day, now, t.passes[d.Name]) {
			continue
		}
		deleted, err := t.pass(ctx, d, &p)
		if err != nil {
			return err
		}
		t.passes[d.Name] = now
		if deleted > 0 {
			t.log.Debug("deleted history that is past its retention", "table", d.Name, "rows", deleted)
		}
	}
	return nil
}

// pass reads a day once.
func (t *trimmer) pass(ctx context.Context, d queue.HistoryDay, p *trimPlan) (deleted int64, err error) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	for page := int64(0); page < d.Pages; page += trimPages {
		began := time.Now()
		within, cancel := context.WithTimeout(ctx, statementTimeout)
		n, err := queue.TrimHistory(within, t.db.writes, d.Name, page, trimPages, p.general.Std(), p.own)
		cancel()
		if err != nil {
			return deleted, err
		}
		deleted += n
		timer.Reset((trimShare - 1) * time.Since(began))
		select {
		case <-ctx.Done():
			return deleted, ctx.Err()
		case <-timer.C:
		}
	}
	return deleted, nil
}
