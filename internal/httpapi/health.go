package httpapi

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/access"
	"github.com/rowhook/rowhook/sqlschema"
)

// Readiness says whether a dispatcher can deliver, and which checks fail.
type Readiness struct {
	Status string  `json:"status"` // ready, or not ready
	Checks []Check `json:"checks"`
	// Sources are those of a process that works on several.
	Sources []SourceReadiness `json:"sources,omitempty"`
}

// Check is one condition of readiness.
type Check struct {
	Name   string `json:"name"` // running, connected, migrated, registered, listening, claiming, sending, settling, history, capturing or sources
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"` // why it fails, or a problem that does not prevent deliveries
	Remedy string `json:"remedy,omitempty"` // what to do about Detail
}

func (s *Server) alive(http.ResponseWriter, *http.Request) (int, any, error) {
	return http.StatusOK, map[string]string{"status": "alive", "version": s.cfg.Version}, nil
}

// ready responds with 200 or 503. Without a token the response has no details: they name hosts and
// users.
func (s *Server) ready(_ http.ResponseWriter, r *http.Request) (int, any, error) {
	var out Readiness
	if s.cfg.Sources != nil {
		out = s.readinessOfSources(r.Context())
	} else {
		out = s.readiness.look(r.Context())
	}
	if b := bearerOf(r.Context()); b == nil || !b.scopes.Has(access.Status) {
		out.Sources = nil // their names say who the customers are
		for i := range out.Checks {
			out.Checks[i].Detail, out.Checks[i].Remedy = "", ""
		}
	}
	if out.Status != statusReady {
		return http.StatusServiceUnavailable, out, nil
	}
	return http.StatusOK, out, nil
}

const (
	statusReady    = "ready"
	statusNotReady = "not ready"
)

// readiness queries the database at most once per checkEvery, so that probes can't put load on it.
type readiness struct {
	server *Server
	mu     sync.Mutex
	at     time.Time
	last   [2]Check // connected, migrated
}

const (
	checkEvery   = time.Second
	checkTimeout = 3 * time.Second
)

func (d *readiness) look(ctx context.Context) Readiness {
	stats := d.server.cfg.Stats()
	migrated := Check{Name: "migrated", OK: stats.Unworkable == "", Detail: cmp.Or(stats.Unworkable, sqlschema.Lag(stats.Schema))}
	if stats.Standby {
		return judged([]Check{{
			Name: "running", OK: true, Detail: fmt.Sprintf("another process serves it, and this one stands by; processes: %d, serving: %d", stats.Processes, stats.Serving),
		}, migrated})
	}
	checks := []Check{{Name: "running", OK: true}}
	switch {
	case stats.Stopping:
		checks[0] = Check{Name: "running", Detail: "the dispatcher is stopping"}
	case !stats.Started:
		checks[0] = Check{Name: "running", Detail: "the dispatcher has not started yet"}
		if starting := d.server.cfg.Starting; starting != nil && starting() != "" {
			checks[0].Detail += ": " + starting()
		}
	}
	if d.server.cfg.Unprobed {
		checks = append(checks, migrated)
	} else {
		database := d.database(ctx)
		if database[1].OK {
			database[1].Detail = migrated.Detail
		}
		checks = append(checks, database[:]...)
	}
	registered := Check{Name: "registered", OK: stats.Registered}
	if !registered.OK {
		registered.Detail = "the dispatcher has no row in rowhook.instance, so it claims no events; it registers again when the database allows it"
	}
	listening := Check{Name: "listening", OK: stats.Listens || stats.Polls}
	if !listening.OK {
		listening.Detail = "no session listens for notifications; the interval poll finds changes"
	}
	return judged(append(checks, registered, listening,
		Check{Name: "claiming", OK: stats.Started && stats.Claiming == "", Detail: stats.Claiming},
		sending(stats.Triggers),
		Check{Name: "settling", OK: stats.Settling == "", Detail: stats.Settling},
		// A dispatcher without history is ready, because deliveries continue.
		Check{Name: "history", OK: true, Detail: cmp.Or(stats.History, stats.HistoryEnds)},
		capturing(stats.Uncaptured)))
}

