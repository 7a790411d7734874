package cli_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/faultproxy"
	"github.com/rowhook/rowhook/internal/localpg"
	"github.com/rowhook/rowhook/internal/pgtest"
)

const tick = 50 * time.Millisecond

// sourced is a configuration with sources, and the environment that names their databases.
type sourced struct {
	file string
	env  []string
}

const orderTrigger = `
triggers:
  - name: order_changed
    table: public.orders
    on: {insert: true}
    webhook: {url: "%s/orders"}
    retry: {limit: 2, interval: 100ms}
`

// manySources writes a configuration for databases by the names of their sources, "eu", "us" and so on.
func manySources(t testing.TB, receiver string, urls map[string]string) sourced {
	t.Helper()
	var text strings.Builder
	var s sourced
	text.WriteString("sources:\n")
	for _, name := range []string{"eu", "us", "ap"} {
		if u, ok := urls[name]; ok {
			variable := strings.ToUpper(name) + "_DATABASE_URL"
			fmt.Fprintf(&text, "  %s: {url: \"${%s}\"}\n", name, variable)
			s.env = append(s.env, variable+"="+u)
		}
	}
	fmt.Fprintf(&text, orderTrigger, receiver)
	s.file = write(t, "rowhook.yaml", text.String())
	s.env = append(s.env, "ROWHOOK_SOURCES="+s.file)
	return s
}

// run starts a process that works on the sources, and returns the address of its HTTP interface.
func (s sourced) run(t *testing.T) (p *process, address string) {
	t.Helper()
	p = start(t, append(s.env, "ROWHOOK_HTTP=127.0.0.1:0"), "run", "-f", s.file, "--log-format", "text")
	return p, served(t, p)
}

// shop is a database with the table orders.
func shop(t testing.TB) *pgtest.DB {
	t.Helper()
	db := pgtest.NewEmpty(t)
	db.Exec(t, orders)
	return db
}

// shopOf is a database of a server of its own with the table orders.
func shopOf(t testing.TB, server *pgtest.Server) *pgtest.DB {
	t.Helper()
	db := server.NewEmpty(t)
	db.Exec(t, orders)
	return db
}

func TestEachSourceHasTheTriggersThatAreForIt(t *testing.T) {
	t.Parallel()
	eu, us := shop(t), shop(t)
	file := write(t, "rowhook.yaml", `
sources:
  eu: {url: "${EU_DATABASE_URL}"}
  us: {url: "${DATABASE_URL}"}
triggers:
  - {name: both, table: public.orders, on: {insert: true}, webhook: {url: "http://127.0.0.1:1"}}
  - {name: european, for: [eu], table: public.orders, on: {insert: true}, webhook: {url: "http://127.0.0.1:1"}}
`)
	env := []string{"EU_DATABASE_URL=" + eu.URL(), "DATABASE_URL=" + us.URL()}
	code, stdout, stderr := rowhook(t, env, "apply", "-f", file, "--dry-run", "--exit-code")
	require.Equal(t, 3, code, stderr)
	require.Regexp(t, `(?s)^eu\n.*european.*\n\nus\n.*both`, stdout)
	require.NotRegexp(t, `(?s)\nus\n.*european`, stdout)

	code, _, stderr = rowhook(t, env, "apply", "-f", file, "--source", "eu")
	require.Zero(t, code, stderr)
	require.Zero(t, count(t, us, "pg_namespace where nspname = 'rowhook'"), "it was not named")
	code, stdout, stderr = rowhook(t, env, "apply", "-f", file, "--json")
	require.Zero(t, code, stderr)
	var done struct {
		Sources []struct {
			Source string
			Error  string
		}
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &done), stdout)
	require.Len(t, done.Sources, 2)
	require.Equal(t, "us", done.Sources[1].Source)
	require.Equal(t, 2, count(t, eu, "rowhook.trigger"))
	require.Equal(t, 1, count(t, us, "rowhook.trigger"))
	code, _, stderr = rowhook(t, env, "apply", "-f", file, "--dry-run", "--exit-code")
	require.Zero(t, code, stderr)

	require.Zero(t, count(t, eu, "rowhook.setting where value::text like '%DATABASE_URL%'"))
	require.Zero(t, count(t, eu, "rowhook.trigger where spec::text like '%\"for\"%'"))
}

func TestApplyNamesTheSourcesThatFail(t *testing.T) {
	t.Parallel()
	eu, us := shop(t), pgtest.NewEmpty(t)
	s := manySources(t, "http://127.0.0.1:1", map[string]string{"eu": eu.URL(), "us": us.URL(), "ap": "postgres://u:hunter2secret@" + closedPort(t) + "/d"})
	code, stdout, stderr := rowhook(t, s.env, "apply", "-f", s.file, "--connect-timeout", "0")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "2 of 3 sources failed: us, ap")
	require.Regexp(t, `(?s)us\n.*triggers\[0\]\.table: .*orders`, stdout)
	require.Regexp(t, `(?s)ap\n.*connection refused`, stdout)
	require.NotContains(t, stdout+stderr, "hunter2secret")
	require.Equal(t, 1, count(t, eu, "rowhook.trigger"), "the others are applied")
}

