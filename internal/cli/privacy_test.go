package cli_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/pgtest"
)

func TestCommandsShowNothingOfWhatATriggerMasksAndEraseTakesItOut(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, "create table people (id bigint primary key, email text, address jsonb)")
	echo := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body [4096]byte
		n, _ := r.Body.Read(body[:])
		w.Header().Set("X-Echo", string(body[:n]))
		w.WriteHeader(http.StatusUnprocessableEntity)
		_, _ = w.Write(body[:n])
	}))
	t.Cleanup(echo.Close)
	file := write(t, "rowhook.yaml", fmt.Sprintf(`
triggers:
  - name: person
    table: public.people
    on: {insert: true}
    payload: {mask: [email, "address.*"]}
    webhook: {url: %q}
    retry: {limit: 0}
    breaker: off
`, echo.URL))
	env := database(db.URL())
	run := start(t, env, "run", "-f", file, "--log-level", "debug")
	run.stderr.waitFor(t, "ready")
	db.Exec(t, `insert into people values (7, 'secret@example.com', '{"city": "secret city"}'), (8, 'open@example.com', null)`)
	must := func(args ...string) string {
		t.Helper()
		code, stdout, stderr := rowhook(t, env, args...)
		require.Zero(t, code, stderr)
		return stdout + stderr
	}
	must("drain", "--timeout", "30s")
	run.stderr.waitFor(t, "now a dead letter")
	page := decode[operate.Page](t, must("events", "list", "--json"))
	require.Len(t, page.Events, 2)
	var all strings.Builder
	for _, args := range [][]string{
		{"events", "list"}, {"events", "list", "--json", "--with-payload"}, {"events", "show", page.Events[0].ID}, {"events", "show", page.Events[1].ID},
		{"events", "show", page.Events[1].ID, "--json"}, {"status"}, {"status", "--json"}, {"triggers"}, {"triggers", "person"}, {"audit"},
		{"test", "person", "--dry-run", "--payload", `{"id": 7, "email": "secret@example.com"}`},
	} {
		all.WriteString(must(args...))
	}
	code, stdout, stderr := rowhook(t, env, "test", "person", "--payload", `{"id": 7, "email": "secret@example.com"}`)
	require.Equal(t, 1, code)
	all.WriteString(stdout + stderr + run.stderr.String())
	require.NotContains(t, all.String(), "secret")
	for _, shown := range []string{`"email":"<masked>"`, "answered 422", "email, address.*"} {
		require.Contains(t, all.String(), shown)
	}
	code, _, stderr = rowhook(t, env, "events", "list", "--payload", "new.email=secret@example.com")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, `new.email: the trigger "person" masks it, so no events can be chosen by it`)

	code, _, stderr = rowhook(t, env, "erase", "--payload", "new.email=secret@example.com")
	require.Equal(t, 2, code, "nobody there to ask")
	require.Contains(t, stderr, "Erase the data of 1 event?")
	require.Contains(t, stderr, "1  among the dead letters: deleted")
	require.Equal(t, "No events match.\n", must("erase", "--payload", "new.email=nobody@example.com"))
	text := must("erase", "--payload", "new.email=secret@example.com", "--yes")
	require.Contains(t, text, "1 event deleted, 0 events erased in the archive, 1 attempt in the log.\n")
	require.Len(t, decode[operate.Page](t, must("events", "list", "--json")).Events, 1)
	audit := must("audit", "--action", "erase")
	require.Contains(t, audit, `keys: ["new.email"]`)
	require.NotContains(t, audit, "secret")
	code, _, stderr = rowhook(t, env, "erase")
	require.Equal(t, 2, code)
	require.Contains(t, stderr, "give a condition such as --payload")
}
