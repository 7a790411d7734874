package cli

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"

	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/internal/sandbox"
	"github.com/rowhook/rowhook/internal/sink"
)

// devReceiver is the built-in receiver of dev, on a port of loopback.
type devReceiver struct {
	url    string
	cancel context.CancelFunc
	ended  chan struct{}
}

// startReceiver starts the receiver. With --once it sends deliveries to arrivals.
func (r *devRun) startReceiver(ctx context.Context, arrivals chan<- sink.Delivery) (*devReceiver, error) {
	l, err := listenOn(ctx, net.JoinHostPort("127.0.0.1", strconv.Itoa(r.sinkPort)))
	if err != nil {
		return nil, fmt.Errorf("start the receiver: %w", err)
	}
	s := &sink.Sink{SecretOf: func(trigger string) string { return r.secretOf(trigger) }}
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
	receiver := &devReceiver{url: "http://" + l.Addr().String(), cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(receiver.ended)
		_ = s.Serve(serving, l) // it ends only when it is stopped
	}()
	return receiver, nil
}

// stop ends the receiver. Its senders have stopped before.
func (r *devReceiver) stop() {
	r.cancel()
	<-r.ended
}

// pointTriggers points the triggers at the receiver, if deliveries go there, and takes their secrets.
func (r *devRun) pointTriggers(cfg *config.Config, lookup sandbox.Lookup) {
	var madeUp []string
	if r.toSink {
		madeUp = unsetSecrets(cfg.Triggers, r.lookup)
		cfg.Triggers, cfg.Settings = sandbox.Point(cfg.Triggers, r.lookup), sandbox.Reachable(cfg.Settings)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.secrets, r.madeUp = sandbox.Secrets(cfg.Triggers, lookup), madeUp
}

// secretOf returns the secret of a trigger, or "".
func (r *devRun) secretOf(trigger string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.secrets[trigger]
}

// destination says where the events of a trigger go.
func (r *devRun) destination(trigger string) string {
	switch {
	case r.forward != nil && r.forward.to[trigger] != "":
		return "forwarded to " + r.forward.to[trigger]
	case r.toSink:
		return "delivered to " + r.receiver.url
	}
	return "delivered to the configured URL"
}

// readyNow returns what runs where.
func (r *devRun) readyNow() *devReady {
	ready := &devReady{
		DatabaseURL: r.databaseURL(), SinkURL: r.receiver.url, URL: r.url, Secret: r.secret,
		PIDs: devPIDs{Dev: os.Getpid(), Postgres: r.server.PID()}, Triggers: []readyTrigger{},
	}
	for _, t := range r.cfg.Triggers {
		about := readyTrigger{Name: t.Name, Table: t.Table, URL: t.Webhook.URL, Signed: t.Webhook.Secret != ""}
		if r.toSink {
			about.URL = r.receiver.url + "/" + t.Name
		}
		if r.forward != nil {
			about.ForwardURL = r.forward.to[t.Name]
		}
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