func TestWrongSourcesAreWrongUsage(t *testing.T) {
	t.Parallel()
	s := manySources(t, "http://127.0.0.1:1", map[string]string{"eu": "postgres://127.0.0.1:1/d", "us": "postgres://127.0.0.1:1/e"})
	same := manySources(t, "http://127.0.0.1:1", map[string]string{"eu": "postgres://127.0.0.1:1/d?user=u", "us": "host=127.0.0.1 port=1 user=u dbname=d"})
	plain := ordersConfig(t, "http://127.0.0.1:1")
	for name, c := range map[string]struct {
		env  []string
		args []string
		want string
	}{
		"an unknown source":         {s.env, []string{"status", "--source", "uz"}, `has no source "uz"; did you mean us`},
		"no sources":                {nil, []string{"status", "--source", "eu"}, "no sources are known: name the configuration that has them by --sources or ROWHOOK_SOURCES"},
		"a change without a source": {s.env, []string{"pause", "--all"}, "has several sources: add --source and one of eu, us"},
		"an uninstall of all":       {s.env, []string{"uninstall", "--yes"}, "has several sources: add --source and one of eu, us"},
		"two answers":               {nil, []string{"status", "--database-url", "postgres://127.0.0.1:1/d", "--sources", s.file}, "--database-url names one database, and --sources says which of several"},
		"a database and sources":    {s.env, []string{"apply", "--dry-run", "-f", s.file, "--database-url", "postgres://127.0.0.1:1/d"}, "--database-url names one database, and " + s.file + " has sources: leave it out"},
		"to run that":               {s.env, []string{"run", "-f", s.file, "--database-url", "postgres://127.0.0.1:1/d", "--http", "off"}, "--database-url names one database, and " + s.file + " has sources"},
		"one database twice":        {same.env, []string{"run", "-f", same.file, "--http", "off"}, `rowhook.yaml:3:13: sources.us.url: names the database of the source "eu"`},
		"to apply that":             {same.env, []string{"apply", "-f", same.file}, `rowhook.yaml:3:13: sources.us.url: names the database of the source "eu"`},
		"a listen URL":              {append(s.env, "ROWHOOK_LISTEN_URL=postgres://127.0.0.1:1/d"), []string{"run", "-f", s.file}, "write listen_url in each of them"},
		"a variable that is unset":  {s.env[1:], []string{"run", "-f", s.file}, "rowhook.yaml:2:13: sources.eu.url: environment variable EU_DATABASE_URL is not set; set it where this program runs"},
		"a file without sources":    {nil, []string{"status", "--sources", plain}, "has no sources; write it like"},
	} {
		code, _, stderr := rowhook(t, c.env, c.args...)
		require.Equal(t, 2, code, "%s: %s", name, stderr)
		require.Contains(t, stderr, c.want, name)
	}
}

func TestStatusShowsTheOthersWhenASourceIsAway(t *testing.T) {
	t.Parallel()
	eu := shop(t)
	s := manySources(t, "http://127.0.0.1:1", map[string]string{"eu": eu.URL(), "us": "postgres://u:hunter2secret@" + closedPort(t) + "/d"})
	code, _, stderr := rowhook(t, s.env, "apply", "-f", s.file, "--source", "eu")
	require.Zero(t, code, stderr)

	code, stdout, stderr := rowhook(t, s.env, "status", "--connect-timeout", "0")
	require.Equal(t, 1, code)
	require.Regexp(t, `(?s)^eu\n.*order_changed.*\n\nus\n.*connection refused`, stdout)
	require.Contains(t, stderr, "1 of 2 sources failed: us")
	require.NotContains(t, stdout+stderr, "hunter2secret")

	code, stdout, _ = rowhook(t, s.env, "status", "--json", "--connect-timeout", "0")
	require.Equal(t, 1, code)
	var said struct {
		Sources []struct {
			Source, Error string
			Triggers      []struct{ Name string }
		}
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &said), stdout)
	require.Len(t, said.Sources, 2)
	require.Equal(t, "eu", said.Sources[0].Source)
	require.Equal(t, "order_changed", said.Sources[0].Triggers[0].Name)
	require.Equal(t, "us", said.Sources[1].Source)
	require.Contains(t, said.Sources[1].Error, "connection refused")

	code, stdout, stderr = rowhook(t, s.env, "status", "--json", "--source", "eu")
	require.Zero(t, code, stderr)
	require.NotContains(t, stdout, `"sources"`, "that of one source is as that of one database")
	code, _, stderr = rowhook(t, s.env, "pause", "--all", "--source", "eu")
	require.Zero(t, code, stderr)
}

