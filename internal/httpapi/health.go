package httpapi

import (
	"cmp"
	"context"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/sqlschema"
)

// Readiness is whether a dispatcher can deliver, and if not, what it lacks.
type Readiness struct {
	Status string  `json:"status"` // ready, or not ready
	Checks []Check `json:"checks"`
}

// Check is one condition.
type Check struct {
	Name   string `json:"name"` // running, connected, migrated, registered, listening, claiming, sending, settling, history or capturing
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"` // why not, or what is wrong although it can deliver
}

func (s *Server) alive(http.ResponseWriter, *http.Request) (int, any, error) {
	return http.StatusOK, map[string]string{"status": "alive", "version": s.cfg.Version}, nil
}

// ready answers 200, or 503. Whoever has no token gets no details, as they name hosts and users.
func (s *Server) ready(_ http.ResponseWriter, r *http.Request) (int, any, error) {
	out := s.readiness.look(r.Context())
	if !s.guard.may(r, read) {
		for i := range out.Checks {
			out.Checks[i].Detail = ""
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

// readiness asks the database seldom enough that nobody can make it a load.
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
	checks := []Check{{Name: "running", OK: true}}
	switch {
	case stats.Stopping:
		checks[0] = Check{Name: "running", Detail: "it is stopping"}
	case !stats.Started:
		checks[0] = Check{Name: "running", Detail: "it has not started yet"}
	}
	database := d.database(ctx)
	checks = append(checks, database[:]...)
	registered := Check{Name: "registered", OK: stats.Registered}
	if !registered.OK {
		registered.Detail = "not registered: it is not in rowhook.instance, so it claims nothing; it registers again as soon as the database lets it"
	}
	listening := Check{Name: "listening", OK: stats.Listens || stats.Polls}
	if !listening.OK {
		listening.Detail = "no session listens; changes are found by the interval poll"
	}
	checks = append(checks, registered, listening,
		Check{Name: "claiming", OK: stats.Started && stats.Claiming == "", Detail: stats.Claiming},
		sending(stats.Triggers),
		Check{Name: "settling", OK: stats.Settling == "", Detail: stats.Settling},
		// It is ready without history: deliveries go on.
		Check{Name: "history", OK: true, Detail: cmp.Or(stats.History, stats.HistoryEnds)},
		capturing(stats.Uncaptured))
	out := Readiness{Status: statusReady, Checks: checks}
	for _, c := range checks {
		if !c.OK {
			out.Status = statusNotReady
		}
	}
	return out
}

// sending tells which triggers this instance can't send for. It is ready nevertheless while it can send for some: the others may
// be another instance's.
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
	c.Detail = "it can't send for these, whose events wait for an instance that can: " + strings.Join(unable, "; ")
	return c
}

// capturing tells of which tables changes are not recorded. It makes nobody unready, as another instance would do no better.
func capturing(lacking []sqlschema.Uncaptured) Check {
	texts := make([]string, len(lacking))
	for i, u := range lacking {
		texts[i] = u.Trigger + ": " + u.String()
	}
	return Check{Name: "capturing", OK: true, Detail: strings.Join(texts, "; ")}
}

// database asks for the schema, at most every checkEvery.
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
		migrated.OK, migrated.Detail = false, "not known"
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
