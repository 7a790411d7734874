package dispatcher

import (
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
}

func (n notice) log(log *slog.Logger) {
	switch n.change {
	case behind:
		log.Warn("falling behind: events come in faster than they are delivered",
			"trigger", n.trigger, "remedy", "raise "+n.setting+", make the receiver faster, or start another instance")
	case caughtUp:
		log.Info("caught up: no due event is waiting any more", "trigger", n.trigger)
	case nothing:
	}
}