func TestWhatOneSourceHasIsFoundAmongAll(t *testing.T) {
	t.Parallel()
	eu, us := shop(t), shop(t)
	s := manySources(t, "http://127.0.0.1:1", map[string]string{"eu": eu.URL(), "us": us.URL()})
	code, _, stderr := rowhook(t, s.env, "apply", "-f", s.file)
	require.Zero(t, code, stderr)
	us.Exec(t, "insert into orders values (1, 1, 'a')")
	var id string
	require.NoError(t, us.Conn(t).QueryRow(t.Context(), "select id::text from rowhook.event_log").Scan(&id))
	code, stdout, stderr := rowhook(t, s.env, "events", "show", id)
	require.Zero(t, code, stderr)
	require.Regexp(t, `^us\n`, stdout)
	code, _, stderr = rowhook(t, s.env, "pause", "--all", "--source", "us")
	require.Zero(t, code, stderr)
	for _, args := range [][]string{{}, {"--source", "us"}, {"--json"}} {
		code, stdout, stderr = rowhook(t, s.env, append([]string{"events", "show", id}, args...)...)
		require.Zero(t, code, stderr)
		require.Contains(t, stdout, "when the trigger is resumed: rowhook resume --source us order_changed")
	}
	code, stdout, stderr = rowhook(t, s.env, "events", "list", "--json")
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, `"source": "eu"`)
	code, _, stderr = rowhook(t, s.env, "events", "show", "00000000-0000-7000-8000-000000000000")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "2 of 2 sources failed")
}

func TestRunServesEachSourceAndOneThatIsAwayWhenItIsBack(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t)
	eu, us := shop(t), shopOf(t, server)
	server.Stop(t, localpg.Fast)
	s, receiverURL := receiver(t)
	many := manySources(t, receiverURL, map[string]string{"eu": eu.URL(), "us": us.URL()})
	p := start(t, append(many.env, "ROWHOOK_HTTP=127.0.0.1:0"), "run", "-f", many.file, "--poll-interval", "1h")
	address := served(t, p)
	p.stderr.waitFor(t, `ready.*source=eu`)
	p.stderr.waitFor(t, `not applied to the source.*source=us.*connection refused`)
	eu.Exec(t, "insert into orders values (1, 1, 'a')")
	arrived(t, s, 1)

	require.Eventually(t, func() bool {
		status, _ := ask(t, "GET", address, "/readyz", "", "")
		return status == http.StatusOK
	}, patience, tick, "one source is enough, once the others were tried")
	status, text := ask(t, "GET", address, "/readyz", "", "")
	require.Equal(t, http.StatusOK, status, text)
	require.Regexp(t, `"source": ?"us",\s*"status": ?"not ready"`, text)
	require.Contains(t, text, "not ready: us")
	require.Contains(t, text, "nothing listens there (connection refused); start Postgres, or correct host and port in url of the source us")
	require.Eventually(t, func() bool { // the receiver has it before the answer is counted
		_, text = ask(t, "GET", address, "/metrics", "", "")
		return strings.Contains(text, `rowhook_attempts_total{outcome="delivered",source="eu",trigger="order_changed"} 1`)
	}, patience, tick)
	require.Contains(t, text, `rowhook_source_ready{source="eu"} 1`)
	require.Contains(t, text, `rowhook_source_ready{source="us"} 0`)
	require.Contains(t, text, `rowhook_claiming{source="us"} 0`)
	status, text = ask(t, "GET", address, "/api/v1/status?source=us", "", "")
	require.Equal(t, http.StatusServiceUnavailable, status, text)
	status, text = ask(t, "GET", address, "/api/v1/status", "", "")
	require.Equal(t, http.StatusBadRequest, status, text)
	require.Contains(t, text, "source_needed")
	status, text = ask(t, "GET", address, "/api/v1/status?source=eu", "", "")
	require.Equal(t, http.StatusOK, status, text)
	status, text = ask(t, "GET", address, "/api/v1/sources", "", "")
	require.Equal(t, http.StatusOK, status, text)
	require.Contains(t, text, `"us"`)
	require.Equal(t, 1, strings.Count(p.stderr.String(), "not applied to the source"), "said once")

	server.Start(t)
	p.stderr.waitFor(t, `ready.*source=us`)
	us.Exec(t, "insert into orders values (1, 1, 'a')")
	arrived(t, s, 2)
	p.signal(t, syscall.SIGTERM)
	require.Zero(t, p.exit(t))
	require.Zero(t, count(t, eu, "rowhook.instance"))
	require.Zero(t, count(t, us, "rowhook.instance"))
}

// It counts from when a table is found missing, and not from the start: the database may come later.
func TestASourceWaitsForItsTablesFromWhenTheyAreMissed(t *testing.T) {
	t.Parallel()
	eu, us := shop(t), pgtest.NewEmpty(t)
	_, receiverURL := receiver(t)
	many := manySources(t, receiverURL, map[string]string{"eu": eu.URL(), "us": us.URL()})
	p := start(t, append(many.env, "ROWHOOK_HTTP=off"), "run", "-f", many.file, "--wait-for-tables", "1ms")
	p.stderr.waitFor(t, `waiting for tables that do not exist yet.*source=us.*missing="the table public.orders"`)
	p.stderr.waitFor(t, `there is no table public.orders`)
	us.Exec(t, orders)
	p.stderr.waitFor(t, `ready.*source=us`)
}

