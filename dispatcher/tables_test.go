package dispatcher_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/trigger"
)

// watchMany applies a trigger that watches several tables.
func (b *fixture) watchMany(t *testing.T, name string, tables []string, change ...func(*trigger.Spec)) {
	t.Helper()
	b.apply(t, b.Spec(name, append([]func(*trigger.Spec){func(s *trigger.Spec) { s.Table, s.Tables = "", tables }}, change...)...))
}

// TestBodiesNameTheTableOfTheirRow has events of several tables in one trigger, of which some are
// renamed, moved and dropped while their events wait.
func TestBodiesNameTheTableOfTheirRow(t *testing.T) {
	t.Parallel()
	for name, with := range map[string]func(*trigger.Spec){
		"as they come": func(*trigger.Spec) {},
		"in order":     func(s *trigger.Spec) { s.Order.By = []string{trigger.OrderByRow} },
		"in batches":   func(s *trigger.Spec) { s.Batch = trigger.Batch{Max: 2, Bytes: 1 << 20} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newFixture(t)
			b.Exec(t, "create schema shop")
			for _, table := range []string{"shop.a", "shop.b", "shop.c", "shop.d"} {
				b.Table(t, table)
			}
			b.watchMany(t, "many", []string{"shop.*"}, with)
			b.Exec(t, "insert into shop.a (v) values ('a'); insert into shop.b (v) values ('b'); insert into shop.c (v) values ('c'); insert into shop.d (v) values ('d')")
			b.Exec(t, "alter table shop.b rename to b2; alter table shop.c set schema public; drop table shop.d cascade")
			b.start(t)
			got := map[string]string{}
			for _, d := range b.receiver.await(t, "many", map[bool]int{false: 4, true: 2}[name == "in batches"]) {
				type body struct {
					Table struct{ Schema, Name string }
					Event struct {
						Data struct{ New struct{ V string } }
					}
				}
				var bodies []body
				if text := d.body; !strings.HasPrefix(text, "[") {
					text = "[" + text + "]"
					require.NoError(t, json.Unmarshal([]byte(text), &bodies))
				} else {
					require.NoError(t, json.Unmarshal([]byte(text), &bodies))
				}
				for _, body := range bodies {
					got[body.Event.Data.New.V] = body.Table.Schema + "." + body.Table.Name
				}
			}
			require.Equal(t, map[string]string{"a": "shop.a", "b": "shop.b2", "c": "public.c", "d": "shop.d"}, got)
			page, err := operate.List(t.Context(), b.Pool(t), operate.Filter{Table: "shop.b2"}, operate.ListOptions{})
			require.NoError(t, err)
			require.Len(t, page.Events, 1, "the events of one of the tables are found")
		})
	}
}

// TestFollowedTablesAreWatchedByWhomeverMay has a dispatcher of the owner, and one that may only
// dispatch.
func TestFollowedTablesAreWatchedByWhomeverMay(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.Exec(t, "create schema later")
	b.watchMany(t, "many", []string{"later.*"}, func(s *trigger.Spec) { s.Follow = true })
	_, url := b.dispatches(t)
	bound := b.start(t, func(c *dispatcher.Config) { c.DatabaseURL = url })
	b.Table(t, "later.x")
	dispatcher.LookAtCaptures(t.Context(), bound.Dispatcher)
	bound.says(t, "changes of a watched table are not captured: later.x matches its tables, but is not watched yet") // by whichever look found it
	require.Contains(t, bound.log.String(), `rowhook apply`)
	require.Len(t, bound.Stats().Uncaptured, 1)

	free := b.start(t)
	dispatcher.LookAtCaptures(t.Context(), free.Dispatcher)
	free.says(t, "a new table is watched")
	require.Contains(t, free.log.String(), "table=later.x")
	b.Exec(t, "insert into later.x (v) values ('x')")
	require.Contains(t, b.receiver.await(t, "many", 1)[0].body, `"table":{"schema":"later","name":"x"}`)
	dispatcher.LookAtCaptures(t.Context(), bound.Dispatcher)
	bound.says(t, "changes of the watched table are captured again")
	require.Empty(t, bound.Stats().Uncaptured)
}
