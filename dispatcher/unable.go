package dispatcher

import (
	"log/slog"
	"maps"
	"slices"
	"time"
)

// unableTriggers looks after triggers whose endpoint this instance can't build: a variable is not
// set or not given out here, the URL or a header is malformed, or a file is missing. The scheduler claims
// nothing for such a trigger. Its events wait, and no attempt is counted, until another instance
// can send them or the fault is corrected.
type unableTriggers struct {
	scheduler *scheduler
	settler   *settler
	inbox     *inbox
	log       *slog.Logger

	tried time.Time // when retry last asked for the endpoints to be built; owned by the peers' loop
}

// unableRetry is how often endpoints that could not be built are built again: a file may have
// appeared.
const unableRetry = 5 * time.Second

// disable gives back a shipment whose endpoint can't be built, and all of its trigger that waits
// here.
func (u *unableTriggers) disable(sh *shipment, why error) {
	before := u.scheduler.unable()
	unsent := u.scheduler.disable(sh.lane, why)
	u.tell(before, map[string]bool{sh.first().event.Trigger: false})
	u.settler.giveBack(append(unsent, sh.deliveries...))
}

// tell logs each trigger that can no longer be sent for, and each that can again. able names the
// triggers whose endpoints were built now.
func (u *unableTriggers) tell(before map[string]string, able map[string]bool) {
	now := u.scheduler.unable()
	for _, trigger := range slices.Sorted(maps.Keys(able)) {
		why, was := now[trigger], before[trigger]
		switch {
		case why == "" && was != "":
			u.log.Info("this instance can send a trigger's events again", "trigger", trigger)
		case why != was:
			u.log.Error("this instance can't send a trigger's events, so they wait for one that can; correct the webhook and apply, or give this instance what is missing",
				"trigger", trigger, "error", why)
		}
	}
}

// retry has endpoints that could not be built built again, each unableRetry.
func (u *unableTriggers) retry(now time.Time) {
	if len(u.scheduler.unable()) > 0 && now.Sub(u.tried) >= unableRetry {
		u.tried = now
		u.inbox.askReload()
	}
}
