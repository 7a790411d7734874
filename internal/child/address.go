package child

import (
	"context"
	"fmt"
	"net"
)

// FreeAddress is one of the loopback that nobody listens on.
func FreeAddress(ctx context.Context) (string, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("look for a free port: %w", err)
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}
