package operate

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Group counts events with the same values of the chosen keys. The other keys are empty.
type Group struct {
	Trigger string `json:"trigger,omitempty"`
	State   State  `json:"state,omitempty"`
	Error   string `json:"error,omitempty"`  // of the last attempt, or the reason of a dead letter
	Status  string `json:"status,omitempty"` // HTTP status of the last response
	Kind    string `json:"kind,omitempty"`   // kind of the last failure without a response
	Events  int64  `json:"events"`
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
		counts := map[Group]int64{}
		for _, s := range sources() {
			w := &walk{query: q, source: s, deadline: deadline}
			more, err := w.group(ctx, tx, ts, by, counts)
			if err != nil {
				return err
			}
			out.More = out.More || more
		}
		for g, n := range counts {
			g.Events = n
			out.Groups = append(out.Groups, g)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(out.Groups, func(a, b Group) int {
		return cmp.Or(cmp.Compare(b.Events, a.Events), cmp.Compare(a.Trigger, b.Trigger), cmp.Compare(a.Error, b.Error), cmp.Compare(a.Status+a.Kind, b.Status+b.Kind))
	})
	return out, nil
}

// group adds the remaining events of the walk to counts. more reports that the deadline passed
// first.
func (w *walk) group(ctx context.Context, tx pgx.Tx, ts triggers, by []string, counts map[Group]int64) (more bool, err error) {
	if w.triggers != nil && len(w.triggers) == 0 || !w.wanted() {
		return false, nil
	}
	few, err := w.few(ctx, tx)
	if err != nil {
		return false, err
	}
	_, end := w.order()
	for {
		page, filter, args := w.page(few, lastPayloadStep)
		var n int
		var found []counting
		err := escaping(ctx, tx, func(write func(string) string) error {
			rows, err := tx.Query(ctx, "with page as materialized ("+page+") "+
				"select (select count(*) from page), coalesce((select id::text from page order by page.id "+end+" limit 1), ''), g.* from (select) as one left join "+
				"(select "+w.keys(by, write)+", count(*) from page e cross join lateral "+w.lastAttempt()+" where "+filter+" group by 1, 2, 3, 4, 5) as g (trigger, state, error, status, kind, n) on true", args...)
			if err != nil {
				return err
			}
			found = nil
			var trigger *int32
			var keys [4]*string
			var events *int64
			_, err = pgx.ForEachRow(rows, []any{&n, &w.after, &trigger, &keys[0], &keys[1], &keys[2], &keys[3], &events}, func() error {
				if events == nil {
					return nil
				}
				g := Group{State: State(*keys[0]), Error: *keys[1], Status: *keys[2], Kind: *keys[3]}
				if slices.Contains(by, "trigger") {
					g.Trigger = ts.byID(*trigger).Name
				}
				found = append(found, counting{g, *events})
				return nil
			})
			return err
		})
		if err != nil {
			return false, fmt.Errorf("group events: %w", explainPath(err, w.path))
		}
		for _, g := range found {
			if _, known := counts[g.Group]; !known && len(counts) >= mostGroups {
				g.Group = Group{}
			}
			counts[g.Group] += g.n
		}
		switch {
		case few || n < lastPayloadStep:
			return false, nil
		case time.Now().After(w.deadline):
			return true, nil
		}
	}
}

// counting is a group within one page of events.
type counting struct {
	Group
	n int64
}

// keys returns the SQL expressions to group by, in the order of GroupKeys. Keys that are not in by
// get a constant.
func (w *walk) keys(by []string, write func(string) string) string {
	state := "'" + string(w.holds[0]) + "'"
	if w.table == "event_log" {
		state = queueState
	}
	keys := map[string]string{"trigger": "e.trigger_id", "state": state, "error": write("left(a.error, 300)"), "status": "a.status", "kind": "a.kind"}
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
