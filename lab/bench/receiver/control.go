package receiver

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Control serves a Remote.
func (r *Receiver) Control() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /reset", func(w http.ResponseWriter, req *http.Request) {
		capacity, err := strconv.Atoi(req.FormValue("capacity"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.Reset(capacity)
	})
	mux.HandleFunc("POST /gate", func(_ http.ResponseWriter, req *http.Request) { r.Shut(req.FormValue("shut") == "true") })
	mux.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(r.Stats()) })
	mux.HandleFunc("GET /await", func(w http.ResponseWriter, req *http.Request) {
		n, err := strconv.ParseInt(req.FormValue("n"), 10, 64)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.Await(req.Context(), n)
		_ = json.NewEncoder(w).Encode(r.Stats())
	})
	mux.HandleFunc("GET /stamps", func(w http.ResponseWriter, _ *http.Request) {
		stamps := r.Stamps()
		out := make([]byte, 0, 8*len(stamps))
		for _, s := range stamps {
			out = binary.LittleEndian.AppendUint64(out, uint64(s))
		}
		_, _ = w.Write(out)
	})
	return mux
}

// Remote steers a Receiver in another process through its Control.
type Remote struct {
	URL    string // of the Control
	Client *http.Client
}

// Reset is Receiver.Reset.
func (r *Remote) Reset(ctx context.Context, capacity int) error {
	_, err := r.do(ctx, http.MethodPost, "/reset", url.Values{"capacity": {strconv.Itoa(capacity)}})
	return err
}

// Shut is Receiver.Shut.
func (r *Remote) Shut(ctx context.Context, shut bool) error {
	_, err := r.do(ctx, http.MethodPost, "/gate", url.Values{"shut": {strconv.FormatBool(shut)}})
	return err
}

// Stats is Receiver.Stats.
func (r *Remote) Stats(ctx context.Context) (s Stats, err error) {
	b, err := r.do(ctx, http.MethodGet, "/stats", nil)
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	return s, err
}

// Await waits until n events have arrived, for at most the given time. It returns what has arrived.
func (r *Remote) Await(ctx context.Context, n int, within time.Duration) (Stats, error) {
	timed, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	b, err := r.do(timed, http.MethodGet, "/await", url.Values{"n": {strconv.Itoa(n)}})
	if err != nil && timed.Err() != nil && ctx.Err() == nil {
		return r.Stats(ctx)
	}
	var s Stats
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	return s, err
}

// Stamps is Receiver.Stamps.
func (r *Remote) Stamps(ctx context.Context) ([]int64, error) {
	b, err := r.do(ctx, http.MethodGet, "/stamps", nil)
	if err != nil {
		return nil, err
	}
	stamps := make([]int64, len(b)/8)
	for i := range stamps {
		stamps[i] = int64(binary.LittleEndian.Uint64(b[8*i:]))
	}
	return stamps, nil
}

func (r *Remote) do(ctx context.Context, method, path string, query url.Values) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, r.URL+path+"?"+query.Encode(), nil)
	if err != nil {
		return nil, fmt.Errorf("ask the receiver: %w", err)
	}
	resp, err := r.Client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the receiver: %w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("ask the receiver: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask the receiver for %s: %s: %s", path, resp.Status, b)
	}
	return b, nil
}