func TestASourceThatIsReadOnlyIsSaidWithARemedy(t *testing.T) {
	t.Parallel()
	eu := shop(t)
	s := manySources(t, "http://127.0.0.1:1", map[string]string{"eu": eu.URL()})
	code, _, stderr := rowhook(t, s.env, "apply", "-f", s.file)
	require.Zero(t, code, stderr)
	eu.Exec(t, "do $$ begin execute format('alter database %I set default_transaction_read_only = on', current_database()); end $$")
	p := start(t, s.env, "run", "-f", s.file, "--http", "off")
	p.stderr.waitFor(t, `the source is not served.*source=eu.*connect to the primary, as a role whose default_transaction_read_only is off`)
	p.signal(t, syscall.SIGTERM)
	require.Zero(t, p.exit(t))
}

// behind returns a connection string that leads through a proxy to the database of another one.
func behind(t testing.TB, raw string) (*faultproxy.Proxy, string) {
	t.Helper()
	u, err := url.Parse(raw)
	require.NoError(t, err)
	proxy, err := faultproxy.Listen(t.Context(), u.Host)
	require.NoError(t, err)
	t.Cleanup(proxy.Close)
	u.Host = proxy.Addr()
	return proxy, u.String()
}

func TestASourceThatHangsHoldsUpNothing(t *testing.T) {
	t.Parallel()
	eu, us := shop(t), shop(t)
	proxy, through := behind(t, us.URL())
	proxy.Set(faultproxy.Stall)
	s, receiverURL := receiver(t)
	many := manySources(t, receiverURL, map[string]string{"eu": eu.URL(), "us": through})
	p := start(t, append(many.env, "ROWHOOK_HTTP=127.0.0.1:0"), "run", "-f", many.file)
	address := served(t, p)
	p.stderr.waitFor(t, `ready.*source=eu`)
	eu.Exec(t, "insert into orders values (1, 1, 'a')")
	arrived(t, s, 1)
	_, text := ask(t, "GET", address, "/metrics", "", "")
	require.Contains(t, text, `rowhook_source_ready{source="us"} 0`)
	proxy.Set(faultproxy.Pass)
	p.stderr.waitFor(t, `ready.*source=us`)
	us.Exec(t, "insert into orders values (1, 1, 'a')")
	arrived(t, s, 2)

	proxy.Set(faultproxy.Stall)
	eu.Exec(t, "insert into orders values (2, 1, 'a')")
	arrived(t, s, 3)
	p.signal(t, syscall.SIGTERM)
	p.exit(t)
	require.Zero(t, count(t, eu, "rowhook.instance"), "the others stop as ever")
}

// servedBy returns which of these processes serve each source, as their logs say.
func servedBy(names []string, running ...*process) map[string][]*process {
	by := map[string][]*process{}
	for _, p := range running {
		for _, name := range names {
			text := p.stderr.String()
			ready := strings.LastIndex(text, "INF ready source="+name+" ")
			// A dispatcher that is to leave before it is ready may still say that it is.
			if ready >= 0 && ready > strings.LastIndex(text, "this one stands by, and ends what it has in flight source="+name) &&
				ready > strings.LastIndex(text, "standing by: another process serves the source source="+name) {
				by[name] = append(by[name], p)
			}
		}
	}
	return by
}

// awaitOne waits until each source is served by one of these processes, and returns by which.
func awaitOne(t testing.TB, names []string, running ...*process) (by map[string][]*process) {
	t.Helper()
	require.Eventually(t, func() bool {
		by = servedBy(names, running...)
		for _, name := range names {
			if len(by[name]) != 1 {
				return false
			}
		}
		return true
	}, patience, tick)
	return by
}

