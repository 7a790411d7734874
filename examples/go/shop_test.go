package shop_test

import (
	"database/sql"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver of the shop
	"github.com/stretchr/testify/require"

	shop "github.com/rowhook/rowhook/examples/go"
	"github.com/rowhook/rowhook/rowhooktest"
)

// start is the plumbing: a database with the shop's tables and triggers, for one test.
func start(t *testing.T) *rowhooktest.Harness {
	t.Parallel()
	return rowhooktest.Start(t, rowhooktest.File("../shop/rowhook.yaml"), rowhooktest.Schema("../shop/schema.sql"))
}

func open(t *testing.T, h *rowhooktest.Harness) *sql.DB {
	db, err := sql.Open("pgx", h.URL())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

func TestAnOrderIsTold(t *testing.T) {
	h := start(t)
	require.NoError(t, shop.Place(t.Context(), open(t, h), 7, "Ada"))
	told := h.Wait(t, "order_placed", rowhooktest.Path("new.id", 7))
	require.Equal(t, "Ada", told.Get("new.customer"))
}

func TestAPaymentIsToldSignedAndAgainUntilItIsHeard(t *testing.T) {
	h := start(t)
	db := open(t, h)
	h.Respond("order_paid", 503, 503, 200)
	require.NoError(t, shop.Place(t.Context(), db, 7, "Ada"))
	require.NoError(t, shop.Pay(t.Context(), db, 7))
	h.SkipTo(t, rowhooktest.NextRetry("order_paid")) // a retry after a second or an hour takes the test no time
	h.SkipTo(t, rowhooktest.NextRetry("order_paid"))
	heard := h.Wait(t, "order_paid", rowhooktest.Path("new.id", 7))
	require.Equal(t, 3, heard.Attempt)
	require.Equal(t, rowhooktest.Valid, heard.Signature)
}

func TestAPaymentThatNobodyHearsIsKept(t *testing.T) {
	h := start(t)
	db := open(t, h)
	h.Respond("order_paid", 500)
	require.NoError(t, shop.Place(t.Context(), db, 7, "Ada"))
	require.NoError(t, shop.Pay(t.Context(), db, 7))
	h.SkipTo(t, rowhooktest.LastRetry("order_paid"))
	require.Len(t, h.DeadLetters(t, "order_paid", rowhooktest.Path("new.id", 7)), 1)
}

func TestWhatIsRolledBackIsRecordedAndToldToNobody(t *testing.T) {
	h := start(t)
	db := open(t, h)
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	require.NoError(t, shop.Place(t.Context(), tx, 7, "Ada"))
	rowhooktest.RequireRecorded(t, tx, "order_placed", rowhooktest.Path("new.id", 7))
	require.NoError(t, tx.Rollback())
	h.Never(t, "order_placed")
}
