package rowhooktest_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/rowhook/rowhook/internal/clone"
	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/rowhooktest"
	"github.com/rowhook/rowhook/webhook"
)

// The tests of users need no TestMain. This one looks for goroutines that are left, and hands on
// where our own tests find Postgres.
func TestMain(m *testing.M) {
	if dir, ok := os.LookupEnv(pgtest.EnvBinDir); ok {
		if err := os.Setenv(rowhooktest.BinariesVariable, dir); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m)
}

// shop starts a harness of the shop in testdata.
// patient waits for what must happen on a machine that is busy.
func patient() rowhooktest.Option { return rowhooktest.Timeout(time.Minute) }

func shop(t testing.TB, more ...rowhooktest.Option) *rowhooktest.Harness {
	t.Helper()
	return rowhooktest.Start(t, append([]rowhooktest.Option{
		rowhooktest.File("testdata/rowhook.yaml"), rowhooktest.Schema("testdata/schema.sql"), patient(),
	}, more...)...)
}

func order(t testing.TB, h *rowhooktest.Harness, ids ...int) {
	t.Helper()
	for _, id := range ids {
		h.Exec(t, "insert into orders (id, customer) values ($1, $2)", id, fmt.Sprintf("customer %d", id))
	}
}

// givenServer returns the server of our own tests, or a private one if there is none.
func givenServer(t *testing.T) string {
	t.Helper()
	if url := os.Getenv(pgtest.EnvURL); url != "" {
		return url
	}
	return pgtest.NewServer(t).URL("postgres")
}

func TestAnEventArrivesWithWhatWasWritten(t *testing.T) {
	t.Parallel()
	h := shop(t)
	h.Exec(t, "insert into orders (id, customer, amount) values (7, 'Ada', 1.10)")
	e := h.Wait(t, "order_placed", rowhooktest.Path("new.id", 7), rowhooktest.Op("insert"), rowhooktest.Table("orders"))
	require.Equal(t, []any{"order_placed", "INSERT", "public.orders", 1, 200}, []any{e.Trigger, e.Op, e.Table, e.Attempt, e.Status})
	require.Equal(t, rowhooktest.Valid, e.Signature, "a secret that is not set anywhere is made up")
	require.JSONEq(t, `{"id": 7, "customer": "Ada", "amount": 1.10}`, string(e.New))
	require.Nil(t, e.Old)
	require.Equal(t, []any{7, "Ada", "1.10", nil}, []any{e.Get("new.id"), e.Get("new.customer"), fmt.Sprint(e.Get("new.amount")), e.Get("new.nothing")})
	var row struct {
		ID       int
		Customer string
	}
	require.NoError(t, e.Decode(&row))
	require.Equal(t, "Ada", row.Customer)
	require.NotEmpty(t, e.Header.Get("Webhook-Id"))

	h.Exec(t, "update orders set customer = 'Grace'")
	h.Drain(t)
	h.Exec(t, "delete from orders")
	deleted := h.Wait(t, "order_changed", rowhooktest.Op("delete"))
	require.Equal(t, rowhooktest.None, deleted.Signature)
	require.NoError(t, deleted.Decode(&row))
	require.Equal(t, "Grace", row.Customer)
	events := h.Order(t, "order_changed", rowhooktest.All(rowhooktest.Op("update"), rowhooktest.Path("old.customer", "Ada")), rowhooktest.Op("delete"))
	require.Equal(t, deleted.ID, events[1].ID)
	require.Equal(t, deleted.ID, h.Wait(t, "", rowhooktest.After(events[0])).ID)
	require.Equal(t, e.ID, h.Wait(t, "order_placed", rowhooktest.ID(e.ID), rowhooktest.Has("new.amount")).ID, "again")
}

func TestManyTestsAtOnceDoNotSeeEachOther(t *testing.T) {
	t.Parallel()
	for i := range 30 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			h := shop(t)
			order(t, h, 2*i, 2*i+1)
			events := h.WaitN(t, "order_placed", 2)
			require.Len(t, events, 2)
			h.Never(t, "", rowhooktest.Where(func(e rowhooktest.Event) bool { return e.Get("new.id") != 2*i && e.Get("new.id") != 2*i+1 }))
		})
	}
}

