package operate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
)

// EraseOptions choose the events whose data Erase takes out, and its pace.
type EraseOptions struct {
	// Payload are conditions KEY=VALUE; an event that meets one of them is chosen. A key under new
	// or old is looked for in both.
	Payload  []string
	IDs      []string // instead of Payload: these events, whatever is in them
	Triggers []string // only events of these; none: of all
	Table    string   // only events of this table; "": of all
	// Since and Until bound when the events were recorded.
	Since, Until time.Time
	// KeepWaiting leaves events alone that are still to be sent, and dead letters.
	KeepWaiting bool
	// Wait is how long to wait for events that are being sent. 0: DefaultEraseWait.
	Wait time.Duration
	// Progress is called after each batch, on the caller's goroutine, with the events so far.
	// Optional.
	Progress func(done int64)
	// Unthrottled does not rest between batches.
	Unthrottled bool
}

// DefaultEraseWait is longer than most attempts take.
const DefaultEraseWait = 10 * time.Second

// Erasure counts, by place, what Erase has done, or would do.
type Erasure struct {
	Waiting   int64 `json:"waiting"`   // events of the queue: they are deleted, and not sent
	InFlight  int64 `json:"in_flight"` // being sent: Erase waits for them, and leaves those that take longer
	Dead      int64 `json:"dead"`      // dead letters: they are deleted
	Delivered int64 `json:"delivered"` // events of the archive: they stay without their data
	Attempts  int64 `json:"attempts"`  // logged attempts with a response or an error: they stay without them
	Kept      int64 `json:"kept"`      // events that were left alone because of KeepWaiting
	// Triggers counts the events by trigger.
	Triggers map[string]int64 `json:"triggers"`
	// Unsearchable is how many events have data in which Postgres can't search, such as \u0000, and
	// so may be of that person. UnsearchableIDs are the first of them. PlanErase counts them, and not
	// Erase.
	Unsearchable    int64    `json:"unsearchable"`
	UnsearchableIDs []string `json:"unsearchable_ids"`
}

// Events is how many events are concerned.
func (e *Erasure) Events() int64 { return e.Waiting + e.InFlight + e.Dead + e.Delivered }

// Err says what Erase could not erase, and what to do; nil: nothing is left.
func (e *Erasure) Err() error {
	switch {
	case e.InFlight > 0:
		return problem(ErrBusy, "repeat the command when their attempts have ended", "%d events are being sent, and still have their data", e.InFlight)
	case e.Unsearchable > 0:
		return problem(ErrRefused, "look at them, and erase by their ids: rowhook erase ID...",
			"%d events have data that Postgres can't search, and may hold what was to be erased: %s", e.Unsearchable, strings.Join(e.UnsearchableIDs, ", "))
	}
	return nil
}

const (
	eraseSlice       = 200 * time.Millisecond // about how long a transaction reads
	eraseRest        = 200 * time.Millisecond // longest rest after one
	eraseLook        = 250 * time.Millisecond // between two looks at events in flight
	eraseLanes       = 3 * time.Second        // by then a dispatcher has recorded which attempts hang
	mostUnsearchable = 20
	mostBatches      = 1000 // batches whose attempts are erased by one statement
	shortestText     = 4    // characters of a value that is looked for in texts
)

// The session variables of an event of the archive that was erased. It has no rows and no trace.
const erasedKey = "rowhook_erased"

// erased is SQL for an event e of the archive whose data were erased.
const erased = `(e.old is null and e.new is null and e.session is not null and left(e.session::text, 18) = '{"` + erasedKey + `":')`

// erasedText stands for a text that was erased.
const erasedText = "<erased>"

// erasure is a call of Erase or PlanErase.
type erasure struct {
	Erasure
	db      DB
	opt     EraseOptions
	ts      triggers
	query   *query
	values  []string            // of the conditions
	busy    map[string]bool     // ids of events in flight
	placed  []string            // ids of deleted events of lanes, of which an attempt may end later
	lanes   map[int32]bool      // their triggers
	batches map[string]struct{} // in whose responses the data may be
	from    time.Time           // the first attempt of batches
	to      time.Time           // the last one
	done    int64
}

