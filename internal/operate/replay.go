package operate

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
)

// ReplayStatus is the progress of a replay.
type ReplayStatus struct {
	ID         int64      `json:"id"`
	Trigger    string     `json:"trigger"`
	From       time.Time  `json:"from"` // recorded at this time or later
	To         time.Time  `json:"to"`   // recorded before this time
	AsNew      bool       `json:"as_new"`
	Ops        []string   `json:"ops,omitempty"`     // any of these; none: all
	Payload    string     `json:"payload,omitempty"` // as Filter.Payload
	StartedAt  time.Time  `json:"started_at"`
	TouchedAt  time.Time  `json:"touched_at"` // when a process was last at work
	FinishedAt *time.Time `json:"finished_at,omitempty"`
	Expected   int64      `json:"expected"` // events to send, counted at the beginning
	More       bool       `json:"more"`     // counting ran out of time: there are at least Expected
	Replayed   int64      `json:"replayed"` // events put back into the queue
	// Damaged is the number of events whose data can't be moved or copied. They stay in the archive.
	Damaged int64 `json:"damaged,omitempty"`
	Running bool  `json:"running"` // a process is at work
}

// ReplayOptions choose the events of a replay and its pace.
type ReplayOptions struct {
	From time.Time // recorded at this time or later
	To   time.Time // recorded before this time; zero: now
	// AsNew sends copies under new ids. The events stay in the archive.
	AsNew   bool
	Ops     []string // as in Filter
	Payload string   // as in Filter
	// Continue takes up an interrupted replay. From, To, AsNew, Ops and Payload are those with which it began.
	Continue bool
	// Restart abandons an interrupted replay and begins another one.
	Restart bool
	// Progress is called after each batch, on the caller's goroutine. Optional.
	Progress func(ReplayStatus)
	// Unthrottled puts events back at full speed, without waiting for deliveries.
	Unthrottled bool
}

// ReplayPlan is what a replay would do.
type ReplayPlan struct {
	Trigger string    `json:"trigger"`
	From    time.Time `json:"from"`
	To      time.Time `json:"to"`
	Tally
	// ReachesBackTo is the time of the oldest event of the trigger in the archive. nil: there is none.
	ReachesBackTo *time.Time `json:"reaches_back_to"`
	Paused        bool       `json:"paused"`  // what is replayed waits until the trigger is resumed
	Ordered       bool       `json:"ordered"` // events of a key are sent in the order of their sequence
	// Copies is the number of events that earlier replays have sent as new in that time. They count
	// as events of that time, too.
	Copies int64 `json:"copies"`
	// Unfinished is a replay of the trigger that runs, or was interrupted.
	Unfinished *ReplayStatus `json:"unfinished"`
}

// replaySilence is how long a process may be silent until another one may take up its replay. Such a
// process touches the row of the replay at least each throttleMost.
const replaySilence = 15 * time.Second

