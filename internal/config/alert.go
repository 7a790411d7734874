package config

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/rowhook/rowhook/trigger"
)

// The bounds of what is looked at every ten seconds.
const (
	leastBacklog   = trigger.Duration(10 * time.Second)
	leastHeartbeat = trigger.Duration(10 * time.Second)
)

func checkAtLeast(key string, least trigger.Duration) func(string) error {
	return func(s string) error {
		if d, err := trigger.ParseDuration(s); err != nil || d < least {
			return fmt.Errorf("%s is too short; write %s: %v or more", s, key, least)
		}
		return nil
	}
}

// defaultAlert has the defaults of both kinds of entries. checkAlert takes back those of the other.
func defaultAlert() trigger.Alert {
	return trigger.Alert{
		Format: trigger.AlertJSON, Backlog: trigger.Backlog{OlderThan: trigger.DefaultBacklog}, Every: trigger.DefaultHeartbeat,
	}
}

// checkAlert checks what only a whole entry can tell.
func (d *decoder) checkAlert(a *trigger.Alert, at place) {
	given := func(key string) (Position, bool) { return d.positions.at(d.name, at.path.to(key)) }
	refuse := func(keys []string, format string) {
		for _, key := range keys {
			if pos, ok := given(key); ok {
				d.reportAt(pos, at.path.to(key), format, key)
			}
		}
	}
	switch {
	case a.URL == "" && a.Heartbeat == "":
		d.reportAt(at.pos, at.path, "has no url and no heartbeat; write url: and where alerts are sent, or heartbeat: and a URL to call")
	case a.URL != "" && a.Heartbeat != "":
		refuse([]string{"heartbeat"}, "%s is an entry of its own; write it under a dash of its own, without url")
	case a.Heartbeat != "":
		refuse([]string{"on", "format", "secret", "backlog"}, "%s belongs to an entry with a url; remove it here, since a heartbeat tells nothing")
		*a = trigger.Alert{Heartbeat: a.Heartbeat, Every: a.Every}
	default:
		refuse([]string{"every"}, "%s belongs to an entry with a heartbeat; remove it")
		a.Every = 0
		if a.Tells(trigger.AlertBacklog) {
			return
		}
		refuse([]string{"backlog"}, "%s has no effect, since on does not have backlog; add it there, or remove this")
		a.Backlog = trigger.Backlog{}
	}
}

// uniqueAlerts reports an entry for a URL that another one has: each would tell the same.
func (d *decoder) uniqueAlerts(alerts []trigger.Alert, at place) {
	for i := range alerts {
		a := &alerts[i]
		first := slices.IndexFunc(alerts, func(b trigger.Alert) bool { return b.URL == a.URL && b.Heartbeat == a.Heartbeat })
		path := at.path.to(strconv.Itoa(i))
		if first == i || a.URL+a.Heartbeat == "" || !d.cleanIn(d.name, path) {
			continue
		}
		pos, _ := d.positions.at(d.name, path)
		d.reportAt(pos, path, "has the URL of entry %d; put both into one", first+1)
	}
}

// eachReferringAlert visits the values of alerts that may contain references, in a fixed order.
func (c *Config) eachReferringAlert(visit func(value string, path ...string)) {
	for i := range c.Settings.Alerts {
		a, n := &c.Settings.Alerts[i], strconv.Itoa(i)
		visit(a.URL, "alerts", n, "url")
		visit(a.Heartbeat, "alerts", n, "heartbeat")
		visit(a.Secret, "alerts", n, "secret")
	}
}

// AlertReferences returns what an entry of alerts refers to: the names of environment variables, and
// the paths of files, both sorted.
func AlertReferences(a trigger.Alert) (variables, files []string) {
	return referencesIn(a.URL, a.Heartbeat, a.Secret)
}
