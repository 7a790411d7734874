package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/rowhook/rowhook/internal/operate"
)

// The status is looked at each livePeriod, or less often: the time between two looks is at least
// liveShare times what a look takes. So the streams together use a tenth of a core at most, those
// of the database included.
const (
	livePeriod   = time.Second
	liveShare    = 9
	liveActivity = 10 * time.Second // between two readings of the activity
	liveLongest  = 5 * time.Second  // between two looks: on a machine so busy, the tenth is exceeded
)

// live looks at the status for all streams together. While there is no stream, nothing is looked at.
type live struct {
	server *Server

	mu      sync.Mutex
	ctx     context.Context // ends with the server
	readers map[*liveReader]struct{}
	running bool
	looking sync.WaitGroup
	last    liveNews // as last seen; owned by mu
}

// liveNews is what there is to be sent, each in a message of its own; nil: nothing.
type liveNews struct{ problem, status, activity json.RawMessage }

// liveReader is one stream. What it has not sent yet is replaced by what is newer.
type liveReader struct {
	signal chan struct{} // holds a token if there is news
	news   liveNews      // owned by live.mu
}

func (l *live) init(s *Server) {
	l.server, l.ctx, l.readers = s, context.Background(), map[*liveReader]struct{}{}
}

func (l *live) begin(ctx context.Context) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ctx = ctx
}

func (l *live) wait() { l.looking.Wait() }

// join adds a stream, and begins to look if it is the first one.
func (l *live) join() *liveReader {
	r := &liveReader{signal: make(chan struct{}, 1)}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.readers[r] = struct{}{}
	if l.running {
		r.put(l.last)
		return r
	}
	l.running, l.last = true, liveNews{}
	l.looking.Go(func() { l.run(l.ctx) })
	return r
}

func (l *live) leave(r *liveReader) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.readers, r)
}

// take returns what a stream has to send.
func (l *live) take(r *liveReader) liveNews {
	l.mu.Lock()
	defer l.mu.Unlock()
	news := r.news
	r.news = liveNews{}
	return news
}

// put adds news. The caller holds live.mu.
func (r *liveReader) put(n liveNews) {
	if n.problem != nil {
		r.news.problem, r.news.status = n.problem, nil
	}
	if n.status != nil {
		r.news.status, r.news.problem = n.status, nil
	}
	if n.activity != nil {
		r.news.activity = n.activity
	}
	if r.news.problem != nil || r.news.status != nil || r.news.activity != nil {
		select {
		case r.signal <- struct{}{}:
		default:
		}
	}
}

// run looks until nobody reads, or ctx is done.
func (l *live) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var seen []byte       // the status without its time
	var failing bool      // the last look failed
	var counted time.Time // when the activity was last read
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		began := time.Now()
		var news liveNews
		status, err := l.look(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !failing:
			failing, seen = true, nil
			news.problem = message("problem", l.server.asProblem(&http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/api/v1/status/stream"}}, err))
		case err == nil:
			failing = false
			if now := timeless(status); !bytes.Equal(now, seen) {
				seen, news.status = now, message("status", status)
			}
			if began.Sub(counted) >= liveActivity {
				if activity, err := l.count(ctx); err == nil {
					counted, news.activity = began, message("activity", activity)
				}
			}
		}
		if !l.tell(news) {
			return
		}
		timer.Reset(pause(time.Since(began), err))
	}
}

// pause is how long to wait after a look that took so long.
func pause(took time.Duration, err error) time.Duration {
	if err != nil {
		return livePeriod // what fails mostly waits, and costs little
	}
	return min(max(livePeriod, liveShare*took), liveLongest)
}

// tell hands news to all streams. It returns false if there is none: then the loop has to end.
func (l *live) tell(news liveNews) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.readers) == 0 {
		l.running = false
		return false
	}
	all := liveReader{signal: make(chan struct{}, 1), news: l.last}
	all.put(news)
	l.last = all.news
	for r := range l.readers {
		r.put(news)
	}
	return true
}

func (l *live) look(ctx context.Context) (*operate.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, l.server.cfg.Timeout)
	defer cancel()
	s, err := operate.ReadStatus(ctx, l.server.cfg.DB)
	if err == nil {
		s.NameSource(l.server.cfg.Source)
	}
	return s, err
}

func (l *live) count(ctx context.Context) (*operate.Activity, error) {
	ctx, cancel := context.WithTimeout(ctx, l.server.cfg.Timeout)
	defer cancel()
	return operate.ReadActivity(ctx, l.server.cfg.DB, operate.ActivityOptions{})
}

// timeless is a status by which it is seen whether anything has changed.
func timeless(st *operate.Status) []byte {
	then := *st
	then.Now = time.Time{}
	return message("status", &then)
}

// message is an object with one key. What can't be encoded is none.
func message(key string, v any) json.RawMessage {
	data, err := json.Marshal(map[string]any{key: v})
	if err != nil {
		return nil
	}
	return data
}

// statusStream sends the status when it has changed, and the activity now and then, until the client
// disconnects.
func (s *Server) statusStream(w http.ResponseWriter, r *http.Request) (int, any, error) {
	leave, err := s.streams.enter(r)
	if err != nil {
		return 0, nil, err
	}
	defer leave()
	reader := s.live.join()
	defer s.live.leave(reader)
	out := newStream(w, r)
	out.begin()
	beat := time.NewTicker(tailBeat)
	defer beat.Stop()
	for {
		select {
		case <-r.Context().Done():
			if p := ended(r); p != nil {
				_ = out.tell(liveNews{problem: message("problem", p)})
			}
			return 0, nil, nil
		case <-beat.C:
			if out.beat() != nil {
				return 0, nil, nil // the client is gone
			}
		case <-reader.signal:
			if out.tell(s.live.take(reader)) != nil {
				return 0, nil, nil
			}
		}
	}
}

// tell sends news, each as a message.
func (s *stream) tell(n liveNews) error {
	for _, m := range []struct {
		kind string
		data json.RawMessage
	}{{"problem", n.problem}, {"status", n.status}, {"activity", n.activity}} {
		if m.data == nil {
			continue
		}
		if err := s.send(m.kind, "", m.data); err != nil {
			return err
		}
	}
	return nil
}