// PlanErase counts what Erase would do, and changes nothing.
func PlanErase(ctx context.Context, db DB, o EraseOptions) (*Erasure, error) {
	e, err := newErasure(ctx, db, o)
	if err != nil {
		return nil, err
	}
	for _, s := range sources() {
		err := e.scan(ctx, e.query, s, true, func(tx pgx.Tx, events []raw) error {
			if e.opt.KeepWaiting && s.table != "event_archive" {
				e.Kept += int64(len(events))
				return nil
			}
			var n int64
			for i := range events {
				e.count(&events[i])
			}
			err := tx.QueryRow(ctx, "select count(*) from rowhook.invocation_log i where i.event_id = any($1::text[]::uuid[]) and "+tells, idsOf(events)).Scan(&n)
			e.Attempts += n
			return err
		})
		if err == nil && e.query.path != "" {
			odd := *e.query
			odd.unsearchable = true
			err = e.scan(ctx, &odd, s, true, func(_ pgx.Tx, events []raw) error {
				e.noteUnsearchable(events)
				return nil
			})
		}
		if err != nil {
			return nil, fmt.Errorf("count what is to be erased: %w", err)
		}
	}
	return &e.Erasure, nil
}

// Erase takes the data of the chosen events out of the database. Waiting events and dead letters are
// deleted. Delivered ones stay in the archive without old, new, session variables and trace context,
// and so can't be sent again. Of their attempts, the response and what the error quotes are removed,
// also where a batch had other events. Errors that quote a value are removed from the figures of the
// triggers, from the health of endpoints and from alerts.
//
// Each batch is a transaction of some hundred milliseconds; what an interrupted call has erased stays
// erased, and the next one goes on. The audit records the keys, and no values.
func Erase(ctx context.Context, db DB, o EraseOptions) (*Erasure, error) {
	e, err := newErasure(ctx, db, o)
	if err != nil {
		return nil, err
	}
	ended, err := record(ctx, db, queue.AuditEntry{Action: "erase", Targets: o.Triggers, Detail: e.detail()})
	if err != nil {
		return nil, err
	}
	err = e.run(ctx)
	result := map[string]any{"deleted": e.Waiting + e.Dead, "erased": e.Delivered, "attempts": e.Attempts}
	if e.InFlight > 0 {
		result["in_flight"] = e.InFlight
	}
	if err != nil {
		_ = ended(result, errors.New(e.withoutValues(err.Error()))) // err is what matters
		return &e.Erasure, err
	}
	return &e.Erasure, ended(result, nil)
}

// detail is what the audit records.
func (e *erasure) detail() map[string]any {
	detail := map[string]any{}
	var keys []string
	for _, text := range e.opt.Payload {
		c, _ := parseCondition(text)
		keys = append(keys, c.key)
	}
	if keys != nil {
		detail["keys"] = keys
	}
	if n := len(e.opt.IDs); n > 0 {
		detail["ids"] = e.opt.IDs[:min(n, 100)]
	}
	if e.opt.Table != "" {
		detail["table"] = e.opt.Table
	}
	if !e.opt.Since.IsZero() {
		detail["since"] = e.opt.Since
	}
	if !e.opt.Until.IsZero() {
		detail["until"] = e.opt.Until
	}
	if e.opt.KeepWaiting {
		detail["keep_waiting"] = true
	}
	return detail
}

func (e *erasure) withoutValues(text string) string {
	for _, v := range e.values {
		if v != "" {
			text = strings.ReplaceAll(text, v, erasedText)
		}
	}
	return text
}

func newErasure(ctx context.Context, db DB, o EraseOptions) (*erasure, error) {
	e := &erasure{db: db, opt: o, busy: map[string]bool{}, lanes: map[int32]bool{}, batches: map[string]struct{}{}}
	e.Triggers, e.UnsearchableIDs = map[string]int64{}, []string{}
	f := Filter{IDs: o.IDs, Triggers: o.Triggers, Table: o.Table, Since: o.Since, Until: o.Until}
	switch {
	case len(o.Payload) == 0 && len(o.IDs) == 0:
		return nil, problem(ErrInvalid, "give a condition such as --payload new.email=ann@example.com, or the ids of events", "nothing was chosen to be erased")
	case len(o.Payload) > 0 && len(o.IDs) > 0:
		return nil, problem(ErrInvalid, "give either", "there are both conditions and ids")
	}
	path, err := e.path()
	if err != nil {
		return nil, err
	}
	err = read(ctx, db, func(tx pgx.Tx) error {
		rights, err := ReadRights(ctx, tx)
		if err != nil {
			return err
		}
		if !rights["erase"] {
			return problem(ErrRefused, "run the command as the role that installed Rowhook", "this role may not erase data: it lacks rights on the tables of the schema rowhook")
		}
		if e.ts, e.query, err = f.read(ctx, tx); err != nil {
			return err
		}
		e.query.path = path // a mask is no hindrance here
		return nil
	})
	return e, err
}