// PlanReplay returns what Replay would do, and changes nothing.
func PlanReplay(ctx context.Context, db DB, trigger string, o ReplayOptions) (*ReplayPlan, error) {
	p := &ReplayPlan{Trigger: trigger}
	r := &replay{db: db, opt: o}
	err := read(ctx, db, func(tx pgx.Tx) error {
		if err := r.check(ctx, tx, trigger); err != nil {
			return err
		}
		p.Paused, p.Ordered = r.trigger.Paused, r.ordered
		found, err := r.unfinished(ctx, tx, "")
		if err != nil {
			return err
		}
		p.Unfinished, p.From, p.To = found, r.opt.From, r.opt.To
		if o.Continue {
			if found == nil {
				return r.nothingToContinue()
			}
			p.From, p.To, p.Events, p.More = found.From, found.To, max(found.Expected-found.Replayed, 0), found.More
			return nil
		}
		if p.Tally, err = r.count(ctx, tx); err != nil {
			return err
		}
		if p.ReachesBackTo, err = r.reachesBackTo(ctx, tx); err != nil {
			return err
		}
		err = tx.QueryRow(ctx, "select coalesce(sum(replayed), 0) from rowhook.replay where trigger_id = $1 and as_new and started_at < $3 and coalesce(finished_at, now()) >= $2",
			r.trigger.ID, p.From, p.To).Scan(&p.Copies)
		if err != nil {
			return fmt.Errorf("look for earlier replays: %w", err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Replay sends the delivered events of a trigger once more that were recorded in a range of time,
// oldest first. What was merged into a later event is not sent, and neither is what was delivered
// after the replay began.
//
// Events are moved from the archive into the queue, as Redeliver does, under their own ids. AsNew
// copies them instead, under new ids. Time of the change, sequence and payload stay the same. An
// event of an ordered trigger goes back without its place, so it holds up no live event. Those of
// the same key are sent one after another, in the order of their sequence.
//
// A trigger has one replay at a time. An interrupted one is continued by Continue, or by the same
// options: each event of it is put back once. Replay occupies at most half of the trigger's slots,
// so that live events are not delayed.
func Replay(ctx context.Context, db DB, trigger string, o ReplayOptions) (*ReplayStatus, error) {
	r := &replay{db: db, opt: o, runner: uuid.NewString()}
	if err := r.open(ctx, trigger); err != nil {
		return nil, err
	}
	defer r.release(ctx)
	var err error
	if r.feed, err = newThrottle(r.ts); err != nil {
		return nil, err
	}
	detail := map[string]any{"replay": r.ID, "from": r.From, "to": r.To, "as_new": r.AsNew}
	if len(r.Ops) > 0 {
		detail["ops"] = r.Ops
	}
	if r.Payload != "" {
		detail["payload"] = r.Payload
	}
	if r.Replayed > 0 {
		detail["continued_at"] = r.Replayed
	}
	ended, err := record(ctx, db, queue.AuditEntry{Action: "replay", Targets: []string{trigger}, Detail: detail})
	if err != nil {
		return nil, err
	}
	err = r.run(ctx)
	r.Running = false
	return &r.ReplayStatus, ended(map[string]any{"replayed": r.Replayed, "expected": r.Expected}, err)
}

// replay is the state of one Replay call.
type replay struct {
	ReplayStatus
	db      DB
	opt     ReplayOptions
	runner  string // a UUID
	ts      triggers
	trigger *knownTrigger
	ordered bool
	key     keyColumns
	query   *query
	feed    throttle
	there   int // events without a place in the queue of an ordered trigger, after the last step
	most    int // bound of a batch after an event that can't be put back; 0: none
}

// check finds the trigger and resolves the options.
func (r *replay) check(ctx context.Context, tx pgx.Tx, name string) error {
	var known bool
	if err := tx.QueryRow(ctx, "select pg_catalog.to_regclass('rowhook.replay') is not null").Scan(&known); err != nil {
		return fmt.Errorf("look for rowhook.replay: %w", err)
	}
	if !known {
		return problem(ErrRefused, "run \"rowhook migrate\" first", "the schema rowhook of this database has no replays yet")
	}
	var err error
	if r.ts, err = readTriggers(ctx, tx); err != nil {
		return err
	}
	if r.trigger, err = r.ts.active(name); err != nil {
		return err
	}
	if err := r.trigger.unlessPrepared("replay"); err != nil { // the switch would discard its events
		return err
	}
	if err := r.readKey(ctx, tx); err != nil || r.opt.Continue {
		return err
	}
	if r.opt.To.IsZero() {
		if err := tx.QueryRow(ctx, "select clock_timestamp()").Scan(&r.opt.To); err != nil {
			return fmt.Errorf("ask for the time: %w", err)
		}
	}
	if r.opt.From.IsZero() {
		return problem(ErrInvalid, "say from when on events are replayed", "the replay has no beginning")
	}
	// An id holds milliseconds, and the events are found by their ids.
	r.opt.From, r.opt.To = r.opt.From.Truncate(time.Millisecond), r.opt.To.Truncate(time.Millisecond)
	return r.resolve(ReplayStatus{From: r.opt.From, To: r.opt.To, Ops: r.opt.Ops, Payload: r.opt.Payload, StartedAt: time.Now().Add(time.Hour)})
}

// resolve sets the query for the events of a replay.
func (r *replay) resolve(s ReplayStatus) error {
	if !s.From.Before(s.To) {
		return problem(ErrInvalid, "the beginning must be before the end", "the time range from %s to %s is empty", s.From.Format(time.RFC3339), s.To.Format(time.RFC3339))
	}
	f := Filter{Triggers: []string{r.trigger.Name}, States: []State{Delivered}, Ops: s.Ops, Payload: s.Payload, Since: s.From, Until: s.To}
	q, err := f.resolve(r.ts)
	if err != nil {
		return err
	}
	q.sentBefore = s.StartedAt
	r.query = q
	return nil
}

// walk returns a walk over the events of the replay in the archive.
func (r *replay) walk() *walk {
	all := sources()
	return &walk{query: r.query, source: all[slices.IndexFunc(all, func(s source) bool { return s.table == "event_archive" })]}
}

// replayCounting bounds how long events are counted, as for redeliver.
const replayCounting = 2 * time.Second

func (r *replay) count(ctx context.Context, tx pgx.Tx) (n Tally, err error) {
	w := r.walk()
	w.deadline = time.Now().Add(replayCounting)
	n.Events, n.More, err = w.count(ctx, tx)
	return n, err
}

func (r *replay) reachesBackTo(ctx context.Context, tx pgx.Tx) (*time.Time, error) {
	var oldest *string
	err := tx.QueryRow(ctx, "select (select e.id::text from rowhook.event_archive e where e.trigger_id = $1 order by e.trigger_id, e.id limit 1)", r.trigger.ID).Scan(&oldest)
	if err != nil {
		return nil, fmt.Errorf("look for the oldest event: %w", err)
	}
	if oldest == nil {
		return nil, nil
	}
	at := idTime(*oldest)
	return &at, nil
}

const replayColumns = `
select r.id, coalesce(t.name, '') as trigger, r.from_at as "from", r.until_at as "to", r.as_new, r.ops, r.payload, r.started_at, r.touched_at, r.finished_at,
       r.expected, not r.counted as more, r.replayed, r.damaged, r.runner is not null and r.touched_at > clock_timestamp() - $1::interval as running
  from rowhook.replay r left join rowhook.trigger t on t.id = r.trigger_id
 where r.finished_at is null`

// unfinished returns the replay of the trigger that runs, or was interrupted; nil: there is none.
func (r *replay) unfinished(ctx context.Context, tx pgx.Tx, lock string) (*ReplayStatus, error) {
	found, err := pg.Collect[ReplayStatus](ctx, tx, replayColumns+" and r.trigger_id = $2"+lock, replaySilence, r.trigger.ID)
	if err != nil {
		return nil, fmt.Errorf("look for an earlier replay: %w", err)
	}
	if len(found) == 0 {
		return nil, nil
	}
	return &found[0], nil
}

// open takes up an interrupted replay, or begins one.
func (r *replay) open(ctx context.Context, name string) error {
	return transact(ctx, r.db, pgx.ReadCommitted, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, byIndex()); err != nil {
			return fmt.Errorf("begin: %w", err)
		}
		if err := r.check(ctx, tx, name); err != nil {
			return err
		}
		found, err := r.unfinished(ctx, tx, " for update of r")
		if err != nil {
			return err
		}
		switch {
		case found == nil && r.opt.Continue:
			return r.nothingToContinue()
		case found == nil:
			return r.begin(ctx, tx)
		case found.Running:
			return problem(ErrBusy, fmt.Sprintf("wait for it, or cancel it; if its process has died, repeat the command in %s", replaySilence),
				"a replay of %s is running, and was at work %s ago", name, time.Since(found.TouchedAt).Round(time.Second))
		case r.opt.Restart:
			if _, err := tx.Exec(ctx, "update rowhook.replay set finished_at = clock_timestamp(), payload = '', runner = null where id = $1", found.ID); err != nil {
				return fmt.Errorf("abandon the earlier replay: %w", err)
			}
			return r.begin(ctx, tx)
		case !r.opt.Continue && !r.same(found):
			return problem(ErrRefused, "continue it with --continue (continue: true), or abandon it with --restart (restart: true)",
				"another replay of %s, of events from %s to %s, was interrupted after %d events", name, found.From.UTC().Format(time.RFC3339), found.To.UTC().Format(time.RFC3339), found.Replayed)
		}
		r.ReplayStatus = *found
		if err := r.resolve(r.ReplayStatus); err != nil {
			return err
		}
		r.Running = true
		if _, err := tx.Exec(ctx, "update rowhook.replay set runner = $2::text::uuid, touched_at = clock_timestamp() where id = $1", r.ID, r.runner); err != nil {
			return fmt.Errorf("take up the replay: %w", err)
		}
		return nil
	})
}

func (r *replay) nothingToContinue() error {
	return problem(ErrNotFound, "begin one with a time to replay from", "no replay of %s was interrupted", r.trigger.Name)
}

// same reports whether a replay has the events of the options.
func (r *replay) same(s *ReplayStatus) bool {
	ops := slices.Sorted(slices.Values(r.opt.Ops))
	return s.From.Equal(r.opt.From) && s.To.Equal(r.opt.To) && s.AsNew == r.opt.AsNew && s.Payload == r.opt.Payload && slices.Equal(slices.Sorted(slices.Values(s.Ops)), ops)
}

func (r *replay) begin(ctx context.Context, tx pgx.Tx) error {
	n, err := r.count(ctx, tx)
	if err != nil {
		return err
	}
	ops := r.opt.Ops
	if ops == nil {
		ops = []string{}
	}
	err = tx.QueryRow(ctx, `
insert into rowhook.replay (trigger_id, from_at, until_at, as_new, ops, payload, expected, counted, runner)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9::text::uuid) returning id, started_at, touched_at`,
		r.trigger.ID, r.opt.From, r.opt.To, r.opt.AsNew, ops, r.opt.Payload, n.Events, !n.More, r.runner).Scan(&r.ID, &r.StartedAt, &r.TouchedAt)
	if pg.IsState(err, pgerrcode.UniqueViolation) {
		return problem(ErrBusy, "wait for it, or cancel it", "another session has just started a replay of %s", r.trigger.Name)
	}
	if err != nil {
		return fmt.Errorf("record the replay: %w", err)
	}
	r.Trigger, r.From, r.To, r.AsNew, r.Ops, r.Payload = r.trigger.Name, r.opt.From, r.opt.To, r.opt.AsNew, r.opt.Ops, r.opt.Payload
	r.Expected, r.More, r.Running = n.Events, n.More, true
	return r.resolve(r.ReplayStatus)
}

// release says that nobody is at work, so that the next one need not wait.
func (r *replay) release(ctx context.Context) {
	if r.FinishedAt != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), amendTimeout)
	defer cancel()
	// The connection may be lost. Then the next one waits for replaySilence.
	_, _ = r.db.Exec(ctx, "update rowhook.replay set runner = null where id = $1 and runner = $2::text::uuid", r.ID, r.runner)
}

// stepTimeout bounds a batch. It is not broken off by the end of the context, which would close the
// connection.
const stepTimeout = time.Minute

func (r *replay) run(ctx context.Context) error {
	waits := false
	for r.FinishedAt == nil {
		size := bulkBatch
		var err error
		switch {
		case waits:
			err = r.awaitSettled(ctx, &size)
		case !r.opt.Unthrottled:
			err = r.feed.wait(ctx, r.db, &size)
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		step, cancel := context.WithTimeout(context.WithoutCancel(ctx), stepTimeout)
		var ids []string
		ids, waits, err = r.step(step, size)
		cancel()
		if err != nil {
			return err
		}
		r.feed.admitted(map[int32][]string{r.trigger.ID: ids})
		if r.opt.Progress != nil {
			r.opt.Progress(r.ReplayStatus)
		}
	}
	return nil
}

// step puts the next events back. It locks the row of the replay. waits says that the next event of
// an ordered trigger has to wait for one that is not settled yet.
func (r *replay) step(ctx context.Context, size int) (ids []string, waits bool, err error) {
	before := r.ReplayStatus
	err = transact(ctx, r.db, pgx.ReadCommitted, func(tx pgx.Tx) error {
		r.ReplayStatus = before
		if _, err := tx.Exec(ctx, byIndex()); err != nil {
			return fmt.Errorf("begin: %w", err)
		}
		at, err := r.lock(ctx, tx)
		if err != nil {
			return err
		}
		if err := r.follow(ctx, tx); err != nil {
			return err
		}
		var end bool
		if r.ordered || at.partEnd != "" {
			ids, waits, end, err = r.stepInOrder(ctx, tx, at, size)
		} else {
			ids, end, err = r.stepOnward(ctx, tx, at, size)
		}
		if err != nil {
			return err
		}
		err = tx.QueryRow(ctx, `
update rowhook.replay
   set replayed = replayed + $2, damaged = $3, position = nullif($4, '')::uuid, part_end = nullif($5, '')::uuid, part_seq = $6, part_id = nullif($7, '')::uuid,
       payload = case when $8 then '' else payload end, touched_at = clock_timestamp(), finished_at = case when $8 then clock_timestamp() end, runner = case when not $8 then runner end
 where id = $1 returning replayed, touched_at, finished_at`, r.ID, len(ids), r.Damaged, at.position, at.partEnd, at.seq, at.id, end).
			Scan(&r.Replayed, &r.TouchedAt, &r.FinishedAt)
		if err != nil {
			return fmt.Errorf("record the progress of the replay: %w", err)
		}
		if len(ids) == 0 {
			return nil
		}
		return ring(ctx, tx, []int32{r.trigger.ID})
	})
	if err != nil {
		r.ReplayStatus = before
		return nil, false, err
	}
	return ids, waits, nil
}

// replayPosition is how far a replay is, see rowhook.replay.
type replayPosition struct {
	position, partEnd string // ids; "": none
	seq               int64
	id                string
}

// lock locks the row of the replay, and checks that no other process has taken it up.
func (r *replay) lock(ctx context.Context, tx pgx.Tx) (*replayPosition, error) {
	var at replayPosition
	var runner string
	var finished *time.Time
	err := tx.QueryRow(ctx, `
select coalesce(runner::text, ''), finished_at, replayed, damaged, coalesce(position::text, ''), coalesce(part_end::text, ''), coalesce(part_seq, 0), coalesce(part_id::text, '')
  from rowhook.replay where id = $1 for update`, r.ID).Scan(&runner, &finished, &r.Replayed, &r.Damaged, &at.position, &at.partEnd, &at.seq, &at.id)
	switch {
	case isNone(err):
		return nil, problem(ErrRefused, "start the replay again", "the row of the replay in rowhook.replay was deleted")
	case err != nil:
		return nil, fmt.Errorf("read the progress of the replay: %w", err)
	case runner != r.runner || finished != nil:
		return nil, problem(ErrBusy, "let the other one go on", "another process has taken up or abandoned this replay of %s, since this one was silent for %s", r.trigger.Name, replaySilence)
	}
	return &at, nil
}

// follow adopts what an apply changed since the previous batch.
func (r *replay) follow(ctx context.Context, tx pgx.Tx) error {
	var now knownTrigger
	err := tx.QueryRow(ctx, "select t.removed_at is not null, t.spec::text from rowhook.trigger t where t.id = $1", r.trigger.ID).Scan(&now.Removed, &now.Spec)
	switch {
	case err != nil && !isNone(err):
		return fmt.Errorf("read the trigger: %w", err)
	case err != nil || now.Removed:
		return problem(ErrRefused, "add it to rowhook.yaml again, apply, and continue the replay", "the trigger %q was removed", r.trigger.Name)
	case now.Spec == r.trigger.Spec:
		return nil
	}
	r.trigger.Spec = now.Spec
	return r.readKey(ctx, tx)
}

// searching bounds how long one step looks for an event that the filter chooses.
const searching = time.Second

// stepOnward puts the next events back in the order of their ids.
func (r *replay) stepOnward(ctx context.Context, tx pgx.Tx, at *replayPosition, size int) (ids []string, end bool, err error) {
	w := r.walk()
	w.after, w.deadline = at.position, time.Now().Add(searching)
	events, reached, err := w.next(ctx, tx, r.bound(size))
	if err != nil {
		return nil, false, err
	}
	done, ids, err := r.putAll(ctx, tx, idsOf(events))
	if err != nil {
		return nil, false, err
	}
	switch {
	case done < len(events):
		at.position = events[done-1].ID
	case reached == "":
		return ids, true, nil
	default:
		at.position = reached
	}
	return ids, false, nil
}

// bound is the size of a batch.
func (r *replay) bound(size int) int {
	if r.most > 0 {
		return min(size, r.most)
	}
	return size
}

// putAll puts events back. If the data of one make that fail, it does so with fewer, until that one
// is found: it stays where it is. done is how many of the events are dealt with, at least one.
func (r *replay) putAll(ctx context.Context, tx pgx.Tx, events []string) (done int, ids []string, err error) {
	if len(events) == 0 {
		return 0, nil, nil
	}
	for size := len(events); ; size /= 2 {
		err := apart(ctx, tx, func() (err error) {
			ids, err = r.put(ctx, tx, events[:size])
			return err
		})
		switch {
		case err == nil:
			if r.most *= 2; r.most > bulkBatch {
				r.most = 0
			}
			return size, ids, nil
		case !pg.IsData(err):
			return 0, nil, err
		case size == 1:
			r.Damaged++
			return 1, nil, nil
		}
		r.most = size / 2
	}
}

// put moves or copies events from the archive into the queue. After a crash an event may have been
// archived twice.
func (r *replay) put(ctx context.Context, tx pgx.Tx, events []string) ([]string, error) {
	sql := (&bulk{ts: r.ts}).putBack("event_archive")
	if r.AsNew {
		sql = copyBack
	}
	rows, err := tx.Query(ctx, sql, events)
	if err != nil {
		return nil, fmt.Errorf("replay events: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("replay events: %w", err)
	}
	return ids, nil
}

// copyBack is putBack for copies with new ids.
const copyBack = `
insert into rowhook.event_log (id, ` + movedColumns + `, seq, renewed_at)
select rowhook.uuid7(), ` + movedColumns + `, seq, clock_timestamp()
  from (select distinct on (id) id, ` + movedColumns + `, seq from rowhook.event_archive where id = any($1::text[]::uuid[]) order by id) as e
returning id::text`

// readReplays reads the replays that have not ended.
func (s *Status) readReplays(ctx context.Context, tx pgx.Tx) error {
	if s.Schema.Database < replaySchema {
		return nil
	}
	found, err := pg.Collect[ReplayStatus](ctx, tx, replayColumns+" order by r.id", replaySilence)
	if err != nil {
		return fmt.Errorf("list the replays: %w", err)
	}
	s.Replays = append(s.Replays, found...)
	return nil
}

// replaySchema is the schema version from which on there are replays. The status of an older one can
// be read.
const replaySchema = 7
