package sink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/rowhook/rowhook/internal/webapi"
)

// listing is the beginning of an answer with deliveries.
type listing struct {
	Counts
	// Matching is the number that was asked for: of deliveries, or of events.
	Matching int `json:"matching"`
	// Cursor is the newest sequence number, for after.
	Cursor uint64 `json:"cursor"`
	// Dropped is the number of older deliveries that are no longer kept.
	Dropped uint64 `json:"dropped"`
}

// list answers GET /deliveries.
func (s *Sink) list(w http.ResponseWriter, r *http.Request, _ []byte) error {
	q, err := readQuestion(r)
	if err != nil {
		return err
	}
	if err := errors.Join(s.checkTrigger(q.match.Trigger), s.checkCursor(q.match)); err != nil {
		return err
	}
	if q.count == 0 {
		return s.writeList(w, r, q.last, func(all []*Delivery) []*Delivery { return chosen(r.Context(), q.match, all) })
	}
	ctx, cancel := withWait(r, q.wait)
	defer cancel()
	miss := s.arrives(ctx, q.match, q.count)
	if err := stopping(r); err != nil {
		return err
	}
	if miss != nil {
		return miss.write(w, http.StatusRequestTimeout)
	}
	m := q.match.counting()
	return s.writeList(w, r, q.last, func(all []*Delivery) []*Delivery { return m.counted(r.Context(), all) })
}

// checkCursor rejects a cursor that this sink can't have given out.
func (s *Sink) checkCursor(m Match) error {
	if newest := s.Cursor(); m.After > newest {
		return invalid(fmt.Sprintf("after is %d, but the newest sequence number is %d: the receiver was started again since", m.After, newest), "begin with after=0")
	}
	return nil
}

// chosen ends early if client ends.
func chosen(client context.Context, m Match, deliveries []*Delivery) []*Delivery {
	var out []*Delivery
	for _, d := range deliveries {
		if client.Err() != nil {
			break
		}
		if m.fits(d) {
			out = append(out, d)
		}
	}
	return out
}

// writeList responds with what choose takes of the kept deliveries, the newest last of them. It
// encodes one delivery at a time, since all of them can be large.
func (s *Sink) writeList(w http.ResponseWriter, r *http.Request, last int, choose func([]*Delivery) []*Delivery) error {
	end, err := s.turns.begin(r.Context())
	if err != nil {
		return stopping(r)
	}
	v := s.journal.all()
	deliveries := choose(v.deliveries)
	end()
	if err := stopping(r); err != nil {
		return err
	}
	head, err := json.MarshalIndent(listing{v.counts, len(deliveries), v.sequence, v.dropped}, "", "  ")
	if err != nil { // numbers always marshal
		return problem(err)
	}
	deliveries = deliveries[max(0, len(deliveries)-last):]
	w.Header().Set("Content-Type", "application/json")
	hurried(w, func() {
		_, _ = io.WriteString(w, strings.TrimSuffix(string(head), "\n}")+",\n  \"deliveries\": [")
		out := json.NewEncoder(w)
		out.SetEscapeHTML(false)
		for i, d := range deliveries {
			separator := ",\n    "
			if i == 0 {
				separator = "\n    "
			}
			_, _ = io.WriteString(w, separator)
			if nestedDeeply(d.Body) {
				out.SetIndent("", "")
			} else {
				out.SetIndent("    ", "  ")
			}
			if out.Encode(d) != nil {
				return // the client is gone
			}
		}
		_, _ = io.WriteString(w, "]\n}\n")
	})
	return nil
}

// mostIndented is the depth of a body up to which it is indented. Indentation grows by the square of
// the depth: 18 kB of brackets became 160 MB in memory.
const mostIndented = 100

func nestedDeeply(body []byte) bool {
	depth := 0
	for _, c := range body {
		switch c { // those in texts count, too, which does no harm
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		if depth > mostIndented {
			return true
		}
	}
	return false
}

// forget answers DELETE /deliveries.
func (s *Sink) forget(w http.ResponseWriter, r *http.Request, _ []byte) error {
	q, err := readQuestion(r)
	if err != nil {
		return err
	}
	if err := s.checkTrigger(q.match.Trigger); err != nil {
		return err
	}
	end, err := s.turns.begin(r.Context())
	if err != nil {
		return stopping(r)
	}
	defer end()
	dropped := 0
	if r.URL.RawQuery == "" {
		dropped = s.Clear()
	} else {
		dropped = s.Forget(q.match)
	}
	return webapi.WriteJSON(w, http.StatusOK, "application/json", struct {
		Dropped int `json:"dropped"`
	}{dropped})
}

// arrives waits until count of what m chooses have arrived.
func (s *Sink) arrives(ctx context.Context, m Match, count int) *Miss {
	_, miss := s.Await(ctx, m, count)
	return miss
}

// missProblem is a Miss as an answer.
type missProblem struct {
	webapi.Problem
	*Miss
}

func (m *Miss) write(w http.ResponseWriter, status int) error {
	p := webapi.NewProblem(status, string(m.Shortfall), m.Headline(), m.remedy())
	p.Explanation = webapi.Explain(m.String(), m.remedy())
	hurried(w, func() {
		_ = webapi.WriteJSON(w, status, webapi.ProblemType, missProblem{*p, m}) // texts always encode
	})
	return nil
}

func (m *Miss) remedy() string {
	if m.Shortfall == TooFew && m.Within == 0 {
		return "to wait for it, give a time such as 5s"
	}
	return ""
}

// problem turns an error into an answer. Errors that are none are about the request.
func problem(err error) *webapi.Problem {
	var p *webapi.Problem
	if errors.As(err, &p) {
		return p
	}
	return invalid(err.Error(), "GET /openapi.json describes what is accepted")
}