// path returns the JSON path for the conditions.
func (e *erasure) path() (string, error) {
	var parts []string
	for _, text := range e.opt.Payload {
		c, ok := parseCondition(text)
		if !ok {
			return "", problem(ErrInvalid, "write KEY=VALUE with a key under new, old, session_variables or trace_context, such as new.customer.email=ann@example.com or new.\"first name\"=Ann",
				"the condition %q is not understood", text)
		}
		sides := []string{c.members[0]}
		if sides[0] == "old" || sides[0] == "new" {
			sides = []string{"old", "new"}
		}
		for _, side := range sides {
			parts = append(parts, "exists("+memberPath("@", append([]string{side}, c.members[1:]...))+" ? ("+c.test+"))")
		}
		e.values = append(e.values, c.value)
	}
	if parts == nil {
		return "", nil
	}
	return "$ ? (" + strings.Join(parts, " || ") + ")", nil
}

// sources are the tables to look through.
func (e *erasure) sources() []source {
	all := sources()
	if e.opt.KeepWaiting {
		all = slices.DeleteFunc(all, func(s source) bool { return s.table != "event_archive" })
	}
	return all
}

// scan calls do with the chosen events of a table, batch by batch, each in a transaction.
func (e *erasure) scan(ctx context.Context, q *query, s source, readOnly bool, do func(tx pgx.Tx, events []raw) error) error {
	w := &walk{query: q, source: s}
	pause := time.Duration(0)
	for {
		if err := Rest(ctx, pause); err != nil {
			return err
		}
		began, reached := time.Now(), ""
		err := transact(ctx, e.db, pgx.ReadCommitted, func(tx pgx.Tx) error {
			settle := byIndex()
			if readOnly {
				settle = "set transaction read only; " + settle
			}
			if _, err := tx.Exec(ctx, settle); err != nil {
				return fmt.Errorf("begin: %w", err)
			}
			w.deadline = began.Add(eraseSlice)
			events, to, err := w.next(ctx, tx, bulkBatch)
			if reached = to; err != nil || len(events) == 0 {
				return err
			}
			return do(tx, events)
		})
		if err != nil {
			return err
		}
		if e.opt.Progress != nil {
			e.opt.Progress(e.done)
		}
		if w.after = reached; reached == "" {
			return nil
		}
		if !e.opt.Unthrottled {
			pause = min(time.Since(began), eraseRest)
		}
	}
}

// count adds an event to the figures.
func (e *erasure) count(r *raw) {
	switch State(r.State) {
	case InFlight:
		e.InFlight++
	case Dead:
		e.Dead++
	case Delivered:
		e.Delivered++
	default:
		e.Waiting++
	}
	e.Triggers[e.ts.byID(r.TriggerID).Name]++
	e.done++
}

func (e *erasure) noteUnsearchable(events []raw) {
	e.Unsearchable += int64(len(events))
	for i := range events[:min(len(events), mostUnsearchable-len(e.UnsearchableIDs))] {
		e.UnsearchableIDs = append(e.UnsearchableIDs, events[i].ID)
	}
}

func idsOf(events []raw) []string {
	ids := make([]string, len(events))
	for i := range events {
		ids[i] = events[i].ID
	}
	return ids
}

func (e *erasure) run(ctx context.Context) error {
	for _, s := range e.sources() {
		if err := e.scan(ctx, e.query, s, false, func(tx pgx.Tx, events []raw) error { return e.erase(ctx, tx, s, events) }); err != nil {
			return fmt.Errorf("erase: %w", err)
		}
	}
	if err := e.awaitBusy(ctx); err != nil {
		return fmt.Errorf("wait for events in flight: %w", err)
	}
	if err := e.awaitLanes(ctx); err != nil {
		return fmt.Errorf("wait for attempts: %w", err)
	}
	if err := e.eraseBatches(ctx); err != nil {
		return fmt.Errorf("erase the responses of batches: %w", err)
	}
	return e.eraseTexts(ctx)
}

