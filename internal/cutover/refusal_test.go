package cutover

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/dispatchtest"
	"github.com/rowhook/rowhook/internal/moving"
	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/trigger"
)

// refused runs a cut-over that is refused, and returns the error. Nothing has changed after it.
func (s *stage) refused(t *testing.T, kind error) string {
	t.Helper()
	conn := s.Conn(t)
	count := func() (n int) {
		require.NoError(t, conn.QueryRow(t.Context(), `
select (select count(*) from pg_trigger where tgname ~ '^(notify_hasura|rowhook_fence)') + (select count(*) from rowhook.setting where name like 'cutover:%')`).Scan(&n))
		return n
	}
	before := count()
	_, err := s.cutover(t).Forward(t.Context(), "orders")
	require.ErrorIs(t, err, kind)
	require.Equal(t, before, count())
	_, planErr := s.cutover(t).PlanForward(t.Context(), "orders")
	require.EqualError(t, planErr, err.Error())
	return err.Error()
}

func TestWhatWouldNotBeExactIsRefused(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		spec func(*trigger.Spec)
		sql  string
		want []string
	}{
		"an operation of Hasura":             {spec: func(s *trigger.Spec) { s.On.Delete = false }, want: []string{"Hasura records DELETE, and Rowhook does not", "make rowhook.yaml and Hasura's metadata alike"}},
		"an operation of Rowhook":            {sql: `drop trigger "notify_hasura_orders_DELETE" on orders`, want: []string{"Rowhook records DELETE, and Hasura does not"}},
		"columns":                            {spec: func(s *trigger.Spec) { s.On.Update.Columns = []string{"v"} }, want: []string{"Hasura records updates of the columns id, rev, v, and Rowhook those of v"}},
		"a column that Hasura does not know": {sql: "alter table orders add more text", want: []string{"columns id, rev, v, and Rowhook those of id, more, rev, v", "recreate_event_triggers"}},
		"a when":                             {spec: func(s *trigger.Spec) { s.When = "new.rev > 1"; s.On.Delete = false }, want: []string{"it has a when", "change it afterwards"}},
		"an order":                           {spec: func(s *trigger.Spec) { s.Order = trigger.Order{By: []string{trigger.OrderByRow}} }, want: []string{"it has an order"}},
		"at commit":                          {spec: func(s *trigger.Spec) { s.At = trigger.AtCommit }, want: []string{"at: commit"}},
		"replication":                        {spec: func(s *trigger.Spec) { s.OnReplication = true }, want: []string{"notify_hasura_orders_DELETE fires for writes of sessions alone, and that of Rowhook fires for replicated changes, too"}},
		"disabled":                           {sql: `alter table orders disable trigger "notify_hasura_orders_UPDATE"`, want: []string{"notify_hasura_orders_UPDATE is disabled"}},
		"several tables": {spec: func(s *trigger.Spec) {
			s.Table = ""
			s.Tables = []string{"public.orders", "public.elsewhere"}
			s.On.Update.Columns = nil
		}, want: []string{"it watches several tables", "give each table a trigger of its own"}},
		"another table": {sql: `create table other (like orders); create trigger "notify_hasura_orders_INSERT" after insert on other for each row execute function hdb_catalog."notify_hasura_orders_INSERT"()`,
			want: []string{"Hasura's trigger is on public.other, and that of Rowhook on public.orders"}},
		"no SQL trigger":     {sql: `drop function hdb_catalog."notify_hasura_orders_INSERT"() cascade; drop function hdb_catalog."notify_hasura_orders_UPDATE"() cascade; drop function hdb_catalog."notify_hasura_orders_DELETE"() cascade`, want: []string{"Hasura has no SQL trigger for it here (such as notify_hasura_orders_INSERT)"}},
		"a changed function": {sql: `create or replace function hdb_catalog."notify_hasura_orders_INSERT"() returns trigger language plpgsql as 'begin return null; end'`, want: []string{"does not write to Hasura's event log"}},
		"deliveries":         {sql: "update rowhook.trigger set paused = false", want: []string{"Rowhook delivers orders already, beside Hasura", "rowhook pause orders"}},
		"no event log":       {sql: "drop schema hdb_catalog cascade", want: []string{"this database has no hdb_catalog.event_log", "--database-url"}},
		"an old Hasura":      {sql: "alter table hdb_catalog.event_log drop archived", want: []string{"hdb_catalog.event_log has no column archived", "upgrade Hasura"}},
		"missing captures": {sql: "alter table orders disable trigger user; alter table orders enable trigger \"notify_hasura_orders_INSERT\"; alter table orders enable trigger \"notify_hasura_orders_UPDATE\"; alter table orders enable trigger \"notify_hasura_orders_DELETE\"",
			want: []string{"Rowhook does not record all changes for orders"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var change []func(*trigger.Spec)
			if test.spec != nil {
				change = append(change, test.spec)
			}
			s := newStage(t, change...)
			if test.sql != "" {
				s.Exec(t, test.sql)
			}
			text := s.refused(t, operate.ErrRefused)
			for _, w := range test.want {
				require.Contains(t, text, w)
			}
		})
	}
}

