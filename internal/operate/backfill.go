package operate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
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
	// Buried is how many rows this call could not turn into events. Each is a dead letter that says why, and the row's key.
	Buried int64 `json:"buried,omitempty" db:"-"`
}

// BackfillOptions say which rows to record, and who is told of it.
type BackfillOptions struct {
	// Where is an SQL condition over the table's columns; "": every row that meets the trigger's when.
	Where string
	// Restart gives up a backfill that was interrupted and starts from the beginning.
	Restart bool
	// Progress is told after each batch, on the caller's goroutine. Optional.
	Progress func(BackfillStatus)
	// Unthrottled takes no regard to deliveries that are under way.
	Unthrottled bool
}

// Backfill records the rows that a trigger's table holds now as events of the trigger: INSERT events whose new is the row, with
// the session variable rowhook_backfill, the backfill's number, to tell them by. Rows that come after its beginning and have higher keys are
// left to their own events.
//
// It reads by the primary key, batch by batch; where there is none it is refused. In the end it counts the table's rows without
// the key, and fails where it has passed over some. What was interrupted goes on where it was when it is called with the same
// condition again. It keeps at most half of the trigger's slots busy, so that events which come meanwhile are not held up.
func Backfill(ctx context.Context, db DB, trigger string, o BackfillOptions) (*BackfillStatus, error) {
	b := &backfill{db: db, opt: o}
	if err := b.open(ctx, trigger); err != nil {
		return nil, err
	}
	var err error
	if b.feed, err = newThrottle(b.ts); err != nil {
		return nil, err
	}
	detail := map[string]any{"backfill": b.ID}
	if o.Where != "" {
		detail["where"] = o.Where
	}
	if o.Restart {
		detail["restart"] = true
	}
	ended, err := record(ctx, db, queue.AuditEntry{Action: "backfill", Targets: []string{trigger}, Detail: detail})
	if err != nil {
		return nil, err
	}
	err = b.run(ctx)
	return &b.BackfillStatus, ended(map[string]any{"scanned": b.Scanned, "recorded": b.Recorded}, err)
}

// run records batch by batch until all is read.
func (b *backfill) run(ctx context.Context) error {
	for b.FinishedAt == nil && !b.read {
		size := bulkBatch
		if !b.opt.Unthrottled {
			if err := b.feed.wait(ctx, b.db, &size); err != nil {
				return err
			}
		}
		ids, err := b.step(ctx, size)
		if err != nil {
			return err
		}
		b.feed.let(map[int32][]string{b.trigger.ID: ids})
		if b.opt.Progress != nil {
			b.opt.Progress(b.BackfillStatus)
		}
	}
	if b.FinishedAt != nil {
		return nil
	}
	return b.finish(ctx)
}

// backfill is one that is under way.
type backfill struct {
	BackfillStatus
	db      DB
	opt     BackfillOptions
	ts      triggers
	trigger *knownTrigger
	rows    *sqlschema.RowSource
	horizon string // see sqlschema.Extent; "": the schema is of version 2, and nothing is counted in the end
	read    bool   // to the end
	most    int    // rows that are read at once, while there is one that can't be turned into an event
	feed    throttle
}

// PlanBackfill says what Backfill would do, and changes nothing: how far an interrupted backfill is that it would go on with, or, with no
// number, how many rows it would begin to read. What Backfill refuses it refuses, too.
func PlanBackfill(ctx context.Context, db DB, trigger string, o BackfillOptions) (*BackfillStatus, error) {
	b := &backfill{db: db, opt: o}
	err := transact(ctx, db, pgx.ReadCommitted, func(tx pgx.Tx) error { // with the role's own search_path, as the condition is run
		if _, err := tx.Exec(ctx, "set transaction read only"); err != nil {
			return fmt.Errorf("begin to read: %w", err)
		}
		if err := b.check(ctx, tx, trigger); err != nil {
			return err
		}
		if !o.Restart {
			if err := b.resume(ctx, tx); err != nil || b.ID != 0 {
				return err
			}
		}
		extent, err := b.extent(ctx, tx)
		b.Trigger, b.Where, b.Expected = trigger, o.Where, extent.Rows
		return err
	})
	return &b.BackfillStatus, err
}

