package cli

import (
	"context"
	"fmt"
	"net"
	"strconv"

	"github.com/rowhook/rowhook/internal/sink"
)

// devReceiver is the built-in receiver of dev, on a port of loopback.
type devReceiver struct {
	url    string
	cancel context.CancelFunc
	ended  chan struct{}
}

// devReceiver starts the receiver. It prints deliveries, or with --once sends them to arrivals.
func (a *app) devReceiver(ctx context.Context, o devOptions, arrivals chan<- sink.Delivery) (*devReceiver, error) {
	l, err := listenOn(ctx, net.JoinHostPort("127.0.0.1", strconv.Itoa(o.sinkPort)))
	if err != nil {
		return nil, fmt.Errorf("start the receiver: %w", err)
	}
	s := &sink.Sink{Out: a.stdout}
	if o.once {
		s.Out = nil
		s.OnDelivery = func(d sink.Delivery) {
			select {
			case arrivals <- d:
			default: // showOnce fails at the first unexpected delivery
			}
		}
	}
	serving, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r := &devReceiver{url: "http://" + l.Addr().String(), cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(r.ended)
		_ = s.Serve(serving, l) // it ends only when it is stopped
	}()
	return r, nil
}

// stop ends the receiver. Its senders have stopped before.
func (r *devReceiver) stop() {
	r.cancel()
	<-r.ended
}
