package cli_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/sqlschema"
)

// standing is what a process says of a source.
type standing struct {
	Source, Status string
	Schema         int32
	Checks         []struct {
		Name, Detail, Remedy string
		OK                   bool
	}
}

// migrated is what the check of the schema says: whether it is ok, and why not, with what to do.
func (s *standing) migrated() (ok bool, text string) {
	for _, c := range s.Checks {
		if c.Name == "migrated" {
			return c.OK, strings.TrimSpace(c.Detail + ": " + c.Remedy)
		}
	}
	return false, "no check"
}

// standings asks a process how its sources stand.
func standings(t *testing.T, address string) map[string]*standing {
	t.Helper()
	_, text := ask(t, "GET", address, "/api/v1/sources", "", "")
	var all struct{ Sources []*standing }
	require.NoError(t, json.Unmarshal([]byte(text), &all), text)
	by := map[string]*standing{}
	for _, s := range all.Sources {
		by[s.Source] = s
	}
	return by
}

// shops are three databases by the names of their sources.
func shops(t *testing.T) (dbs map[string]*pgtest.DB, urls map[string]string, names []string) {
	t.Helper()
	dbs, urls, names = map[string]*pgtest.DB{}, map[string]string{}, []string{"eu", "us", "ap"}
	for _, name := range names {
		dbs[name] = shop(t)
		urls[name] = dbs[name].URL()
	}
	return dbs, urls, names
}

// newestSchema is the version of the schema that the program makes.
func newestSchema(t *testing.T, db *pgtest.DB) int32 {
	t.Helper()
	_, newest, err := sqlschema.Version(t.Context(), db.Conn(t))
	require.NoError(t, err)
	return newest
}

// The process that is killed meanwhile leaves what it had to the other one.
func TestSourcesWhoseSchemasAreVersionsApartLoseNothingAndItIsSaidWhoLags(t *testing.T) {
	t.Parallel()
	dbs, urls, names := shops(t)
	s, receiverURL := receiver(t)
	many := manySources(t, receiverURL, urls)
	one, first := many.run(t)
	two, second := many.run(t)
	awaitOne(t, names, one, two)
	newest, row := newestSchema(t, dbs["eu"]), 0
	write := func(to ...string) {
		row++
		for _, name := range to {
			dbs[name].Exec(t, fmt.Sprintf("insert into orders values (%d, 1, 'a')", row))
		}
	}
	write(names...)
	arrived(t, s, 3)

	for source, version := range map[string]int{"us": sqlschema.OldestSchema, "ap": sqlschema.OldestSchema - 1} {
		code, _, stderr := rowhook(t, many.env, "migrate", "--to", fmt.Sprint(version), "--yes", "--source", source)
		require.Zero(t, code, stderr)
	}
	older := fmt.Sprintf(`the schema rowhook is at version %d, and this program expects %d: run "rowhook migrate --source us"`, sqlschema.OldestSchema, newest)
	tooOld := fmt.Sprintf(`the schema rowhook is at version %d, and this program needs %d: run "rowhook migrate --source ap"`, sqlschema.OldestSchema-1, sqlschema.OldestSchema)
	for _, address := range []string{first, second} {
		require.Eventually(t, func() bool {
			is := standings(t, address)
			ok, text := is["us"].migrated()
			works, why := is["ap"].migrated()
			return ok && is["us"].Status == "ready" && is["us"].Schema == sqlschema.OldestSchema && strings.HasPrefix(text, older) &&
				!works && is["ap"].Status == "not ready" && is["ap"].Schema < sqlschema.OldestSchema && strings.HasPrefix(why, tooOld)
		}, patience, tick, "whether it serves the source or stands by")
		ok, text := standings(t, address)["eu"].migrated()
		require.True(t, ok)
		require.Equal(t, ":", text, "there is nothing to say")
		_, text = ask(t, "GET", address, "/metrics", "", "")
		for source, version := range map[string]int32{"eu": newest, "us": sqlschema.OldestSchema, "ap": sqlschema.OldestSchema - 1} {
			require.Contains(t, text, fmt.Sprintf(`rowhook_schema_version{source="%s"} %d`, source, version))
		}
		require.Contains(t, text, `rowhook_source_ready{source="us"} 1`)
		require.Contains(t, text, `rowhook_source_ready{source="ap"} 0`)
	}
	write(names...)
	arrived(t, s, 5)

	code, stdout, stderr := rowhook(t, many.env, "status")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "1 of 3 sources failed: ap")
	flat := strings.Join(strings.Fields(stdout), " ")
	require.Contains(t, flat, "us ! "+older)
	require.Contains(t, flat, "ap "+tooOld)
	require.Equal(t, 1, strings.Count(flat, "this program expects"))

	for _, p := range []*process{one, two} { // also the one that has stood by, and can't take over
		p.stderr.waitFor(t, `source=ap.*the schema rowhook is at version`)
	}
	killed, left := one, two
	if awaitOne(t, []string{"us"}, one, two)["us"][0] == two {
		killed, left = two, one
	}
	killed.signal(t, syscall.SIGKILL)
	killed.exit(t)
	write(names...)
	arrived(t, s, 7)

	code, _, stderr = rowhook(t, many.env, "migrate")
	require.Zero(t, code, stderr)
	arrived(t, s, 9)
	write(names...)
	rows := map[string]int{}
	for _, d := range arrived(t, s, 12) {
		rows[string(d.New())]++
	}
	require.Len(t, rows, row)
	code, stdout, stderr = rowhook(t, many.env, "status")
	require.Zero(t, code, stderr)
	require.NotContains(t, stdout, "this program")
	left.signal(t, syscall.SIGTERM)
	require.Zero(t, left.exit(t))
	for _, name := range names {
		require.Zero(t, count(t, dbs[name], "rowhook.event_log"))
	}
}