// open checks the table and the condition, and finds the row of an interrupted backfill or makes one.
func (b *backfill) open(ctx context.Context, name string) error {
	return transact(ctx, b.db, pgx.ReadCommitted, func(tx pgx.Tx) error {
		if err := b.check(ctx, tx, name); err != nil {
			return err
		}
		if b.opt.Restart {
			if _, err := tx.Exec(ctx, "update rowhook.backfill set finished_at = now() where trigger_id = $1 and finished_at is null", b.trigger.ID); err != nil {
				return fmt.Errorf("give up the earlier backfill: %w", err)
			}
			return b.begin(ctx, tx)
		}
		if err := b.resume(ctx, tx); err != nil || b.ID != 0 {
			return err
		}
		return b.begin(ctx, tx)
	})
}

// check finds the trigger, and checks its table and the condition.
func (b *backfill) check(ctx context.Context, tx pgx.Tx, name string) error {
	var err error
	if b.ts, err = readTriggers(ctx, tx); err != nil {
		return err
	}
	if b.trigger, err = b.ts.active(name); err != nil {
		return err
	}
	return b.openRows(ctx, tx)
}

// openRows prepares to read the table as the trigger now says.
func (b *backfill) openRows(ctx context.Context, tx pgx.Tx) error {
	spec := trigger.DefaultSpec()
	if err := json.Unmarshal([]byte(b.trigger.Spec), &spec); err != nil {
		return fmt.Errorf("read the spec of %s: %w", b.trigger.Name, err)
	}
	var err error
	b.rows, err = sqlschema.OpenRows(ctx, tx.Conn(), b.trigger.ID, spec, b.trigger.Relation, b.opt.Where)
	return refused(err)
}

// refused makes a problem of what is wrong with the rows or the condition.
func refused(err error) error {
	var wrong *sqlschema.RowsError
	if errors.As(err, &wrong) {
		kind := ErrRefused
		if strings.HasPrefix(wrong.Message, "the condition") {
			kind = ErrInvalid
		}
		return problem(kind, "", "%s", wrong.Message)
	}
	return err
}

// follow takes note of what an apply has changed meanwhile: rows must not be recorded for a trigger that is gone, nor with columns that it
// does not show any more.
func (b *backfill) follow(ctx context.Context, tx pgx.Tx) error {
	var now knownTrigger
	err := tx.QueryRow(ctx, "select w.relation, t.removed_at is not null, t.spec::text from rowhook.trigger t"+queue.WatchedNow+" where t.id = $1", b.trigger.ID).
		Scan(&now.Relation, &now.Removed, &now.Spec)
	switch {
	case err != nil && !isNone(err):
		return fmt.Errorf("look at the trigger: %w", err)
	case err != nil || now.Removed:
		return problem(ErrRefused, "add it to rowhook.yaml again and apply, and repeat this to go on", "the trigger %q was removed", b.trigger.Name)
	case now.Relation != b.trigger.Relation:
		return problem(ErrRefused, "start it anew by --restart (restart: true)", "the trigger %q has moved to another table", b.trigger.Name)
	case now.Spec == b.trigger.Spec:
		return nil
	}
	b.trigger.Spec = now.Spec
	key := b.rows.Key
	if err := b.openRows(ctx, tx); err != nil || slices.Equal(key, b.rows.Key) {
		return err
	}
	return b.otherKey()
}

func (b *backfill) otherKey() error {
	return problem(ErrRefused, "start it anew by --restart (restart: true)", "the primary key of %s has changed since the backfill was interrupted", b.rows.Table)
}

// resume takes up the backfill of this trigger that was interrupted.
func (b *backfill) resume(ctx context.Context, tx pgx.Tx) error {
	counts, err := countsBackfills(ctx, tx)
	if err != nil {
		return err
	}
	horizon := "''"
	if counts {
		horizon = "case when home = 'rowhook.backfill'::regclass then horizon::text end"
	}
	var key []string
	var noted *string
	err = tx.QueryRow(ctx, `
select id, condition, started_at, touched_at, expected, scanned, recorded, key, `+horizon+`
  from rowhook.backfill where trigger_id = $1 and finished_at is null`, b.trigger.ID).
		Scan(&b.ID, &b.Where, &b.StartedAt, &b.TouchedAt, &b.Expected, &b.Scanned, &b.Recorded, &key, &noted)
	switch {
	case isNone(err):
		return nil
	case err != nil:
		return fmt.Errorf("look for an earlier backfill: %w", err)
	case b.Where != b.opt.Where:
		what := "every row"
		if b.Where != "" {
			what = "rows where " + b.Where
		}
		return problem(ErrRefused, "repeat it with the same condition to go on, or give it up by --restart (restart: true)",
			"a backfill of %s, of %s, has read %d rows and is under way or was interrupted", b.trigger.Name, what, b.Scanned)
	case !slices.Equal(key, b.rows.Key):
		return b.otherKey()
	case noted == nil:
		return problem(ErrRefused, "start it anew by --restart (restart: true)",
			"a backfill of %s was begun by an earlier version of Rowhook or in another database, so that it could not be counted in the end whether every row was read", b.trigger.Name)
	}
	b.Trigger, b.horizon = b.trigger.Name, *noted
	return nil
}

