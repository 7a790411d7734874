package rowhooktest_test

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/rowhooktest"
)

// fakeT is a test that may fail without failing the test that it is in.
type fakeT struct {
	testing.TB
	ctx      context.Context
	failed   bool
	text     strings.Builder
	cleanups []func()
}

func (f *fakeT) Helper()                  {}
func (f *fakeT) Failed() bool             { return f.failed }
func (f *fakeT) Context() context.Context { return f.ctx }
func (f *fakeT) Cleanup(c func())         { f.cleanups = append(f.cleanups, c) }
func (f *fakeT) Logf(format string, args ...any) {
	fmt.Fprintf(&f.text, format+"\n", args...)
}
func (f *fakeT) Errorf(format string, args ...any) {
	f.failed = true
	f.Logf(format, args...)
}
func (f *fakeT) Fatalf(format string, args ...any) {
	f.Errorf(format, args...)
	runtime.Goexit()
}

// output runs a test with its cleanups, and returns what it has printed and whether it failed.
func output(t *testing.T, test func(t testing.TB)) (text string, failed bool) {
	t.Helper()
	f := &fakeT{TB: t, ctx: t.Context()}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			for i := len(f.cleanups) - 1; i >= 0; i-- {
				f.cleanups[i]()
			}
		}()
		test(f)
	}()
	<-done
	return f.text.String(), f.failed
}

// failure is output of a test that must fail.
func failure(t *testing.T, test func(t testing.TB)) string {
	t.Helper()
	text, failed := output(t, test)
	require.True(t, failed, "it did not fail:\n%s", text)
	return text
}

// soon is for a wait that must fail. What has to happen before it is waited for by settled.
func soon() rowhooktest.Option { return rowhooktest.Timeout(300 * time.Millisecond) }

// settled waits until the event of each order was sent once, and what became of it is recorded.
func settled(t testing.TB, h *rowhooktest.Harness, orders int) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), h.URL())
	require.NoError(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	var recorded []operate.Event
	require.Eventually(t, func() bool {
		page, err := operate.List(t.Context(), conn, operate.Filter{States: []operate.State{operate.Delivered, operate.Retrying}},
			operate.ListOptions{})
		require.NoError(t, err)
		recorded = page.Events
		return len(recorded) == orders
	}, time.Minute, 20*time.Millisecond, "%d of %d", len(recorded), orders)
}

func TestATestThatPassesPrintsNothing(t *testing.T) {
	t.Parallel()
	text, failed := output(t, func(t testing.TB) {
		h := shop(t)
		h.Respond("order_placed", 503, 200)
		order(t, h, 1)
		h.SkipTo(t, rowhooktest.LastRetry("order_placed"))
		h.Wait(t, "order_placed")
	})
	require.False(t, failed)
	require.Empty(t, text)
}

func TestAMissTellsWhatArrivedAndTheNearest(t *testing.T) {
	t.Parallel()
	text := failure(t, func(t testing.TB) {
		h := shop(t, soon())
		order(t, h, 8, 9)
		settled(t, h, 2)
		h.WaitN(t, "order_placed", 2)
		h.Wait(t, "order_placed", rowhooktest.Path("new.id", 7), rowhooktest.Path("new.customer", "customer 8"))
	})
	require.Contains(t, text, `rowhooktest: Wait: no delivery of order_placed with new.id = 7 and new.customer = "customer 8" arrived within`)
	require.Contains(t, text, "arrived for order_placed: 2")
	require.Contains(t, text, "nearest: new.id is 8, wanted 7")
	require.Contains(t, text, "the queue has no event of order_placed that is waiting, in flight, retrying or dead")
	require.Contains(t, text, "rowhooktest: the dispatcher's log:\ntime=")
	require.Contains(t, text, "level=INFO msg=ready")
}

