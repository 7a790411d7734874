package operate

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
)

// source is one of the tables that hold events.
type source struct {
	table   string
	columns string  // select list, in the order of raw
	time    string  // the column with the time of the state
	extra   string  // further columns that a page needs
	holds   []State // the states of its events
	byID    bool    // it has an index on (trigger_id, id)
}

// A claimed event whose lease has ended counts as waiting or retrying: dispatchers may claim it.
const (
	inFlightSQL = "(e.claimed_by is not null and e.due_at > statement_timestamp())"
	queueState  = "case when " + inFlightSQL + " then 'in_flight' when e.tries > 0 then 'retrying' else 'waiting' end"
)

func sources() []source {
	const common = "e.id::text as id, e.trigger_id, e.op::text as op, e.tries, e.created_at, "
	return []source{
		{
			table: "event_log", time: "due_at", extra: ", e.claimed_by", holds: []State{Waiting, InFlight, Retrying},
			columns: common + queueState + " as state, " + queue.DueAt("e.due_at") + " as at, e.claimed_by",
		},
		{
			table: "dead_letter", time: "died_at", extra: ", e.reason", holds: []State{Dead}, byID: true,
			columns: common + "'dead' as state, e.died_at as at, null::integer as claimed_by",
		},
		{
			table: "event_archive", time: "delivered_at", holds: []State{Delivered, Merged}, byID: true,
			columns: common + "'delivered' as state, e.delivered_at as at, null::integer as claimed_by",
		},
	}
}

// raw is an event as its table stores it.
type raw struct {
	ID         string
	TriggerID  int32
	RelationID int32 // rowhook.relation.id; 0: the trigger's OriginID
	Op         string
	Tries      int
	CreatedAt  time.Time
	State      string
	At         time.Time
	ClaimedBy  *int32
	Reason     string
	place
	held
}

// place is the place of an event in the order of its key.
type place struct {
	Key        string // "": no order
	Seq        int64  // 0: no order
	Blocks     bool   // of a dead letter: it holds its key
	MergedInto string // of a delivered event: the id of the one that was sent in its stead; "": none
}

// placeColumns returns the columns of place that a table has: for a page, and for the select list.
func (w *walk) placeColumns(write func(string) string) (page, list string) {
	if w.table == "event_archive" {
		return ", e.seq, e.merged_into", "''::text as key, coalesce(e.seq, 0) as seq, false as blocks, coalesce(e.merged_into::text, '') as merged_into"
	}
	key := "coalesce(" + write("e.key") + ", '') as key, coalesce(e.seq, 0) as seq, "
	if w.table == "dead_letter" {
		return ", e.key, e.seq, e.blocks", key + holds + " as blocks, ''::text as merged_into"
	}
	return ", e.key, e.seq", key + "false as blocks, ''::text as merged_into"
}

// walk reads the events that a query chooses from one source, in the order of their ids.
type walk struct {
	*query
	source
	descending bool
	reasons    bool      // read the reasons of dead letters, too
	after      string    // continue after this id; "": begin
	deadline   time.Time // zero: none
}

// The number of rows that a step reads. It grows from firstStep to lastStep, or to lastPayloadStep
// if the query is slow: a step that examines payloads takes about 5 us per row.
const (
	firstStep       = 500
	lastStep        = 20_000
	lastPayloadStep = 1_000
)

// candidates is the greatest number of queue rows that are read by the index on (trigger_id,
// due_at) and sorted. If the triggers have more, the walk goes by id.
const candidates = 20_000

// next returns up to limit events. reached is "" if no events follow. Otherwise it is the id to
// continue after: that of the last event, or of the last row examined before the deadline.
func (w *walk) next(ctx context.Context, tx pgx.Tx, limit int) (events []raw, reached string, err error) {
	if w.triggers != nil && len(w.triggers) == 0 || !w.wanted() {
		return nil, "", nil
	}
	few, err := w.few(ctx, tx)
	if err != nil {
		return nil, "", err
	}
	step := max(limit, firstStep)
	for {
		rows, n, last, err := w.step(ctx, tx, few, step, limit-len(events))
		if err != nil {
			return nil, "", err
		}
		events = append(events, rows...)
		switch {
		case len(events) >= limit:
			return events, events[len(events)-1].ID, nil
		case few || n < step:
			return events, "", nil
		}
		w.after = last
		if !w.deadline.IsZero() && time.Now().After(w.deadline) {
			return events, last, nil
		}
		most := lastStep
		if w.slow() {
			most = lastPayloadStep
		}
		step = min(4*step, max(most, limit))
	}
}

