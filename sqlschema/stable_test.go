package sqlschema_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/trigger"
)

// stableSpecs are triggers whose functions have bodies of every kind.
func stableSpecs() (tables string, specs []trigger.Spec) {
	return "create type mood as enum ('a', 'b'); create table t (id int primary key, a text, b numeric, c mood); create table u (id int primary key, a timestamptz)",
		[]trigger.Spec{
			all("row", "public.t", orderBy()), all("columns", "public.t", orderBy("a", "b", "c"), payload("a", "c")), all("rows", "public.u", orderBy("a"), capturedBy(trigger.CaptureRows)),
			all("plain", "public.u"), all("chosen", "public.u", payload("a")),
		}
}

// TestAPlanStaysEmptyWhereverTheCatalogKeepsItsRows has the functions of a trigger come in another
// order. Their names are the same, and the catalog gives those out as they lie.
func TestAPlanStaysEmptyWhereverTheCatalogKeepsItsRows(t *testing.T) {
	t.Parallel()
	tables, specs := stableSpecs()
	w := newWatched(t, tables, specs...)
	for _, statement := range []string{
		"alter function rowhook.payload_1(t) cost 101", "alter function rowhook.payload_1(t) cost 100",
		"alter function rowhook.payload_1(t, text) cost 101", "alter function rowhook.payload_1(t, text) cost 100",
		"analyze", "vacuum full pg_catalog.pg_proc",
	} {
		w.do(t, statement)
		for _, plan := range []string{"on", "off"} {
			w.do(t, "set enable_indexscan = "+plan, "set enable_bitmapscan = "+plan, "set enable_hashjoin = "+plan)
			require.Empty(t, w.plan(t, specs...).String(), "%s, indexes %s", statement, plan)
		}
	}
}

func TestAPlanStaysEmptyWithOtherSettings(t *testing.T) {
	t.Parallel()
	tables, specs := stableSpecs()
	w := newWatched(t, tables, specs...)
	for range 2 {
		w.apply(t, specs...)
	}
	w.do(t, "insert into t values (1, 'x', 1.5, 'a'); update t set id = 2")
	for _, settings := range [][]string{
		{"set search_path = ''"}, {"set search_path = rowhook, public, pg_catalog"}, {"create schema other", "create table other.t (id int)", "set search_path = other, public"},
		{"set timezone = 'Asia/Kathmandu'", "set datestyle = 'German'", "set intervalstyle = 'iso_8601'"}, {"set quote_all_identifiers = on"},
		{"set bytea_output = 'escape'", "set extra_float_digits = -5", "set standard_conforming_strings = off"}, {"set lc_numeric = 'C'", "set client_encoding = 'LATIN1'"},
	} {
		other := watched{w.DB, w.Conn(t)}
		other.do(t, settings...)
		require.Empty(t, other.plan(t, specs...).String(), settings)
	}
}

// TestAPlanStaysEmptyInACopyThatWasApplied restores into a database where all has other numbers. The
// first apply there is due, since the tables have other oids.
func TestAPlanStaysEmptyInACopyThatWasApplied(t *testing.T) {
	t.Parallel()
	if !pgtest.CanDump(t) {
		return
	}
	tables, specs := stableSpecs()
	w := newWatched(t, tables, specs...)
	dup := w.copied(t)
	require.Contains(t, dup.plan(t, specs...).String(), "another oid")
	dup.apply(t, specs...)
	dup.do(t, "alter function rowhook.payload_1(t) cost 101", "vacuum full pg_catalog.pg_proc")
	again := watched{dup.DB, dup.Conn(t)}
	require.Empty(t, again.plan(t, specs...).String())
}
