package cli

import (
	"context"

	"github.com/rowhook/rowhook/internal/config"
)

// newReapplier returns what watches the configuration of -f, from the content that it has now. It
// watches nothing without -f and for standard input.
func (r *devRun) newReapplier() *reapplier {
	file := r.file
	if file == standardInput {
		file = ""
	}
	w := &reapplier{
		file:  file,
		load:  func() (*config.Config, error) { return r.devConfig(r.devOptions) },
		apply: r.applyAgain,
		log:   r.log,
		lines: r.lines(),
		watch: r.watching && file != "",

		orders: make(chan order),
	}
	w.contents.path = file
	w.contents.take()
	return w
}

// watchConfiguration has changes of the configuration taken up until the returned function is called.
func (r *devRun) watchConfiguration(ctx context.Context) (stop func()) {
	if !r.reapplier.watch {
		return func() {}
	}
	closeWatch := r.reapplier.open(false)
	stopRunning := r.reapplier.background(ctx)
	return func() {
		stopRunning()
		closeWatch()
	}
}

// tellApplied tells that a changed configuration was applied.
func (r *devRun) tellApplied() {
	if len(r.command) > 0 || r.json {
		r.log.Info("applied the changed configuration", "file", r.file)
		return
	}
	r.show.printf("Applied the changed configuration %s\n", r.file)
}