// wanted reports whether the query may choose events of this source.
func (w *walk) wanted() bool {
	return slices.ContainsFunc(w.states, func(s State) bool { return slices.Contains(w.holds, s) })
}

// few reports whether one page reads all rows that may match: because the query names ids, or
// because the triggers have at most candidates rows in the queue.
func (w *walk) few(ctx context.Context, db pg.Queryer) (bool, error) {
	if w.byID || len(w.ids) > 0 || w.triggers == nil && !w.leased() {
		return len(w.ids) > 0, nil
	}
	var n int
	sql := "select count(*) from (select from " + w.indexed("$1") + " limit $2) as c"
	if err := db.QueryRow(ctx, sql, w.triggers, candidates+1).Scan(&n); err != nil {
		return false, fmt.Errorf("count events of the triggers: %w", err)
	}
	return n <= candidates, nil
}

// leased reports whether the query wants only events in flight from the queue. Their leases end in
// the future, so the index on due_at finds them.
func (w *walk) leased() bool {
	return w.table == "event_log" && slices.Contains(w.states, InFlight) && !slices.Contains(w.states, Waiting) && !slices.Contains(w.states, Retrying)
}

// indexed returns the from clause that reads the queue by its index on (trigger_id, due_at).
// "offset 0" keeps the planner from the index on the id, which would visit the rows of all
// triggers.
func (w *walk) indexed(param string) string {
	due := ""
	if w.leased() {
		due = " and q.due_at > statement_timestamp() and q.due_at < " + queue.ParkedFrom // what is parked is not claimed
	}
	from := "unnest(" + param + "::integer[]) as t(id)"
	if w.triggers == nil {
		from = "rowhook.trigger t"
		due += " and " + param + "::integer[] is null"
	}
	return from + " cross join lateral (select q.* from rowhook.event_log q where q.trigger_id = t.id" + due + " offset 0) as e"
}

// step reads the next rows after w.after and filters them. n is the number of rows read before the
// filter, and last the id of the last one.
func (w *walk) step(ctx context.Context, tx pgx.Tx, few bool, step, limit int) (events []raw, n int, last string, err error) {
	if !w.reasons {
		return w.read(ctx, tx, func(string) string { return "''::text" }, few, step, limit)
	}
	err = escaping(ctx, tx, func(write func(string) string) (err error) {
		events, n, last, err = w.read(ctx, tx, write, few, step, limit)
		return err
	})
	return events, n, last, err
}

// read is step with SQL for texts.
func (w *walk) read(ctx context.Context, tx pgx.Tx, write func(string) string, few bool, step, limit int) (events []raw, n int, last string, err error) {
	page, filter, args := w.page(few, step)
	args = append(args, limit)
	order, end := w.order()
	reason := "''::text"
	if w.table == "dead_letter" {
		reason = write("e.reason")
	}
	_, places := w.placeColumns(write)
	columns := w.columns + ", " + reason + " as reason, coalesce(e.relation_id, 0) as relation_id, " + places
	sql := "with page as materialized (" + page + ") " +
		"select s.n, s.last, f.* from (select count(*) as n, coalesce((select id::text from page order by page.id " + end + " limit 1), '') as last from page) as s " +
		"left join lateral (select " + columns + " from page e where " + filter + " order by e.id " + order + " limit $" + strconv.Itoa(len(args)) + ") as f on true"
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, 0, "", explainPath(err, w.path)
	}
	var r nullable
	_, err = pgx.ForEachRow(rows, r.into(&n, &last), func() error {
		if r.id != nil {
			events = append(events, r.event(w.source))
		}
		return nil
	})
	if err != nil {
		return nil, 0, "", explainPath(err, w.path)
	}
	return events, n, last, nil
}

// count counts the remaining events of the walk. more reports that the deadline passed first.
func (w *walk) count(ctx context.Context, db pg.Queryer) (total int64, more bool, err error) {
	if w.triggers != nil && len(w.triggers) == 0 || !w.wanted() {
		return 0, false, nil
	}
	few, err := w.few(ctx, db)
	if err != nil {
		return 0, false, err
	}
	for {
		step := lastStep
		if w.slow() {
			step = lastPayloadStep
		}
		page, filter, args := w.page(few, step)
		_, end := w.order()
		var n int
		var found int64
		sql := "with page as materialized (" + page + ") " +
			"select (select count(*) from page), coalesce((select id::text from page order by page.id " + end + " limit 1), ''), (select count(*) from page e where " + filter + ")"
		if err := db.QueryRow(ctx, sql, args...).Scan(&n, &w.after, &found); err != nil {
			return 0, false, explainPath(err, w.path)
		}
		total += found
		switch {
		case few || n < step:
			return total, false, nil
		case !w.deadline.IsZero() && time.Now().After(w.deadline):
			return total, true, nil
		}
	}
}

