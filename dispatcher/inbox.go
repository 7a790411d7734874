package dispatcher

import (
	"strconv"
	"sync"
	"time"

	"github.com/rowhook/rowhook/internal/queue"
)

// inbox is what the other loops tell the claimer. What concerns one trigger goes to its lane in the
// scheduler. The rest stays here until the claimer takes it.
//
// Each method wakes the claimer, but for those that say that they do not. The claimer waits for
// scheduler.signal, and reads the inbox in claimer.listen.
type inbox struct {
	scheduler *scheduler
	taker     *taker

	mu sync.Mutex
	unread
	nothingDue time.Time // when a watch was last asked for that has found nothing due
}

// unread is what the claimer has not read yet.
type unread struct {
	rings int // notifications
	// bellLost says that the doorbell may say anything: the session that listens broke or is new,
	// or an instance is gone.
	bellLost bool
	listens  bool // a session listens. Reading does not reset it.
	// reload asks for a load of the configuration: it changed, or a notification named an unknown
	// trigger.
	reload bool
	watch  *queue.Watch // the latest
}

// take returns what is unread, and resets it.
func (i *inbox) take() unread {
	i.mu.Lock()
	defer i.mu.Unlock()
	u := i.unread
	i.unread = unread{listens: u.listens}
	return u
}

// listening reports whether a session listens.
func (i *inbox) listening() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.listens
}

// sessionBegins says that a session listens from now on. Whatever happened before went unheard.
func (i *inbox) sessionBegins() {
	i.mu.Lock()
	i.bellLost, i.listens, i.reload = true, true, true
	i.mu.Unlock()
	i.scheduler.markAll(true)
	i.taker.look()
}

// sessionLost says that no session listens any more. It does not wake the claimer, which may go on
// as before until its next step.
func (i *inbox) sessionLost() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.bellLost, i.listens = true, false
}

// notified takes in a notification.
func (i *inbox) notified(payload string) {
	switch payload {
	case queue.HelpPayload:
		i.scheduler.markAll(false)
		return
	case queue.StoppedPayload:
		i.inherit()
		return
	case queue.LanesPayload:
		i.scheduler.reseat()
		return
	case queue.HealthPayload:
		i.scheduler.rereadHealth()
		return
	case queue.SharesPayload:
		i.scheduler.reshare()
		return
	}
	id, err := strconv.ParseInt(payload, 10, 32)
	known := err == nil && i.scheduler.mark(int32(id))
	i.mu.Lock()
	i.rings++
	if !known {
		// The payload is "config", or names a trigger that was applied since the last load.
		i.reload = true
	}
	i.mu.Unlock()
	if !known {
		i.scheduler.wake()
	}
}

// handed takes in a notification of what was handed over. It is a ring, too, but the claimer has nothing
// to do for it. So it wakes the claimer only when there are so many that the bell may have to go silent.
func (i *inbox) handed(payload string) {
	i.taker.notified(payload)
	i.mu.Lock()
	i.rings++
	wake := i.rings%wakeEvery == 0
	i.mu.Unlock()
	if wake {
		i.scheduler.wake()
	}
}

// wakeEvery is how many hand-overs wake the claimer. It is below the fewest rings that silence a bell.
const wakeEvery = 8

// inherit takes over from an instance that is gone: the events that it gave back, the times at
// which its retries become due, its shares, and writers that are silent on its account.
func (i *inbox) inherit() {
	i.mu.Lock()
	i.bellLost = true
	i.mu.Unlock()
	i.scheduler.forgetDue(i.scheduler.ids())
	i.scheduler.markAll(true)
	i.taker.look()
	i.scheduler.reseat()
	i.scheduler.reshare()
}

// lastNothingDue is when a watch was last asked for that has found nothing due.
func (i *inbox) lastNothingDue() time.Time {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.nothingDue
}

// askReload has the configuration loaded.
func (i *inbox) askReload() {
	i.mu.Lock()
	i.reload = true
	i.mu.Unlock()
	i.scheduler.wake()
}

// watched hands over what the peers' loop has read, which was asked for at a time. outdated says that
// the configuration has changed. It returns whether a load is asked for, and whether a session listens. It does not wake
// the claimer.
func (i *inbox) watched(w *queue.Watch, asked time.Time, outdated bool) (reload, listens bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.watch = w
	if !w.Due {
		i.nothingDue = asked
	}
	i.reload = i.reload || outdated
	return i.reload, i.listens
}
