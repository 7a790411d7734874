// Package timed marks the tests that claim how long something takes.
package timed

import (
	"os"
	"testing"
)

// Variable says which tests run: "without" leaves out those that are marked, "only" is for a run that
// names them. Unless it is set every test runs.
const Variable = "ROWHOOK_TEST_TIMED"

// Alone marks a test whose upper bound of elapsed time holds only where nothing else runs. Such a test
// does not call t.Parallel. scripts/test leaves it out at first, and then runs all that are marked by
// themselves, one after another.
func Alone(t *testing.T) {
	t.Helper()
	if os.Getenv(Variable) == "without" {
		t.Skip("it measures time, and runs alone later")
	}
}
