package operate

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/sorting"
)

// Group counts events with the same values of the chosen keys. The other keys are empty.
type Group struct {
	Trigger string `json:"trigger,omitempty"`
	State   State  `json:"state,omitempty"`
	Error   string `json:"error,omitempty"`  // of the last attempt, or the reason of a dead letter
	Status  string `json:"status,omitempty"` // HTTP status of the last response
	Kind    string `json:"kind,omitempty"`   // kind of the last failure without a response
	Events  int64  `json:"events"`
	// FirstAt and LastAt are the times of the first and the last of the events: when they became dead
	// letters, or were delivered; of those in the queue, when they were recorded.
	FirstAt   time.Time `json:"first_at"`
	LastAt    time.Time `json:"last_at"`
	ExampleID string    `json:"example_id"` // one of the newest of the events
}

// groupKey are the values by which events are grouped.
type groupKey struct{ trigger, state, error, status, kind string }

// add adds events to the group.
func (g *Group) add(n int64, first, last time.Time, example string) {
	if g.Events == 0 || first.Before(g.FirstAt) {
		g.FirstAt = first
	}
	if last.After(g.LastAt) {
		g.LastAt = last
	}
	g.Events, g.ExampleID = g.Events+n, max(g.ExampleID, example)
}

// Groups are all groups, largest first.
type Groups struct {
	Groups []Group `json:"groups"`
	More   bool    `json:"more"` // counting ran out of time: the real figures are higher
}

// GroupKeys returns the keys that GroupBy accepts.
func GroupKeys() []string { return []string{"trigger", "state", "error", "status", "kind"} }

// mostGroups bounds the number of groups. Events of further groups are counted together in a group
// without values.
const mostGroups = 1000

