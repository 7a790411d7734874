package jetstream_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
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

// node is a server of a cluster in a process of its own, so that it can be killed.
type node struct {
	Name         string
	Client, Peer int // ports
	Routes       string
	Dir          string

	process *exec.Cmd
}

// nodeVariable has a node as JSON, if this process is to be one.
const nodeVariable = "ROWHOOK_TEST_NATS_NODE"

// serve is a server until the test ends, which holds the other end of the standard input.
func (n *node) serve(in io.Reader) error {
	s, err := server.NewServer(&server.Options{
		ServerName: n.Name, Host: "127.0.0.1", Port: n.Client, JetStream: true, StoreDir: n.Dir, NoLog: true, NoSigs: true,
		Cluster: server.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: n.Peer}, Routes: server.RoutesFromStr(n.Routes),
	})
	if err != nil {
		return fmt.Errorf("start a server: %w", err)
	}
	s.Start()
	_, err = io.Copy(io.Discard, in)
	s.Shutdown()
	return err
}

// runNode serves if this process is to be a node.
func runNode() (is bool, err error) {
	text := os.Getenv(nodeVariable)
	if text == "" {
		return false, nil
	}
	var n node
	if err := json.Unmarshal([]byte(text), &n); err != nil {
		return true, fmt.Errorf("read the node: %w", err)
	}
	return true, n.serve(os.Stdin)
}

func (n *node) start(t *testing.T) {
	t.Helper()
	text, err := json.Marshal(n)
	require.NoError(t, err)
	self, err := os.Executable()
	require.NoError(t, err)
	n.process = exec.Command(self)
	n.process.Env = append(os.Environ(), nodeVariable+"="+string(text))
	in, err := n.process.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, n.process.Start())
	t.Cleanup(func() {
		_ = in.Close() // the process may be gone
		_ = n.process.Wait()
	})
}

// freePort returns a port on which nobody listens.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	_, port, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	require.NoError(t, l.Close())
	n, err := strconv.Atoi(port)
	require.NoError(t, err)
	return n
}

// newCluster starts three servers of a cluster.
func newCluster(t *testing.T) (all map[string]*node, urls string) {
	t.Helper()
	all = map[string]*node{}
	var routes, clients []string
	for i := range 3 {
		n := &node{Name: fmt.Sprintf("s%d", i), Client: freePort(t), Peer: freePort(t), Dir: t.TempDir()}
		all[n.Name] = n
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", n.Peer))
		clients = append(clients, fmt.Sprintf("nats://127.0.0.1:%d", n.Client))
	}
	for _, n := range all {
		n.Routes = strings.Join(routes, ",")
		n.start(t)
	}
	for _, n := range all {
		require.Eventually(t, func() bool {
			conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", n.Client))
			return err == nil && conn.Close() == nil
		}, patience, 20*time.Millisecond, "a server does not start")
	}
	return all, strings.Join(clients, ",")
}

// TestAServerOfAClusterThatIsKilledInTheMiddleOfADrainCostsNothing kills the leader of a stream (kill -9)
// while a backlog drains into it: of a trigger with an order, and of one that has many messages under way
// at once. Nothing is lost, nothing is there twice, and each key has its order.
func TestAServerOfAClusterThatIsKilledInTheMiddleOfADrainCostsNothing(t *testing.T) {
	t.Parallel()
	nodes, urls := newCluster(t)
	f := &fixture{Site: &dispatchtest.Site{DB: pgtest.New(t)}}
	f.nc, f.js = client(t, urls)
	var s library.Stream
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		var err error
		s, err = f.js.CreateStream(ctx, library.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>", "loose.>"}, Replicas: 3, AllowDirect: true})
		return err == nil
	}, 2*patience, 100*time.Millisecond, "the cluster chooses no leader")
	const keys, rows = 100, 3000
	f.Table(t, "orders")
	publishing := func(name string, order ...string) trigger.Spec {
		return dispatchtest.Spec("orders", "http://127.0.0.1", func(s *trigger.Spec) {
			s.Name, s.Webhook, s.Order = name, trigger.Webhook{}, trigger.Order{By: order}
			s.NATS = trigger.NATS{URL: urls, Subject: name + ".$new.v", Timeout: trigger.Duration(5 * time.Second)}
			s.Retry.Interval, s.Retry.Backoff, s.Retry.Limit = trigger.Duration(100*time.Millisecond), trigger.BackoffFixed, 1000
		})
	}
	f.Apply(t, publishing("orders", "v"), publishing("loose"))
	f.Exec(t, "insert into orders (v, n) select (n % $1)::text, n from generate_series(1, $2) n", keys, rows)
	f.run(t)
	var info *library.StreamInfo
	require.Eventually(t, func() bool {
		var err error
		info, err = s.Info(t.Context())
		return err == nil && info.State.Msgs >= rows/4
	}, patience, time.Millisecond)
	require.NoError(t, nodes[info.Cluster.Leader].process.Process.Kill())
	require.Equal(t, "t", f.text(t, "select (exists (select from rowhook.event_log))::text::char"), "the drain was over before the server was killed")

	f.settled(t)
	require.Eventually(t, f.nc.IsConnected, patience, 10*time.Millisecond)
	var ordered, loose []*library.RawStreamMsg
	for _, m := range messages(t, f.js, "ORDERS") {
		if strings.HasPrefix(m.Subject, "orders.") {
			ordered = append(ordered, m)
		} else {
			loose = append(loose, m)
		}
	}
	inOrder(t, ordered, rows)
	once(t, loose, rows)
	f.eventually(t, 0, "select count(*)::integer from rowhook.dead_letter")
	t.Logf("killed with %d of %d messages stored; %s attempts failed, %s messages were dropped as duplicates", info.State.Msgs, 2*rows,
		f.text(t, "select count(*)::text from rowhook.invocation_log where status is distinct from 200"),
		f.text(t, "select count(*)::text from rowhook.invocation_log where response_body like '%duplicate%'"))
}