func TestThreeProcessesShareSourcesAndTakeOverFromOneThatIsKilled(t *testing.T) {
	t.Parallel()
	dbs, urls, names := shops(t)
	s, receiverURL := receiver(t)
	many := manySources(t, receiverURL, urls)
	rows, all := 0, 0
	write := func() {
		rows++
		for _, name := range names {
			dbs[name].Exec(t, fmt.Sprintf("insert into orders values (%d, 1, 'a')", rows))
			all++
		}
		arrived(t, s, all)
	}
	one, _ := many.run(t)
	awaitOne(t, names, one)
	two, _ := many.run(t)
	three, address := many.run(t)
	write()
	require.Eventually(t, func() bool {
		_, text := ask(t, "GET", address, "/api/v1/sources", "", "")
		return strings.Count(strings.ReplaceAll(text, " ", ""), `"processes":3`) == 3 && strings.Count(strings.ReplaceAll(text, " ", ""), `"serving":1`) == 3
	}, patience, tick)
	// A process counts as soon as it asks for a share, and says later what it has decided for each source.
	// Then whoever served before may still have to notice.
	for _, p := range []*process{two, three} {
		for _, name := range names {
			p.stderr.waitFor(t, "INF (ready|standing by.*) source="+name+`\b`)
		}
	}
	require.Eventually(t, func() bool {
		status, _ := ask(t, "GET", address, "/readyz", "", "")
		return status == http.StatusOK
	}, patience, tick)
	by := awaitOne(t, names, one, two, three)
	write()
	for _, name := range names {
		var is struct {
			Instances, Standby []struct{ Name string }
		}
		require.Eventually(t, func() bool { // who has just left it may still be there
			_, text := ask(t, "GET", address, "/api/v1/status?source="+name, "", "")
			return json.Unmarshal([]byte(text), &is) == nil && len(is.Instances) == 1 && len(is.Standby) == 2
		}, patience, tick)
		serves := by[name][0].cmd.Process.Pid
		require.Regexp(t, fmt.Sprintf(`.:%d$`, serves), is.Instances[0].Name)
		_, stdout, _ := rowhook(t, many.env, "status", "--source", name)
		require.Regexp(t, fmt.Sprintf(`dispatcher \d+ +\S+:%d `, serves), stdout)
		for _, p := range []*process{one, two, three} {
			if p.cmd.Process.Pid != serves {
				require.Regexp(t, fmt.Sprintf(`standing by .*:%d\b`, p.cmd.Process.Pid), stdout)
			}
		}
	}
	require.Eventually(t, func() bool {
		_, text := ask(t, "GET", address, "/metrics", "", "")
		for _, name := range names {
			own := by[name][0] == three
			if !strings.Contains(text, fmt.Sprintf(`rowhook_source_served{source="%s"} %d`, name, map[bool]int{true: 1}[own])) ||
				!strings.Contains(text, fmt.Sprintf(`rowhook_source_ready{source="%s"} 1`, name)) || strings.Contains(text, fmt.Sprintf(`rowhook_claiming{source="%s"}`, name)) != own {
				return false
			}
		}
		return true
	}, patience, tick, "who stands by is ready, and has no metrics of a dispatcher")

	killed := by["eu"][0]
	killed.signal(t, syscall.SIGKILL)
	killed.exit(t)
	var left []*process
	for _, p := range []*process{one, two, three} {
		if p != killed {
			left = append(left, p)
		}
	}
	write()
	after := awaitOne(t, names, left...)
	for _, name := range names {
		if by[name][0] != killed {
			require.Same(t, by[name][0], after[name][0], "%s stays where it is", name)
		}
	}
	again, _ := many.run(t)
	awaitOne(t, names, append(left, again)...)
	write()
	for _, p := range append(left, again) {
		p.signal(t, syscall.SIGTERM)
		require.Zero(t, p.exit(t))
	}
	for _, name := range names {
		conn := dbs[name].Conn(t)
		require.Eventually(t, func() bool {
			var locks int
			return conn.QueryRow(t.Context(), "select count(*) from pg_locks where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())").Scan(&locks) == nil && locks == 0
		}, patience, tick)
	}
}

// The server believes in the sessions of a process that it can't reach any more.
func TestAnotherProcessServesASourceOfOneWhoseSessionsHang(t *testing.T) {
	t.Parallel()
	eu := shop(t)
	s, receiverURL := receiver(t)
	var proxies []*faultproxy.Proxy
	var running []*process
	for range 2 {
		proxy, through := behind(t, eu.URL())
		many := manySources(t, receiverURL, map[string]string{"eu": through})
		p := start(t, many.env, "run", "-f", many.file, "--http", "off", "--log-format", "text")
		p.stderr.waitFor(t, "(ready|standing by).*source=eu")
		proxies, running = append(proxies, proxy), append(running, p)
	}
	by := awaitOne(t, []string{"eu"}, running...)
	eu.Exec(t, "insert into orders values (1, 1, 'a')")
	arrived(t, s, 1)
	for i, p := range running {
		if p == by["eu"][0] {
			proxies[i].Set(faultproxy.Stall)
		} else {
			defer p.stderr.waitFor(t, "ready.*source=eu")
		}
	}
	eu.Exec(t, "insert into orders values (2, 1, 'a')")
	arrived(t, s, 2)
}

func TestHangupAddsAndRemovesSources(t *testing.T) {
	t.Parallel()
	eu, us := shop(t), shop(t)
	s, receiverURL := receiver(t)
	one := manySources(t, receiverURL, map[string]string{"eu": eu.URL()})
	two := manySources(t, receiverURL, map[string]string{"eu": eu.URL(), "us": us.URL()})
	p := start(t, two.env[:2], "run", "-f", one.file, "--http", "off")
	p.stderr.waitFor(t, `ready.*source=eu`)

	replace := func(from sourced) {
		text, err := os.ReadFile(from.file)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(one.file, text, 0o600))
		p.signal(t, syscall.SIGHUP)
	}
	kept, err := os.ReadFile(one.file)
	require.NoError(t, err)
	replace(two)
	p.stderr.waitFor(t, `ready.*source=us`)
	us.Exec(t, "insert into orders values (1, 1, 'a')")
	arrived(t, s, 1)
	instance := instanceOf(t, eu)

	require.NoError(t, os.WriteFile(one.file, kept, 0o600))
	p.signal(t, syscall.SIGHUP)
	p.stderr.waitFor(t, `the source was removed: its events wait.*source=us`)
	p.stderr.waitFor(t, `stopped: all events are settled or given back.*source=us`)
	require.Zero(t, count(t, us, "rowhook.instance"))
	require.NotContains(t, p.stderr.String(), "removed: its events wait, and changes are still captured there, until a dispatcher works on it again or rowhook uninstall ends it source=eu")
	require.Equal(t, instance, instanceOf(t, eu), "the other one goes on as it was")
	eu.Exec(t, "insert into orders values (1, 1, 'a')")
	arrived(t, s, 2)

	require.NoError(t, os.WriteFile(one.file, []byte(ordersText(receiverURL)), 0o600))
	p.signal(t, syscall.SIGHUP)
	p.stderr.waitFor(t, `configuration not applied, still using the previous one.*has no sources any more`)
	p.signal(t, syscall.SIGTERM)
	require.Zero(t, p.exit(t))
}

