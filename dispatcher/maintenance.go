package dispatcher

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/sqlschema"
)

const (
	tidyEvery = time.Minute // looking after the tables
	// A vacuum takes as long as it takes, but not for ever.
	vacuumTimeout = 30 * time.Minute
	// What holds back the horizon for so long is worth a warning, and sooner where so much is dead already: claims then walk over it.
	holderAfter   = 10 * time.Minute
	holderSooner  = time.Minute
	holderDead    = 50_000
	holderUntimed = 1_000_000 // transactions, of what has no time
	// After shedding history for a full disk, so long is waited before more goes.
	shedEvery = 5 * time.Second
)

// maintained is what was found and done while looking after the tables; see Maintenance.
type maintained struct {
	dropped  []sqlschema.Dropped
	deadRows int64
	vacuumed bool
	holder   *sqlschema.Holder
}

// maintenance is the state of the loop that looks after the tables.
type maintenance struct {
	mu     sync.Mutex
	shed   time.Time // when history was last shed for a full disk
	holder string    // whom the last warning named; the loop owns it
}

// maintainTables runs until ctx is done.
func (d *Dispatcher) maintainTables(ctx context.Context) {
	tidy, activity := time.NewTicker(tidyEvery), time.NewTicker(activityEvery)
	defer tidy.Stop()
	defer activity.Stop()
	var vacuuming sync.WaitGroup
	defer vacuuming.Wait()
	busy := make(chan struct{}, 1) // holds a token while a vacuum runs
	look := func() {
		u, late := d.tidy(ctx)
		if late {
			select {
			case busy <- struct{}{}:
				u.vacuumed = true
				vacuuming.Go(func() { d.vacuum(ctx, u.deadRows); <-busy })
			default:
			}
		}
		d.tell.maintained(u)
	}
	look()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tidy.C:
			look()
			d.lookAtCaptures(ctx)
		case <-d.captures.changed: // the start is one, too
			d.lookAtCaptures(ctx)
		case <-activity.C:
			d.writeActivity(ctx)
		}
	}
}

// tidyLock is the transaction's advisory lock under which one instance tidies. The bytes read "tidy".
const tidyLock = 0x74696479

// underTidyLock runs f in a transaction, unless another instance is doing the like.
func (d *Dispatcher) underTidyLock(ctx context.Context, f func(pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, d.writes, func(tx pgx.Tx) error {
		var mine bool
		if err := tx.QueryRow(ctx, "select pg_try_advisory_xact_lock($1)", int64(tidyLock)).Scan(&mine); err != nil || !mine {
			return err
		}
		return f(tx)
	})
}

// tidy makes partitions ahead of time, drops history that is over its retention or too large, buries events whose trigger is gone, and
// looks after the hot table. late says that it needs a vacuum.
func (d *Dispatcher) tidy(ctx context.Context) (u maintained, late bool) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	_, settings := d.configuration.get()
	var health sqlschema.QueueHealth
	looked := false
	var made, dropped error // a failure of one thing keeps nothing else from being looked after
	err := d.underTidyLock(ctx, func(tx pgx.Tx) error {
		made = pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error { return sqlschema.EnsurePartitions(ctx, tx) })
		dropped = pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) (err error) {
			u.dropped, err = sqlschema.DropHistory(ctx, tx, settings.Retention)
			return err
		})
		if dropped != nil {
			u.dropped = nil // it was rolled back
		}
		if err := sqlschema.ForgetActivity(ctx, tx); err != nil {
			return err
		}
		var err error
		health, err = sqlschema.LookAtQueue(ctx, tx)
		looked = err == nil
		return err
	})
	if err != nil {
		u.dropped = nil // as above
	}
	d.lookAhead(ctx, made)
	if made != nil && ctx.Err() == nil {
		d.log.Error("can't make partitions of the history ahead of time: without them nothing of what is delivered is kept; trying again later",
			"in", tidyEvery, "error", made)
	}
	if dropped != nil && ctx.Err() == nil {
		d.log.Error("can't drop history that is over its retention, trying again later", "in", tidyEvery, "error", dropped)
	}
	if err == nil {
		// A transaction that was open while its trigger was removed may have left events that nobody claims.
		var buried int64
		if buried, err = sqlschema.BuryOrphans(ctx, d.writes); buried > 0 {
			d.log.Info("moved events of removed triggers to the dead letters", "events", buried)
		}
	}
	if err == nil && looked {
		u.deadRows = health.Dead
		after := holderAfter
		if health.Dead > holderDead {
			after = holderSooner
		}
		u.holder, err = d.watchHolder(ctx, health, after)
		late = health.Late && u.holder == nil // behind a held horizon a vacuum would remove nothing
		if late && !health.MayVacuum {
			late = false
			d.log.Warn("autovacuum is late with the queue, and this role may not vacuum it: deliveries get slower until autovacuum does", "dead_rows", health.Dead)
		}
	}
	if err != nil && ctx.Err() == nil {
		d.log.Error("can't tidy up, trying again later", "in", tidyEvery, "error", sqlschema.ExplainHidden(err))
	}
	d.tellDropped("dropped history that is over its retention, or over its largest size", u.dropped)
	return u, late
}

