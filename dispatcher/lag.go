package dispatcher

import (
	"fmt"
	"log/slog"
	"time"
)

// lag notices that a trigger's events come in faster than they are delivered, and that this is
// over. It reports each once.
type lag struct {
	full   int       // claims in a row that brought all they asked for
	since  time.Time // of the first of those
	warned bool
}

// A trigger is behind when lagClaims claims in a row were full, over at least lagTime. A burst that
// is soon worked off does not count.
const (
	lagClaims = 10
	lagTime   = 2 * time.Second
)

// change is what a lag noticed.
type change int

const (
	nothing change = iota
	behind
	caughtUp
)

// claimed records whether a claim brought all that it asked for.
func (l *lag) claimed(now time.Time, full bool) change {
	if !full {
		was := l.warned
		*l = lag{}
		if was {
			return caughtUp
		}
		return nothing
	}
	if l.full++; l.full == 1 {
		l.since = now
	}
	if l.warned || l.full < lagClaims || now.Sub(l.since) < lagTime {
		return nothing
	}
	l.warned = true
	return behind
}

// notice is a change that people are told of.
type notice struct {
	change  change
	trigger string
	setting string // to raise
	bound   string // a bound of the trigger that is meant to slow it down; "": none
}

// bound names the setting that slows a lane down on purpose.
func (l *lane) bound() string {
	switch s := &l.trigger.Spec; {
	case !s.Rate.IsZero():
		return "rate: " + s.Rate.Limit.String()
	case l.share.on:
		return fmt.Sprintf("concurrency: {total: %d}", s.ConcurrencyTotal)
	}
	return ""
}

func (n notice) log(log *slog.Logger) {
	switch n.change {
	case behind:
		if n.bound != "" {
			log.Warn("falling behind: events come in faster than a bound of the trigger lets them be sent",
				"trigger", n.trigger, "bound", n.bound, "remedy", "raise it in rowhook.yaml if the receiver can take more; another instance does not help")
			return
		}
		log.Warn("falling behind: events come in faster than they are delivered",
			"trigger", n.trigger, "remedy", "raise "+n.setting+", make the receiver faster, or start another instance")
	case caughtUp:
		log.Info("caught up: no due event is waiting any more", "trigger", n.trigger)
	case nothing:
	}
}