// order returns the sort direction of rows, and the opposite one, which has the last row first.
func (w *walk) order() (order, end string) {
	if w.descending {
		return "desc", "asc"
	}
	return "asc", "desc"
}

// page returns a statement that reads the next rows by an index, and the condition that filters
// them.
func (w *walk) page(few bool, step int) (sql, filter string, args []any) {
	places, _ := w.placeColumns(plainly)
	columns := "e.id, e.trigger_id, e.op, e.tries, e.created_at, e." + w.time + w.extra + ", e.relation_id" + places
	if w.path != "" {
		columns += ", e.old, e.new, e.session, e.trace"
	}
	if w.table == "event_archive" && !w.sentBefore.IsZero() {
		columns += ", " + erased + " as erased"
	}
	order, _ := w.order()
	compare, after := ">", w.after
	if w.descending {
		compare = "<"
	}
	switch {
	case after == "" && w.descending:
		after = highest
	case after == "":
		after = lowest
	}
	args = []any{w.triggers, after, w.low, w.high, step}
	var where []string
	from := "select " + columns + " from rowhook." + w.table + " e where "
	bound := "e.id " + compare + " $2::text::uuid and e.id >= $3::text::uuid and e.id < $4::text::uuid"
	switch {
	case len(w.ids) > 0:
		args = append(args, w.ids)
		sql = from + bound + " and e.id = any($6::text[]::uuid[]) and ($1::integer[] is null or e.trigger_id = any($1)) and $5 > 0"
	case few:
		sql = "select " + columns + " from " + w.indexed("$1") + " where " + bound + " and $5 > 0"
	case w.byID && w.triggers != nil:
		// Row comparisons in this column order leave the planner only the index on (trigger_id,
		// id).
		sql = "select e.* from unnest($1::integer[]) as t(id) cross join lateral (" + from +
			"(e.trigger_id, e.id) " + compare + " (t.id, $2::text::uuid) and (e.trigger_id, e.id) >= (t.id, $3::text::uuid) and (e.trigger_id, e.id) < (t.id, $4::text::uuid)" +
			" order by e.trigger_id " + order + ", e.id " + order + " limit $5) as e order by e.id " + order + " limit $5"
	case w.triggers == nil:
		sql = from + bound + " and $1::integer[] is null order by e.id " + order + " limit $5"
	default:
		// The filter checks the trigger, so that a step reads a bounded number of rows.
		sql = from + bound + " order by e.id " + order + " limit $5"
		where = append(where, "e.trigger_id = any($1)")
	}
	if w.table == "event_log" && !(slices.Contains(w.states, Waiting) && slices.Contains(w.states, InFlight) && slices.Contains(w.states, Retrying)) {
		args = append(args, w.states)
		where = append(where, fmt.Sprintf("%s = any($%d::text[])", queueState, len(args)))
	}
	if w.table == "event_archive" && !slices.Contains(w.states, Delivered) { // Merged alone
		where = append(where, "e.merged_into is not null")
	}
	if w.table == "event_archive" && !w.sentBefore.IsZero() {
		args = append(args, w.sentBefore)
		where = append(where, fmt.Sprintf("e.delivered_at < $%d::timestamptz and not e.erased and e.merged_into is null", len(args)))
	}
	if w.relations != nil {
		args = append(args, w.relations, w.origins)
		where = append(where, fmt.Sprintf("(e.relation_id = any($%d::integer[]) or e.relation_id is null and e.trigger_id = any($%d::integer[]))", len(args)-1, len(args)))
	}
	if w.ops != nil {
		args = append(args, w.ops)
		where = append(where, fmt.Sprintf("e.op::text = any($%d::text[])", len(args)))
	}
	switch {
	case w.path != "" && w.unsearchable:
		where = append(where, "not rowhook.payload_matches(e.old, e.new, e.session, e.trace, '$')")
	case w.path != "":
		args = append(args, w.path)
		where = append(where, fmt.Sprintf("rowhook.payload_matches(e.old, e.new, e.session, e.trace, $%d::text::jsonpath)", len(args)))
	}
	if w.ofAttempt() {
		args = append(args, w.error, w.statuses, w.kinds)
		n := len(args)
		where = append(where, fmt.Sprintf("exists (select from %s where ($%d::text = '' or position($%[2]d::text in lower(a.error)) > 0)"+
			" and ($%d::text[] is null or a.status like any($%[3]d)) and ($%d::text[] is null or a.kind = any($%[4]d)))", w.lastAttempt(), n-2, n-1, n))
	}
	if len(where) == 0 {
		where = append(where, "true")
	}
	return sql, strings.Join(where, " and "), args
}

