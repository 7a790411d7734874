package dispatcher_test

import (
	"testing"
	"time"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/trigger"
)

func TestAnIdleDispatcherHasOneSessionBesideTheOneThatListens(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	b.watch(t, "items", func(s *trigger.Spec) { s.Order = trigger.Order{By: []string{trigger.OrderByRow}} })
	b.start(t, func(c *dispatcher.Config) { c.PollInterval = time.Second })
	b.Exec(t, "insert into orders (v) select repeat('x', 100000) from generate_series(1, 200)")
	b.Exec(t, "insert into items (v) select 'x' from generate_series(1, 200)")
	b.receiver.await(t, "orders", 200)
	b.receiver.await(t, "items", 200)
	b.settled(t)
	eventually(t, b.Conn(t), 2, "select count(*)::integer from pg_stat_activity where datname = current_database() and application_name like 'rowhook %' and pid <> pg_backend_pid()")
}