func TestRetriesTakeNoTime(t *testing.T) {
	t.Parallel()
	h := shop(t)
	h.Respond("order_placed", 503, 500, 200)
	order(t, h, 1, 2)
	h.SkipTo(t, rowhooktest.NextRetry("order_placed", rowhooktest.Path("new.id", 1)))
	h.SkipTo(t, rowhooktest.NextRetry("order_placed", rowhooktest.Path("new.id", 1), rowhooktest.Attempt(2)))
	require.Equal(t, 3, h.Wait(t, "order_placed").Attempt)
	require.Equal(t, 503, h.Wait(t, "order_placed", rowhooktest.Attempt(1)).Status)
	h.Never(t, "order_placed", rowhooktest.Path("new.id", 2), rowhooktest.Attempt(2))
	h.SkipTo(t, rowhooktest.LastRetry("order_placed"))
	require.Equal(t, 3, h.Wait(t, "order_placed", rowhooktest.Path("new.id", 2)).Attempt)
	require.Empty(t, h.DeadLetters(t, ""))
}

func TestAHandlerGetsTheRequestsAndAnswersThem(t *testing.T) {
	t.Parallel()
	h := rowhooktest.Start(t, patient(), rowhooktest.Schema("testdata/schema.sql"), rowhooktest.Config(`
triggers:
  - name: order_placed
    table: public.orders
    on: {insert: true}
    webhook: {url: "https://${SHOP_HOST}/hooks/orders?source=shop", secret: "${SHOP_SECRET}"}
    retry: {limit: 3, interval: 1h}
  - name: note_taken
    table: public.notes
    on: {insert: true}
    webhook: {url: "https://example.com/notes"}
`))
	mux := http.NewServeMux()
	seen := make(chan string, 10)
	mux.HandleFunc("POST /hooks/orders", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = webhook.Verify(h.Secret("order_placed"), r.Header, body, time.Now())
		}
		seen <- fmt.Sprint(r.URL.Query().Get("source"), err)
		if len(seen) == 1 {
			http.Error(w, "not yet", http.StatusTooManyRequests)
		}
	})
	h.Handle("", mux)
	h.Handle("note_taken", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("oh") }))
	order(t, h, 1)
	h.SkipTo(t, rowhooktest.NextRetry("order_placed"))
	require.Equal(t, 2, h.Wait(t, "order_placed").Attempt)
	require.Equal(t, []string{"shop<nil>", "shop<nil>"}, []string{<-seen, <-seen})
	require.Equal(t, 429, h.Wait(t, "order_placed", rowhooktest.Attempt(1)).Status)
	require.Empty(t, h.Secret("note_taken"))
	h.Exec(t, "insert into notes values (1)")
	require.Equal(t, 500, h.Wait(t, "note_taken", rowhooktest.Attempt(1)).Status)
	h.Respond("note_taken", 200)
	h.SkipTo(t, rowhooktest.NextRetry("note_taken"))
	h.Wait(t, "note_taken")
}

func TestEventsWithoutAttemptsLeftAreDeadLetters(t *testing.T) {
	t.Parallel()
	h := shop(t)
	h.Respond("", 410)
	order(t, h, 1, 2)
	h.Exec(t, "update orders set customer = 'Ada'")
	require.Len(t, h.DeadLetters(t, "order_changed"), 2, "it has no retries")
	h.SkipTo(t, rowhooktest.LastRetry("order_placed"))
	letters := h.DeadLetters(t, "order_placed")
	require.Len(t, letters, 2)
	require.Equal(t, 4, letters[0].Attempts)
	require.Contains(t, letters[0].Reason, "410")
	require.Less(t, letters[0].ID, letters[1].ID, "the oldest first")
	require.Equal(t, 2, h.DeadLetters(t, "order_placed", rowhooktest.Path("new.id", 2))[0].Get("new.id"))
}

