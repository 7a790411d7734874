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

// BackfillStatus is the progress of a backfill.
type BackfillStatus struct {
	ID         int64      `json:"id"`
	Trigger    string     `json:"trigger"`
	Table      string     `json:"table,omitempty"` // of a trigger with several tables
	Where      string     `json:"where,omitempty"` // the SQL condition; "": every row
	StartedAt  time.Time  `json:"started_at"`
	TouchedAt  time.Time  `json:"touched_at"` // end of its last batch
	FinishedAt *time.Time `json:"finished_at,omitempty"`
	Expected   int64      `json:"expected"` // estimate of the rows to read
	Scanned    int64      `json:"scanned"`  // rows read
	Recorded   int64      `json:"recorded"` // events recorded
	// Buried is the number of rows that this call could not turn into events. Each became a dead
	// letter, whose reason holds the row's key and the error.
	Buried int64 `json:"buried,omitempty" db:"-"`
}

// BackfillOptions choose the rows of a backfill and its pace.
type BackfillOptions struct {
	// Table is the table to read, as table or schema.table. A trigger with several needs it.
	Table string
	// Where is an SQL condition on the table's columns; "": every row that meets the trigger's
	// when.
	Where string
	// Restart abandons an interrupted backfill and starts from the beginning.
	Restart bool
	// Progress is called after each batch, on the caller's goroutine. Optional.
	Progress func(BackfillStatus)
	// Unthrottled records at full speed, without waiting for deliveries.
	Unthrottled bool
}

// Backfill records the present rows of a trigger's table as INSERT events. Each event's new is the
// row. Its session variable rowhook_backfill is the backfill's number. Rows that are inserted later
// with a higher key are not read: they have their own events.
//
// Backfill reads in batches by the primary key, and is refused without one. At the end it counts
// the table's rows independently of the key's index, and fails if it missed some. A later call with
// the same condition continues an interrupted backfill. Backfill occupies at most half of the
// trigger's slots, so that live events are not delayed.
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
	if b.Table != "" {
		detail["table"] = b.Table
	}
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

// run records batches until every row is read.
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
		b.feed.admitted(map[int32][]string{b.trigger.ID: ids})
		if b.opt.Progress != nil {
			b.opt.Progress(b.BackfillStatus)
		}
	}
	if b.FinishedAt != nil {
		return nil
	}
	return b.finish(ctx)
}

// backfill is the state of one Backfill call.
type backfill struct {
	BackfillStatus
	db      DB
	opt     BackfillOptions
	ts      triggers
	trigger *knownTrigger
	of      *chosenTable // the table of the trigger
	rows    *sqlschema.RowSource
	horizon string // see sqlschema.Extent
	read    bool   // the last row was read
	most    int    // bound of a batch after a row that can't be turned into an event; 0: none
	feed    throttle
}

