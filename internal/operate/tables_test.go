package operate_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/trigger"
)

// newDeskOfMany has a trigger "many" of three tables, and one "single" of one.
func newDeskOfMany(t *testing.T) *desk {
	t.Helper()
	d := newDesk(t)
	d.do(t, "create schema shop; create schema old")
	for _, table := range []string{"single", "shop.a", "shop.b", "old.b"} {
		d.Table(t, table)
	}
	d.Apply(t, d.Spec("single"), d.Spec("many", func(s *trigger.Spec) { s.Table, s.Tables = "", []string{"shop.*", "old.b"} }))
	return d
}

func TestATriggerOfSeveralTablesIsShownOnce(t *testing.T) {
	t.Parallel()
	d := newDeskOfMany(t)
	s, err := operate.ReadStatus(t.Context(), d.conn)
	require.NoError(t, err)
	require.Len(t, s.Triggers, 2)
	require.Equal(t, "shop.*, old.b", s.Triggers[0].Table)
	require.True(t, s.Triggers[0].Several)
	require.False(t, s.Triggers[1].Several)
	d.do(t, "create table shop.later (id int primary key)")
	shown, err := operate.ShowTrigger(t.Context(), d.conn, "many")
	require.NoError(t, err)
	require.Contains(t, shown.YAML, "tables:")
	require.Len(t, shown.SQLTriggers, 3*4)
	var tables []string
	for _, w := range shown.Tables {
		tables = append(tables, w.Table)
		require.Equal(t, w.Table != "shop.later", w.Watched, w.Table)
	}
	require.Equal(t, []string{"old.b", "shop.a", "shop.b", "shop.later"}, tables)
	require.Empty(t, s.Triggers[0].Tables, "on request")
	require.NoError(t, s.ReadTables(t.Context(), d.conn))
	require.Equal(t, shown.Tables, s.Triggers[0].Tables)
	require.Empty(t, s.Triggers[1].Tables)
	single, err := operate.ShowTrigger(t.Context(), d.conn, "single")
	require.NoError(t, err)
	require.Empty(t, single.Tables)
}

func TestATrialIsOfOneOfSeveralTables(t *testing.T) {
	t.Parallel()
	d := newDeskOfMany(t)
	d.do(t, "alter table shop.b add only_here int")
	try := func(table string) (*operate.TrialResult, error) {
		return operate.Try(t.Context(), d.Pool(t), operate.Trial{Trigger: "many", Table: table, Unsent: true, Source: variables(nil)})
	}
	r, err := try("shop.b")
	require.NoError(t, err)
	require.Equal(t, "shop.b", r.Table)
	require.Contains(t, string(r.Request.Body), "only_here")
	require.Contains(t, string(r.Request.Body), `"schema":"shop","name":"b"`)
	r, err = try("")
	require.NoError(t, err)
	require.Equal(t, "old.b", r.Table, "the first one")
	_, err = try("nothing")
	require.ErrorContains(t, err, `does not watch a table "nothing"`)
}

func TestABackfillReadsOneOfSeveralTables(t *testing.T) {
	t.Parallel()
	d := newDeskOfMany(t)
	d.do(t, "insert into shop.a (v) select 'a' from generate_series(1, 3); insert into shop.b (v) values ('b'); truncate rowhook.event_log")
	_, err := operate.Backfill(t.Context(), d.Pool(t), "many", operate.BackfillOptions{})
	require.ErrorContains(t, err, `the trigger "many" watches several tables`)
	require.ErrorContains(t, err, "old.b, shop.a, shop.b")
	_, err = operate.Backfill(t.Context(), d.Pool(t), "many", operate.BackfillOptions{Table: "b"})
	require.ErrorContains(t, err, "old.b or shop.b")
	_, err = operate.Backfill(t.Context(), d.Pool(t), "many", operate.BackfillOptions{Table: "single"})
	require.ErrorContains(t, err, `does not watch a table "single"`)
	s, err := operate.Backfill(t.Context(), d.Pool(t), "many", operate.BackfillOptions{Table: "shop.a", Unthrottled: true})
	require.NoError(t, err)
	require.EqualValues(t, 3, s.Recorded)
	require.Equal(t, "shop.a", s.Table)
	require.Equal(t, 3, d.count(t, "rowhook.event_log e join rowhook.relation r on r.id = e.relation_id where r.schema_name = 'shop' and r.table_name = 'a'"))

	// One of shop.b was interrupted. That of another table does not continue it.
	d.do(t, "update rowhook.backfill set finished_at = null, key = array['#' || (select id from rowhook.relation where table_name = 'b' and schema_name = 'shop'), 'id']")
	_, err = operate.Backfill(t.Context(), d.Pool(t), "many", operate.BackfillOptions{Table: "shop.a"})
	require.ErrorContains(t, err, "for another one of its tables")
	status, err := operate.ReadStatus(t.Context(), d.conn)
	require.NoError(t, err)
	require.Equal(t, "shop.b", status.Backfills[0].Table)
	_, err = operate.Backfill(t.Context(), d.Pool(t), "single", operate.BackfillOptions{Table: "shop.a"})
	require.ErrorContains(t, err, `the trigger "single" does not watch a table "shop.a"`)
}
