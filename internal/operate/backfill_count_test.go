package operate_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/trigger"
)

// inserted is a trigger that captures inserts, so that a test may change rows without more events.
func (d *desk) inserted(name string) trigger.Spec {
	return d.Spec(name, func(s *trigger.Spec) { s.On = trigger.On{Insert: true} })
}

// awaitOlder waits until all transactions have ended that any test had begun by now. While one is open,
// rows written since its beginning do not count as older than a backfill.
func (d *desk) awaitOlder(t *testing.T) {
	t.Helper()
	var now string
	require.NoError(t, d.conn.QueryRow(t.Context(), "select pg_current_xact_id()::text").Scan(&now))
	require.Eventually(t, func() bool {
		var over bool
		err := d.conn.QueryRow(t.Context(), "select pg_snapshot_xmin(pg_current_snapshot()) > $1::text::xid8", now).Scan(&over)
		return err == nil && over
	}, 2*time.Minute, 10*time.Millisecond)
}

// The index lacks every second one of the later rows.
func TestABackfillThatPassesRowsOverIsNotComplete(t *testing.T) {
	t.Parallel()
	for name, table := range map[string]struct{ parent, part string }{
		"a table": {"create table a (id int primary key)", "a"},
		"a partition": {"create table a (id int primary key) partition by range (id); create table a1 partition of a for values from (0) to (5); " +
			"create table a2 partition of a for values from (5) to (5000)", "a2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t)
			d.do(t, table.parent)
			d.do(t, "insert into a select generate_series(1, 999, 2)")
			d.do(t, "update pg_index set indisready = false where indrelid = '"+table.part+"'::regclass")
			d.do(t, "insert into a select generate_series(500, 998, 2)")
			d.do(t, "update pg_index set indisready = true where indrelid = '"+table.part+"'::regclass")
			d.Apply(t, d.inserted("a"))
			d.awaitOlder(t)
			for range 2 { // repeating the command does not get around it
				b, err := operate.Backfill(t.Context(), d.conn, "a", operate.BackfillOptions{Unthrottled: true, Where: "id > 100"})
				require.ErrorIs(t, err, operate.ErrRefused)
				require.ErrorContains(t, err, "public.a has 750 rows that existed at its beginning and have not changed since, and it has read only 500 of them")
				require.ErrorContains(t, err, "--restart")
				require.Nil(t, b.FinishedAt)
			}
			s, err := operate.ReadStatus(t.Context(), d.conn)
			require.NoError(t, err)
			require.Len(t, s.Backfills, 1, "it shows as unfinished")
			d.do(t, "reindex table a")
			b, err := operate.Backfill(t.Context(), d.conn, "a", operate.BackfillOptions{Unthrottled: true, Where: "id > 100", Restart: true})
			require.NoError(t, err)
			require.EqualValues(t, 750, b.Scanned)
		})
	}
}

// The backfill reads as many new rows as it misses old ones.
func TestRowsThatComeMeanwhileDoNotMakeUpForRowsThatArePassedOver(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.do(t, "create table a (id int primary key); insert into a select generate_series(1, 4000, 4)")
	d.do(t, "update pg_index set indisready = false where indrelid = 'a'::regclass")
	d.do(t, "insert into a select generate_series(2, 100, 4)")
	d.do(t, "update pg_index set indisready = true where indrelid = 'a'::regclass")
	d.Apply(t, d.inserted("a"))
	d.awaitOlder(t)
	b, err := operate.Backfill(t.Context(), d.conn, "a", operate.BackfillOptions{Unthrottled: true, Progress: func(s operate.BackfillStatus) {
		if s.Scanned == 500 {
			d.do(t, "insert into a select generate_series(2999, 3995, 4)")
		}
	}})
	require.ErrorIs(t, err, operate.ErrRefused)
	require.ErrorContains(t, err, "has 1025 rows")
	require.EqualValues(t, 1250, b.Scanned)
}