// countsBackfills reports that what a backfill counts by is kept, as it is from version 3 of the schema on.
func countsBackfills(ctx context.Context, db pg.Queryer) (counts bool, err error) {
	err = db.QueryRow(ctx, "select exists (select from pg_catalog.pg_attribute where attrelid = 'rowhook.backfill'::regclass and attname = 'horizon' and not attisdropped)").Scan(&counts)
	if err != nil {
		return false, fmt.Errorf("look for rowhook.backfill.horizon: %w", err)
	}
	return counts, nil
}

func (b *backfill) extent(ctx context.Context, tx pgx.Tx) (e sqlschema.Extent, err error) {
	e, err = b.rows.Extent(ctx, tx)
	err = refused(err)
	if pg.IsState(err, pgerrcode.InsufficientPrivilege) {
		err = problem(ErrRefused, "grant select on it to this role, or use its owner", "this role may not read %s", b.rows.Table)
	}
	return e, err
}

func (b *backfill) begin(ctx context.Context, tx pgx.Tx) error {
	counts, err := countsBackfills(ctx, tx)
	if err != nil {
		return err
	}
	extent, err := b.extent(ctx, tx)
	if err != nil {
		return err
	}
	b.Trigger = b.trigger.Name
	columns, values, args := "", "", []any{b.trigger.ID, b.opt.Where, b.rows.Key, extent.Rows}
	if counts {
		b.horizon = extent.Horizon
		columns, values, args = ", horizon, home", ", $5::text::xid8, 'rowhook.backfill'::regclass", append(args, extent.Horizon)
	}
	err = tx.QueryRow(ctx, `
insert into rowhook.backfill (trigger_id, condition, key, expected, until`+columns+`) values ($1, $2, $3, $4, `+b.rows.Last()+values+`)
returning id, condition, started_at, touched_at, expected`, args...).
		Scan(&b.ID, &b.Where, &b.StartedAt, &b.TouchedAt, &b.Expected)
	if pg.IsState(err, pgerrcode.UniqueViolation) {
		return problem(ErrBusy, "wait for it, or join it by repeating this", "a backfill of %s has just been started by someone else", b.trigger.Name)
	}
	if err != nil {
		return fmt.Errorf("record the backfill: %w", err)
	}
	return nil
}

// step records the next rows and returns the events' ids. The row of the backfill is locked meanwhile, so that several may
// work on one.
func (b *backfill) step(ctx context.Context, size int) (ids []string, err error) {
	err = transact(ctx, b.db, pgx.ReadCommitted, func(tx pgx.Tx) error {
		err := tx.QueryRow(ctx, "select finished_at, scanned, recorded from rowhook.backfill where id = $1 for update", b.ID).
			Scan(&b.FinishedAt, &b.Scanned, &b.Recorded)
		if isNone(err) {
			return b.gone()
		}
		if err != nil {
			return err
		}
		if b.FinishedAt != nil {
			return b.checkFinished(ctx, tx)
		}
		if err := b.follow(ctx, tx); err != nil {
			return err
		}
		r, size, err := b.page(ctx, tx, size)
		if err != nil {
			return refused(err)
		}
		newer, args := "", []any{b.ID, r.Read, len(r.IDs)}
		if b.horizon != "" {
			newer, args = ", newer = newer + $4", append(args, r.Newer)
		}
		err = tx.QueryRow(ctx, `
update rowhook.backfill set scanned = scanned + $2, recorded = recorded + $3, touched_at = clock_timestamp()`+newer+`
 where id = $1 returning scanned, recorded, touched_at`, args...).
			Scan(&b.Scanned, &b.Recorded, &b.TouchedAt)
		if err != nil {
			return fmt.Errorf("record how far the backfill is: %w", err)
		}
		ids, b.read = r.IDs, r.Read < int64(size)
		if len(ids) == 0 {
			return nil
		}
		return ring(ctx, tx, []int32{b.trigger.ID})
	})
	return ids, err
}

