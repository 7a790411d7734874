package dispatcher_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/trigger"
)

// sentOf returns the events of requests to a path, without what differs each time, as "op changed old
// new".
func (b *fixture) sentOf(t *testing.T, path string, requests int) (out []string) {
	t.Helper()
	for _, d := range b.receiver.await(t, path, requests) {
		text := d.body
		if !strings.HasPrefix(text, "[") {
			text = "[" + text + "]"
		}
		var events []struct {
			Event struct {
				Op      string
				Changed json.RawMessage
				Data    struct{ Old, New json.RawMessage }
			}
		}
		require.NoError(t, json.Unmarshal([]byte(text), &events), "%s", d.body)
		for _, e := range events {
			part := []string{e.Event.Op, string(e.Event.Changed), string(e.Event.Data.Old), string(e.Event.Data.New)}
			out = append(out, strings.Join(slices.DeleteFunc(part, func(s string) bool { return s == "" }), " "))
		}
	}
	return out
}

func payloadOf(p trigger.Payload) func(*trigger.Spec) {
	return func(s *trigger.Spec) { s.Payload = p }
}

func TestOfTheOldRowIsSentWhatIsAskedFor(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	changed := trigger.Payload{Old: trigger.OldChanged, Changed: true}
	b.watch(t, "plain", payloadOf(changed))
	b.watch(t, "none", payloadOf(trigger.Payload{Old: trigger.OldNone, Changed: true}))
	b.watch(t, "batches", payloadOf(changed), func(s *trigger.Spec) { s.Batch = trigger.Batch{Max: 10} })
	b.watch(t, "large", payloadOf(changed))
	long := strings.Repeat("0123456789abcdef", 8<<10)
	for _, table := range []string{"plain", "none", "batches", "large"} {
		b.Exec(t, "insert into "+table+" (n, v) values (1, 'x')")
		if table == "large" {
			b.Exec(t, "alter table large alter v set storage external; update large set v = '"+long+"'")
		} else {
			b.Exec(t, "update "+table+" set v = 'y'")
		}
		b.Exec(t, "delete from "+table)
	}
	b.start(t)
	b.settled(t)
	rows := []string{`{"id":1,"v":"x","n":1}`, `{"id":1,"v":"y","n":1}`}
	require.ElementsMatch(t, []string{"INSERT null " + rows[0], `UPDATE ["v"] {"v":"x"} ` + rows[1], "DELETE " + rows[1] + " null"}, b.sentOf(t, "plain", 3))
	require.ElementsMatch(t, []string{"INSERT null " + rows[0], `UPDATE ["v"] null ` + rows[1], "DELETE " + rows[1] + " null"}, b.sentOf(t, "none", 3))
	require.ElementsMatch(t, []string{"INSERT null " + rows[0], `UPDATE ["v"] {"v":"x"} ` + rows[1], "DELETE " + rows[1] + " null"}, b.sentOf(t, "batches", 1))
	row := `{"id":1,"v":"` + long + `","n":1}`
	require.ElementsMatch(t, []string{"INSERT null " + rows[0], `UPDATE ["v"] {"v":"x"} ` + row, "DELETE " + row + " null"}, b.sentOf(t, "large", 3))
}

// TestMergedChangesAreComparedFromTheFirstToTheLast has a column that changes and changes back.
func TestMergedChangesAreComparedFromTheFirstToTheLast(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	latest := func(s *trigger.Spec) { s.Order = trigger.Order{By: []string{trigger.OrderByRow}, Latest: true} }
	for table, p := range map[string]trigger.Payload{"changed": {Old: trigger.OldChanged, Changed: true}, "none": {Old: trigger.OldNone, Changed: true}, "bare": {Old: trigger.OldNone}} {
		b.Table(t, table)
		b.Exec(t, "insert into "+table+" (n, v) values (1, 'x'), (1, 'x')")
		b.apply(t, b.Spec(table, payloadOf(p), latest))
		for _, change := range []string{"update T set n = 2", "update T set v = 'y'", "update T set n = 1", "delete from T where id = 2"} {
			b.Exec(t, strings.ReplaceAll(change, "T", table))
		}
	}
	b.start(t)
	b.settled(t)
	row := `{"id":1,"v":"y","n":1}`
	require.ElementsMatch(t, []string{`UPDATE ["v"] {"v":"x"} ` + row, `DELETE {"id":2,"v":"x","n":1} null`}, b.sentOf(t, "changed", 2))
	require.ElementsMatch(t, []string{`UPDATE ["v"] null ` + row, `DELETE {"id":2,"v":"x","n":1} null`}, b.sentOf(t, "none", 2))
	require.ElementsMatch(t, []string{`UPDATE null ` + row, `DELETE {"id":2,"v":"x","n":1} null`}, b.sentOf(t, "bare", 2))
}

// TestATruncateIsSentWithoutRows has a TRUNCATE among rows, with an order and without.
func TestATruncateIsSentWithoutRows(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	truncate := func(s *trigger.Spec) { s.On = trigger.On{Insert: true, Truncate: true} }
	b.watch(t, "plain", truncate)
	b.watch(t, "orders", truncate, byRow)
	b.watch(t, "latest", truncate, byRow, func(s *trigger.Spec) { s.Order.Latest = true })
	for _, table := range []string{"plain", "orders", "latest"} {
		for _, change := range []string{"insert into T (n, v) values (1, 'x')", "truncate T", "truncate T", "insert into T (n, v) values (1, 'x')"} {
			b.Exec(t, strings.ReplaceAll(change, "T", table))
		}
	}
	b.start(t)
	b.settled(t)
	for _, table := range []string{"plain", "orders", "latest"} {
		want := []string{`INSERT null {"id":1,"v":"x","n":1}`, "TRUNCATE null null", "TRUNCATE null null", `INSERT null {"id":2,"v":"x","n":1}`}
		require.ElementsMatch(t, want, b.sentOf(t, table, 4), table)
	}
	var sent []int64
	for _, d := range b.receiver.on("orders") {
		var e struct{ Sequence int64 }
		require.NoError(t, json.Unmarshal([]byte(d.body), &e))
		if strings.HasPrefix(d.event, "TRUNCATE") {
			sent = append(sent, e.Sequence)
		}
	}
	require.Len(t, sent, 2)
	require.Less(t, sent[0], sent[1], "they are in order among each other")
}
