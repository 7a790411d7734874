package cli

import (
	"context"
	"sync"
	"time"

	"github.com/rowhook/rowhook/internal/config"
)

// watchEvery is the interval between looks at the configuration. A change is applied when two looks
// have seen the same, since an editor may be writing.
const watchEvery = 200 * time.Millisecond

// watchConfiguration applies the configuration again whenever it changes. was is its fingerprint at
// the start. The returned function waits until the watching has ended.
func (r *devRun) watchConfiguration(ctx context.Context, was string) (stop func()) {
	if !r.watching || r.file == "" || r.file == standardInput {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		ticker := time.NewTicker(watchEvery)
		defer ticker.Stop()
		c := &changes{applied: was}
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			if c.look(config.Fingerprint(r.file)) {
				r.tellApplied(ctx, r.applyAgain(ctx))
			}
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}

// tellApplied tells how applying a changed configuration went.
func (r *devRun) tellApplied(ctx context.Context, err error) {
	switch {
	case ctx.Err() != nil:
	case err != nil:
		r.log.Error("the changed configuration was not applied; the one before goes on", "file", r.file, "error", err)
	case len(r.command) > 0 || r.json:
		r.log.Info("applied the changed configuration", "file", r.file)
	default:
		r.show.printf("Applied the changed configuration %s\n", r.file)
	}
}

// changes tells when a file has changed, by its fingerprints.
type changes struct{ applied, seen string }

// look takes a fingerprint, or the error with which the file can't be read. It reports whether there
// is a change to apply.
func (c *changes) look(fingerprint string, err error) bool {
	if err != nil {
		fingerprint = err.Error() // applying reports it
	}
	steady := fingerprint == c.seen
	c.seen = fingerprint
	if !steady || fingerprint == c.applied {
		return false
	}
	c.applied = fingerprint
	return true
}