func TestATriggerThatRowhookDoesNotHaveIsToBeImportedFirst(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	_, err := s.cutover(t).Forward(t.Context(), "order")
	require.ErrorIs(t, err, operate.ErrNotFound)
	require.ErrorContains(t, err, `Rowhook has no trigger "order": import it first (rowhook import hasura DIR)`)
	require.ErrorContains(t, err, "did you mean orders?")
}

func TestHasurasMetadataAreAskedFirst(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.metadata.Secret = "wrong"
	_, err := s.cutover(t).Forward(t.Context(), "orders")
	require.ErrorContains(t, err, "HASURA_GRAPHQL_ADMIN_SECRET")
	s.metadata.Secret, s.metadata.Source = "admin", "warehouse"
	_, err = s.cutover(t).Forward(t.Context(), "orders")
	require.ErrorContains(t, err, "Hasura's metadata has no trigger orders on public.orders: check --hasura-url and --hasura-source")
	s.metadata.URL = "http://127.0.0.1:1"
	_, err = s.cutover(t).Forward(t.Context(), "orders")
	require.ErrorContains(t, err, "can't ask Hasura for export_metadata")
}

func TestARoleWithoutTheRightsIsTold(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	role, link := s.Role(t)
	s.Exec(t, "grant usage on schema rowhook to "+role+"; grant select, insert, update, delete on all tables in schema rowhook to "+role)
	as := func() error {
		c := s.cutover(t)
		conn, err := pgx.Connect(t.Context(), link)
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close(context.Background()) })
		require.NoError(t, pg.Pin(t.Context(), conn))
		c.Conn = conn
		_, err = c.Forward(t.Context(), "orders")
		require.ErrorIs(t, err, operate.ErrRefused)
		return err
	}
	require.ErrorContains(t, as(), "connect as the owner of public.orders")
	s.Exec(t, "alter table orders owner to "+role)
	require.ErrorContains(t, as(), "grant select, update, trigger on hdb_catalog.event_log")
}

// Writers pass while the lock can't be had, and the one who holds it is named.
func TestWhoHoldsTheLockIsNamed(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	holder := s.Conn(t)
	tx, err := holder.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "select from orders; set application_name = 'a report'")
	require.NoError(t, err)
	c := s.cutover(t)
	c.LockTimeout, c.Patience = 10*time.Millisecond, 100*time.Millisecond
	_, err = c.Forward(t.Context(), "orders")
	require.ErrorIs(t, err, operate.ErrBusy)
	require.ErrorContains(t, err, "is locked by pid")
	require.ErrorContains(t, err, "a report")
	s.Exec(t, "insert into orders values (2, 2)") // a writer is not held up
	require.NoError(t, tx.Commit(t.Context()))
	states, err := c.Status(t.Context())
	require.NoError(t, err)
	require.Equal(t, moving.Prepared, states[0].Step)

	require.NoError(t, c.Abort(t.Context(), "orders"))
	states, err = c.Status(t.Context())
	require.NoError(t, err)
	require.Empty(t, states)
	var left int
	require.NoError(t, holder.QueryRow(t.Context(), "select count(*) from pg_trigger where tgname ~ '^rowhook_fence'").Scan(&left))
	require.Zero(t, left)
	require.ErrorContains(t, c.Abort(t.Context(), "orders"), "no cut-over of orders is under way")
}

// Without a URL, the command says what to do in Hasura, and finishes when that is done. What was
// invoked by hand in between is not lost.
func TestWithoutAURLTheRestIsDoneByHand(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	stop := s.hasura.work(t)
	dispatchtest.Run(t, dispatcherOf(s))
	c := s.cutover(t)
	c.Metadata = nil
	states, err := c.Forward(t.Context(), "orders")
	require.NoError(t, err)
	require.Equal(t, moving.Resumed, states[0].Step)
	require.Contains(t, states[0].Remaining, `POST /v1/metadata with {"args":{"name":"orders","source":"default"},"type":"pg_delete_event_trigger"}`)
	require.ErrorContains(t, c.Abort(t.Context(), "orders"), "--back orders")
	stop()
	conn := s.Conn(t)
	s.Exec(t, `select hdb_catalog.insert_event_log('public', 'orders', 'orders', 'MANUAL', '{"old": null, "new": {"id": 5, "rev": 5}}')`)
	s.hasura.reload(t, conn)
	s.Exec(t, "insert into orders values (6, 6)") // Hasura's trigger has fired
	require.NoError(t, s.hasura.drop(t.Context(), conn, "orders"))
	states, err = c.Forward(t.Context(), "orders")
	require.NoError(t, err)
	require.Equal(t, moving.Done, states[0].Step)
	require.Empty(t, states[0].Remaining)
	l := &ledger{changes: map[string]bool{change("MANUAL", 5, 5): true, change("INSERT", 6, 6): true}}
	s.settled(t, l)
	require.ErrorContains(t, c.Abort(t.Context(), "orders"), "no cut-over of orders is under way")
}