// judged returns what the checks come to. Those that fail or have a detail get their remedies.
func judged(checks []Check) Readiness {
	out := Readiness{Status: statusReady, Checks: checks}
	for i := range checks {
		c := &checks[i]
		if !c.OK {
			out.Status = statusNotReady
		}
		if !c.OK || c.Detail != "" && c.Name != "running" {
			c.Remedy = remedies()[c.Name]
		}
	}
	return out
}

// remedies say what to do about a check that fails or has a detail, by its name.
func remedies() map[string]string {
	return map[string]string{
		"running":    "wait until it has started; a start that hangs waits for the database: look at the log",
		"connected":  "check that the database runs and takes connections, and DATABASE_URL with its password; the dispatcher connects again by itself",
		"migrated":   "run \"rowhook migrate\" with the newest version, or use the version of this program that the schema needs",
		"registered": "check the role's rights (rowhook apply --grant-to), and what the database lacks: disk, connections, or that it is read-only",
		"listening":  "deliveries may be later by the poll interval; check the connection limit, and with a pooler set ROWHOOK_LISTEN_URL to the database itself",
		"claiming":   "look at the detail: usually the database is away, locks are held on rowhook.event_log, or a right is missing (rowhook apply --grant-to)",
		"sending":    "set the variables and files that are named where this instance runs, and restart it; or correct the webhook and apply",
		"settling":   "look at the detail: usually the database is away, its disk is full, or a right is missing; outcomes are kept and written when it works",
		"history":    "check for a full disk, revoked rights and event triggers that forbid DDL: \"When history can't be written\" in docs/operations.md",
		"capturing":  "run \"rowhook apply\", which makes the missing capture triggers",
	}
}

// sending names the triggers that this instance can't send for. The check fails only if it can send
// for none: another instance may be able to send for the others.
func sending(triggers []dispatcher.TriggerStats) Check {
	c := Check{Name: "sending", OK: true}
	var unable []string
	active := 0
	for _, t := range triggers {
		if !t.Paused {
			active++
		}
		if t.Unable == "" {
			continue
		}
		unable = append(unable, t.Name+": "+t.Unable)
		if !t.Paused {
			active--
		}
	}
	if len(unable) == 0 {
		return c
	}
	c.OK = active > 0
	c.Detail = "this instance can't send for these triggers, and their events wait for an instance that can: " + strings.Join(unable, "; ")
	return c
}

// capturing names the tables whose changes are not recorded. The check never fails, because no
// other instance would do better.
func capturing(lacking []sqlschema.Uncaptured) Check {
	texts := make([]string, len(lacking))
	for i, u := range lacking {
		texts[i] = u.Trigger + ": " + u.String()
	}
	return Check{Name: "capturing", OK: true, Detail: strings.Join(texts, "; ")}
}

// database checks the connection and the schema, at most once per checkEvery.
func (d *readiness) database(ctx context.Context) [2]Check {
	d.mu.Lock()
	defer d.mu.Unlock()
	if time.Since(d.at) < checkEvery {
		return d.last
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	connected, migrated := Check{Name: "connected", OK: true}, Check{Name: "migrated", OK: true}
	var one int
	if err := d.server.cfg.Probe.QueryRow(ctx, "select 1").Scan(&one); err != nil {
		connected.OK, connected.Detail = false, err.Error()
		migrated.OK, migrated.Detail = false, "unknown while the database does not respond"
	} else if err := d.server.cfg.Schema(ctx); err != nil {
		migrated.OK, migrated.Detail = false, err.Error()
	}
	d.last, d.at = [2]Check{connected, migrated}, time.Now()
	return d.last
}

func (s *Server) metrics(w http.ResponseWriter, r *http.Request) (int, any, error) {
	s.cfg.Metrics.ServeHTTP(w, r)
	return 0, nil, nil
}
