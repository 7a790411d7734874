package jetstream_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/dispatchtest"
	"github.com/rowhook/rowhook/internal/jetstream"
	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/trigger"
)

// connections waits until a server has n connections, and returns how many it has had.
func connections(t *testing.T, s *natsServer, n int) (ever uint64) {
	t.Helper()
	require.Eventually(t, func() bool { return s.NumClients() == n }, patience, 5*time.Millisecond, "want %d connections, has %d", n, s.NumClients())
	v, err := s.Varz(nil)
	require.NoError(t, err)
	return v.TotalConnections
}

func TestDispatchersOfAProcessShareAConnectionUntilTheLastLeaves(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := stream(t, f.js, "ORDERS")
	stored := func() uint64 {
		info, err := s.Info(t.Context())
		require.NoError(t, err)
		return info.State.Msgs
	}
	own := connections(t, f.server, 1)
	var all jetstream.Connections
	shared, err := dispatcher.NewShared(dispatcher.SharedConfig{})
	require.NoError(t, err)
	names := []string{"eu", "us", "asia"}
	sites, running := map[string]*fixture{}, map[string]*dispatchtest.Running{}
	for _, name := range names {
		site := &fixture{Site: &dispatchtest.Site{DB: pgtest.New(t)}, server: f.server}
		site.Table(t, "orders")
		site.Apply(t, f.spec("orders"))
		running[name] = site.Site.Run(t, func(c *dispatcher.Config) {
			c.NATS, c.Shared, c.SourceName = all.Destination, shared, name
		})
		sites[name] = site
	}
	for _, site := range sites {
		site.Exec(t, "insert into orders (v) select 'a' from generate_series(1, 200)")
	}
	for _, site := range sites {
		site.settled(t)
	}
	require.EqualValues(t, 600, stored())
	require.Equal(t, own+1, connections(t, f.server, 2), "there is one for all")
	for left, name := range names {
		sites[name].Exec(t, "insert into orders (v) values ('b')")
		sites[name].settled(t)
		require.EqualValues(t, 601+left, stored())
		require.Equal(t, own+1, connections(t, f.server, 2), "who leaves takes it from nobody")
		running[name].Stop(t)
	}
	require.Equal(t, own+1, connections(t, f.server, 1), "the last one closes it")
}

func TestConnectionsAreSharedByThoseOfTheSameLoginAndRulesAlone(t *testing.T) {
	t.Parallel()
	s := newServer(t, func(o *server.Options) {
		o.Users = []*server.User{{Username: "eu", Password: "password-of-eu"}, {Username: "us", Password: "password-of-us"}}
	})
	_, js := client(t, s.url(), nats.UserInfo("eu", "password-of-eu"))
	stream(t, js, "ORDERS")
	connections(t, s, 1)
	f := &fixture{server: s}
	var all jetstream.Connections
	n := byte(0)
	send := func(d dispatcher.Destination, user, password string) {
		spec := f.spec("orders", func(s *trigger.Spec) {
			s.NATS.User, s.NATS.Password, s.NATS.Timeout = user, "${PASSWORD}", trigger.Duration(patience)
		})
		ep, err := d.Endpoint(&spec, trigger.Variables(func(string) (string, bool) { return password, true }))
		require.NoError(t, err)
		n++
		r := ep.Send(t.Context(), dispatchtest.Event(n))
		require.Equal(t, password == "password-of-"+user, r.Delivered(), "%+v", r)
	}
	eu, us := all.Destination(dispatcher.DestinationConfig{}), all.Destination(dispatcher.DestinationConfig{})
	defer eu.Close()
	defer us.Close()
	send(eu, "eu", "password-of-eu")
	send(us, "eu", "password-of-eu")
	connections(t, s, 2)
	send(us, "us", "password-of-us")
	connections(t, s, 3)
	send(us, "eu", "a guess of it")
	connections(t, s, 3)

	other := dispatcher.Guard{Deny: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}
	us.SetGuard(other)
	ever := connections(t, s, 2)
	send(us, "eu", "password-of-eu")
	require.Equal(t, ever+1, connections(t, s, 3), "other rules, another connection")
	eu.SetGuard(other)
	send(eu, "eu", "password-of-eu")
	require.Equal(t, ever+1, connections(t, s, 2), "the same rules again")
	us.Close()
	send(eu, "eu", "password-of-eu")
	require.Equal(t, ever+1, connections(t, s, 2))
	eu.Close()
	connections(t, s, 1)
}
