package rowhooktest_test

import (
	"database/sql"
	"os"
	"strings"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/rowhooktest"
)

// The tests here are the examples of the package comment. They run in testdata, where the files of a
// user's package are.

func TestTheFirstExample(t *testing.T) {
	t.Chdir("testdata")
	TestAnOrderIsAnnounced(t)
}

func TestAnOrderIsAnnounced(t *testing.T) {
	if _, err := os.Stat("rowhook.yaml"); err != nil {
		t.Skip("TestTheFirstExample runs it where its files are")
	}
	h := rowhooktest.Start(t, rowhooktest.File("rowhook.yaml"), rowhooktest.Schema("schema.sql"))
	h.Exec(t, `insert into orders (id, customer) values (7, 'Ada')`)
	e := h.Wait(t, "order_placed", rowhooktest.Path("new.id", 7))
	if e.Get("new.customer") != "Ada" {
		t.Errorf("got %s", e)
	}
}

func TestTheExamplesOfFailures(t *testing.T) {
	t.Parallel()
	h := shop(t)
	h.Respond("order_placed", 503, 503, 200)
	h.Exec(t, `insert into orders (id, customer) values (8, 'Grace')`)
	h.SkipTo(t, rowhooktest.NextRetry("order_placed"))
	h.SkipTo(t, rowhooktest.NextRetry("order_placed"))
	e := h.Wait(t, "order_placed", rowhooktest.Path("new.id", 8)) // its third attempt
	require.Equal(t, 3, e.Attempt)

	h.Respond("order_placed", 410)
	h.Exec(t, `insert into orders (id, customer) values (9, 'Alan')`)
	h.SkipTo(t, rowhooktest.LastRetry("order_placed"))
	letters := h.DeadLetters(t, "order_placed", rowhooktest.Path("new.id", 9))
	require.Len(t, letters, 1)
}

func TestTheExampleOfASuiteThatRollsBack(t *testing.T) {
	t.Parallel()
	db, err := sql.Open("pgx", shop(t).URL())
	require.NoError(t, err)
	defer db.Close()

	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // the test is over
	if _, err := tx.ExecContext(t.Context(), `insert into orders (id, customer) values (10, 'Edsger')`); err != nil {
		t.Fatal(err)
	}
	rowhooktest.RequireRecorded(t, tx, "order_placed", rowhooktest.Path("new.customer", "Edsger"))
	rowhooktest.RequireNotRecorded(t, tx, "order_placed", rowhooktest.Op("delete"))
}

func TestThePackageCommentHasTheExamplesThatRun(t *testing.T) {
	t.Parallel()
	comment, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	examples, err := os.ReadFile("example_test.go")
	require.NoError(t, err)
	run := map[string]bool{"t.Parallel()": true}
	for line := range strings.Lines(string(examples)) {
		line, _, _ = strings.Cut(line, " //nolint")
		run[strings.TrimSpace(line)] = true
	}
	lines := 0
	for line := range strings.Lines(string(comment)) {
		if code, ok := strings.CutPrefix(line, "//\t"); ok {
			lines++
			require.True(t, run[strings.TrimSpace(code)], "%s", code)
		}
	}
	require.Greater(t, lines, 25)
}
