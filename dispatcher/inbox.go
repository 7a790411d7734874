package dispatcher

import (
	"strconv"
	"sync"

	"github.com/rowhook/rowhook/sqlschema"
)

// inbox is what the other loops tell the claimer.
type inbox struct {
	mu sync.Mutex
	heard
}

// heard is what a claimer has not yet looked at.
type heard struct {
	rings  int              // notifications
	lost   bool             // the session that listens broke, or was opened anew
	listen bool             // there is one
	reload bool             // the configuration changed, or a trigger is unknown
	watch  *sqlschema.Watch // latest
}

// take returns what there was and forgets it.
func (i *inbox) take() heard {
	i.mu.Lock()
	defer i.mu.Unlock()
	t := i.heard
	i.heard = heard{listen: t.listen}
	return t
}

func (i *inbox) lose() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.lost, i.listen = true, false
}

// lost is called when the session that listened has ended.
func (d *Dispatcher) lost() {
	d.inbox.lose()
	d.pulse.poke() // the others must not wait for the lock of a session that is gone
	d.tell.listening(false)
}

// notified is called for every notification, on the listener's goroutine.
func (d *Dispatcher) notified(payload string) {
	d.tell.rang()
	switch payload {
	case sqlschema.HelpPayload:
		d.scheduler.markAll(false)
		return
	case sqlschema.StoppedPayload:
		d.inherit()
		return
	}
	id, err := strconv.ParseInt(payload, 10, 32)
	known := err == nil && d.scheduler.mark(int32(id))
	d.inbox.mu.Lock()
	d.inbox.rings++
	if !known {
		d.inbox.reload = true // "config", or a trigger that was applied since
	}
	d.inbox.mu.Unlock()
	if !known {
		d.scheduler.wake()
	}
}

// inherit looks after what an instance that is gone would have: what it gave back, when its retries are due, and writers
// that are silent on its account.
func (d *Dispatcher) inherit() {
	d.inbox.mu.Lock()
	d.inbox.lost = true
	d.inbox.mu.Unlock()
	d.scheduler.refire(d.scheduler.ids())
	d.scheduler.markAll(true)
}

// listening is called when a session begins to listen: whatever happened before went unheard.
func (d *Dispatcher) listening() {
	d.inbox.mu.Lock()
	d.inbox.lost, d.inbox.listen, d.inbox.reload = true, true, true
	d.inbox.mu.Unlock()
	d.pulse.poke()
	d.scheduler.markAll(true)
	d.tell.listening(true)
	d.readyOnce.Do(func() {
		d.log.Info("ready", "instance", d.id, "triggers", len(d.scheduler.ids()), "concurrency", d.cfg.Concurrency, "poll", d.cfg.PollInterval)
		close(d.ready)
	})
}

func (d *Dispatcher) askReload() {
	d.inbox.mu.Lock()
	d.inbox.reload = true
	d.inbox.mu.Unlock()
	d.scheduler.wake()
}
