package sqlschema_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

// Databases may grant rights on new objects to others. Nobody gets rights on an object of Rowhook
// that way.
func TestDefaultPrivilegesOpenNothingOfRowhooks(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	w := watched{db, db.Conn(t)}
	report, _ := w.Role(t)
	owner, _ := w.Role(t)
	dispatcher, _ := w.Role(t)
	for _, what := range []string{"all on tables", "all on sequences", "all on functions", "usage, create on schemas", "all on types"} {
		for _, to := range []string{report, "public"} {
			w.do(t, "alter default privileges grant "+what+" to "+to)
		}
	}
	w.do(t, "alter default privileges grant all on tables to "+report+" with grant option")
	nothing := func() {
		t.Helper()
		require.Empty(t, rights(t, w.conn, report))
		foreign, err := sqlschema.ForeignGrants(t.Context(), w.conn)
		require.NoError(t, err)
		require.Empty(t, foreign)
	}
	require.NoError(t, sqlschema.MigrateTo(t.Context(), w.conn, 2, nil))
	nothing()
	require.NoError(t, sqlschema.Migrate(t.Context(), w.conn, nil))
	nothing()
	_, err := sqlschema.Grant(t.Context(), w.conn, []string{dispatcher})
	require.NoError(t, err)
	require.NoError(t, sqlschema.MigrateTo(t.Context(), w.conn, 2, nil))
	require.NoError(t, sqlschema.Migrate(t.Context(), w.conn, nil))
	require.Equal(t, granted(), rights(t, w.conn, dispatcher))
	w.do(t, "create table t (a int, b int); create table u (a int); revoke all on t, u from "+report+", public; alter table u owner to "+owner)
	require.Empty(t, w.apply(t, all("t", "t", payload("a")), all("u", "u")).Warnings)
	w.do(t, "select rowhook.ensure_partitions(now(), now() + interval '9 days')", "insert into t values (1)", "insert into u values (1)")
	require.Len(t, w.take(t), 2)
	nothing()
	require.NotContains(t, strings.Join(rights(t, w.conn, owner), "\n"), "table event")
}

func TestForeignGrantsAreToldByApplyAndStatusAndMeantOnesAreNot(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (a int); create table u (a int)")
	owner, _ := w.Role(t)
	app, _ := w.Role(t)
	dispatcher, _ := w.Role(t)
	_, err := sqlschema.Grant(t.Context(), w.conn, []string{dispatcher})
	require.NoError(t, err)
	w.do(t, "alter table u owner to "+owner, "grant usage on schema rowhook to "+app, "grant execute on function rowhook.emit to "+app)
	reader, _ := w.Role(t)
	// docs/operations.md says to grant these.
	w.do(t, "grant usage on schema rowhook to "+reader, "grant select on rowhook.events to "+reader)
	tester, _ := w.Role(t)
	w.do(t, "grant usage on schema rowhook to "+tester, "grant execute on function rowhook.recorded to "+tester)
	specs := []trigger.Spec{all("t", "t"), all("u", "u")}
	require.Empty(t, w.apply(t, specs...).Warnings)
	look := w.Conn(t)
	for _, right := range []string{
		"select on rowhook.event_log to " + app, "update (spec) on rowhook.trigger to " + app, "update on sequence rowhook.doorbell to " + owner,
		"create on schema rowhook to " + owner, "execute on function rowhook.remove_partition(text) to public", "select on rowhook.dead_letter to " + dispatcher,
	} {
		w.do(t, "grant "+right)
		what, role, _ := strings.Cut(right, " to ")
		if role == "public" {
			role = "everybody (public)"
		}
		warnings := w.plan(t, specs...).Warnings
		require.Len(t, warnings, 1, right)
		require.Contains(t, warnings[0], role+" has rights in the schema rowhook that Rowhook did not grant: "+what)
		require.Contains(t, warnings[0], "revoke "+what)
		status, err := operate.ReadStatus(t.Context(), look)
		require.NoError(t, err)
		require.Len(t, status.Warnings, 1)
		require.Equal(t, "foreign_grants", status.Warnings[0].Code)
		remedy, _, _ := strings.Cut(strings.TrimPrefix(status.Warnings[0].Remedy, `run "`), `"`)
		w.do(t, remedy)
		require.Empty(t, w.plan(t, specs...).Warnings, remedy)
	}
}

// TestFormerOwnersKeepNoRightsOfCaptures moves a trigger off a table of another owner, removes one,
// and gives a table away. A dispatcher, and a role that may call emit, keep what they need.
func TestFormerOwnersKeepNoRightsOfCaptures(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table a (id int); create table b (id int); create table c (id int); create table mine (id int)")
	moved, _ := w.Role(t)
	removed, _ := w.Role(t)
	gave, _ := w.Role(t)
	takes, _ := w.Role(t)
	dispatcher, _ := w.Role(t)
	caller, _ := w.Role(t)
	for table, owner := range map[string]string{"a": moved, "b": removed, "c": gave} {
		w.Exec(t, "alter table "+table+" owner to "+owner)
	}
	w.apply(t, all("a", "a"), all("b", "b"), all("c", "c"))
	for _, role := range []string{dispatcher, caller} {
		w.Exec(t, "create table of_"+role+" (id int); alter table of_"+role+" owner to "+role)
	}
	_, err := sqlschema.Grant(t.Context(), w.conn, []string{dispatcher})
	require.NoError(t, err)
	w.Exec(t, "grant execute on function rowhook.emit to "+caller)
	w.apply(t, all("a", "a"), all("b", "b"), all("c", "c"), all("d", "of_"+dispatcher), all("e", "of_"+caller))
	w.Exec(t, "alter table c owner to "+takes)
	w.apply(t, all("a", "mine"), all("c", "c"))

	found, err := sqlschema.ForeignGrants(t.Context(), w.conn)
	require.NoError(t, err)
	require.Empty(t, found)
	const may = "select has_schema_privilege('%s', 'rowhook', 'USAGE')"
	for role, want := range map[string]string{moved: "f", removed: "f", gave: "f", takes: "t", dispatcher: "t", caller: "t"} {
		require.Equal(t, want, w.scalar(t, fmt.Sprintf(may, role))[:1], role)
	}
	require.Equal(t, "f", w.scalar(t, "select has_function_privilege('"+moved+"', 'rowhook.uuid7()', 'EXECUTE')")[:1])
	lacking, err := sqlschema.PlanGrants(t.Context(), w.conn, []string{dispatcher})
	require.NoError(t, err)
	require.Empty(t, lacking, "what a dispatcher needs")
	w.Exec(t, "insert into c values (1)")
}