func TestAMissTellsWhatTheQueueHolds(t *testing.T) {
	t.Parallel()
	text := failure(t, func(t testing.TB) {
		h := shop(t, soon())
		h.Respond("order_placed", 503)
		order(t, h, 1, 2, 3, 4)
		settled(t, h, 4)
		h.Wait(t, "order_placed")
	})
	require.Contains(t, text, "retrying, attempt 1: answered 503")
	require.Contains(t, text, "attempt 2 of 4 at")
	require.Contains(t, text, "  and more")

	text = failure(t, func(t testing.TB) {
		h := shop(t, soon())
		h.Respond("order_placed", 503)
		order(t, h, 1)
		settled(t, h, 1)
		pause(t, h.URL(), "order_placed")
		h.Wait(t, "order_placed")
	})
	require.Contains(t, text, "the trigger order_placed is paused")
	require.NotContains(t, text, "was it made, and committed?", "something was")

	text = failure(t, func(t testing.TB) {
		h := shop(t, soon())
		h.Exec(t, "alter table orders disable trigger all")
		order(t, h, 1)
		h.Wait(t, "order_placed")
	})
	require.Contains(t, text, "warning:")
	require.Contains(t, text, "disabled")
}

func TestAMissTellsWhatWouldBeSentAndWhatIsNotCommitted(t *testing.T) {
	t.Parallel()
	config := rowhooktest.Config(`
triggers:
  - name: paid
    table: public.orders
    on: {update: {columns: [amount, customer]}, insert: true}
    when: new.amount > 0
    webhook: {url: "https://example.com"}
  - {name: noted, table: notes, on: {manual: true, insert: true}, webhook: {url: "https://example.com"}}
`)
	start := func(t testing.TB) *rowhooktest.Harness {
		return rowhooktest.Start(t, config, rowhooktest.Schema("testdata/schema.sql"), soon())
	}
	text := failure(t, func(t testing.TB) { start(t).Wait(t, "paid") })
	require.Contains(t, text, "paid sends insert, update of amount or customer of public.orders when new.amount > 0: was it made, and committed?")
	require.NotContains(t, text, "not committed:")
	text = failure(t, func(t testing.TB) { start(t).Wait(t, "noted") })
	require.Contains(t, text, "noted sends insert, rowhook.emit of notes: was it made, and committed?")
	text = failure(t, func(t testing.TB) { start(t).Wait(t, "") })
	require.Contains(t, text, "was the change committed, and does a trigger send it: its operation, its columns, its when?")

	text = failure(t, func(t testing.TB) {
		h := start(t)
		tx := begin(t, h)
		execute(t, tx, "insert into orders values (8, 'Ada')")
		h.Wait(t, "paid")
	})
	require.Regexp(t, `not committed: the transaction of session \d+, whose last statement is insert into orders values \(8, 'Ada'\)`, text)
	text = failure(t, func(t testing.TB) {
		h := start(t)
		h.Exec(t, "begin; insert into orders values (8, 'Ada'); prepare transaction 'one'")
		t.Cleanup(func() { h.Exec(t, "rollback prepared 'one'") })
		h.Wait(t, "paid")
	})
	require.Contains(t, text, "not committed: the prepared transaction one")
	text = failure(t, func(t testing.TB) {
		h := start(t)
		execute(t, begin(t, h), "select from orders")
		h.Wait(t, "paid")
	})
	require.NotContains(t, text, "not committed:", "it has only read")
}

func TestAFunctionThatNothingMeetsIsNamed(t *testing.T) {
	t.Parallel()
	text := failure(t, func(t testing.TB) {
		h := shop(t, soon())
		order(t, h, 1)
		settled(t, h, 1)
		h.Wait(t, "order_placed", rowhooktest.Where(func(rowhooktest.Event) bool { return false }))
	})
	require.Contains(t, text, "1 fit otherwise, but not by the function at failure_test.go:")
}

