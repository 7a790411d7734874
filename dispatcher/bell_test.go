package dispatcher_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/sqlschema"
)

// TestNobodyIsNotifiedWhereNobodyHasAskedForIt: a commit that notifies waits for a lock of the
// whole server.
func TestNobodyIsNotifiedWhereNobodyHasAskedForIt(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "unasked")
	hears := b.Conn(t)
	_, err := hears.Exec(t.Context(), "listen rowhook")
	require.NoError(t, err)
	writes := func() {
		t.Helper()
		b.Exec(t, "insert into unasked (v) values ('single')")
		b.Exec(t, "insert into unasked (v) select 'many' from generate_series(1, 10)")
		b.Exec(t, "update unasked set v = 'changed' where id = 1")
		b.Exec(t, "delete from unasked where id = 2")
		b.Exec(t, "select rowhook.emit('unasked', '{}')")
		b.Exec(t, `insert into rowhook.dead_letter (id, created_at, died_at, trigger_id, tries, op, reason)
			select rowhook.uuid7(), now(), now(), id, 1, 'I', 'x' from rowhook.trigger`)
		_, err := operate.Redeliver(t.Context(), b.Conn(t), operate.Filter{States: []operate.State{operate.Dead}}, operate.BulkOptions{})
		require.NoError(t, err)
	}
	heard := func() (payloads []string) {
		t.Helper()
		b.Exec(t, "select pg_notify('rowhook', 'end')")
		for {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			n, err := hears.WaitForNotification(ctx)
			cancel()
			require.NoError(t, err)
			if n.Payload == "end" {
				return payloads
			}
			payloads = append(payloads, n.Payload)
		}
	}
	writes()
	require.Empty(t, heard(), "nothing has ever been started")

	d := b.start(t)
	b.awaitBell(t, true)
	d.Stop(t)
	_ = heard()
	b.awaitBell(t, false)
	writes()
	require.Empty(t, heard(), "the last one has left")
}

func TestApplySilencesABellThatADeadDispatcherLeftRinging(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "one")
	left := "select setval('rowhook.doorbell', 1)"
	b.Exec(t, left)
	b.watch(t, "two")
	b.awaitBell(t, false)
	b.Exec(t, left)
	require.NoError(t, pgx.BeginFunc(t.Context(), b.Conn(t), func(tx pgx.Tx) error { return sqlschema.RaiseGeneration(t.Context(), tx) }))
	b.awaitBell(t, false)

	b.start(t)
	b.awaitBell(t, true)
	b.watch(t, "three")
	var value int64
	require.NoError(t, b.Conn(t).QueryRow(t.Context(), "select last_value from rowhook.doorbell").Scan(&value))
	require.EqualValues(t, queue.Ringing, value, "somebody listens")
	b.Exec(t, "insert into one (v) values ('x')")
	b.receiver.await(t, "one", 1)
}

// TestADispatcherThatOnlyPollsSilencesABellThatRingsForNobody finds it at its watch.
func TestADispatcherThatOnlyPollsSilencesABellThatRingsForNobody(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "one")
	b.Exec(t, "select setval('rowhook.doorbell', 1)")
	b.start(t, func(c *dispatcher.Config) { c.NoListen = true })
	b.awaitBell(t, false)
	b.start(t)
	b.awaitBell(t, true)
	b.Exec(t, "insert into one (v) values ('x')")
	b.receiver.await(t, "one", 1)
}