// lastAttempt returns a subquery for the last attempt of an event e, found by the log's index. For
// dead letters it adds the reason, which stays when the log's retention has ended.
func (w *walk) lastAttempt() string {
	reason := "''"
	if w.table == "dead_letter" {
		reason = "e.reason"
	}
	return "(select coalesce(l.status::text, substring(" + reason + " from 'answered ([1-5][0-9]{2})'), '') as status, coalesce(l.error_kind, '') as kind," +
		" " + w.hushed("concat_ws(' ', nullif("+reason+", ''), l.error)") + " as error from (select) as one left join lateral (select i.status, i.error_kind, i.error" +
		" from rowhook.invocation_log i where i.event_id = e.id order by i.started_at desc limit 1) as l on true) as a"
}

// explainPath turns an error about a malformed JSON path into ErrInvalid.
func explainPath(err error, path string) error {
	if path != "" && (pg.IsState(err, pgerrcode.SyntaxError, pgerrcode.InvalidTextRepresentation, pgerrcode.UndefinedFunction, pgerrcode.InvalidRegularExpression) || isNoText(err)) {
		return problem(ErrInvalid, `write KEY=VALUE such as new.id=42, or a path such as '$.new.amount ? (@ > 100)'`, "the payload filter is not a JSON path (%v)", err)
	}
	return fmt.Errorf("search events: %w", err)
}

// nullable is the result row of a step. If no event matched, all columns but the first two are
// null.
type nullable struct {
	id, op, state, reason   *string
	trigger, tries, claimed *int32
	relation                *int32
	created, at             *time.Time
	key, mergedInto         *string
	seq                     *int64
	blocks                  *bool
}

func (r *nullable) into(n *int, last *string) []any {
	return []any{n, last, &r.id, &r.trigger, &r.op, &r.tries, &r.created, &r.state, &r.at, &r.claimed, &r.reason, &r.relation, &r.key, &r.seq, &r.blocks, &r.mergedInto}
}

func (r *nullable) event(of source) raw {
	return raw{
		ID: *r.id, TriggerID: *r.trigger, RelationID: *r.relation, Op: *r.op, Tries: int(*r.tries), CreatedAt: *r.created, State: *r.state, At: *r.at,
		ClaimedBy: r.claimed, Reason: *r.reason, place: place{*r.key, *r.seq, *r.blocks, *r.mergedInto}, held: held{source: of},
	}
}

// event returns the public form of r. What its trigger masks is masked in r, too.
func (r *raw) event(ts triggers, payload bool) Event {
	t := ts.byID(r.TriggerID).of(r.RelationID)
	t.maskPayload(&r.held)
	e := Event{
		ID: r.ID, Trigger: t.Name, Table: t.qualified(), Op: opName(r.Op), State: State(r.State),
		Attempts: r.Tries, CreatedAt: r.CreatedAt, InstanceID: r.ClaimedBy, Reason: t.hush(r.Reason),
		Key: t.showKey(r.Key), Sequence: r.Seq, Blocks: r.Blocks, MergedInto: r.MergedInto,
	}
	at := r.At
	switch e.State {
	case Waiting, Retrying:
		e.DueAt, e.InstanceID = &at, nil
	case InFlight:
		e.LeaseEndsAt = &at
	case Delivered:
		e.DeliveredAt = &at
	case Dead:
		e.DiedAt = &at
	}
	if payload && r.problem != "" {
		e.PayloadProblem = r.problem
	} else if payload {
		e.Payload = &Payload{Old: json.RawMessage(r.Old), New: json.RawMessage(r.New), SessionVariables: json.RawMessage(r.Session), TraceContext: json.RawMessage(r.Trace)}
	}
	return e
}

func opName(op string) string {
	switch op {
	case "I":
		return "INSERT"
	case "U":
		return "UPDATE"
	case "D":
		return "DELETE"
	case "T":
		return "TRUNCATE"
	default:
		return "MANUAL"
	}
}