func TestNeverTellsWhatArrived(t *testing.T) {
	t.Parallel()
	text := failure(t, func(t testing.TB) {
		h := shop(t)
		h.Respond("order_placed", 503)
		order(t, h, 1)
		h.Never(t, "order_placed", rowhooktest.Path("new.id", 1))
	})
	require.Contains(t, text, "rowhooktest: Never: a delivery of order_placed with new.id = 1 arrived, wanted none")
	text = failure(t, func(t testing.TB) {
		h := shop(t)
		order(t, h, 1)
		h.Never(t, "", rowhooktest.Where(func(e rowhooktest.Event) bool { return e.Get("new.id") == 1 }))
	})
	require.Contains(t, text, "wanted none")
}

func TestSkippingWithoutARetryFailsAtOnce(t *testing.T) {
	t.Parallel()
	text := failure(t, func(t testing.TB) {
		h := shop(t, rowhooktest.Timeout(time.Hour))
		order(t, h, 1)
		h.SkipTo(t, rowhooktest.NextRetry("order_placed"))
	})
	require.Contains(t, text, "rowhooktest: SkipTo: no event waits for a retry, and none is being sent")
}

func TestOrderTellsWhichCameFirst(t *testing.T) {
	t.Parallel()
	text := failure(t, func(t testing.TB) {
		h := shop(t)
		order(t, h, 1)
		h.Drain(t, "order_placed")
		order(t, h, 2)
		h.Order(t, "order_placed", rowhooktest.Path("new.id", 2), rowhooktest.Path("new.id", 1))
	})
	require.Contains(t, text, "rowhooktest: Order: event 2 arrived before event 1:")
}

func TestWhatWasNotRecordedIsExplained(t *testing.T) {
	t.Parallel()
	text := failure(t, func(t testing.TB) {
		h := shop(t)
		tx := begin(t, h)
		execute(t, tx, "insert into orders values (8, 'Ada')")
		h.RequireRecorded(t, tx, "order_placed", rowhooktest.Path("new.id", 7))
	})
	require.Contains(t, text, "RequireRecorded: the transaction has recorded no event of order_placed with new.id = 7\nit has recorded 1:\n  INSERT public.orders")
	require.Contains(t, text, "nearest: new.id is 8, wanted 7")
	text = failure(t, func(t testing.TB) {
		h := shop(t)
		tx := begin(t, h)
		execute(t, tx, "insert into orders values (8, 'Ada')")
		h.RequireNotRecorded(t, tx, "order_placed")
	})
	require.Contains(t, text, "RequireNotRecorded: the transaction has recorded an event of order_placed")
	text = failure(t, func(t testing.TB) {
		h := shop(t)
		h.RequireRecorded(t, begin(t, h), "order_placed")
	})
	require.Contains(t, text, "it has recorded none of this trigger")
	text = failure(t, func(t testing.TB) {
		h := shop(t)
		h.RequireRecorded(t, "a string", "order_placed")
	})
	require.Contains(t, text, "a string is no transaction that is known here")
	text = failure(t, func(t testing.TB) {
		h := shop(t)
		rowhooktest.RequireRecorded(t, begin(t, h), "nosuch")
	})
	require.Contains(t, text, `there is no Rowhook trigger named "nosuch"; there are order_changed, order_placed`)
	text = failure(t, func(t testing.TB) {
		h := shop(t)
		h.RequireNotRecorded(t, begin(t, h), "order_place")
	})
	require.Contains(t, text, `has no trigger "order_place"; it has order_placed, order_changed; did you mean order_placed?`)
}