func TestAProcessOfOneDatabaseRefusesAFileThatHasSourcesNow(t *testing.T) {
	t.Parallel()
	eu := shop(t)
	file := ordersConfig(t, "http://127.0.0.1:1")
	p := start(t, []string{"DATABASE_URL=" + eu.URL()}, "run", "-f", file, "--http", "off")
	p.stderr.waitFor(t, "ready")
	elsewhere := strings.Replace(ordersText("http://127.0.0.1:1"), "table:", "for: [us]\n    table:", 1)
	elsewhere = strings.Replace(elsewhere, "order_changed", "not_here", 1)
	require.NoError(t, os.WriteFile(file, []byte("sources: {us: {url: \"${US_DATABASE_URL}\"}}\n"+elsewhere), 0o600))
	p.signal(t, syscall.SIGHUP)
	p.stderr.waitFor(t, "configuration not applied, still using the previous one.*has sources now, and this process works on one database")
	require.Zero(t, count(t, eu, "rowhook.trigger where name = 'not_here'"))
	p.signal(t, syscall.SIGTERM)
	require.Zero(t, p.exit(t))
}

func instanceOf(t testing.TB, db *pgtest.DB) (id int32) {
	t.Helper()
	require.NoError(t, db.Conn(t).QueryRow(t.Context(), "select id from rowhook.instance").Scan(&id))
	return id
}

func textOf(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(text)
}

func ordersText(receiver string) string { return fmt.Sprintf(orderTrigger, receiver) }

func TestTheOwnerOfASourceCannotUseWhatIsAnothers(t *testing.T) {
	t.Parallel()
	eu, us := shop(t), shop(t)
	s, receiverURL := receiver(t)
	file := write(t, "rowhook.yaml", `
sources:
  eu: {url: "${EU_DATABASE_URL}", env: ["EU_*"]}
  us: {url: "${US_DATABASE_URL}", env: ["US_*", RECEIVER]}
triggers:
  - name: order_changed
    for: [us]
    table: public.orders
    on: {insert: true}
    webhook: {url: "${RECEIVER}/orders", headers: {X-Token: "${US_TOKEN}"}}
`)
	env := []string{"EU_DATABASE_URL=" + eu.URL(), "US_DATABASE_URL=" + us.URL(), "US_TOKEN=us-secret-token", "RECEIVER=" + receiverURL}
	p := start(t, env, "run", "-f", file, "--http", "off")
	p.stderr.waitFor(t, `ready.*source=us`)
	p.stderr.waitFor(t, `ready.*source=eu`)
	us.Exec(t, "insert into orders values (1, 1, 'a')")
	require.Equal(t, "us-secret-token", arrived(t, s, 1)[0].Header.Get("X-Token"))

	// The owner of eu's database may write what they like into it.
	stolen := write(t, "stolen.yaml", strings.NewReplacer("%s", receiverURL).Replace(`
triggers:
  - {name: token, table: public.orders, on: {insert: true}, webhook: {url: "%s/${US_TOKEN}"}}
  - {name: database, table: public.orders, on: {insert: true}, webhook: {url: "%s", headers: {X-Url: "${EU_DATABASE_URL}"}}}
`))
	code, _, stderr := rowhook(t, database(eu.URL()), "apply", "-f", stolen)
	require.Zero(t, code, stderr)
	p.stderr.waitFor(t, `the source eu gives out only EU_\*`)
	p.stderr.waitFor(t, `the connection string of a source is made of it`)
	eu.Exec(t, "insert into orders values (1, 1, 'a')")
	us.Exec(t, "insert into orders values (2, 1, 'a')")
	for _, d := range arrived(t, s, 2) {
		require.Equal(t, "/orders", d.Path)
	}
	p.signal(t, syscall.SIGTERM)
	require.Zero(t, p.exit(t))
}

func TestASourceGivesOutNothingUnlessItSaysWhat(t *testing.T) {
	t.Parallel()
	file := write(t, "rowhook.yaml", `
sources:
  eu: {url: "${EU_DATABASE_URL}"}
  us: {url: "${US_DATABASE_URL}", env: [TOKEN]}
triggers:
  - {name: a, table: public.orders, on: {insert: true}, webhook: {url: "https://e.com/${TOKEN}"}}
`)
	code, _, stderr := rowhook(t, nil, "check", "-f", file)
	require.Zero(t, code, stderr)
	require.Contains(t, stderr, `for the source "eu": the dispatcher does not give out TOKEN: the source eu gives out no variables; write env: [TOKEN] in that source`)
	require.NotContains(t, stderr, `"us"`)
	code, _, stderr = rowhook(t, []string{"ROWHOOK_ENV=TOKEN"}, "check", "-f", file)
	require.Zero(t, code, stderr)
	require.NotContains(t, stderr, "give out", "--env is for sources that do not say")
	code, stdout, _ := rowhook(t, nil, "check", "-f", file, "--json")
	require.Zero(t, code)
	require.Contains(t, stdout, `"EU_DATABASE_URL"`)
}

