package dispatcher

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/queue"
)

const (
	tidyEvery = time.Minute // between two rounds
	// idleRounds is how many rounds are left out at most while this instance has taken no event: others
	// tidy for theirs. What it looks for then changes by the day.
	idleRounds = 9
	// vacuumTimeout is far above what a vacuum of the queue takes.
	vacuumTimeout = 30 * time.Minute
	// A transaction that has held back vacuum for holderAfter is worth a warning. Where holderDead
	// rows are dead already, holderSooner is enough: claims walk over those rows.
	holderAfter   = 10 * time.Minute
	holderSooner  = time.Minute
	holderDead    = 50_000
	holderUntimed = 1_000_000 // for a holder without a start time: transactions since
)

// maintained is what a round found and did; see Maintenance.
type maintained struct {
	dropped  []queue.Dropped
	deadRows int64
	vacuumed bool
	holder   *queue.Holder
}

// maintenance is the loop that looks after the tables.
type maintenance struct {
	db            *database
	scheduler     *scheduler
	configuration *configuration
	history       *history
	captures      *captures
	tell          *observers
	log           *slog.Logger

	// Owned by the loop.
	holder  string // who holds back vacuum, as the last warning named it
	taken   int64  // scheduler.taken at the last round
	leftOut int    // rounds since
}

// run maintains the tables until ctx is done.
func (m *maintenance) run(ctx context.Context) {
	tidy := time.NewTicker(tidyEvery)
	defer tidy.Stop()
	var vacuuming sync.WaitGroup
	defer vacuuming.Wait()
	busy := make(chan struct{}, 1) // holds a token while a vacuum runs
	look := func() {
		if m.db.schema.standsStill() {
			return
		}
		u, late := m.tidy(ctx)
		if late {
			select {
			case busy <- struct{}{}:
				u.vacuumed = true
				vacuuming.Go(func() { m.vacuum(ctx, u.deadRows); <-busy })
			default:
			}
		}
		m.tell.maintained(u)
	}
	look()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tidy.C:
			if !m.leavesOut() {
				look()
			}
			m.captures.look(ctx)
		case <-m.captures.changed: // the first load puts a token in, too
			m.captures.look(ctx)
		}
	}
}

// leavesOut reports whether a round is left out.
func (m *maintenance) leavesOut() bool {
	taken := m.scheduler.takenSoFar()
	if taken == m.taken && m.leftOut < idleRounds && m.holder == "" {
		m.leftOut++
		return true
	}
	m.taken, m.leftOut = taken, 0
	return false
}

// tidy makes partitions ahead of time, drops history that is over its retention or its largest
// size, moves events whose trigger is gone to the dead letters, and looks after the hot table. late
// says that the hot table needs a vacuum.
func (m *maintenance) tidy(ctx context.Context) (u maintained, late bool) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	keep := widest(m.configuration.retention())
	var health queue.QueueHealth
	looked := false
	var made, dropped error // one that fails does not keep the rest from being done
	err := m.db.underTidyLock(ctx, func(tx pgx.Tx) error {
		made = pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error { return queue.EnsurePartitions(ctx, tx) })
		dropped = pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) (err error) {
			u.dropped, err = queue.DropHistory(ctx, tx, keep)
			return err
		})
		if dropped != nil {
			u.dropped = nil // it was rolled back
		}
		if err := queue.ForgetActivity(ctx, tx); err != nil {
			return err
		}
		if _, err := queue.ForgetCommitRows(ctx, tx); err != nil {
			return err
		}
		var err error
		health, err = queue.ReadQueueHealth(ctx, tx)
		looked = err == nil
		return err
	})
	if err != nil {
		u.dropped = nil // as above
	}
	m.history.lookAhead(ctx, made)
	if made != nil && ctx.Err() == nil {
		m.log.Error("can't create history partitions in advance; without them deliveries are not recorded; retrying",
			"in", tidyEvery, "error", made)
	}
	if dropped != nil && ctx.Err() == nil {
		m.log.Error("can't drop history that is past its retention; retrying", "in", tidyEvery, "error", dropped)
	}
	if err == nil {
		// A transaction that was open while its trigger was removed may have left events that
		// nobody claims.
		var buried int64
		if buried, err = queue.BuryOrphans(ctx, m.db.writes); buried > 0 {
			m.log.Info("moved events of removed triggers to the dead letters", "events", buried)
		}
	}
	if err == nil {
		// Likewise for a transaction that was open while its trigger lost its order.
		var freed int64
		if freed, err = queue.Unpark(ctx, m.db.writes); freed > 0 {
			m.log.Info("events that waited in order of triggers without order are sent as they come", "events", freed)
		}
	}
	if err == nil && looked {
		u.deadRows = health.Dead
		after := holderAfter
		if health.Dead > holderDead {
			after = holderSooner
		}
		u.holder, err = m.watchHolder(ctx, health, after)
		// While somebody holds it back, a vacuum would remove nothing.
		late = health.Late && u.holder == nil
		if late && !health.MayVacuum {
			late = false
			m.log.Warn("autovacuum is behind on the queue, and this role may not vacuum it; deliveries get slower until autovacuum runs, or the owner vacuums rowhook.event_log", "dead_rows", health.Dead)
		}
	}
	if err != nil && ctx.Err() == nil {
		m.log.Error("can't maintain the queue's tables; retrying", "in", tidyEvery, "error", queue.ExplainHidden(err))
	}
	tellDropped(m.log, m.tell, "dropped history that is past its retention or above its maximum size", u.dropped)
	return u, late
}

// watchHolder warns once of what has kept vacuum from cleaning the queue for the time after, and
// logs when that is over.
func (m *maintenance) watchHolder(ctx context.Context, health queue.QueueHealth, after time.Duration) (*queue.Holder, error) {
	h, err := queue.FindHolder(ctx, m.db.writes, after, holderUntimed)
	if err != nil {
		return nil, err
	}
	if h == nil {
		if m.holder != "" {
			m.log.Info("vacuum of the queue is no longer held back", "was", m.holder)
		}
		m.holder = ""
		return nil, nil
	}
	name := h.String()
	if m.holder != name {
		m.holder = name
		attrs := []any{"holder", name, "transactions", h.Age, "dead_rows", health.Dead, "remedy", h.Remedy()}
		if h.Since != nil {
			attrs = append(attrs, "since", *h.Since)
		}
		m.log.Warn("an old transaction keeps vacuum from removing dead rows of the queue; deliveries get slower until it ends", attrs...)
	}
	return h, nil
}

// vacuum vacuums the queue, since autovacuum is late.
func (m *maintenance) vacuum(ctx context.Context, dead int64) {
	ctx, cancel := context.WithTimeout(ctx, vacuumTimeout)
	defer cancel()
	began := time.Now()
	m.log.Info("vacuuming the queue because autovacuum is behind", "dead_rows", dead)
	err := queue.VacuumQueue(ctx, m.db.writes)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		m.log.Warn("can't vacuum the queue; deliveries get slower until autovacuum runs", "error", err)
	default:
		m.log.Info("vacuumed the queue", "took", time.Since(began).Round(time.Millisecond))
	}
}
