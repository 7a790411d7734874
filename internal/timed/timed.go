// Package timed marks the tests that check how long something takes.
package timed

import (
	"os"
	"testing"
)

// Variable says which tests run. "without" skips the marked tests. "only" is for a run that names
// the marked tests. If it is not set, every test runs.
const Variable = "ROWHOOK_TEST_TIMED"

// Alone marks a test whose upper bound of elapsed time holds only if nothing else runs. Such a test
// does not call t.Parallel. scripts/test skips the marked tests at first, and then runs them by
// themselves, one after another.
func Alone(t *testing.T) {
	t.Helper()
	if os.Getenv(Variable) == "without" {
		t.Skip("it measures time, and runs alone later")
	}
}