// erase erases events of one table.
func (e *erasure) erase(ctx context.Context, tx pgx.Tx, s source, events []raw) error {
	if s.table == "event_log" {
		hanging, err := readHanging(ctx, tx)
		if err != nil {
			return err
		}
		events = slices.DeleteFunc(events, func(r raw) bool {
			name := e.ts.byID(r.TriggerID).Name
			sent := State(r.State) == InFlight || slices.ContainsFunc(hanging[name], func(h Hangs) bool { return h.sends(r.ID) })
			if sent {
				e.busy[r.ID] = true
			}
			return sent
		})
	}
	if len(events) == 0 {
		return nil
	}
	sql, ids := eraseSQL[s.table], idsOf(events)
	gone, err := texts(ctx, tx, sql, ids)
	if err != nil {
		return err
	}
	var counted []string
	for i := range events {
		r := &events[i]
		switch {
		case !slices.Contains(gone, r.ID): // somebody has it at this moment
			e.busy[r.ID] = true
			continue
		case slices.Contains(counted, r.ID): // archived twice
			continue
		}
		counted = append(counted, r.ID)
		delete(e.busy, r.ID)
		e.count(r)
		if s.table == "event_log" && r.Seq > 0 {
			e.placed, e.lanes[r.TriggerID] = append(e.placed, r.ID), true
		}
	}
	return e.eraseAttempts(ctx, tx, gone)
}

// eraseSQL erases the events $1 of a table, and returns their ids.
var eraseSQL = map[string]string{
	"event_log": `
with gone as (
  delete from rowhook.event_log q
   using (select id from rowhook.event_log
           where id = any($1::text[]::uuid[]) and (claimed_by is null or due_at <= statement_timestamp())
           order by id for update skip locked) as mine
   where q.id = mine.id
  returning q.id),
moves as (delete from rowhook.key_move m using gone where m.event_id = gone.id)
select id::text from gone`,
	"dead_letter": `delete from rowhook.dead_letter where id = any($1::text[]::uuid[]) returning id::text`,
	"event_archive": `
update rowhook.event_archive set old = null, new = null, trace = null,
       session = concat('{"` + erasedKey + `":"', to_char(statement_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), '"}')::json
 where id = any($1::text[]::uuid[])
returning id::text`,
}

func texts(ctx context.Context, tx pgx.Tx, sql string, args ...any) ([]string, error) {
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// tells is SQL for an attempt i that says what a receiver has answered.
const tells = `(i.response_body is not null or i.response_headers is not null or i.error is not null and i.error is distinct from ` + eraseError + `)`

// eraseError is SQL for what stays of the error of an attempt i.
const eraseError = `coalesce(substring(i.error from '^(?:the receiver )?answered [0-9]{3}'), i.error_kind, '` + erasedText + `')`

const eraseAttempt = `response_body = null, response_headers = null, error = case when i.error is not null then ` + eraseError + ` end`

// eraseAttempts removes what attempts of these events have logged of responses.
func (e *erasure) eraseAttempts(ctx context.Context, tx pgx.Tx, ids []string) error {
	rows, err := tx.Query(ctx, "update rowhook.invocation_log i set "+eraseAttempt+" where i.event_id = any($1::text[]::uuid[]) and "+tells+
		" returning coalesce(i.batch, ''), i.started_at", ids)
	if err != nil {
		return err
	}
	var batch string
	var at time.Time
	_, err = pgx.ForEachRow(rows, []any{&batch, &at}, func() error {
		e.Attempts++
		if batch == "" {
			return nil
		}
		e.batches[batch] = struct{}{}
		if e.from.IsZero() || at.Before(e.from) {
			e.from = at
		}
		if at.After(e.to) {
			e.to = at
		}
		return nil
	})
	return err
}

// awaitBusy erases the events that were in flight when their attempts have ended.
func (e *erasure) awaitBusy(ctx context.Context) error {
	timer, ticker := time.NewTimer(cmp.Or(e.opt.Wait, DefaultEraseWait)), time.NewTicker(eraseLook)
	defer timer.Stop()
	defer ticker.Stop()
	for len(e.busy) > 0 {
		ids := slices.Sorted(maps.Keys(e.busy))
		clear(e.busy)
		found := map[string]bool{}
		for _, s := range e.sources() {
			for part := range slices.Chunk(ids, bulkBatch) {
				again := *e.query
				again.path, again.ids = "", part
				err := e.scan(ctx, &again, s, false, func(tx pgx.Tx, events []raw) error {
					for i := range events {
						found[events[i].ID] = true
					}
					return e.erase(ctx, tx, s, events)
				})
				if err != nil {
					return err
				}
			}
		}
		for _, id := range ids { // one that is found nowhere has moved, or somebody has discarded it
			if !found[id] && !e.gone(ctx, id) {
				e.busy[id] = true
			}
		}
		if len(e.busy) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			e.InFlight = int64(len(e.busy))
			return nil
		case <-ticker.C:
		}
	}
	return nil
}

