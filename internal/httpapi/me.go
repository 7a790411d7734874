package httpapi

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/rowhook/rowhook/internal/access"
	"github.com/rowhook/rowhook/internal/operate"
)

// Me is what the sender of a request may do, and what it is connected to.
type Me struct {
	Name   *string    `json:"name"`   // of its token; null: the token has no name, or there is none
	Tokens bool       `json:"tokens"` // tokens are set; false: nobody needs one
	Scopes []string   `json:"scopes"`
	May    []string   `json:"may"`   // what its scopes and the rights of the database's role allow, see allowed
	Until  *time.Time `json:"until"` // when its token ends; null: never
	Actor  string     `json:"actor"` // what the audit calls it
	// What it is connected to.
	Version   string     `json:"version"`
	Database  string     `json:"database"` // for people
	Instance  MeInstance `json:"instance"`
	Dev       bool       `json:"dev"`        // rowhook dev runs
	TraceLink *string    `json:"trace_link"` // a URL with {trace_id} in it; null: none is set
	Now       time.Time  `json:"now"`        // by the clock of the instance
}

// MeInstance is the instance that responds.
type MeInstance struct {
	ID   int32  `json:"id"` // 0: it has not started yet
	Name string `json:"name"`
}

func (s *Server) me(_ http.ResponseWriter, r *http.Request) (int, any, error) {
	b, stats := bearerOf(r.Context()), s.cfg.Stats()
	out := Me{
		Tokens: s.guard.tokens, Scopes: b.scopes.Names(), May: allowed(b.scopes, s.rights.look(r.Context(), s)), Actor: b.actor,
		Version: s.cfg.Version, Database: s.cfg.Database, Instance: MeInstance{stats.Instance, stats.Name}, Now: time.Now(),
	}
	if b.name != "" {
		out.Name = &b.name
	}
	if !b.until.IsZero() {
		out.Until = &b.until
	}
	if out.Dev = s.cfg.Dev != nil; out.Dev && b.scopes.Has(access.Admin) {
		out.May = append(out.May, "dev")
	}
	if s.cfg.TraceLink != "" {
		out.TraceLink = &s.cfg.TraceLink
	}
	return http.StatusOK, out, nil
}

// allowed returns what somebody may do. Rights that are nil are not known: the server responds to
// what the role may not do with the problem no_rights.
func allowed(scopes access.Scopes, rights operate.Rights) []string {
	may := []string{}
	for _, a := range []struct {
		name  string
		scope access.Scopes
		right string // "": needs none
	}{
		{"events", access.Status, "list"}, {"payloads", access.Payloads, "list"}, {"audit", access.Status, "audit"},
		{"pause", access.Steer, "pause"}, {"resume", access.Steer, "resume"}, {"redeliver", access.Steer, "redeliver"}, {"discard", access.Steer, "discard"},
		{"retry", access.Steer, "retry"}, {"cancel", access.Steer, "cancel"}, {"invoke", access.Steer, "invoke"}, {"backfill", access.Steer, "backfill"},
		{"backfill_where", access.Admin, "backfill"}, {"replay", access.Steer, "replay"}, {"cancel_operation", access.Steer, ""},
	} {
		if scopes.Has(a.scope) && (rights == nil || a.right == "" || rights[a.right]) {
			may = append(may, a.name)
		}
	}
	return may
}

// rights asks for the rights of the database's role at most once per rightsEvery, so that pages can't
// put load on it.
type rights struct {
	mu   sync.Mutex
	at   time.Time
	last operate.Rights // nil: not known
}

const (
	rightsEvery   = 5 * time.Second
	rightsTimeout = 2 * time.Second
)

// look returns the rights. While the database does not respond these are the ones read last.
func (d *rights) look(ctx context.Context, s *Server) operate.Rights {
	d.mu.Lock()
	defer d.mu.Unlock()
	if time.Since(d.at) < rightsEvery {
		return d.last
	}
	ctx, cancel := context.WithTimeout(ctx, rightsTimeout)
	defer cancel()
	found, err := operate.ReadRights(ctx, s.cfg.DB)
	switch {
	case err == nil:
		d.last = found
	case errors.Is(ctx.Err(), context.Canceled): // the client is gone: the next one asks again
		return d.last
	default:
		s.log.Debug("HTTP: can't read the rights of the role", "error", err)
	}
	d.at = time.Now()
	return d.last
}

// CheckTraceLink checks the template of a link to a trace. Its error says what to write.
func CheckTraceLink(template string) error {
	u, err := url.Parse(strings.ReplaceAll(template, traceID, "0"))
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || !strings.Contains(template, traceID) {
		return errors.New("write a URL with {trace_id} in it, such as https://tempo.example.com/trace/{trace_id}")
	}
	return nil
}

const traceID = "{trace_id}"