// A check outside a transaction would see nothing, and so RequireNotRecorded would always pass.
func TestWhatIsInNoTransactionIsRefused(t *testing.T) {
	t.Parallel()
	h := shop(t)
	db, err := sql.Open("pgx", h.URL())
	require.NoError(t, err)
	defer db.Close()
	pool, err := pgxpool.New(t.Context(), h.URL())
	require.NoError(t, err)
	defer pool.Close()
	conn, err := pgx.Connect(t.Context(), h.URL())
	require.NoError(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	sqlConn, err := db.Conn(t.Context())
	require.NoError(t, err)
	defer sqlConn.Close()
	poolConn, err := pool.Acquire(t.Context())
	require.NoError(t, err)
	defer poolConn.Release()

	refused := func(want string, txs ...rowhooktest.Tx) {
		t.Helper()
		for _, tx := range txs {
			text := failure(t, func(t testing.TB) { rowhooktest.RequireNotRecorded(t, tx, "order_placed") })
			require.Contains(t, text, "RequireNotRecorded: "+want)
			text = failure(t, func(t testing.TB) { rowhooktest.RequireRecorded(t, tx, "") })
			require.Contains(t, text, "RequireRecorded: "+want)
		}
	}
	refused("the *sql.DB is in no transaction", db)
	refused("the *sql.Conn is in no transaction", sqlConn)
	refused("the *pgxpool.Pool is in no transaction", pool)
	refused("the *pgxpool.Conn is in no transaction", poolConn)
	refused("the *pgx.Conn is in no transaction", conn)
	refused("the transaction is nil", nil, (*pgx.Conn)(nil), (*sql.Tx)(nil))

	execIn := func(exec func(sql string) error, tx rowhooktest.Tx) {
		t.Helper()
		for _, end := range []string{"rollback", "commit"} {
			require.NoError(t, exec("begin"))
			rowhooktest.RequireNotRecorded(t, tx, "order_placed") // nothing was written yet
			require.NoError(t, exec("insert into orders values (1, 'Ada'); savepoint s; delete from orders"))
			rowhooktest.RequireRecorded(t, tx, "order_changed")
			require.NoError(t, exec("rollback to s; set transaction read only"))
			rowhooktest.RequireRecorded(t, tx, "order_placed")
			rowhooktest.RequireNotRecorded(t, tx, "order_changed")
			require.NoError(t, exec(end))
			refused("the "+fmt.Sprintf("%T", tx)+" is in no transaction", tx)
		}
		require.NoError(t, exec("delete from orders"))
	}
	execIn(func(sql string) error { _, err := conn.Exec(t.Context(), sql); return err }, conn)
	execIn(func(sql string) error { _, err := poolConn.Exec(t.Context(), sql); return err }, poolConn)
	execIn(func(sql string) error { _, err := sqlConn.ExecContext(t.Context(), sql); return err }, sqlConn)
	simple, err := pgx.ParseConfig(h.URL())
	require.NoError(t, err)
	simple.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	plain, err := pgx.ConnectConfig(t.Context(), simple)
	require.NoError(t, err)
	defer plain.Close(context.WithoutCancel(t.Context()))
	execIn(func(sql string) error { _, err := plain.Exec(t.Context(), sql); return err }, plain)

	// Libraries wrap a transaction.
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	type wrapped struct{ *sql.Tx }
	rowhooktest.RequireNotRecorded(t, wrapped{tx}, "order_placed")
	require.NoError(t, tx.Rollback())
	refused("sql: transaction has already been committed or rolled back", tx)
}

func TestAFailedTestKeepsItsDatabaseOnAGivenServer(t *testing.T) {
	t.Parallel()
	server := givenServer(t)
	text := failure(t, func(t testing.TB) {
		shop(t, rowhooktest.Server(server))
		t.Errorf("oh")
	})
	_, after, found := strings.Cut(text, "the test's database is kept, open it with: psql '")
	require.True(t, found, text)
	shown, rest, _ := strings.Cut(after, "'")
	require.Contains(t, rest, "PGPASSWORD")
	u, err := url.Parse(server)
	require.NoError(t, err)
	password, _ := u.User.Password()
	require.NotEmpty(t, password)
	require.NotContains(t, text, password)
	dropDatabase(t, server, strings.Replace(shown, "@", ":"+password+"@", 1))
}

func TestACleanupFromBeforeStartIsExplained(t *testing.T) {
	t.Parallel()
	text := failure(t, func(t testing.TB) {
		var h *rowhooktest.Harness
		t.Cleanup(func() { h.Exec(t, "delete from orders") })
		h = shop(t)
	})
	require.Contains(t, text, "the harness has ended")
	require.Contains(t, text, "after Start")
}

func TestWrongUseIsExplained(t *testing.T) {
	t.Parallel()
	for want, test := range map[string]func(t testing.TB){
		"name the configuration":                    func(t testing.TB) { rowhooktest.Start(t) },
		"File and Config exclude each other":        func(t testing.TB) { shop(t, rowhooktest.Config("triggers: []")) },
		"Database and Server exclude each other":    func(t testing.TB) { shop(t, rowhooktest.Database("a"), rowhooktest.Server("b")) },
		"nosuch.yaml":                               func(t testing.TB) { rowhooktest.Start(t, rowhooktest.File("nosuch.yaml")) },
		"nosuch.sql does not exist":                 func(t testing.TB) { shop(t, rowhooktest.Schema("nosuch.sql")) },
		"The database starts empty":                 func(t testing.TB) { rowhooktest.Start(t, rowhooktest.File("testdata/rowhook.yaml")) },
		"SQL 2:1: syntax error":                     func(t testing.TB) { shop(t, rowhooktest.SQL("create tabel x ()")) },
		"it must be more than 0":                    func(t testing.TB) { shop(t, rowhooktest.Timeout(0)) },
		`has no trigger "order_place"`:              func(t testing.TB) { shop(t).Wait(t, "order_place") },
		"it is none of insert, update":              func(t testing.TB) { shop(t).Wait(t, "", rowhooktest.Op("upsert")) },
		"attempts count from 1":                     func(t testing.TB) { shop(t).Wait(t, "", rowhooktest.Attempt(0)) },
		"99 is no status of a response":             func(t testing.TB) { shop(t).Respond("", 99) },
		"name at least one status":                  func(t testing.TB) { shop(t).Respond("") },
		"exec: ERROR: relation \"nosuch\" does not": func(t testing.TB) { shop(t).Exec(t, "select from nosuch") },
		"n is 0, and must be 1 or more":             func(t testing.TB) { shop(t).WaitN(t, "", 0) },
		"the function is nil":                       func(t testing.TB) { shop(t, rowhooktest.Migrate(nil)) },
		"one of the sources is nil": func(t testing.TB) {
			shop(t, rowhooktest.Migrate(func(context.Context, string) error { return nil }, nil))
		},
		"option 4 of 4 is nil":           func(t testing.TB) { shop(t, nil) },
		"Wait: match 2 of 2 is nil":      func(t testing.TB) { shop(t).Wait(t, "", rowhooktest.Op("insert"), nil) },
		"Never: match 1 of 1 is nil":     func(t testing.TB) { shop(t).Never(t, "", rowhooktest.All(nil)) },
		"Order: event 1: match 1 of 1":   func(t testing.TB) { shop(t).Order(t, "", nil) },
		"SkipTo: match 1 of 1 is nil":    func(t testing.TB) { shop(t).SkipTo(t, rowhooktest.NextRetry("order_placed", nil)) },
		"DeadLetters: match 1 of 1":      func(t testing.TB) { shop(t).DeadLetters(t, "", nil) },
		"Recorded: match 1 of 1 is nil":  func(t testing.TB) { rowhooktest.RequireRecorded(t, nil, "", nil) },
		"Wait: Where: the function is n": func(t testing.TB) { shop(t).Wait(t, "", rowhooktest.Where(nil)) },
		"migrate: no luck": func(t testing.TB) {
			shop(t, rowhooktest.Migrate(func(context.Context, string) error { return fmt.Errorf("no luck") }))
		},
		"connect to the server of the tests": func(t testing.TB) { shop(t, rowhooktest.Server("postgres://127.0.0.1:1/x")) },
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			require.Contains(t, failure(t, test), want)
		})
	}
}
