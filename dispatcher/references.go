package dispatcher

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/rowhook/rowhook/trigger"
)

// references gives out what the triggers refer to, and watches the files among it: when one of them
// changes, appears or goes, the endpoints are made anew.
type references struct {
	source trigger.Source
	inbox  *inbox
	files  occasion // there are files to watch

	mu   sync.Mutex
	seen map[string]given // files, by name, as the endpoints of now have them
}

// given is what a source gave out.
type given struct{ value, problem string }

// referencesEvery is how often files are looked at.
const referencesEvery = time.Second

// gather returns a source for endpoints that are made now, which asks for each name once. done has
// the files among the names watched.
func (r *references) gather() (source trigger.Source, done func()) {
	seen := map[string]given{}
	source = trigger.Source(func(name string) (string, error) {
		value, err := r.source(name)
		if strings.HasPrefix(name, trigger.FilePrefix) {
			seen[name] = givenOf(value, err)
		}
		return value, err
	}).Once()
	return source, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.seen = seen
		if len(seen) > 0 {
			r.files.arises()
		}
	}
}

func givenOf(value string, err error) given {
	if err != nil {
		return given{problem: err.Error()}
	}
	return given{value: value}
}

// run has the endpoints made anew when a file has changed, until ctx is done.
func (r *references) run(ctx context.Context) {
	r.files.every(ctx, referencesEvery, func() bool {
		changed, more := r.changed()
		if changed {
			r.inbox.askReload()
		}
		return more
	})
}

// changed reports whether a file is not as the endpoints have it, and whether there are files to watch.
func (r *references) changed() (changed, more bool) {
	r.mu.Lock()
	seen := r.seen
	r.mu.Unlock()
	for name, was := range seen {
		value, err := r.source(name)
		changed = changed || givenOf(value, err) != was
	}
	return changed, len(seen) > 0
}
