// Package rowhooktest tests programs that write to tables which Rowhook watches: what they write
// arrives at a receiver inside the test.
//
//	func TestAnOrderIsAnnounced(t *testing.T) {
//		t.Parallel()
//		h := rowhooktest.Start(t, rowhooktest.File("rowhook.yaml"), rowhooktest.Schema("schema.sql"))
//		h.Exec(t, `insert into orders (id, customer) values (7, 'Ada')`)
//		e := h.Wait(t, "order_placed", rowhooktest.Path("new.id", 7))
//		if e.Get("new.customer") != "Ada" {
//			t.Errorf("got %s", e)
//		}
//	}
//
// Each test has a database of its own, copied from a template, with a receiver and a dispatcher.
// Nothing needs to be set up: no TestMain, no port, no secret, no sleep. The triggers are those of
// rowhook.yaml, but they all send to the test's receiver. Connect the program under test to
// [Harness.URL].
//
// # The server
//
// Without further words the tests of a package share a private Postgres, which starts with the first
// test and ends with the process. With many packages, start one server for all of them, and name
// it by [Server] or by the variable ROWHOOK_TEST_SERVER: any of its databases, for a role that may
// create databases. One of testcontainers will do. A server that is only for tests is faster with
// fsync=off. Where something else makes the databases, such as pgtestdb, use [Database] and [Install].
//
// The first test takes about a second, and each further one some 100 ms. What the databases are
// copied from is kept on the server for later runs. It is made anew when the configuration, the
// schema, the migrations or the version of Rowhook change.
//
// # What arrives
//
// [Harness.Wait] waits for an event, and returns at once if it has arrived before. [Harness.Never]
// does not wait for a time: it waits until everything that was committed has been sent, and then
// knows. A test that fails prints what did arrive, how the nearest differs, what the queue holds,
// and the dispatcher's log.
//
// # Failures
//
//	h.Respond("order_placed", 503, 503, 200)
//	h.Exec(t, `insert into orders (id, customer) values (8, 'Grace')`)
//	h.SkipTo(t, rowhooktest.NextRetry("order_placed"))
//	h.SkipTo(t, rowhooktest.NextRetry("order_placed"))
//	e := h.Wait(t, "order_placed", rowhooktest.Path("new.id", 8)) // its third attempt
//
// [Harness.SkipTo] lets the time until a retry pass at once. If no attempt is left, the event is a
// dead letter:
//
//	h.Respond("order_placed", 410)
//	h.Exec(t, `insert into orders (id, customer) values (9, 'Alan')`)
//	h.SkipTo(t, rowhooktest.LastRetry("order_placed"))
//	letters := h.DeadLetters(t, "order_placed", rowhooktest.Path("new.id", 9))
//
// With [Harness.Handle] the program's own receiver gets the requests, and its statuses decide.
//
// # Suites that roll back
//
// A transaction that is rolled back sends nothing. [RequireRecorded] looks at the events inside it:
//
//	tx, err := db.BeginTx(t.Context(), nil)
//	if err != nil {
//		t.Fatal(err)
//	}
//	defer tx.Rollback()
//	if _, err := tx.ExecContext(t.Context(), `insert into orders (id, customer) values (10, 'Edsger')`); err != nil {
//		t.Fatal(err)
//	}
//	rowhooktest.RequireRecorded(t, tx, "order_placed", rowhooktest.Path("new.customer", "Edsger"))
//	rowhooktest.RequireNotRecorded(t, tx, "order_placed", rowhooktest.Op("delete"))
package rowhooktest