func TestTailNamesTheSourceOfEachLine(t *testing.T) {
	t.Parallel()
	eu, us := shop(t), shop(t)
	many := manySources(t, "http://127.0.0.1:1", map[string]string{"eu": eu.URL(), "us": us.URL()})
	code, _, stderr := rowhook(t, many.env, "apply", "-f", many.file)
	require.Zero(t, code, stderr)
	for _, args := range [][]string{{"--json"}, {}} {
		p := start(t, many.env, append([]string{"events", "tail"}, args...)...)
		n := 0
		require.Eventually(t, func() bool { // it sees what comes after it has begun
			n++
			eu.Exec(t, "insert into orders values ($1, 1, 'a')", len(args)*100000+n)
			us.Exec(t, "insert into orders values ($1, 1, 'a')", len(args)*100000+n)
			text := p.stdout.String()
			if len(args) > 0 {
				return strings.Contains(text, `{"source":"eu",`) && strings.Contains(text, `{"source":"us",`)
			}
			return strings.Contains(text, "eu  ") && strings.Contains(text, "us  ")
		}, patience, tick)
		p.signal(t, syscall.SIGINT)
		p.exit(t)
	}
}

func TestTwoAddressesOfOneDatabaseAreNoTwoSources(t *testing.T) {
	t.Parallel()
	eu, ap := shop(t), shop(t)
	u, err := url.Parse(eu.URL())
	require.NoError(t, err)
	u.Host = "localhost:" + u.Port()
	require.NotEqual(t, eu.URL(), u.String())
	_, receiverURL := receiver(t)
	many := manySources(t, receiverURL, map[string]string{"eu": eu.URL(), "us": u.String(), "ap": ap.URL()})
	const said = `sources\.(eu|us)\.url, by another address, names the database of the source .?"(eu|us)`
	code, stdout, stderr := rowhook(t, many.env, "apply", "-f", many.file)
	require.Equal(t, 1, code)
	require.Regexp(t, said, stdout)
	require.Contains(t, stderr, "1 of 3 sources failed")
	for _, how := range []string{"--no-listen=false", "--no-listen"} {
		p := start(t, append(many.env, "ROWHOOK_HTTP=127.0.0.1:0"), "run", "-f", many.file, how)
		address := served(t, p)
		p.stderr.waitFor(t, said)
		require.Eventually(t, func() bool {
			states := ""
			for _, s := range standings(t, address) {
				states += s.Status + "; "
			}
			return strings.Count(states, "not ready; ") == 1 && strings.Count(states, "ready; ") == 3
		}, patience, tick, "one of the two is served")
		p.signal(t, syscall.SIGTERM)
		require.Zero(t, p.exit(t))
	}
}

func TestEachCommandNamesASourceThatIsAwayAndGoesOnWithTheOthers(t *testing.T) {
	t.Parallel()
	eu := shop(t)
	many := manySources(t, "http://127.0.0.1:1", map[string]string{"eu": eu.URL(), "us": "postgres://u:hunter2secret@" + closedPort(t) + "/d"})
	code, _, stderr := rowhook(t, many.env, "apply", "-f", many.file, "--source", "eu")
	require.Zero(t, code, stderr)
	env := append(many.env, "ROWHOOK_CONNECT_TIMEOUT=0s")
	for _, c := range []struct {
		args   []string
		stdout string // of the one that is there
	}{
		{[]string{"migrate"}, `^eu\nNothing to do: .*\n\nus\ncan't connect to Postgres`},
		{[]string{"doctor"}, `(?s)^eu\nok .*Rowhook works here.*\n\nus\nfail  connection .*`},
		{[]string{"doctor", "--json"}, `(?s)"source": "eu",\s+"ok": true.*"source": "us",\s+"ok": false`},
		{[]string{"triggers"}, `(?s)^eu\n.*order_changed.*\n\nus\ncan't connect to Postgres`},
		{[]string{"export"}, `^$`}, // a file of some of the sources would remove the triggers of the others
	} {
		code, stdout, stderr := rowhook(t, env, c.args...)
		require.Equal(t, 1, code, c.args)
		require.Regexp(t, c.stdout, stdout, c.args)
		require.Contains(t, stderr, "us", c.args)
		require.NotContains(t, stdout+stderr, "hunter2secret")
		code, _, stderr = rowhook(t, env, append(c.args, "--source", "uk")...)
		require.Equal(t, 2, code, c.args)
		require.Contains(t, stderr, `has no source "uk"; did you mean us?; the sources are eu, us`, c.args)
		code, stdout, stderr = rowhook(t, env, append(c.args, "--source", "eu")...)
		require.Zero(t, code, "%v: %s", c.args, stderr)
		require.NotContains(t, stdout, "us\n", c.args)
	}
	code, _, stderr = rowhook(t, env, "migrate", "--to", "1")
	require.Equal(t, 2, code)
	require.Contains(t, stderr, "add --yes to migrate all of eu, us, or --source")

	p := start(t, many.env, "status", "--watch=100ms")
	for range 2 {
		p.stdout.waitFor(t, `(?s)eu\n.*order_changed.*us\n.*can't connect to Postgres.*eu\n.*order_changed`)
	}
	p.signal(t, syscall.SIGINT)
	require.Zero(t, p.exit(t))
	require.NotContains(t, p.stderr.String(), "waiting for Postgres", "it would stand in the picture")
	code, _, stderr = rowhook(t, env, "status", "--watch=100ms", "--source", "uk")
	require.Equal(t, 2, code, stderr)
}

