package cli

import (
	"context"
	"fmt"
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

// isGoRun reports that "go run" started this program. The program is then in a directory go-build..., which is a temporary one for the first
// run and the build cache from then on, or anywhere if GOCACHE says so: there the parent's name tells, where the system has /proc.
func isGoRun(parent int) bool {
	if program, err := os.Executable(); err == nil && strings.Contains(program, string(filepath.Separator)+"go-build") {
		return true
	}
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", parent))
	return err == nil && strings.TrimSpace(string(name)) == "go"
}
