package httpapi

import (
	"bufio"
	"encoding/json"
	"net/http"
	"time"

	"github.com/rowhook/rowhook/internal/operate"
)

// exportWrite is how long a client may take to accept a part of a download.
const exportWrite = 30 * time.Second

// export sends the events that a filter chooses as a file with a line of JSON for each. If it can't
// go on, it ends the connection, so that the client sees that the file is not complete.
func (s *Server) export(w http.ResponseWriter, r *http.Request) (int, any, error) {
	f, err := readFilter(r)
	if err != nil {
		return 0, nil, err
	}
	// Check the filter first, as for a tail.
	if _, err := operate.List(r.Context(), s.cfg.DB, f, operate.ListOptions{Limit: 1, Budget: time.Millisecond}); err != nil {
		return 0, nil, err
	}
	leave, err := s.streams.enter(r)
	if err != nil {
		return 0, nil, err
	}
	defer leave()
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Content-Disposition", `attachment; filename="rowhook-events-`+time.Now().UTC().Format("20060102T150405Z")+`.ndjson"`)
	w.WriteHeader(http.StatusOK)
	out := bufio.NewWriterSize(timedWriter{w, http.NewResponseController(w)}, 64<<10)
	lines := json.NewEncoder(out)
	lines.SetEscapeHTML(false)
	err = operate.Export(r.Context(), s.cfg.DB, f, func(e operate.Event) error { return lines.Encode(e) })
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		if r.Context().Err() == nil {
			_ = s.asProblem(r, err) // which logs it
		}
		panic(http.ErrAbortHandler)
	}
	return 0, nil, nil
}

// timedWriter writes each part under a deadline.
type timedWriter struct {
	http.ResponseWriter
	control *http.ResponseController
}

func (t timedWriter) Write(p []byte) (int, error) {
	if err := t.control.SetWriteDeadline(time.Now().Add(exportWrite)); err != nil {
		return 0, err
	}
	return t.ResponseWriter.Write(p)
}