func TestExportOfSeveralSourcesIsOneFileThatChangesNothing(t *testing.T) {
	t.Parallel()
	eu, us := shop(t), shop(t)
	many := manySources(t, "http://127.0.0.1:1", map[string]string{"eu": eu.URL(), "us": us.URL()})
	text := strings.Replace(textOf(t, many.file), "table:", "for: [us]\n    table:", 1)
	require.NoError(t, os.WriteFile(many.file, []byte(text+strings.TrimPrefix(strings.Replace(ordersText("http://127.0.0.1:1"), "order_changed", "both", 1), "\ntriggers:")), 0o600))
	code, _, stderr := rowhook(t, many.env, "apply", "-f", many.file)
	require.Zero(t, code, stderr)
	code, stdout, stderr := rowhook(t, many.env, "export")
	require.Zero(t, code, stderr)
	require.NotContains(t, stdout, eu.URL())
	code, _, stderr = rowhook(t, many.env, "apply", "--dry-run", "--exit-code", "-f", write(t, "again.yaml", stdout))
	require.Zero(t, code, stderr)
}

// It would be restarted, and again and again, if it were not taken for healthy.
func TestAProcessThatStandsByIsHealthy(t *testing.T) {
	t.Parallel()
	eu := shop(t)
	_, receiverURL := receiver(t)
	many := manySources(t, receiverURL, map[string]string{"eu": eu.URL(), "us": "postgres://u@" + closedPort(t) + "/d"})
	one := start(t, many.env, "run", "-f", many.file, "--http", "off", "--instance-name", "one", "--log-format", "text")
	one.stderr.waitFor(t, "ready.*source=eu")
	long := strings.Repeat("long", 20)
	two := start(t, many.env, "run", "-f", many.file, "--http", "off", "--instance-name", long, "--log-format", "text")
	two.stderr.waitFor(t, "ready.*source=eu|standing by.*source=eu")
	awaitOne(t, []string{"eu"}, one, two)
	for name, want := range map[string]int{"one": 0, long: 0, "three": 1, "on": 1} {
		code, _, stderr := rowhook(t, many.env, "healthcheck", "--http", closedPort(t), "--instance-name", name)
		require.Equal(t, want, code, "%s: %s", name, stderr)
	}
	code, _, stderr := rowhook(t, many.env, "healthcheck", "--http", closedPort(t), "--source", "us", "--instance-name", "one")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "connection refused")
	code, _, stderr = rowhook(t, many.env, "healthcheck", "--http", closedPort(t), "--source", "uk")
	require.Equal(t, 2, code, stderr)
}

func TestOneSourceHoldsTheRateOfAll(t *testing.T) {
	t.Parallel()
	eu, us := shop(t), shop(t)
	s, receiverURL := receiver(t)
	many := manySources(t, receiverURL, map[string]string{"eu": eu.URL(), "us": us.URL()})
	held := func(by string) string {
		return strings.Replace(textOf(t, many.file), "table:", "rate: {limit: 20/s, held_by: "+by+"}\n    table:", 1)
	}
	code, _, stderr := rowhook(t, many.env, "check", write(t, "rowhook.yaml", held("eo")))
	require.Equal(t, 2, code)
	require.Contains(t, stderr, `triggers[0].rate.held_by: "eo" is no source; did you mean eu?`)
	require.NoError(t, os.WriteFile(many.file, []byte(held("eu")), 0o600))
	p, _ := many.run(t)
	awaitOne(t, []string{"eu", "us"}, p)
	for _, db := range []*pgtest.DB{eu, us} {
		db.Exec(t, "insert into orders select n, 1, 'a' from generate_series(1, 40) n")
	}
	all := arrived(t, s, 80)
	require.Greater(t, all[79].ReceivedAt.Sub(all[0].ReceivedAt), 3*time.Second, "80 of 20 a second, and not 40 each")
	code, stdout, stderr := rowhook(t, many.env, "triggers", "order_changed", "--source", "us")
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "20/s, over all sources, held by eu")
	code, stdout, stderr = rowhook(t, many.env, "export")
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "held_by: eu")
	p.signal(t, syscall.SIGTERM)
	require.Zero(t, p.exit(t), p.stderr)
}
