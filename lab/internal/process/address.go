package process

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
)

// FreeAddress is one of the loopback that nobody listens on, below the ports that outgoing connections are given, so that a program that
// was ended finds it free.
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
