package cli

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"

	"github.com/rowhook/rowhook/internal/sink"
)

// devReceiver is the built-in receiver of dev, on a port of loopback.
type devReceiver struct {
	sink   *sink.Sink
	url    string
	cancel context.CancelFunc
	ended  chan struct{}
}

// startReceiver starts the receiver. With --once it sends deliveries to arrivals.
func (r *devRun) startReceiver(ctx context.Context, arrivals chan<- sink.Delivery) (*devReceiver, error) {
	l, err := listenOn(ctx, net.JoinHostPort("127.0.0.1", strconv.Itoa(r.sinkPort)))
	if err != nil {
		return nil, fmt.Errorf("start the receiver (--sink-port): %w", err)
	}
	s := &sink.Sink{SecretOf: r.secretOf}
	if r.file != "" {
		s.Triggers = r.triggerNames // beside the sample, others may be applied by hand
	}
	switch {
	case r.forward != nil:
		s.Respond = r.forward.respond // it shows them, too
	case r.once:
		s.OnDelivery = func(d sink.Delivery) {
			select {
			case arrivals <- d:
			default: // showOnce fails at the first unexpected delivery
			}
		}
	case r.json && r.showing:
		s.Out, s.Format = r.stdout, sink.FormatJSON
	case len(r.command) > 0 && r.showing:
		s.Out = r.stderr
	case len(r.command) == 0 && !r.json:
		s.Out = r.stdout
	}
	serving, cancel := context.WithCancel(context.WithoutCancel(ctx))
	receiver := &devReceiver{sink: s, url: "http://" + l.Addr().String(), cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(receiver.ended)
		_ = s.Serve(serving, l) // it ends only when it is stopped
	}()
	return receiver, nil
}

// triggerNames returns the names of the triggers of the configuration.
func (r *devRun) triggerNames() []string {
	var names []string
	for _, t := range r.triggers() {
		names = append(names, t.Name)
	}
	return names
}

// stop ends the receiver. Its senders have stopped before.
func (r *devReceiver) stop() {
	r.cancel()
	<-r.ended
}

// destination says where the events of a trigger go.
func (r *devRun) destination(trigger string) string {
	to := r.target(trigger)
	switch {
	case to != "":
		return "forwarded to " + to
	case r.toSink:
		return "delivered to " + r.receiver.url
	}
	return "delivered to the configured URL"
}

// readyNow returns what runs where.
func (r *devRun) readyNow() *devReady {
	ready := &devReady{
		DatabaseURL: r.databaseURL(), SinkURL: r.receiver.url, URL: r.url, DashboardURL: r.dashboardURL(), Token: r.token, Secret: r.secretInUse(),
		PIDs: devPIDs{Dev: os.Getpid(), Postgres: r.server.PID()}, Triggers: []readyTrigger{},
	}
	for _, t := range r.triggers() {
		about := readyTrigger{Name: t.Name, Table: t.Watches(), URL: t.Webhook.URL, Signed: t.Webhook.Secret != ""}
		if r.toSink {
			about.URL = r.receiver.url + "/" + t.Name
		}
		about.ForwardURL = r.target(t.Name)
		if r.secretOf(t.Name) == r.secret {
			about.Secret = r.secret
		}
		ready.Triggers = append(ready.Triggers, about)
	}
	return ready
}

// reachable returns the address at which this machine reaches a listener.
func reachable(address net.Addr) string {
	if tcp, ok := address.(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		return net.JoinHostPort("127.0.0.1", strconv.Itoa(tcp.Port))
	}
	return address.String()
}
