package cli

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// forgetPostgres takes the shell's PG* variables out of this process: they are about another server than dev's private one, and libpq's
// rules have them fill in whatever a connection string leaves out, such as a service. The configuration reads the environment that
// the program was started with, which has them still.
func forgetPostgres() {
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); strings.HasPrefix(name, "PG") {
			_ = os.Unsetenv(name) // it fails for impossible names alone
		}
	}
}

// parentEvery is how often to look whether "go run" is still there.
const parentEvery = 250 * time.Millisecond

// endWithGoRun returns a context that ends with "go run", if that is what started this program: it is the process that a person or a script
// knows of, and it passes on no signal.
func endWithGoRun(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	program, err := os.Executable()
	if err != nil || !strings.Contains(program, "go-build") || filepath.Base(filepath.Dir(program)) != "exe" {
		return ctx, cancel
	}
	parent := os.Getppid()
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