// A directory of metadata that still has the trigger brings it back. It is noticed, and undone; Hasura
// does not deliver what it has not begun to send.
func TestATriggerThatHasuraHasAgainIsMovedAgain(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	stop := s.hasura.work(t)
	dispatchtest.Run(t, dispatcherOf(s))
	_, err := s.cutover(t).Forward(t.Context(), "orders")
	require.NoError(t, err)
	stop()
	require.NoError(t, s.hasura.create(t.Context(), s.Conn(t), eventTrigger{Name: "orders", Schema: "public", Table: "orders", On: map[string][]string{"INSERT": nil, "UPDATE": nil, "DELETE": nil}}))
	s.Exec(t, "insert into orders values (7, 7)") // both record it
	states, err := s.cutover(t).Status(t.Context())
	require.NoError(t, err)
	require.Contains(t, states[0].Remaining, "both record")
	states, err = s.cutover(t).Forward(t.Context(), "orders")
	require.NoError(t, err)
	require.Equal(t, moving.Done, states[0].Step)
	require.Equal(t, int64(1), states[0].Archived)
	s.hasura.work(t)
	s.settled(t, &ledger{changes: map[string]bool{change("INSERT", 7, 7): true}})
}

// Hasura of version 1 has the column locked as a boolean, and its functions in hdb_views.
func TestTheCatalogOfVersion1IsUnderstood(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.Exec(t, `
alter table hdb_catalog.event_log drop locked; alter table hdb_catalog.event_log add locked boolean not null default false;
create schema hdb_views; alter function hdb_catalog."notify_hasura_orders_INSERT"() set schema hdb_views;
alter function hdb_catalog."notify_hasura_orders_UPDATE"() set schema hdb_views; alter function hdb_catalog."notify_hasura_orders_DELETE"() set schema hdb_views;
insert into orders values (1, 1), (2, 2); update hdb_catalog.event_log set locked = true where payload #>> '{data,new,id}' = '2'`)
	dispatchtest.Run(t, dispatcherOf(s))
	c := s.cutover(t)
	c.Metadata, c.WithPending = nil, true
	settled := false
	c.at = func(point string) error {
		if point == "in the middle of "+string(moving.Drained) && !settled { // Hasura delivers what it was sending
			settled = true
			s.Exec(t, "update hdb_catalog.event_log set delivered = true, locked = false where locked")
		}
		return nil
	}
	states, err := c.Forward(t.Context(), "orders")
	require.NoError(t, err)
	require.True(t, settled)
	require.Equal(t, int64(1), states[0].TakenOver)
	s.settled(t, &ledger{changes: map[string]bool{change("INSERT", 1, 1): true}})
}

func TestTwoCutOversOfATriggerDoNotMix(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	one := s.cutover(t)
	one.at = func(string) error {
		_, err := s.cutover(t).Forward(t.Context(), "orders")
		require.ErrorIs(t, err, operate.ErrBusy)
		require.ErrorContains(t, err, `another session is moving the trigger "orders"`)
		return errKilled
	}
	_, err := one.Forward(t.Context(), "orders")
	require.ErrorIs(t, err, errKilled)
}

// Without a URL the way back waits for Hasura's event trigger, which may come at any time: the fence
// keeps it from recording until the switch.
func TestTheWayBackByHand(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.hasura.work(t)
	dispatchtest.Run(t, dispatcherOf(s))
	c := s.cutover(t)
	_, err := c.Forward(t.Context(), "orders")
	require.NoError(t, err)
	c.Metadata = nil
	_, err = c.Back(t.Context(), "orders")
	require.ErrorIs(t, err, operate.ErrBusy)
	require.ErrorContains(t, err, "create the event trigger orders on public.orders in Hasura")
	require.NoError(t, c.Abort(t.Context(), "orders"))
	states, err := c.Status(t.Context())
	require.NoError(t, err)
	require.Equal(t, moving.Done, states[0].Step)

	_, err = c.Back(t.Context(), "orders")
	require.ErrorIs(t, err, operate.ErrBusy)
	require.NoError(t, s.hasura.create(t.Context(), s.Conn(t), eventTrigger{Name: "orders", Schema: "public", Table: "orders", On: map[string][]string{"INSERT": nil, "UPDATE": nil, "DELETE": nil}}))
	require.ErrorContains(t, c.Abort(t.Context(), "orders"), "delete the event trigger in Hasura first")
	s.Exec(t, "insert into orders values (1, 1)") // Rowhook's, although Hasura's trigger has fired
	states, err = c.Back(t.Context(), "orders")
	require.NoError(t, err)
	require.Equal(t, moving.BackDone, states[0].Step)
	require.Contains(t, states[0].Remaining, "take orders out of rowhook.yaml")
	s.Exec(t, "insert into orders values (2, 2)")
	s.settled(t, &ledger{changes: map[string]bool{change("INSERT", 1, 1): true, change("INSERT", 2, 2): true}})
	require.Equal(t, 1, s.receiver.from("/hasura"))

	// And once more to Rowhook, for which the captures are applied again.
	s.apply(t)
	c.Metadata = s.metadata
	_, err = c.Forward(t.Context(), "orders")
	require.NoError(t, err)
}
