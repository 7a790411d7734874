package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/rowhook/rowhook/internal/operate"
)

const (
	tailBeat  = 15 * time.Second // interval of keep-alive messages, so that each side notices when the other is gone
	tailWrite = 10 * time.Second // how long a client may take to accept a message
)

// tail streams events until the client disconnects: as server-sent events if it accepts those,
// otherwise as lines of JSON.
func (s *Server) tail(w http.ResponseWriter, r *http.Request) (int, any, error) {
	f, err := readFilter(r)
	if err != nil {
		return 0, nil, err
	}
	// Check the filter first: an error can have its own status only before the stream begins.
	if _, err := operate.List(r.Context(), s.cfg.DB, f, operate.ListOptions{Limit: 1, Budget: time.Millisecond}); err != nil {
		return 0, nil, err
	}
	if f.Since.IsZero() { // every event after the client sees the beginning of the stream is in it
		if err := s.cfg.DB.QueryRow(r.Context(), "select clock_timestamp()").Scan(&f.Since); err != nil {
			return 0, nil, err
		}
	}
	leave, err := s.streams.enter(r)
	if err != nil {
		return 0, nil, err
	}
	defer leave()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	out := newStream(w, r)
	out.begin()
	var beating sync.WaitGroup
	defer beating.Wait()
	defer cancel()
	beating.Go(func() {
		ticker := time.NewTicker(tailBeat)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			if out.beat() != nil {
				cancel()
				return
			}
		}
	})
	err = operate.Tail(ctx, s.cfg.DB, f, func(e operate.Event) error { return out.send("event", e.ID, e) }, func() {
		_ = out.send("skipped", "", map[string]bool{"skipped": true}) // if this fails, so does the next event, which ends the tail
	})
	if err != nil && ctx.Err() == nil {
		_ = out.send("problem", "", s.asProblem(r, err)) // the last message
	}
	if p := ended(r); p != nil {
		_ = out.send("problem", "", p)
	}
	return 0, nil, nil
}

// stream writes messages to a client, each under a deadline.
type stream struct {
	mu      sync.Mutex
	w       http.ResponseWriter
	control *http.ResponseController
	request *http.Request
	events  bool // server-sent events; false: lines of JSON
}

func newStream(w http.ResponseWriter, r *http.Request) *stream {
	return &stream{w: w, control: http.NewResponseController(w), request: r, events: strings.Contains(r.Header.Get("Accept"), "text/event-stream")}
}

func (s *stream) begin() {
	contentType := "application/x-ndjson"
	if s.events {
		contentType = "text/event-stream"
	}
	s.w.Header().Set("Content-Type", contentType)
	s.w.Header().Set("X-Accel-Buffering", "no") // nginx and what follows it pass on each message
	s.w.WriteHeader(http.StatusOK)
	_ = s.beat() // tells a client that streams get through; if it is gone, the first message fails
}

func (s *stream) send(kind, id string, v any) error {
	v, err := shown(s.request, v)
	if err != nil {
		return err
	}
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode a message: %w", err)
	}
	if !s.events {
		return s.write(append(data, '\n'))
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "event: %s\n", kind)
	if id != "" {
		fmt.Fprintf(&b, "id: %s\n", id)
	}
	fmt.Fprintf(&b, "data: %s\n\n", data)
	return s.write(b.Bytes())
}

// ended returns why the token of a request is valid no longer; nil: it is. It is the last message of a
// stream.
func ended(r *http.Request) *Problem {
	var p *Problem
	if errors.As(context.Cause(r.Context()), &p) {
		return p
	}
	return nil
}

// beat sends a keep-alive: a comment of server-sent events, or an empty line.
func (s *stream) beat() error {
	if s.events {
		return s.write([]byte(":\n\n"))
	}
	return s.write([]byte("\n"))
}

func (s *stream) write(data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.control.SetWriteDeadline(time.Now().Add(tailWrite)); err != nil {
		return err
	}
	if _, err := s.w.Write(data); err != nil {
		return err
	}
	return s.control.Flush()
}
