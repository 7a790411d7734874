package process

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
)

// FreeAddress returns an address of the loopback on which nobody listens. Its port lies below those
// of outgoing connections, so that a program that ended finds it free when it starts again.
func FreeAddress(ctx context.Context) (string, error) {
	var config net.ListenConfig
	var err error
	for range 100 {
		var listener net.Listener
		address := fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(12000)) //nolint:gosec // no secret
		if listener, err = config.Listen(ctx, "tcp", address); err == nil {
			return address, listener.Close()
		}
	}
	return "", fmt.Errorf("look for a free port: %w", err)
}
