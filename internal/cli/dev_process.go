package cli

import (
	"os"
	"strings"
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