func TestATransactionSeesWhatItHasRecorded(t *testing.T) {
	t.Parallel()
	h := shop(t)
	conn, err := pgx.Connect(t.Context(), h.URL())
	require.NoError(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	pgxTx, err := conn.Begin(t.Context())
	require.NoError(t, err)
	db, err := sql.Open("pgx", h.URL())
	require.NoError(t, err)
	defer db.Close()
	sqlTx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)

	_, err = pgxTx.Exec(t.Context(), "insert into orders values (1, 'Ada', 1.10)")
	require.NoError(t, err)
	_, err = sqlTx.ExecContext(t.Context(), "insert into orders values (2, 'Grace')")
	require.NoError(t, err)
	for _, tx := range []rowhooktest.Tx{pgxTx, conn} {
		e := h.RequireRecorded(t, tx, "order_placed", rowhooktest.Path("new.customer", "Ada"))
		require.Equal(t, []any{"INSERT", "public.orders", 0, 1}, []any{e.Op, e.Table, e.Attempt, e.Get("new.id")})
		h.RequireNotRecorded(t, tx, "order_placed", rowhooktest.Path("new.id", 2))
		rowhooktest.RequireNotRecorded(t, tx, "order_changed")
	}
	rowhooktest.RequireRecorded(t, sqlTx, "", rowhooktest.Path("new.id", 2), rowhooktest.Where(func(e rowhooktest.Event) bool { return e.Trigger == "order_placed" }))
	require.NoError(t, pgxTx.Rollback(t.Context()))
	require.NoError(t, sqlTx.Rollback())
	h.Never(t, "")
}

func TestTablesAreNamedAsInSQLOrAsTheyAre(t *testing.T) {
	t.Parallel()
	h := rowhooktest.Start(t, patient(), rowhooktest.SQL(`create schema "My Shop"; create table "My Shop"."Guest.Notes" (id int)`), rowhooktest.Config(`
triggers:
  - name: noted
    table: '"My Shop"."Guest.Notes"'
    on: {insert: true}
    webhook: {url: "https://example.com"}
    retry: {limit: 0}
`))
	h.Respond("noted", 500)
	tx := begin(t, h)
	execute(t, tx, `insert into "My Shop"."Guest.Notes" values (1)`)
	h.Exec(t, `insert into "My Shop"."Guest.Notes" values (1)`)
	h.Drain(t)
	for name, fits := range map[string]bool{
		`"My Shop"."Guest.Notes"`: true, `"Guest.Notes"`: true, `My Shop."Guest.Notes"`: true,
		`"guest.notes"`: false, `public."Guest.Notes"`: false,
	} {
		require.Len(t, h.DeadLetters(t, "noted", rowhooktest.Table(name)), map[bool]int{true: 1}[fits], name)
		if fits {
			h.RequireRecorded(t, tx, "noted", rowhooktest.Table(name))
			h.Wait(t, "noted", rowhooktest.Table(name), rowhooktest.Attempt(1))
		} else {
			h.RequireNotRecorded(t, tx, "noted", rowhooktest.Table(name))
			h.Never(t, "noted", rowhooktest.Table(name))
		}
	}
}

func TestMigrationsWithSourcesRunOnceAndOthersForEachTest(t *testing.T) {
	t.Parallel()
	source := fstest.MapFS{"1.sql": {Data: []byte("create table orders (id int primary key, customer text); -- " + t.Name() + time.Now().String())}}
	for name, c := range map[string]struct {
		more []rowhooktest.Option
		with fstest.MapFS
		want int
	}{
		"sources":         {nil, source, 1},
		"version":         {[]rowhooktest.Option{rowhooktest.Version(time.Now().String())}, nil, 1},
		"neither of them": {nil, nil, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runs := 0
			migrate := func(ctx context.Context, url string) error {
				runs++
				conn, err := pgx.Connect(ctx, url)
				if err != nil {
					return err
				}
				_, err = conn.Exec(ctx, string(source["1.sql"].Data))
				return errors.Join(err, conn.Close(ctx))
			}
			option := rowhooktest.Migrate(migrate)
			if c.with != nil {
				option = rowhooktest.Migrate(migrate, c.with)
			}
			for range 3 {
				h := rowhooktest.Start(t, append(c.more, patient(), rowhooktest.File("testdata/rowhook.yaml"), option)...)
				order(t, h, 1)
				h.Wait(t, "order_placed")
			}
			require.Equal(t, c.want, runs)
		})
	}
}

