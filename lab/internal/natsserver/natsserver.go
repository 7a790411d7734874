// Package natsserver runs a server of NATS with JetStream in a process of its own, so that it can be
// killed, and so that what it takes is counted apart. That process is the running program again, with
// Command as its first argument.
package natsserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rowhook/rowhook/lab/internal/process"
)

// Command is the first argument of a program that is to call Serve with the others.
const Command = "nats-server"

// startTimeout bounds the start of a server.
const startTimeout = time.Minute

// Serve is a server until ctx is done. The arguments are the port and the directory of the streams.
func Serve(ctx context.Context, args []string, stderr io.Writer) error {
	if len(args) != 2 {
		return errors.New("want a port and a directory")
	}
	port, err := strconv.Atoi(args[0])
	if err != nil {
		return fmt.Errorf("read the port: %w", err)
	}
	s, err := server.NewServer(&server.Options{ServerName: "lab", Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: args[1], NoLog: true, NoSigs: true})
	if err != nil {
		return fmt.Errorf("start a server of NATS: %w", err)
	}
	s.Start()
	if !s.ReadyForConnections(startTimeout) {
		return errors.New("the server of NATS is not ready in time")
	}
	fmt.Fprintln(stderr, `{"level":"INFO","msg":"ready"}`) // as process.Process expects
	<-ctx.Done()
	s.Shutdown()
	s.WaitForShutdown()
	return nil
}

// Server is such a process. Make it by New.
type Server struct {
	Address string

	dir   string
	child *process.Process
}

// New starts a server on a free port of the loopback, with its streams in a directory.
func New(ctx context.Context, dir string) (*Server, error) {
	address, err := process.FreeAddress(ctx)
	if err != nil {
		return nil, err
	}
	s := &Server{Address: address, dir: dir}
	return s, s.Start(ctx)
}

// Start starts it again after Kill, at the same address.
func (s *Server) Start(ctx context.Context) error {
	path, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	_, port, err := net.SplitHostPort(s.Address)
	if err != nil {
		return fmt.Errorf("start a server of NATS: %w", err)
	}
	if s.child, err = process.Start(process.Command{Name: "the server of NATS", Path: path, Args: []string{Command, port, s.dir}}); err != nil {
		return err
	}
	return s.child.WaitReady(ctx, startTimeout)
}

// Kill ends it with SIGKILL.
func (s *Server) Kill() {
	if s.child != nil {
		s.child.Kill()
	}
}

// PID returns its process id.
func (s *Server) PID() int { return s.child.PID() }

// Use connects to the server.
func (s *Server) Use(do func(jetstream.JetStream) error) error {
	nc, err := nats.Connect("nats://" + s.Address)
	if err != nil {
		return fmt.Errorf("connect to NATS: %w", err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("connect to NATS: %w", err)
	}
	return do(js)
}