// A newer program has migrated one of them. The process that lags is this one.
func TestAProcessIsSaidToLagBehindTheSchemaOfASource(t *testing.T) {
	t.Parallel()
	dbs, urls, names := shops(t)
	s, receiverURL := receiver(t)
	many := manySources(t, receiverURL, urls)
	p, address := many.run(t)
	awaitOne(t, names, p)
	newest := newestSchema(t, dbs["eu"])
	migrate := func(version, compatible int32) {
		dbs["us"].Exec(t, fmt.Sprintf("update rowhook.schema_version set version = %d; update rowhook.setting set value = '%d' where name = 'compatible'", version, compatible))
	}
	await := func(status string, works bool, what string) {
		t.Helper()
		require.Eventually(t, func() bool {
			is := standings(t, address)
			ok, text := is["us"].migrated()
			return is["us"].Status == status && ok == works && strings.Contains(text, what) && is["eu"].Status == "ready"
		}, patience, tick)
	}
	migrate(newest+1, newest)
	await("ready", true, fmt.Sprintf("at version %d, and this program knows versions up to %d: it is older than the one that migrated it", newest+1, newest))
	dbs["us"].Exec(t, "insert into orders values (1, 1, 'a')")
	arrived(t, s, 1)

	migrate(newest+2, newest+2)
	await("not ready", false, "a newer Rowhook migrated it; use that version or a later one")
	dbs["us"].Exec(t, "insert into orders values (2, 1, 'a')")
	dbs["eu"].Exec(t, "insert into orders values (2, 1, 'a')")
	arrived(t, s, 2)
	conn := dbs["us"].Conn(t)
	require.Eventually(t, func() bool { // the outcome of the one before may be written only now
		var waiting int
		return conn.QueryRow(t.Context(), "select count(*) from rowhook.event_log").Scan(&waiting) == nil && waiting == 1
	}, patience, tick)
	migrate(newest, newest-1)
	arrived(t, s, 3)
	await("ready", true, "")
}