func TestAGivenServerKeepsNothingButTheTemplate(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t).URL("postgres")
	for range 2 {
		t.Run("inner", func(t *testing.T) {
			h := shop(t, rowhooktest.Server(server))
			order(t, h, 1)
			h.Wait(t, "order_placed")
		})
	}
	require.Eventually(t, func() bool { return len(databases(t, server, "rowhook_test_%")) == 0 }, time.Minute, 10*time.Millisecond)
	require.Len(t, databases(t, server, "rowhook%"), 1, "the template")
}

// databases lists those whose names are like one.
func databases(t *testing.T, server, like string) (names []string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), server)
	require.NoError(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	rows, err := conn.Query(t.Context(), "select datname::text from pg_database where datname like $1", like)
	require.NoError(t, err)
	names, err = pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return names
}

// as returns a URL of the same server for another role, whose password is x.
func as(t *testing.T, server, role string) string {
	t.Helper()
	u, err := url.Parse(server)
	require.NoError(t, err)
	u.User = url.UserPassword(role, "x")
	return u.String()
}

func TestARoleThatMayOnlyCreateDatabasesIsEnough(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t)
	server.NewEmpty(t).Exec(t, "create role creator login createdb password 'x'")
	h := shop(t, rowhooktest.Server(as(t, server.URL("postgres"), "creator")))
	order(t, h, 1)
	h.Wait(t, "order_placed")
	h.Never(t, "order_changed")
}

func TestATemplateThatWasMadeAnewIsCopiedAgain(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t)
	own := server.NewEmpty(t)
	start := func(version string) *rowhooktest.Harness {
		return rowhooktest.Start(t, patient(), rowhooktest.Server(server.URL("postgres")), rowhooktest.File("testdata/rowhook.yaml"),
			rowhooktest.Template("own"), rowhooktest.Version(version))
	}
	alter := func(sql string) {
		conn, err := pgx.Connect(t.Context(), server.URL("own"))
		require.NoError(t, err)
		_, err = conn.Exec(t.Context(), sql)
		require.NoError(t, errors.Join(err, conn.Close(t.Context())))
	}
	schema, err := os.ReadFile("testdata/schema.sql")
	require.NoError(t, err)

	own.Exec(t, "create database own")
	alter(string(schema))
	order(t, start("1"), 1)

	own.Exec(t, "drop database own")
	own.Exec(t, "create database own")
	alter(string(schema) + "; alter table orders add column note text")
	h := start("1")
	h.Exec(t, "insert into orders (id, customer, note) values (1, 'Ada', 'new')")
	h.Wait(t, "order_placed", rowhooktest.Path("new.note", "new"))

	alter("alter table orders add column second text")
	start("2").Exec(t, "insert into orders (id, customer, second) values (1, 'Ada', 'new')")
}

// Tests of several roles share a server, one after the other in any order.
func TestRolesThatShareAServerDoNotMeet(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t)
	server.NewEmpty(t).Exec(t, "create role one login createdb password 'x'; create role two login createdb password 'x' in role one")
	super := server.URL("postgres")
	as := func(role string) string { return as(t, super, role) }
	for i, roles := range [][]string{{super, as("one"), as("two")}, {as("two"), as("one"), super}} {
		for range 2 {
			for _, role := range roles {
				t.Run("inner", func(t *testing.T) {
					h := shop(t, rowhooktest.Server(role), rowhooktest.SQL(fmt.Sprint("-- ", i)))
					order(t, h, 1)
					h.Wait(t, "order_placed")
				})
			}
		}
	}
	require.Len(t, databases(t, super, "rowhook_template_%"), 6)
}

func TestAStartThatFailsKeepsNoDatabase(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t)
	server.NewEmpty(t).Exec(t, "create role one login createdb password 'x'")
	url := as(t, server.URL("postgres"), "one")
	before := databases(t, url, "rowhook_test_%")
	for want, broken := range map[string]rowhooktest.Option{
		"syntax error":     rowhooktest.SQL("create tabel x ()"),
		"migrate: no luck": rowhooktest.Migrate(func(context.Context, string) error { return errors.New("no luck") }),
		"the dispatcher has ended: the role one lacks rights": rowhooktest.Migrate(func(ctx context.Context, url string) error {
			conn, err := pgx.Connect(ctx, url)
			if err != nil {
				return err
			}
			_, err = conn.Exec(ctx, "revoke all on rowhook.invocation_log from one")
			return errors.Join(err, conn.Close(ctx))
		}),
	} {
		text := failure(t, func(t testing.TB) { shop(t, rowhooktest.Server(url), broken) })
		require.Contains(t, text, want)
		require.NotContains(t, text, "is kept")
	}
	require.Eventually(t, func() bool { return len(databases(t, url, "rowhook_test_%")) == len(before) }, time.Minute, 10*time.Millisecond)
}