// tellDropped logs what history is gone.
func (d *Dispatcher) tellDropped(message string, dropped []sqlschema.Dropped) {
	if len(dropped) == 0 {
		return
	}
	var rows, bytes int64
	names := make([]string, len(dropped))
	for i, p := range dropped {
		names[i] = p.Name
		rows += p.Rows
		bytes += p.Bytes
	}
	d.log.Info(message, "partitions", names, "rows_estimated", rows, "bytes", bytes)
	d.tell.dropped(dropped, bytes)
}

// watchHolder warns once of whoever has kept vacuum from cleaning the queue for so long, and says when that is over.
func (d *Dispatcher) watchHolder(ctx context.Context, health sqlschema.QueueHealth, after time.Duration) (*sqlschema.Holder, error) {
	h, err := sqlschema.FindHolder(ctx, d.writes, after, holderUntimed)
	if err != nil {
		return nil, err
	}
	if h == nil {
		if d.maintenance.holder != "" {
			d.log.Info("nobody holds back vacuum any more", "was", d.maintenance.holder)
		}
		d.maintenance.holder = ""
		return nil, nil
	}
	name := h.String()
	if d.maintenance.holder != name {
		d.maintenance.holder = name
		attrs := []any{"holder", name, "transactions", h.Age, "dead_rows", health.Dead, "remedy", h.Remedy()}
		if h.Since != nil {
			attrs = append(attrs, "since", *h.Since)
		}
		d.log.Warn("an old transaction keeps vacuum from cleaning the queue: deliveries get slower while it lasts", attrs...)
	}
	return h, nil
}

// vacuum helps where autovacuum is late.
func (d *Dispatcher) vacuum(ctx context.Context, dead int64) {
	ctx, cancel := context.WithTimeout(ctx, vacuumTimeout)
	defer cancel()
	began := time.Now()
	d.log.Info("vacuuming the queue, as autovacuum is late", "dead_rows", dead)
	err := sqlschema.VacuumQueue(ctx, d.writes)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		d.log.Warn("can't vacuum the queue: deliveries get slower until autovacuum does", "error", err)
	default:
		d.log.Info("vacuumed the queue", "took", time.Since(began).Round(time.Millisecond))
	}
}

// diskFull is the SQLSTATE of a disk that has no room left.
const diskFull = pgerrcode.DiskFull

func isDiskFull(err error) bool { return sqlschema.IsState(err, diskFull) }

// shed drops the oldest day of history, for a disk that is full: what is owed comes before what is over. It may be called by
// several at once.
func (d *Dispatcher) shed(ctx context.Context) {
	d.maintenance.mu.Lock()
	defer d.maintenance.mu.Unlock()
	if time.Since(d.maintenance.shed) < shedEvery {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	var dropped []sqlschema.Dropped
	tried := false
	err := d.underTidyLock(ctx, func(tx pgx.Tx) (err error) {
		tried = true
		dropped, err = sqlschema.Shed(ctx, tx)
		return err
	})
	switch {
	case err != nil:
		d.log.Error("the disk is full, and history can't be dropped to make room: free some space", "error", err)
	case len(dropped) > 0:
		d.maintenance.shed = time.Now()
		d.tellDropped("the disk is full: dropped the oldest history to make room; free some space, or set retention.max_size", dropped)
	case tried:
		d.maintenance.shed = time.Now()
		d.log.Error("the disk is full, and there is no history to drop: free some space")
	}
}
