package jetstream_test

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	library "github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/dispatchtest"
	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/trigger"
)

// newCluster starts three servers of a cluster.
func newCluster(t *testing.T) (all []*natsServer, urls string) {
	t.Helper()
	var routes, clients []string
	var ports []int
	for range 3 {
		l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
		require.NoError(t, err)
		_, port, err := net.SplitHostPort(l.Addr().String())
		require.NoError(t, err)
		n, err := strconv.Atoi(port)
		require.NoError(t, err)
		ports, routes = append(ports, n), append(routes, "nats://127.0.0.1:"+port)
		require.NoError(t, l.Close())
	}
	for i := range 3 {
		s := newServer(t, func(o *server.Options) {
			o.ServerName = fmt.Sprintf("s%d", i)
			o.Cluster = server.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: ports[i]}
			o.Routes = server.RoutesFromStr(strings.Join(routes, ","))
		})
		all, clients = append(all, s), append(clients, s.url())
	}
	require.Eventually(t, func() bool {
		for _, s := range all {
			if s.JetStreamIsLeader() && len(s.JetStreamClusterPeers()) == 3 {
				return true
			}
		}
		return false
	}, patience, 20*time.Millisecond, "the cluster chooses no leader")
	return all, strings.Join(clients, ",")
}

// TestAServerOfAClusterThatIsKilledCostsNothing also holds that a retry after the loss of a leader is
// dropped by the stream.
func TestAServerOfAClusterThatIsKilledCostsNothing(t *testing.T) {
	t.Parallel()
	servers, urls := newCluster(t)
	f := &fixture{Site: &dispatchtest.Site{DB: pgtest.New(t)}, server: servers[0]}
	f.nc, f.js = client(t, urls)
	var s library.Stream
	require.Eventually(t, func() bool {
		var err error
		s, err = f.js.CreateStream(t.Context(), library.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}, Replicas: 3})
		return err == nil
	}, patience, 100*time.Millisecond)
	const keys, rows, steps = 20, 3000, 30
	f.Table(t, "orders")
	f.Apply(t, f.spec("orders", func(s *trigger.Spec) {
		s.NATS.URL, s.NATS.Subject, s.NATS.Timeout = urls, "orders.$new.v", trigger.Duration(2*time.Second)
		s.Order = trigger.Order{By: []string{"v"}}
	}))
	f.run(t)
	for step := range steps {
		f.Exec(t, "insert into orders (v, n) select (n % $1)::text, n from generate_series(1, $2) n", keys, rows/steps)
		if step == steps/2 {
			info, err := s.Info(t.Context())
			require.NoError(t, err)
			for _, one := range servers {
				if one.options.ServerName == info.Cluster.Leader {
					one.stop()
				}
			}
		}
	}
	f.settled(t)
	require.Eventually(t, f.nc.IsConnected, patience, 10*time.Millisecond)
	inOrder(t, messages(t, f.js, "ORDERS"), rows)
	f.eventually(t, 0, "select count(*)::integer from rowhook.dead_letter")
}