// Between the batches the test makes every kind of change that could affect the count.
func TestWhatChangesMeanwhileIsNotTakenForRowsThatWerePassedOver(t *testing.T) {
	t.Parallel()
	const partitioned = "create table a (id int primary key, v text) partition by range (id); create table a1 partition of a for values from (-10000) to (1000); " +
		"create table a2 partition of a for values from (1000) to (4000)"
	for name, create := range map[string]string{"a table": "create table a (id int primary key, v text)", "partitions": partitioned} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t)
			d.do(t, create)
			d.do(t, "insert into a select i, 'x' from generate_series(1, 3000) i")
			d.do(t, "vacuum freeze a")
			d.Apply(t, d.inserted("a"))
			late := d.Conn(t)
			_, err := late.Exec(t.Context(), "begin; insert into a select i, 'begun before' from generate_series(-3000, -2001) i")
			require.NoError(t, err)
			other := d.Conn(t)
			ctx, interrupt := context.WithCancel(t.Context())
			defer interrupt()
			meanwhile := map[int64]func(){
				500: func() {
					d.do(t, "update a set v = 'read' where id <= 100; update a set v = 'not yet read' where id between 2000 and 2100")
					d.do(t, "update a set id = -id where id between 200 and 250 or id between 1500 and 1550")
					d.do(t, "insert into a select i, 'new' from generate_series(-4900, -3901) i; delete from a where id between 300 and 310 or id between 2500 and 2510")
					d.do(t, "begin; delete from a where id between 400 and 900; rollback; begin; update a set v = 'no' where id < 3000; rollback")
					_, err := late.Exec(t.Context(), "commit")
					require.NoError(t, err)
				},
				1000: interrupt,
				1500: func() { d.do(t, "vacuum freeze a") },
				2000: func() {
					if name == "partitions" { // its rows are old, but were in another table
						d.do(t, "alter table a attach partition spare for values from (-90000) to (-10000)")
						return
					}
					d.do(t, "vacuum full a")
				},
			}
			if name == "partitions" {
				d.do(t, "create table spare (id int primary key, v text); insert into spare select i, 'spare' from generate_series(-20000, -19001) i")
			}
			progress := func(s operate.BackfillStatus) {
				if do := meanwhile[s.Scanned]; do != nil {
					delete(meanwhile, s.Scanned)
					do()
				}
			}
			_, err = operate.Backfill(ctx, other, "a", operate.BackfillOptions{Unthrottled: true, Progress: progress})
			require.ErrorIs(t, err, context.Canceled)
			b, err := operate.Backfill(t.Context(), d.conn, "a", operate.BackfillOptions{Unthrottled: true, Progress: progress})
			require.NoError(t, err)
			require.NotNil(t, b.FinishedAt)
			require.Empty(t, meanwhile)
		})
	}
}

func TestABackfillWhoseEndCanNotBeCountedIsNotComplete(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	d.do(t, "insert into a (v) select 'x' from generate_series(1, 1200)")
	interrupted := func() {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		_, err := operate.Backfill(ctx, d.Conn(t), "a", operate.BackfillOptions{Unthrottled: true, Restart: true, Progress: func(operate.BackfillStatus) { cancel() }})
		require.ErrorIs(t, err, context.Canceled)
	}
	for change, want := range map[string]string{
		"horizon = null":          "by an earlier version of Rowhook or in another database",
		"home = 1":                "by an earlier version of Rowhook or in another database",
		"horizon = '99999999999'": "too many transactions have begun since the backfill began",
	} {
		interrupted()
		d.do(t, "update rowhook.backfill set "+change+" where finished_at is null")
		_, err := operate.Backfill(t.Context(), d.conn, "a", operate.BackfillOptions{Unthrottled: true})
		require.ErrorIs(t, err, operate.ErrRefused, change)
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, "--restart")
	}
	b, err := operate.Backfill(t.Context(), d.conn, "a", operate.BackfillOptions{Unthrottled: true, Restart: true})
	require.NoError(t, err)
	require.EqualValues(t, 1200, b.Recorded)
}

// The table has an access method that is not heap, although only its name differs.
func TestABackfillRefusesRowsThatDoNotSayWhoWroteThem(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.do(t, "create access method columns type table handler heap_tableam_handler; create table a (id int primary key) using columns")
	d.Apply(t, d.inserted("a"))
	_, err := operate.Backfill(t.Context(), d.conn, "a", operate.BackfillOptions{})
	require.ErrorIs(t, err, operate.ErrRefused)
	require.ErrorContains(t, err, "the rows of public.a do not say which transaction wrote them")
}

// A stand-in replaces TimescaleDB's catalog.
func TestABackfillReadsTheChunksOfAHypertable(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.do(t, "create schema _timescaledb_catalog; create table _timescaledb_catalog.hypertable (schema_name name, table_name name); insert into _timescaledb_catalog.hypertable values ('public', 'a')")
	d.do(t, "create table a (id int primary key); create table chunk1 (like a including all) inherits (a); create table chunk2 (like a including all) inherits (a); "+
		"insert into chunk1 select generate_series(1, 700); insert into chunk2 select generate_series(701, 1400)")
	d.Apply(t, d.inserted("a"))
	b, err := operate.Backfill(t.Context(), d.conn, "a", operate.BackfillOptions{Unthrottled: true})
	require.NoError(t, err)
	require.EqualValues(t, 1400, b.Recorded)
}
