// Package natsdev runs a server of NATS with JetStream in this process, and shows what is published to
// it. It is for rowhook-nats dev, and it is in no other program, since the server is large.
package natsdev

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// startTimeout bounds the start of the server.
const startTimeout = 20 * time.Second

// Message is a message that was published.
type Message struct {
	At      time.Time
	Subject string
	Header  http.Header
	Data    []byte
}

// Server is a server that runs until Stop.
type Server struct {
	server *server.Server
	client *nats.Conn
	js     jetstream.JetStream
	dir    string
	show   func(Message)

	mu      sync.Mutex
	watched map[string]bool // streams
}

// Start starts a server on a free port of the loopback. Its data is temporary. show gets each message that
// a stream of Stream has stored.
func Start(show func(Message)) (*Server, error) {
	dir, err := os.MkdirTemp("", "rowhook-nats-")
	if err != nil {
		return nil, fmt.Errorf("make a directory for the streams: %w", err)
	}
	s := &Server{dir: dir, watched: map[string]bool{}}
	if err := s.start(show); err != nil {
		s.Stop()
		return nil, fmt.Errorf("start a server of NATS: %w", err)
	}
	return s, nil
}

func (s *Server) start(show func(Message)) (err error) {
	if s.server, err = server.NewServer(&server.Options{
		ServerName: "rowhook-dev", Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: s.dir, NoLog: true, NoSigs: true,
	}); err != nil {
		return err
	}
	s.server.Start()
	if !s.server.ReadyForConnections(startTimeout) {
		return errors.New("it is not ready in time")
	}
	if s.client, err = nats.Connect("", nats.InProcessServer(s.server), nats.Name("rowhook dev")); err != nil {
		return err
	}
	if s.js, err = jetstream.New(s.client); err != nil {
		return err
	}
	s.show = show
	return nil
}

// URL is where clients connect.
func (s *Server) URL() string { return s.server.ClientURL() }

// Stream makes a stream that takes subjects, or adds them to one that is there.
func (s *Server) Stream(ctx context.Context, name string, subjects []string) error {
	config := jetstream.StreamConfig{Name: name, Subjects: subjects}
	if there, err := s.js.Stream(ctx, name); err == nil {
		config = there.CachedInfo().Config
		for _, subject := range subjects {
			if !contains(config.Subjects, subject) {
				config.Subjects = append(config.Subjects, subject)
			}
		}
	}
	if _, err := s.js.CreateOrUpdateStream(ctx, config); err != nil {
		return fmt.Errorf("make the stream %s for %s: %w", name, strings.Join(subjects, ", "), err)
	}
	return s.watch(ctx, name)
}

// watch shows what a stream stores, from now on.
func (s *Server) watch(ctx context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watched[name] {
		return nil
	}
	consumer, err := s.js.OrderedConsumer(ctx, name, jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverNewPolicy})
	if err == nil {
		_, err = consumer.Consume(func(m jetstream.Msg) {
			s.show(Message{time.Now(), m.Subject(), http.Header(m.Headers()), m.Data()})
		})
	}
	if err != nil {
		return fmt.Errorf("watch the stream %s: %w", name, err)
	}
	s.watched[name] = true
	return nil
}

func contains(subjects []string, subject string) bool {
	for _, s := range subjects {
		if s == subject {
			return true
		}
	}
	return false
}

// Stop ends the server, and removes its data.
func (s *Server) Stop() {
	if s.client != nil {
		s.client.Close()
	}
	if s.server != nil {
		s.server.Shutdown()
		s.server.WaitForShutdown()
	}
	_ = os.RemoveAll(s.dir) // it is temporary
}
