package rowhooktest

import (
	"context"
	"fmt"
	"net"
	"sync"

	"github.com/rowhook/rowhook/internal/sandbox"
	"github.com/rowhook/rowhook/internal/sink"
)

// receiver is the receiver of a test.
type receiver struct {
	*sink.Sink
	handlers *handlers
	url      string
	cancel   context.CancelFunc
	ended    sync.WaitGroup
}

func startReceiver(in *installation) (*receiver, error) {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start the receiver: %w", err)
	}
	r := &receiver{url: "http://" + l.Addr().String()}
	secrets := sandbox.Secrets(in.triggers, sandbox.Variables(r.url, in.secret, in.source))
	r.handlers = &handlers{paths: in.paths()}
	names := make([]string, len(in.triggers))
	for i, t := range in.triggers {
		names[i] = t.Name
	}
	r.Sink = &sink.Sink{
		SecretOf: func(trigger string) string { return secrets[trigger] },
		Triggers: func() []string { return names },
		Respond:  r.handlers.respond,
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	r.ended.Go(func() { _ = r.Serve(ctx, l) }) // it ends only when it is stopped
	return r, nil
}

// stop ends the receiver. Nobody sends any more.
func (r *receiver) stop() {
	if r == nil {
		return
	}
	r.cancel()
	r.ended.Wait()
}
