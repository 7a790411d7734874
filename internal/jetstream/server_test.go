package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
)

func TestMain(m *testing.M) {
	if is, err := runNode(); is {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(pgtest.Main(m))
}

const patience = 60 * time.Second

// natsServer is a server with JetStream in this process.
type natsServer struct {
	*server.Server
	options server.Options
}

// newServer starts a server.
func newServer(t *testing.T, change ...func(*server.Options)) *natsServer {
	t.Helper()
	s := &natsServer{options: server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoLog: true, NoSigs: true,
	}}
	for _, c := range change {
		c(&s.options)
	}
	s.start(t)
	t.Cleanup(func() { s.stop() })
	return s
}

func (s *natsServer) start(t *testing.T) {
	t.Helper()
	options := s.options
	running, err := server.NewServer(&options)
	require.NoError(t, err)
	s.Server = running
	go running.Start()
	require.True(t, running.ReadyForConnections(patience), "the server does not start")
	s.options.Port = options.Port // the same one when it starts again
}

func (s *natsServer) stop() {
	s.Shutdown()
	s.WaitForShutdown()
}

// url is that of a client without a login.
func (s *natsServer) url() string { return s.ClientURL() }

// client returns a client of the test.
func client(t testing.TB, url string, options ...nats.Option) (*nats.Conn, jetstream.JetStream) {
	t.Helper()
	nc, err := nats.Connect(url, append([]nats.Option{nats.MaxReconnects(-1), nats.ReconnectWait(20 * time.Millisecond)}, options...)...)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	return nc, js
}

// stream makes a stream for all subjects below name, in lower case.
func stream(t testing.TB, js jetstream.JetStream, name string, change ...func(*jetstream.StreamConfig)) jetstream.Stream {
	t.Helper()
	config := jetstream.StreamConfig{Name: name, Subjects: []string{strings.ToLower(name) + ".>"}}
	for _, c := range change {
		c(&config)
	}
	s, err := js.CreateOrUpdateStream(t.Context(), config)
	require.NoError(t, err)
	return s
}

// messages returns what a stream has, in its order.
func messages(t *testing.T, js jetstream.JetStream, name string) (all []*jetstream.RawStreamMsg) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	defer cancel()
	s, err := js.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	require.NoError(t, err)
	info, err := s.Info(ctx)
	require.NoError(t, err)
	for seq := info.State.FirstSeq; seq <= info.State.LastSeq && info.State.Msgs > 0; seq++ {
		m, err := s.GetMsg(ctx, seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		require.NoError(t, err)
		all = append(all, m)
	}
	return all
}