// page records the next rows. Where that fails for what is in one of them it reads fewer, down to that row, which becomes a dead letter. It
// returns how many it read at most.
func (b *backfill) page(ctx context.Context, tx pgx.Tx, size int) (r sqlschema.Recorded, most int, err error) {
	if b.most > 0 {
		size = min(size, b.most)
	}
	for {
		err = apart(ctx, tx, func() (err error) {
			r, err = b.rows.Record(ctx, tx, b.ID, size, b.horizon)
			return err
		})
		if !pg.IsData(err) {
			if b.most *= 2; b.most > bulkBatch {
				b.most = 0
			}
			return r, size, err
		}
		if size == 1 {
			break
		}
		size /= 2
		b.most = size
	}
	bad := err
	err = apart(ctx, tx, func() (err error) {
		r, err = b.rows.Bury(ctx, tx, b.ID, b.horizon, bad.Error())
		return err
	})
	if pg.IsData(err) { // the condition, or the trigger's when, can't be asked of this row
		return r, size, bad
	}
	if err == nil {
		b.Buried++
	}
	return r, size, err
}

// finish ends a backfill that has read to the end, unless it has passed rows over: the table still has more rows that were there before it and
// were not touched since than it has read of such. What it has recorded stays, and it stays unfinished.
func (b *backfill) finish(ctx context.Context) error {
	var older int64
	if b.horizon != "" {
		err := transact(ctx, b.db, pgx.ReadCommitted, func(tx pgx.Tx) (err error) {
			older, err = b.rows.Older(ctx, tx, b.horizon)
			return err
		})
		if err != nil {
			return b.uncounted(err)
		}
	}
	return transact(ctx, b.db, pgx.ReadCommitted, func(tx pgx.Tx) error {
		newer := "0"
		if b.horizon != "" {
			newer = "newer"
		}
		var known int64
		err := tx.QueryRow(ctx, "select finished_at, scanned, recorded, scanned - "+newer+" from rowhook.backfill where id = $1 for update", b.ID).
			Scan(&b.FinishedAt, &b.Scanned, &b.Recorded, &known)
		switch {
		case isNone(err):
			return b.gone()
		case err != nil:
			return fmt.Errorf("look how far the backfill is: %w", err)
		case b.FinishedAt != nil:
			return b.checkFinished(ctx, tx)
		case older > known:
			return problem(ErrRefused, "see that the index of its key is sound (amcheck, reindex), and start the backfill anew by --restart (restart: true)",
				"the backfill of %s is not complete: %s has %d rows that were there at its beginning and have not changed since, and it has read %d of such", b.trigger.Name, b.rows.Table, older, known)
		}
		err = tx.QueryRow(ctx, "update rowhook.backfill set finished_at = clock_timestamp(), touched_at = clock_timestamp() where id = $1 returning touched_at, finished_at", b.ID).
			Scan(&b.TouchedAt, &b.FinishedAt)
		if err != nil {
			return fmt.Errorf("record that the backfill is complete: %w", err)
		}
		return nil
	})
}

// uncounted says of a backfill that has read to the end that it could not be counted whether that was all.
func (b *backfill) uncounted(err error) error {
	var wrong *sqlschema.RowsError
	if errors.As(err, &wrong) {
		return problem(ErrRefused, "start the backfill anew by --restart (restart: true)", "the backfill of %s has read to the end, but %s", b.trigger.Name, wrong.Message)
	}
	return fmt.Errorf("the backfill of %s has read to the end, and counting whether every row was read failed; the same again counts anew: %w", b.trigger.Name, err)
}

func (b *backfill) gone() error {
	return problem(ErrRefused, "start it again", "the record of the backfill is gone")
}

// checkFinished tells a backfill that another worker has ended from one that was given up: a restart does so in the transaction in which it
// begins anew, so that both have its time.
func (b *backfill) checkFinished(ctx context.Context, tx pgx.Tx) error {
	var next int64
	err := tx.QueryRow(ctx, "select id from rowhook.backfill where trigger_id = $1 and id > $2 and started_at = $3 limit 1",
		b.trigger.ID, b.ID, b.FinishedAt).Scan(&next)
	switch {
	case isNone(err):
		return nil
	case err != nil:
		return fmt.Errorf("look for a later backfill: %w", err)
	}
	return problem(ErrBusy, "wait for that one, or join it by giving its command without --restart",
		"this backfill of %s was given up after %d rows, as backfill %d was started by --restart", b.trigger.Name, b.Scanned, next)
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
