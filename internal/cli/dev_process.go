package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// forgetPostgres removes the PG* variables from this process. They describe another server than the
// private one, and by libpq's rules they fill in what a connection string leaves out, such as a
// service. The configuration still sees them, because it reads app.environ.
func forgetPostgres() {
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); strings.HasPrefix(name, "PG") {
			_ = os.Unsetenv(name) // it fails only for invalid names
		}
	}
}

// parentEvery is the interval between checks that "go run" is alive.
const parentEvery = 250 * time.Millisecond

// endWithGoRun returns a context that ends when "go run" ends, if "go run" started this program. A
// script that stops this program signals "go run", which does not pass signals on.
func endWithGoRun(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	parent := os.Getppid()
	if !isGoRun(parent) {
		return ctx, cancel
	}
	go func() {
		ticker := time.NewTicker(parentEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				if os.Getppid() != parent {
					cancel()
					return
				}
			}
		}
	}()
	return ctx, cancel
}

// isGoRun reports whether "go run" started this program. The first run is in a temporary directory
// go-build..., and later ones are in the build cache, which also has that name. With GOCACHE the
// cache may be anywhere. The name of the parent tells then, on systems with /proc.
func isGoRun(parent int) bool {
	if program, err := os.Executable(); err == nil && strings.Contains(program, string(filepath.Separator)+"go-build") {
		return true
	}
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", parent))
	return err == nil && strings.TrimSpace(string(name)) == "go"
}