// GroupBy counts the events that a filter chooses, grouped by some of GroupKeys. It stops when the
// budget is spent; 0: two seconds.
func GroupBy(ctx context.Context, db DB, f Filter, by []string, budget time.Duration) (*Groups, error) {
	for _, key := range by {
		if !slices.Contains(GroupKeys(), key) {
			return nil, problem(ErrInvalid, "write one or more of "+strings.Join(GroupKeys(), ", "), "events can't be grouped by %q", key)
		}
	}
	if len(by) == 0 {
		return nil, problem(ErrInvalid, "write one or more of "+strings.Join(GroupKeys(), ", "), "no key to group by was given")
	}
	deadline := time.Now().Add(cmp.Or(budget, 2*time.Second))
	out := &Groups{Groups: []Group{}}
	err := read(ctx, db, func(tx pgx.Tx) error {
		ts, q, err := f.read(ctx, tx)
		if err != nil {
			return err
		}
		counts := map[groupKey]*Group{}
		for _, s := range sources() {
			w := &walk{query: q, source: s, deadline: deadline}
			more, err := w.group(ctx, tx, ts, by, counts)
			if err != nil {
				return err
			}
			out.More = out.More || more
		}
		for _, g := range counts {
			out.Groups = append(out.Groups, *g)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	sorting.By(out.Groups, func(a, b Group) int {
		return cmp.Or(cmp.Compare(b.Events, a.Events), cmp.Compare(a.Trigger, b.Trigger), cmp.Compare(a.Error, b.Error), cmp.Compare(a.Status+a.Kind, b.Status+b.Kind))
	})
	return out, nil
}

// group adds the remaining events of the walk to counts. more reports that the deadline passed
// first.
func (w *walk) group(ctx context.Context, tx pgx.Tx, ts triggers, by []string, counts map[groupKey]*Group) (more bool, err error) {
	if w.triggers != nil && len(w.triggers) == 0 || !w.wanted() {
		return false, nil
	}
	if fits, err := w.wholeTable(ctx, tx, by); err != nil || fits {
		if err == nil {
			err = w.groupReasons(ctx, tx, ts, by, counts)
		}
		return false, err
	}
	few, err := w.few(ctx, tx)
	if err != nil {
		return false, err
	}
	_, end := w.order()
	step, from := lastPayloadStep, "page e cross join lateral "+w.lastAttempt()
	if w.ownReason(by) {
		step, from = lastStep, "page e"
	}
	for {
		page, filter, args := w.page(few, step)
		var n int
		var found []grouped
		err := escaping(ctx, tx, func(write func(string) string) error {
			rows, err := tx.Query(ctx, "with page as materialized ("+page+") "+
				"select (select count(*) from page), coalesce((select id::text from page order by page.id "+end+" limit 1), ''), g.* from (select) as one left join "+
				"(select "+w.keys(by, write)+", count(*), min(e."+w.groupTime()+"), max(e."+w.groupTime()+"), max(e.id::text) from "+from+" where "+filter+
				" group by 1, 2, 3, 4, 5) as g (trigger, state, error, status, kind, n, first_at, last_at, example) on true", args...)
			if err != nil {
				return err
			}
			found = nil
			var trigger *int32
			var keys [4]*string
			var example *string
			var events *int64
			var first, last *time.Time
			_, err = pgx.ForEachRow(rows, []any{&n, &w.after, &trigger, &keys[0], &keys[1], &keys[2], &keys[3], &events, &first, &last, &example}, func() error {
				if events == nil {
					return nil
				}
				key := groupKey{state: *keys[0], error: *keys[1], status: *keys[2], kind: *keys[3]}
				if slices.Contains(by, "trigger") {
					key.trigger = ts.byID(*trigger).Name
				}
				found = append(found, grouped{key, *events, *first, *last, *example})
				return nil
			})
			return err
		})
		if err != nil {
			return false, fmt.Errorf("group events: %w", explainPath(err, w.path))
		}
		for _, g := range found {
			if counts[g.groupKey] == nil && len(counts) >= mostGroups {
				g.groupKey = groupKey{}
			}
			if counts[g.groupKey] == nil {
				k := g.groupKey
				counts[k] = &Group{Trigger: k.trigger, State: State(k.state), Error: k.error, Status: k.status, Kind: k.kind}
			}
			counts[g.groupKey].add(g.n, g.first, g.last, g.example)
		}
		switch {
		case few || n < step:
			return false, nil
		case time.Now().After(w.deadline):
			return true, nil
		}
	}
}

// grouped is a group within one page of events.
type grouped struct {
	groupKey
	n           int64
	first, last time.Time
	example     string
}

// ownReason reports whether what dead letters say themselves is enough to group them, without the
// log of attempts: two million rows of it would be read for 100,000 dead letters.
func (w *walk) ownReason(by []string) bool {
	return w.table == "dead_letter" && !w.slow() && !slices.Contains(by, "status") && !slices.Contains(by, "kind")
}

// mostReasons is how many dead letters are grouped by one statement. It takes some 20 ms for 100,000.
const mostReasons = 500_000

// wholeTable reports whether groupReasons can group these events: dead letters that are chosen by
// their trigger alone, and are not too many.
func (w *walk) wholeTable(ctx context.Context, tx pgx.Tx, by []string) (bool, error) {
	if !w.ownReason(by) || w.low != lowest || w.high != highest || len(w.ids) > 0 || w.relations != nil || w.ops != nil {
		return false, nil
	}
	var rows float64
	if err := tx.QueryRow(ctx, "select reltuples::float8 from pg_catalog.pg_class where oid = 'rowhook.dead_letter'::regclass").Scan(&rows); err != nil {
		return false, fmt.Errorf("read the size of dead_letter: %w", err)
	}
	return rows <= mostReasons, nil
}

// groupReasons groups dead letters by trigger and reason, by one look at the table: to read page by
// page, in the order of ids, takes ten times as long.
func (w *walk) groupReasons(ctx context.Context, tx pgx.Tx, ts triggers, by []string, counts map[groupKey]*Group) error {
	if _, err := tx.Exec(ctx, "set local enable_seqscan = on"); err != nil {
		return fmt.Errorf("prepare to group dead letters: %w", err)
	}
	var mine map[groupKey]*Group
	var last map[groupKey]lastOf
	err := escaping(ctx, tx, func(write func(string) string) error {
		rows, err := tx.Query(ctx, "select trigger_id, "+write("left("+w.hushed("e.reason")+", 300)")+", md5(reason), n, first_at, last_at from "+
			"(select trigger_id, reason, count(*) as n, min(died_at) as first_at, max(died_at) as last_at from rowhook.dead_letter "+
			"where $1::integer[] is null or trigger_id = any($1) group by trigger_id, reason) as e", w.triggers)
		if err != nil {
			return err
		}
		mine, last = map[groupKey]*Group{}, map[groupKey]lastOf{}
		var of lastOf
		var reason string
		var n int64
		var firstAt, lastAt time.Time
		_, err = pgx.ForEachRow(rows, []any{&of.trigger, &reason, &of.reason, &n, &firstAt, &lastAt}, func() error {
			var key groupKey
			if slices.Contains(by, "trigger") {
				key.trigger = ts.byID(of.trigger).Name
			}
			if slices.Contains(by, "state") {
				key.state = string(Dead)
			}
			if slices.Contains(by, "error") {
				key.error = reason
			}
			if mine[key] == nil && len(mine) >= mostGroups {
				key = groupKey{}
			}
			if mine[key] == nil {
				mine[key] = &Group{Trigger: key.trigger, State: State(key.state), Error: key.error}
			}
			if lastAt.After(mine[key].LastAt) {
				last[key] = of
			}
			mine[key].add(n, firstAt, lastAt, "")
			return nil
		})
		return err
	})
	if err != nil {
		return fmt.Errorf("group dead letters: %w", err)
	}
	if _, err := tx.Exec(ctx, "set local enable_seqscan = off"); err != nil {
		return fmt.Errorf("end grouping dead letters: %w", err)
	}
	if err := nameExamples(ctx, tx, mine, last); err != nil {
		return err
	}
	for key, g := range mine {
		if counts[key] == nil {
			counts[key] = g
		} else {
			counts[key].add(g.Events, g.FirstAt, g.LastAt, g.ExampleID)
		}
	}
	return nil
}

// lastOf is of the last event of a group.
type lastOf struct {
	trigger int32
	reason  string // its digest
}

// nameExamples sets the example of each group to one that died last, by the index on triggers and
// times.
func nameExamples(ctx context.Context, tx pgx.Tx, groups map[groupKey]*Group, last map[groupKey]lastOf) error {
	keys := slices.Collect(maps.Keys(last))
	of, at, reasons := make([]int32, len(keys)), make([]time.Time, len(keys)), make([]string, len(keys))
	for i, key := range keys {
		of[i], at[i], reasons[i] = last[key].trigger, groups[key].LastAt, last[key].reason
	}
	type example struct {
		N  int
		ID string
	}
	found, err := pg.Collect[example](ctx, tx, `
select g.n::integer - 1 as n, d.id::text as id
  from unnest($1::integer[], $2::timestamptz[], $3::text[]) with ordinality as g(trigger_id, at, reason, n)
 cross join lateral (
   select id from rowhook.dead_letter e where e.trigger_id = g.trigger_id and e.died_at = g.at and md5(e.reason) = g.reason limit 1) as d`, of, at, reasons)
	if err != nil {
		return fmt.Errorf("find examples: %w", err)
	}
	for _, e := range found {
		groups[keys[e.N]].ExampleID = e.ID
	}
	return nil
}

// groupTime is the column of the times of a group.
func (w *walk) groupTime() string {
	if w.table == "event_log" {
		return "created_at"
	}
	return w.time
}

// keys returns the SQL expressions to group by, in the order of GroupKeys. Keys that are not in by
// get a constant.
func (w *walk) keys(by []string, write func(string) string) string {
	state := "'" + string(w.holds[0]) + "'"
	if w.table == "event_log" {
		state = queueState
	}
	keys := map[string]string{"trigger": "e.trigger_id", "state": state, "error": write("left(a.error, 300)"), "status": "a.status", "kind": "a.kind"}
	if w.ownReason(by) {
		keys["error"] = write("left(" + w.hushed("e.reason") + ", 300)")
	}
	chosen := make([]string, len(GroupKeys()))
	for i, key := range GroupKeys() {
		chosen[i] = "''"
		if key == "trigger" {
			chosen[i] = "0"
		}
		if slices.Contains(by, key) {
			chosen[i] = keys[key]
		}
	}
	return strings.Join(chosen, ", ")
}