// A migrator of pgtestdb makes a database like this, and the test gets a copy of it.
func TestADatabaseOfTheCallerIsUsedAsItIs(t *testing.T) {
	t.Parallel()
	server := givenServer(t)
	options := []rowhooktest.Option{rowhooktest.File("testdata/rowhook.yaml"), rowhooktest.Schema("testdata/schema.sql")}
	template := clone.Template{Key: t.Name() + time.Now().String(), Make: func(ctx context.Context, url string) error {
		return rowhooktest.Install(ctx, url, options...)
	}}
	t.Cleanup(func() { require.NoError(t, template.Forget(context.Background(), server)) })
	made, err := clone.New(t.Context(), server, template)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, made.Drop(context.Background(), time.Minute)) })
	t.Run("inner", func(t *testing.T) {
		h := rowhooktest.Start(t, append(options, patient(), rowhooktest.Database(made.URL))...)
		require.Equal(t, made.URL, h.URL())
		order(t, h, 1)
		h.Wait(t, "order_placed")
	})
	conn, err := pgx.Connect(t.Context(), made.URL)
	require.NoError(t, err, "it is still there")
	require.NoError(t, conn.Close(t.Context()))

	empty, err := clone.Empty(t.Context(), server, "template0")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, empty.Drop(context.Background(), time.Minute)) })
	h := rowhooktest.Start(t, append(options, patient(), rowhooktest.Database(empty.URL))...)
	order(t, h, 1)
	h.Wait(t, "order_placed")
}

func TestADatabaseHasOneHarnessAtATime(t *testing.T) {
	t.Parallel()
	made := shop(t)
	own, err := clone.Empty(t.Context(), givenServer(t), "template0")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, own.Drop(context.Background(), time.Minute)) })
	for i := range 5 { // one after the other
		t.Run("inner", func(t *testing.T) {
			first := shop(t, rowhooktest.Database(own.URL))
			if i == 0 {
				for _, url := range []string{own.URL, made.URL()} {
					text := failure(t, func(t testing.TB) { shop(t, rowhooktest.Database(url)) })
					require.Contains(t, text, "the database is in use by another harness")
				}
			}
			order(t, first, i)
			first.Wait(t, "order_placed", rowhooktest.Path("new.id", i))
		})
	}
}

func TestVariablesOfATestGoBeforeTheEnvironment(t *testing.T) {
	t.Parallel()
	for _, value := range []string{"eu", "us"} {
		t.Run(value, func(t *testing.T) {
			t.Parallel()
			h := rowhooktest.Start(t, patient(), rowhooktest.SQL("create table orders (id int)"), rowhooktest.Env("REGION", value), rowhooktest.Config(`
triggers:
  - name: a
    table: public.orders
    on: {insert: true}
    webhook: {url: "https://example.com", headers: {X-Region: "${REGION}"}}
`))
			h.Exec(t, "insert into orders values (1)")
			require.Equal(t, value, h.Wait(t, "a").Header.Get("X-Region"))
		})
	}
}

func begin(t testing.TB, h *rowhooktest.Harness) pgx.Tx {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), h.URL())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	tx, err := conn.Begin(t.Context())
	require.NoError(t, err)
	return tx
}

func execute(t testing.TB, tx pgx.Tx, sql string) {
	t.Helper()
	_, err := tx.Exec(t.Context(), sql)
	require.NoError(t, err)
}

func dropDatabase(t *testing.T, server, url string) {
	t.Helper()
	config, err := pgx.ParseConfig(url)
	require.NoError(t, err)
	conn, err := pgx.Connect(t.Context(), server)
	require.NoError(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	_, err = conn.Exec(t.Context(), "drop database "+config.Database+" with (force)")
	require.NoError(t, err)
}

func pause(t testing.TB, url, trigger string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	_, err = operate.Pause(t.Context(), conn, trigger)
	require.NoError(t, err)
}