// gone reports whether an event is in no table.
func (e *erasure) gone(ctx context.Context, id string) bool {
	var there bool
	err := e.db.QueryRow(ctx, `
select exists (select from rowhook.event_log where id = $1::text::uuid) or exists (select from rowhook.dead_letter where id = $1::text::uuid)
    or exists (select from rowhook.event_archive where id = $1::text::uuid)`, id).Scan(&there)
	return err == nil && !there
}

// awaitLanes erases attempts of deleted events of ordered triggers that ended after that. No claim
// says of such an event that it is being sent; a dispatcher records it if that lasts.
func (e *erasure) awaitLanes(ctx context.Context) error {
	if len(e.placed) == 0 {
		return nil
	}
	until := time.Now().Add(eraseLanes + cmp.Or(e.opt.Wait, DefaultEraseWait))
	for pause := eraseLanes; ; pause = eraseLook {
		if err := Rest(ctx, pause); err != nil {
			return err
		}
		hangs := false
		err := transact(ctx, e.db, pgx.ReadCommitted, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, byIndex()); err != nil {
				return fmt.Errorf("begin: %w", err)
			}
			hanging, err := readHanging(ctx, tx)
			if err != nil {
				return err
			}
			for id := range e.lanes {
				for _, h := range hanging[e.ts.byID(id).Name] {
					hangs = hangs || h.Unclaimed > 0
				}
			}
			for part := range slices.Chunk(e.placed, bulkBatch) {
				if err := e.eraseAttempts(ctx, tx, part); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil || !hangs || time.Now().After(until) {
			return err
		}
	}
}

// eraseBatches removes the responses to batches that held an erased event from the attempts of the
// other events in them. No index finds them, so the days that have such batches are read once.
func (e *erasure) eraseBatches(ctx context.Context) error {
	for part := range slices.Chunk(slices.Sorted(maps.Keys(e.batches)), mostBatches) {
		tag, err := e.db.Exec(ctx, "update rowhook.invocation_log i set "+eraseAttempt+
			" where i.batch = any($1::text[]) and i.started_at between $2 and $3 and "+tells, part, e.from, e.to)
		if err != nil {
			return err
		}
		e.Attempts += tag.RowsAffected()
	}
	return nil
}

// eraseTexts removes what quotes a value from the last errors of triggers, endpoints and alerts.
func (e *erasure) eraseTexts(ctx context.Context) error {
	var values []string
	for _, v := range e.values {
		if len([]rune(v)) >= shortestText {
			values = append(values, strings.ToLower(v))
		}
	}
	if values == nil {
		return nil
	}
	quotes := func(text string) string {
		return "exists (select from unnest($1::text[]) as v(v) where position(v.v in lower(" + text + ")) > 0)"
	}
	for _, sql := range []string{
		"update rowhook.activity set error = '" + erasedText + "' where error is not null and " + quotes("error"),
		"update rowhook.health set reason = '" + erasedText + "' where " + quotes("reason"),
		"update rowhook.alert set facts = jsonb_set(facts, '{reason}', '\"" + erasedText + "\"') where " + quotes("facts->>'reason'"),
		"update rowhook.alert set error = '" + erasedText + "' where error is not null and " + quotes("error"),
	} {
		if _, err := e.db.Exec(ctx, sql, values); err != nil && !pg.IsData(err) {
			return fmt.Errorf("erase errors that quote a value: %w", err)
		}
	}
	return nil
}
