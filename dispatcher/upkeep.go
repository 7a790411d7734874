package dispatcher

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/sqlschema"
)

// tidyEvery is how often the tables are looked after.
const tidyEvery = time.Minute

// keepUp runs until ctx is done.
func (d *Dispatcher) keepUp(ctx context.Context) {
	tidy, tally := time.NewTicker(tidyEvery), time.NewTicker(tallyEvery)
	defer tidy.Stop()
	defer tally.Stop()
	d.tidy(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tidy.C:
			d.tidy(ctx)
		case <-tally.C:
			d.writeTally(ctx)
		}
	}
}

// tidyLock is the transaction's advisory lock under which one instance tidies. The bytes read "tidy".
const tidyLock = 0x74696479

// tidy makes partitions ahead of time, drops those that are over their retention, and buries events whose trigger is gone.
func (d *Dispatcher) tidy(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	_, settings := d.config.get()
	var dropped []string
	err := pgx.BeginFunc(ctx, d.writes, func(tx pgx.Tx) error {
		var mine bool
		if err := tx.QueryRow(ctx, "select pg_try_advisory_xact_lock($1)", int64(tidyLock)).Scan(&mine); err != nil || !mine {
			return err
		}
		var err error
		dropped, err = sqlschema.Tidy(ctx, tx, settings.Retention)
		return err
	})
	if err == nil {
		// A transaction that was open while its trigger was removed may have left events that nobody claims.
		var buried int64
		if buried, err = sqlschema.BuryOrphans(ctx, d.writes); buried > 0 {
			d.log.Info("moved events of removed triggers to the dead letters", "events", buried)
		}
	}
	if err != nil && ctx.Err() == nil {
		d.log.Error("can't tidy up, trying again later", "in", tidyEvery, "error", err)
	}
	if len(dropped) > 0 {
		d.log.Info("dropped history that is over its retention", "partitions", dropped)
	}
}
