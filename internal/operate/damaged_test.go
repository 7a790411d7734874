package operate_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/dispatchtest"
	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/internal/session"
	"github.com/rowhook/rowhook/trigger"
)

// unconvertible is, by encoding of the database, a text that can't be converted to UTF-8.
var unconvertible = map[string]string{"EUC_JP": `convert_from('\xa9a1', 'EUC_JP')`, "SQL_ASCII": `convert_from('\x80ff', 'SQL_ASCII')`}

// newDeskIn is newDesk for a database with an encoding other than UTF-8.
func newDeskIn(t *testing.T, encoding string, names ...string) *desk {
	t.Helper()
	db := pgtest.NewIn(t, encoding)
	conn, err := session.Open(t.Context(), db.URL())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	r := newReceiver(t)
	d := &desk{&dispatchtest.Site{DB: db, Endpoint: r.URL}, conn, r}
	var specs []trigger.Spec
	for _, name := range names {
		d.Table(t, name)
		specs = append(specs, d.Spec(name))
	}
	d.Apply(t, specs...)
	return d
}

// Each table has good events, and some with a part that can't be converted.
func TestWhatCanNotBeReadOfOneEventCostsThatEventAlone(t *testing.T) {
	t.Parallel()
	for encoding, bad := range unconvertible {
		t.Run(encoding, func(t *testing.T) {
			t.Parallel()
			d := newDeskIn(t, encoding, "a")
			good := newestFirst(d.wait(t, "a", 2), d.bury(t, "a", 2), d.archive(t, "a", 2))
			broken := map[string]bool{}
			for _, column := range []string{"new", "session"} {
				set := column + " = json_build_object('v', " + bad + ")"
				waits, died, done := d.wait(t, "a", 1, set), d.bury(t, "a", 1), d.archive(t, "a", 1)
				d.do(t, "update rowhook.dead_letter set "+set+" where id = any($1::text[]::uuid[])", died)
				d.do(t, "update rowhook.event_archive set "+set+" where id = any($1::text[]::uuid[])", done)
				for _, id := range newestFirst(waits, died, done) {
					broken[id] = true
				}
			}
			unexplained := d.bury(t, "a", 1)
			d.do(t, "update rowhook.dead_letter set reason = 'the receiver said ' || "+bad+" where id = any($1::text[]::uuid[])", unexplained)
			d.do(t, `insert into rowhook.invocation_log (event_id, trigger_id, attempt, started_at, duration_us, instance_id, status, error, response_headers, response_body)
select id::uuid, 1, 1, now(), 5, 1, 500, 'error ' || `+bad+`, json_build_object('X-Reply', `+bad+`), 'body ' || `+bad+` from unnest($1::text[]) as u(id)`, append(unexplained, good[0]))
			d.do(t, "insert into rowhook.activity (minute, trigger_id, instance_id, delivered, failed, died, latency, error_at, error) values (date_trunc('minute', now()), 1, 1, 0, 1, 0, '{}', now(), 'answered ' || "+bad+")")
			d.do(t, "insert into rowhook.instance (id, name, version, listens) values (77, 'host ' || "+bad+", 'v1', false)")

			page, err := operate.List(t.Context(), d.conn, operate.Filter{}, operate.ListOptions{Payload: true})
			require.NoError(t, err)
			require.Len(t, page.Events, len(good)+len(broken)+1)
			for _, e := range page.Events {
				if broken[e.ID] {
					require.Nil(t, e.Payload)
					require.Contains(t, e.PayloadProblem, "the payload can't be read from the database: ")
				} else {
					require.NotNil(t, e.Payload, e.PayloadProblem)
					require.Contains(t, string(e.Payload.New), `"v" : `)
				}
			}
			_, err = json.Marshal(page)
			require.NoError(t, err)
			for id := range broken {
				detail, err := operate.Show(t.Context(), d.conn, id)
				require.NoError(t, err)
				require.NotEmpty(t, detail.PayloadProblem)
				require.Nil(t, detail.Request.Body)
			}
			detail, err := operate.Show(t.Context(), d.conn, unexplained[0])
			require.NoError(t, err)
			require.Contains(t, detail.Reason, `the receiver said \`)
			require.NotEmpty(t, detail.Request.Body)
			require.Contains(t, detail.Log[0].Error, `error \`)
			require.Contains(t, detail.Log[0].ResponseBody, `body \`)
			_, err = json.Marshal(detail)
			require.NoError(t, err)

			groups, err := operate.GroupBy(t.Context(), d.conn, operate.Filter{}, []string{"error"}, 0)
			require.NoError(t, err)
			require.NotEmpty(t, groups.Groups)
			n, err := operate.Count(t.Context(), d.conn, operate.Filter{Payload: "new.kind=dead"}, 0)
			require.NoError(t, err)
			require.EqualValues(t, 4, n.Events, "with the one whose reason, and the one whose session can't be read")

			status, err := operate.ReadStatus(t.Context(), d.conn)
			require.NoError(t, err)
			require.Contains(t, status.Triggers[0].LastError, `answered \`)
			require.Contains(t, status.Instances[0].Name, `host \`)
			d.do(t, "delete from rowhook.activity; update rowhook.dead_letter set died_at = clock_timestamp() where reason like '%said%'")
			status, err = operate.ReadStatus(t.Context(), d.conn)
			require.NoError(t, err)
			require.Contains(t, status.Triggers[0].LastError, `the receiver said \`)

			ctx, stop := context.WithTimeout(t.Context(), patience)
			defer stop()
			followed := map[string]bool{}
			require.NoError(t, operate.Tail(ctx, d.conn, operate.Filter{Since: time.Now().Add(-time.Hour)}, func(e operate.Event) error {
				if followed[e.ID] = true; len(followed) == len(page.Events) {
					stop()
				}
				return nil
			}, nil))
			require.Len(t, followed, len(page.Events))

			sent, err := operate.Redeliver(t.Context(), d.conn, operate.Filter{States: []operate.State{operate.Dead}}, operate.BulkOptions{})
			require.NoError(t, err)
			require.EqualValues(t, 5, sent.Changed)
			gone, err := operate.Discard(t.Context(), d.conn, operate.Filter{States: []operate.State{operate.Waiting}}, operate.BulkOptions{})
			require.NoError(t, err)
			require.EqualValues(t, 9, gone.Changed)
		})
	}
}

// A trigger that fails for one value stands in for a damaged value.
func TestAnEventThatCanNotBeMovedIsLeftAlone(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	ids := d.bury(t, "a", 20)
	d.do(t, `
create function damaged() returns trigger language plpgsql as $$ begin raise exception 'missing chunk number 0 for toast value' using errcode = 'data_corrupted'; end $$;
create trigger damaged before insert on rowhook.event_log for each row when (new.new->>'v' in ('7', '13')) execute function damaged();
create trigger damaged before delete on rowhook.dead_letter for each row when (old.new->>'v' = '13') execute function damaged()`)
	got, err := operate.Redeliver(t.Context(), d.conn, operate.Filter{States: []operate.State{operate.Dead}}, operate.BulkOptions{})
	require.NoError(t, err)
	require.EqualValues(t, 18, got.Changed)
	require.Equal(t, map[string]int64{operate.SkipDamaged: 2}, got.Skipped)
	_, err = operate.Redeliver(t.Context(), d.conn, operate.Filter{IDs: ids[6:7]}, operate.BulkOptions{})
	require.ErrorIs(t, err, operate.ErrRefused)
	require.ErrorContains(t, err, "can't be read or moved")
	gone, err := operate.Discard(t.Context(), d.conn, operate.Filter{States: []operate.State{operate.Dead}}, operate.BulkOptions{})
	require.NoError(t, err)
	require.EqualValues(t, 1, gone.Changed)
	require.Equal(t, map[string]int64{operate.SkipDamaged: 1}, gone.Skipped)
}

// Some payloads have 12 MiB, and one has 40 MiB.
func TestPayloadsThatAreTooLargeForAnAnswerComeInLaterPagesOrNotAtAll(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	ids := d.archive(t, "a", 6)
	d.do(t, "update rowhook.event_archive set new = json_build_object('v', repeat('x', 12 << 20)) where id = any($1::text[]::uuid[])", ids[:5])
	d.do(t, "update rowhook.event_archive set new = json_build_object('v', repeat('x', 40 << 20)) where id = any($1::text[]::uuid[])", ids[2:3])
	var shown, lengths []string
	o := operate.ListOptions{Payload: true}
	for pages := 1; ; pages++ {
		page, err := operate.List(t.Context(), d.conn, operate.Filter{}, o)
		require.NoError(t, err)
		size := 0
		for _, e := range page.Events {
			shown = append(shown, e.ID)
			if e.PayloadProblem != "" {
				lengths = append(lengths, e.PayloadProblem)
				continue
			}
			size += len(e.Payload.New)
		}
		require.LessOrEqual(t, size, 32<<20)
		if o.Cursor = page.Next; o.Cursor == "" {
			require.Equal(t, 2, pages)
			break
		}
		require.Nil(t, page.LookedBackTo)
	}
	require.Equal(t, newestFirst(ids), shown)
	require.Len(t, lengths, 1)
	require.True(t, strings.HasPrefix(lengths[0], "the payload has 41943"), lengths[0])
	detail, err := operate.Show(t.Context(), d.conn, ids[2])
	require.NoError(t, err)
	require.Contains(t, detail.PayloadProblem, ids[2])
}

func TestAStatusIsReadBesideASessionWhoseQueryCanNotBeConverted(t *testing.T) {
	t.Parallel()
	d := newDeskIn(t, "SQL_ASCII", "a")
	holder := d.Conn(t)
	_, err := holder.Exec(t.Context(), "set client_encoding = 'SQL_ASCII'; begin isolation level repeatable read")
	require.NoError(t, err)
	_, err = holder.Exec(t.Context(), "select '\x80\xff'")
	require.NoError(t, err)
	h, err := queue.FindHolder(t.Context(), d.conn, 0, 0)
	require.NoError(t, err)
	require.Contains(t, h.Query, `select '\200\377'`)
}

func TestALatin1DatabaseIsShownInUTF8(t *testing.T) {
	t.Parallel()
	d := newDeskIn(t, "LATIN1", "a")
	d.do(t, "insert into a (v) values ('größe')")
	id := d.ids(t, "update rowhook.event_log set new = json_build_object('v', 'größe') returning id::text")
	detail, err := operate.Show(t.Context(), d.conn, id[0])
	require.NoError(t, err)
	require.Contains(t, string(detail.Payload.New), "größe")
}

// The database can't turn some of the rows into JSON.
func TestARowThatCanNotBeTurnedIntoAnEventCostsThatRowAlone(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.do(t, `
create type odd as enum ('good', 'bad');
create function odd_json(odd) returns json language plpgsql immutable set search_path to 'pg_catalog', 'pg_temp' as $$
begin
  if $1 = 'bad' then raise exception 'this one can not be written' using errcode = 'data_corrupted'; end if;
  return to_json($1::text);
end $$;
create cast (odd as json) with function odd_json(odd);
create table a (id int primary key, o odd); insert into a select i, case when i in (1, 700, 701, 1500) then 'bad' else 'good' end::odd from generate_series(1, 1500) i`)
	d.Apply(t, d.inserted("a"))
	b, err := operate.Backfill(t.Context(), d.conn, "a", operate.BackfillOptions{Where: "id <> 701"})
	require.NoError(t, err)
	require.NotNil(t, b.FinishedAt)
	require.Equal(t, []int64{1500, 1496, 3}, []int64{b.Scanned, b.Recorded, b.Buried})
	require.Equal(t, 1496, d.count(t, "(select distinct new->>'id' from rowhook.event_log) as x"))
	reasons := d.ids(t, "select reason from rowhook.dead_letter where session->>'rowhook_backfill' = $1 order by id", "1")
	require.Len(t, reasons, 3)
	require.Contains(t, reasons[1], "the row with id = 700 can't be turned into an event: record rows of public.a: ERROR: this one can not be written")

	// A condition that fails for a row is an error of the condition, and the row becomes no dead
	// letter.
	_, err = operate.Backfill(t.Context(), d.conn, "a", operate.BackfillOptions{Where: "1 / (id - 900) > -5"})
	require.ErrorContains(t, err, "division by zero")
	require.Equal(t, 6, d.count(t, "rowhook.dead_letter"), "with the three that come before it")
}

// The keys of a backfill never leave the server, so they need no conversion.
func TestABackfillReadsKeysThatCanNotBeConverted(t *testing.T) {
	t.Parallel()
	for encoding, bad := range unconvertible {
		t.Run(encoding, func(t *testing.T) {
			t.Parallel()
			d := newDeskIn(t, encoding)
			d.do(t, "create table a (k text, n int, primary key (k, n)); insert into a select "+bad+" || (i / 7), i from generate_series(1, 1600) i")
			d.Apply(t, d.inserted("a"))
			b, err := operate.Backfill(t.Context(), d.conn, "a", operate.BackfillOptions{Unthrottled: true})
			require.NoError(t, err)
			require.Equal(t, []int64{1600, 1600}, []int64{b.Scanned, b.Recorded})
			require.Equal(t, 1600, d.count(t, "(select distinct new->>'n' from rowhook.event_log) as x"))
		})
	}
}
