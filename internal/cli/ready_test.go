package cli_test

import (
	"net/url"
	"regexp"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/faultproxy"
	"github.com/rowhook/rowhook/internal/pgtest"
)

func TestReadinessAsksTheWayThatDeliveriesTake(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	paths := map[string]*faultproxy.Proxy{}
	through := map[string]string{}
	for _, name := range []string{"DATABASE_URL", "ROWHOOK_LISTEN_URL"} {
		u, err := url.Parse(db.URL())
		require.NoError(t, err)
		p, err := faultproxy.Listen(t.Context(), u.Host)
		require.NoError(t, err)
		t.Cleanup(p.Close)
		u.Host = p.Addr()
		paths[name], through[name] = p, u.String()
	}
	p := start(t, append(database(through["DATABASE_URL"]), "ROWHOOK_LISTEN_URL="+through["ROWHOOK_LISTEN_URL"]), "run", "--http", "127.0.0.1:0")
	address := served(t, p)
	p.stderr.waitFor(t, "ready")
	// ok is what a check of /readyz says.
	ok := func(name, want string) func() bool {
		check := regexp.MustCompile(`"name":"` + name + `","ok":` + want)
		return func() bool {
			_, text := ask(t, "GET", address, "/readyz", "", "")
			return check.MatchString(text)
		}
	}
	for _, c := range []struct{ path, fails, works string }{
		{"DATABASE_URL", "connected", "listening"},
		{"ROWHOOK_LISTEN_URL", "listening", "connected"},
	} {
		paths[c.path].Set(faultproxy.Refuse)
		paths[c.path].Cut()
		require.Eventually(t, ok(c.fails, "false"), patience, 20*time.Millisecond, c.path)
		require.True(t, ok(c.works, "true")(), "%s is away, and %s is none of its business", c.path, c.works)
		paths[c.path].Heal()
		require.Eventually(t, ok(c.fails, "true"), patience, 20*time.Millisecond, "%s is back", c.path)
	}
}

func TestADispatcherThatStartsWhileItCannotListenDelivers(t *testing.T) {
	t.Parallel()
	s, receiverURL := receiver(t)
	db := pgtest.NewEmpty(t)
	db.Exec(t, orders)
	code, _, stderr := rowhook(t, database(db.URL()), "apply", "-f", ordersConfig(t, receiverURL))
	require.Zero(t, code, stderr)
	u, err := url.Parse(db.URL())
	require.NoError(t, err)
	u.Host = closedPort(t)
	p := start(t, append(database(db.URL()), "ROWHOOK_LISTEN_URL="+u.String()), "run", "--http", "off")
	p.stderr.waitFor(t, "can't listen for changes")
	db.Exec(t, "insert into orders values (1, 1, 'a')")
	arrived(t, s, 1)
	p.signal(t, syscall.SIGTERM)
	require.Zero(t, p.exit(t))
}

func TestADispatcherWhoseSessionIsEndedWhileItStartsBeginsAgain(t *testing.T) {
	t.Parallel()
	s, receiverURL := receiver(t)
	db := pgtest.NewEmpty(t)
	db.Exec(t, orders)
	code, _, stderr := rowhook(t, database(db.URL()), "apply", "-f", ordersConfig(t, receiverURL))
	require.Zero(t, code, stderr)
	db.Exec(t, `
create sequence public.starts;
create function public.end_the_first() returns trigger language plpgsql as $$ begin
  if nextval('public.starts') = 1 then perform pg_terminate_backend(pg_backend_pid()); end if;
  return new;
end $$;
create trigger end_the_first before insert on rowhook.instance for each row execute function public.end_the_first()`)
	p := start(t, database(db.URL()), "run", "--http", "off")
	p.stderr.waitFor(t, "waiting for Postgres")
	db.Exec(t, "insert into orders values (1, 1, 'a')")
	arrived(t, s, 1)
	p.signal(t, syscall.SIGTERM)
	require.Zero(t, p.exit(t))
}
