package browser_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSigningInAndOut(t *testing.T) {
	t.Parallel()
	h := newHouse(t, "orders")
	tb := newPerson(t).Tab(t, h, "")
	tb.Expects(`401`)
	tb.Sees("main", "A token is needed")
	tb.Types("main", "Token", "0123456789abcdef-of-nobody")
	tb.Clicks("main", "Sign in")
	tb.Sees("main", "This token is not valid")
	tb.Types("main", "Token", adminToken)
	tb.Clicks("main", "Sign in")
	tb.Sees("main", "orders")
	tb.Clicks("header", "Sign out")
	tb.Sees("main", "A token is needed")
	tb.SeesNot("body", "public.orders")
}

func TestALinkWithATokenSignsInWhereverItIsOpened(t *testing.T) {
	t.Parallel()
	h := newHouse(t, "orders")
	tb := newPerson(t).Tab(t, h, "#token=cut%")
	tb.Expects("401")
	tb.Sees("main", "This token is not valid")
	require.Equal(t, "#/", tb.Hash())
	tb.Goes("#token=" + adminToken) // which does not load the page again
	tb.Sees("main", "public.orders")
	require.Equal(t, "#/", tb.Hash(), "the token stays in no address")
}