// PlanBackfill returns what Backfill would do, and changes nothing. If Backfill would continue an
// interrupted one, the result is its progress. Otherwise ID is 0, and Expected estimates the rows
// to read. PlanBackfill returns the same errors as Backfill.
func PlanBackfill(ctx context.Context, db DB, trigger string, o BackfillOptions) (*BackfillStatus, error) {
	b := &backfill{db: db, opt: o}
	// Not by read: the condition is run with the role's own search_path.
	err := transact(ctx, db, pgx.ReadCommitted, func(tx pgx.Tx) error {
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

// open checks the table and the condition. Then it takes up an interrupted backfill, or begins one.
func (b *backfill) open(ctx context.Context, name string) error {
	return transact(ctx, b.db, pgx.ReadCommitted, func(tx pgx.Tx) error {
		if err := b.check(ctx, tx, name); err != nil {
			return err
		}
		if b.opt.Restart {
			if _, err := tx.Exec(ctx, "update rowhook.backfill set finished_at = now() where trigger_id = $1 and finished_at is null", b.trigger.ID); err != nil {
				return fmt.Errorf("abandon the earlier backfill: %w", err)
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
	if err := b.trigger.unlessPrepared("backfill"); err != nil { // the switch would discard its events
		return err
	}
	if b.of, err = b.trigger.choose(ctx, tx, b.opt.Table, false); err != nil {
		return err
	}
	if b.of.RelationID != 0 {
		b.Table = b.of.qualified()
	}
	return b.openRows(ctx, tx)
}

// key returns the columns of the key, as rowhook.backfill has them. Of a trigger with several tables
// the number of the table is before them. A program that does not know of several tables finds
// another key then, and does not go on with another table.
func (b *backfill) key() []string {
	if b.of.RelationID == 0 {
		return b.rows.Key
	}
	return append([]string{fmt.Sprintf("#%d", b.of.RelationID)}, b.rows.Key...)
}

// openRows prepares to read the table by the trigger's present spec.
func (b *backfill) openRows(ctx context.Context, tx pgx.Tx) error {
	spec := trigger.DefaultSpec()
	if err := json.Unmarshal([]byte(b.trigger.Spec), &spec); err != nil {
		return fmt.Errorf("read the spec of %s: %w", b.trigger.Name, err)
	}
	var err error
	b.rows, err = sqlschema.OpenRows(ctx, tx.Conn(), b.trigger.ID, spec, b.of.Relation, b.of.RelationID, b.opt.Where)
	return refused(err)
}

// refused turns a sqlschema.RowsError into an Error, and returns other errors unchanged.
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

// follow adopts what an apply changed since the previous batch. Rows must not be recorded for a
// removed trigger, or with columns that the trigger no longer sends.
func (b *backfill) follow(ctx context.Context, tx pgx.Tx) error {
	var now knownTrigger
	err := tx.QueryRow(ctx, "select w.relation, t.removed_at is not null, t.spec::text from rowhook.trigger t"+queue.WatchedNow+" where t.id = $1", b.trigger.ID).
		Scan(&now.Relation, &now.Removed, &now.Spec)
	moved := now.Relation != b.of.Relation
	if err == nil && b.of.RelationID != 0 {
		err = tx.QueryRow(ctx, "select not exists (select from rowhook.trigger_table where trigger_id = $1 and relation_id = $2)", b.trigger.ID, b.of.RelationID).Scan(&moved)
	}
	switch {
	case err != nil && !isNone(err):
		return fmt.Errorf("read the trigger: %w", err)
	case err != nil || now.Removed:
		return problem(ErrRefused, "add it to rowhook.yaml again, apply, and repeat the backfill to continue it", "the trigger %q was removed", b.trigger.Name)
	case moved && b.of.RelationID != 0:
		return problem(ErrRefused, "apply a configuration in which it does, and repeat the backfill to continue it", "the trigger %q no longer watches %s", b.trigger.Name, b.of.qualified())
	case moved:
		return problem(ErrRefused, "start the backfill again with --restart (restart: true)", "the trigger %q has moved to another table", b.trigger.Name)
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
	return problem(ErrRefused, "start the backfill again with --restart (restart: true)", "the primary key of %s has changed since the backfill was interrupted", b.rows.Table)
}

// resume takes up an interrupted backfill of this trigger. Without one b.ID stays 0.
func (b *backfill) resume(ctx context.Context, tx pgx.Tx) error {
	var key []string
	var noted *string
	err := tx.QueryRow(ctx, `
select id, condition, started_at, touched_at, expected, scanned, recorded, key, case when home = 'rowhook.backfill'::regclass then horizon::text end
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
		return problem(ErrRefused, "repeat that condition to continue it, or abandon it with --restart (restart: true)",
			"a backfill of %s for %s has read %d rows, and is running or was interrupted", b.trigger.Name, what, b.Scanned)
	case b.of.RelationID != 0 && len(key) > 0 && key[0] != b.key()[0]:
		return problem(ErrRefused, "repeat that one to continue it, or abandon it with --restart (restart: true)",
			"a backfill of %s for another one of its tables has read %d rows, and is running or was interrupted", b.trigger.Name, b.Scanned)
	case !slices.Equal(key, b.key()):
		return b.otherKey()
	case noted == nil:
		return problem(ErrRefused, "start the backfill again with --restart (restart: true)",
			"a backfill of %s was begun by an earlier version of Rowhook or in another database, so its final count could not prove that every row was read", b.trigger.Name)
	}
	b.Trigger, b.horizon = b.trigger.Name, *noted
	return nil
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
	extent, err := b.extent(ctx, tx)
	if err != nil {
		return err
	}
	b.Trigger = b.trigger.Name
	b.horizon = extent.Horizon
	err = tx.QueryRow(ctx, `
insert into rowhook.backfill (trigger_id, condition, key, expected, until, horizon, home)
values ($1, $2, $3, $4, `+b.rows.Last()+`, $5::text::xid8, 'rowhook.backfill'::regclass)
returning id, condition, started_at, touched_at, expected`, b.trigger.ID, b.opt.Where, b.key(), extent.Rows, extent.Horizon).
		Scan(&b.ID, &b.Where, &b.StartedAt, &b.TouchedAt, &b.Expected)
	if pg.IsState(err, pgerrcode.UniqueViolation) {
		return problem(ErrBusy, "wait for it, or repeat this command to join it", "another session has just started a backfill of %s", b.trigger.Name)
	}
	if err != nil {
		return fmt.Errorf("record the backfill: %w", err)
	}
	return nil
}

// step records the next rows and returns the ids of their events. It locks the backfill's row, so
// that several processes can share one backfill.
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
		err = tx.QueryRow(ctx, `
update rowhook.backfill set scanned = scanned + $2, recorded = recorded + $3, touched_at = clock_timestamp(), newer = newer + $4
 where id = $1 returning scanned, recorded, touched_at`, b.ID, r.Read, len(r.IDs), r.Newer).
			Scan(&b.Scanned, &b.Recorded, &b.TouchedAt)
		if err != nil {
			return fmt.Errorf("record the progress of the backfill: %w", err)
		}
		ids, b.read = r.IDs, r.Read < int64(size)
		if len(ids) == 0 {
			return nil
		}
		return ring(ctx, tx, []int32{b.trigger.ID})
	})
	return ids, err
}

// page records the next rows, and returns the bound that it read with. If a row's data makes the
// statement fail, page halves the bound until it has isolated that row, which becomes a dead
// letter.
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
	if pg.IsData(err) { // the condition, or the trigger's when, fails for this row
		return r, size, bad
	}
	if err == nil {
		b.Buried++
	}
	return r, size, err
}

// finish marks a backfill as complete after its last row. It fails if rows were missed: the table
// then has more rows older than the backfill and unchanged since than the backfill has read. The
// recorded events stay, and the backfill stays unfinished.
func (b *backfill) finish(ctx context.Context) error {
	var older int64
	err := transact(ctx, b.db, pgx.ReadCommitted, func(tx pgx.Tx) (err error) {
		older, err = b.rows.Older(ctx, tx, b.horizon)
		return err
	})
	if err != nil {
		return b.uncounted(err)
	}
	return transact(ctx, b.db, pgx.ReadCommitted, func(tx pgx.Tx) error {
		var known int64
		err := tx.QueryRow(ctx, "select finished_at, scanned, recorded, scanned - newer from rowhook.backfill where id = $1 for update", b.ID).
			Scan(&b.FinishedAt, &b.Scanned, &b.Recorded, &known)
		switch {
		case isNone(err):
			return b.gone()
		case err != nil:
			return fmt.Errorf("read the progress of the backfill: %w", err)
		case b.FinishedAt != nil:
			return b.checkFinished(ctx, tx)
		case older > known:
			return problem(ErrRefused, "check the index of the primary key (amcheck), rebuild it (reindex), and start the backfill again with --restart (restart: true)",
				"the backfill of %s is not complete: %s has %d rows that existed at its beginning and have not changed since, and it has read only %d of them", b.trigger.Name, b.rows.Table, older, known)
		}
		err = tx.QueryRow(ctx, "update rowhook.backfill set finished_at = clock_timestamp(), touched_at = clock_timestamp() where id = $1 returning touched_at, finished_at", b.ID).
			Scan(&b.TouchedAt, &b.FinishedAt)
		if err != nil {
			return fmt.Errorf("record that the backfill is complete: %w", err)
		}
		return nil
	})
}

// uncounted returns the error of a backfill that has read its last row, but could not count the
// table.
func (b *backfill) uncounted(err error) error {
	var wrong *sqlschema.RowsError
	if errors.As(err, &wrong) {
		return problem(ErrRefused, "start the backfill again with --restart (restart: true)", "the backfill of %s has read its last row, but %s", b.trigger.Name, wrong.Message)
	}
	return fmt.Errorf("the backfill of %s has read its last row, but the final count failed; repeat the command to count again: %w", b.trigger.Name, err)
}

func (b *backfill) gone() error {
	return problem(ErrRefused, "start the backfill again", "the row of the backfill in rowhook.backfill was deleted")
}

// checkFinished returns an error if the backfill was abandoned, and nil if another process has
// finished it. A restart ends the old backfill and begins the new one in one transaction, so both
// have its time.
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
	return problem(ErrBusy, "wait for that one, or join it by repeating the command without --restart",
		"this backfill of %s was abandoned after %d rows, because backfill %d was started with --restart", b.trigger.Name, b.Scanned, next)
}

func (s *Status) readBackfills(ctx context.Context, tx pgx.Tx) error {
	found, err := pg.Collect[BackfillStatus](ctx, tx, `
select b.id, coalesce(t.name, '') as trigger,
       coalesce((select r.schema_name || '.' || r.table_name from rowhook.relation r where t.spec ? 'tables' and b.key[1] = '#' || r.id), '') as "table", b.condition as "where", b.started_at, b.touched_at, b.finished_at, b.expected, b.scanned, b.recorded
  from rowhook.backfill b left join rowhook.trigger t on t.id = b.trigger_id
 where b.finished_at is null order by b.id`)
	if err != nil {
		return fmt.Errorf("list the backfills: %w", err)
	}
	s.Backfills = append(s.Backfills, found...)
	return nil
}
