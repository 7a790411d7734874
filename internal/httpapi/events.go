package httpapi

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rowhook/rowhook/internal/access"
	"github.com/rowhook/rowhook/internal/hint"
	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/webapi"
	"github.com/rowhook/rowhook/webhook"
)

func (s *Server) status(_ http.ResponseWriter, r *http.Request) (int, any, error) {
	tables, err := yesNo(r.URL.Query(), "tables")
	if err != nil {
		return 0, nil, err
	}
	st, err := operate.ReadStatus(r.Context(), s.cfg.DB)
	if err == nil && tables {
		err = st.ReadTables(r.Context(), s.cfg.DB)
	}
	if err != nil {
		return 0, nil, err
	}
	st.NameSource(s.cfg.Source)
	return http.StatusOK, st, nil
}

// yesNo reads a parameter that is true or false; without it it is false.
func yesNo(q url.Values, name string) (bool, error) {
	switch text := q.Get(name); text {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	default:
		return false, invalid(name, text, "write true or false")
	}
}

func (s *Server) list(_ http.ResponseWriter, r *http.Request) (int, any, error) {
	q := r.URL.Query()
	f, err := readFilter(r)
	if err != nil {
		return 0, nil, err
	}
	o := operate.ListOptions{Cursor: q.Get("cursor"), Last: true}
	if o.Limit, err = number(q, "limit", 1, operate.MaxLimit); err != nil {
		return 0, nil, err
	}
	if o.Payload, err = yesNo(q, "with_payload"); err != nil {
		return 0, nil, err
	}
	if o.Payload {
		if err := require(r, access.Payloads); err != nil {
			return 0, nil, err
		}
	}
	page, err := operate.List(r.Context(), s.cfg.DB, f, o)
	return http.StatusOK, page, err
}

func (s *Server) count(_ http.ResponseWriter, r *http.Request) (int, any, error) {
	f, err := readFilter(r)
	if err != nil {
		return 0, nil, err
	}
	tally, err := operate.Count(r.Context(), s.cfg.DB, f, 0)
	return http.StatusOK, tally, err
}

func (s *Server) groups(_ http.ResponseWriter, r *http.Request) (int, any, error) {
	f, err := readFilter(r)
	if err != nil {
		return 0, nil, err
	}
	by := several(r.URL.Query(), "by")
	if slices.Contains(by, "error") { // it is the text of a failure, which may quote a response
		if err := require(r, access.Payloads); err != nil {
			return 0, nil, err
		}
	}
	groups, err := operate.GroupBy(r.Context(), s.cfg.DB, f, by, 0)
	return http.StatusOK, groups, err
}

func (s *Server) show(_ http.ResponseWriter, r *http.Request) (int, any, error) {
	d, err := operate.Show(r.Context(), s.cfg.DB, r.PathValue("id"))
	if err != nil {
		return 0, nil, err
	}
	d.Next = hint.Of(s.cfg.Source, d.Next)
	for name, value := range d.Request.Headers {
		if webhook.IsCredential(name) && !strings.Contains(value, "${") { // its value is in rowhook.yaml itself
			d.Request.Headers[name] = "<redacted>"
		}
	}
	if require(r, access.Payloads) != nil {
		d.QuoteNothing()
	}
	return http.StatusOK, d, nil
}

// checkFilter rejects a filter that its sender may not use: by whether an event is found somebody
// could guess what is in it.
func checkFilter(r *http.Request, f *operate.Filter) error {
	if f.Payload == "" && f.Error == "" {
		return nil
	}
	return require(r, access.Payloads)
}

// readFilter reads the parameters that choose events.
func readFilter(r *http.Request) (operate.Filter, error) {
	q := r.URL.Query()
	f := operate.Filter{IDs: several(q, "id"), Triggers: several(q, "trigger"), Table: q.Get("table"), Payload: q.Get("payload"),
		Error: q.Get("error"), Statuses: several(q, "status"), Kinds: several(q, "kind")}
	for _, text := range several(q, "state") {
		state, err := operate.ParseState(text)
		if err != nil {
			return f, err
		}
		f.States = append(f.States, state)
	}
	for _, op := range several(q, "op") {
		f.Ops = append(f.Ops, strings.ToUpper(op))
	}
	err := checkFilter(r, &f)
	if err == nil {
		f.Since, f.Until, err = readTimes(q)
	}
	return f, err
}

// readTimes reads the parameters since and until. A time without a zone is UTC.
func readTimes(q url.Values) (since, until time.Time, err error) {
	if since, err = readTime(q, "since"); err == nil {
		until, err = readTime(q, "until")
	}
	return since, until, err
}

// readTime reads a parameter that is a time. A missing one is the zero time.
func readTime(q url.Values, name string) (time.Time, error) {
	text := q.Get(name)
	if text == "" {
		return time.Time{}, nil
	}
	t, ok := operate.ParseTime(text, time.UTC)
	if i := strings.LastIndexByte(text, ' '); !ok && i >= 0 { // a plus sign that was not encoded arrives as a space
		t, ok = operate.ParseTime(text[:i]+"+"+text[i+1:], time.UTC)
	}
	if !ok {
		return t, invalid(name, text, "write RFC 3339, such as 2026-11-23T15:04:05Z, or what Postgres prints, such as 2026-11-23 15:04:05+00")
	}
	return t, nil
}

// several returns the values of a parameter that may be repeated, without empty ones.
func several(q url.Values, name string) []string {
	return slices.DeleteFunc(q[name], func(v string) bool { return v == "" })
}

// number reads a whole number from least to most. A missing one is 0.
func number(q url.Values, name string, least, most int) (int, error) {
	text := q.Get(name)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		return 0, invalid(name, text, fmt.Sprintf("write a whole number from %d to %d", least, most))
	}
	return n, nil
}

func invalid(name, value, remedy string) *Problem {
	return webapi.NewProblem(http.StatusBadRequest, "invalid", fmt.Sprintf("%s can't be %q", name, value), remedy)
}
