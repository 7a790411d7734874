package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/rowhook/rowhook/internal/access"
	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/internal/webapi"
)

// Operation is a change of many events, which may take longer than a request. It runs in this
// process and ends with it.
type Operation struct {
	ID         string                  `json:"id"`
	Kind       string                  `json:"kind"`  // redeliver, discard, backfill or replay
	State      string                  `json:"state"` // running, done, failed or canceled
	StartedAt  time.Time               `json:"started_at"`
	FinishedAt *time.Time              `json:"finished_at"`
	Done       int64                   `json:"done"`     // events examined or put back, or rows read, so far
	Expected   *int64                  `json:"expected"` // what Done will be in the end, about; null: not known
	Result     *operate.Bulk           `json:"result"`   // of redeliver and discard, even after a failure
	Backfill   *operate.BackfillStatus `json:"backfill"` // of backfill, even after a failure
	Replay     *operate.ReplayStatus   `json:"replay"`   // of replay, even after a failure
	Problem    *Problem                `json:"problem"`  // why it failed
}

// The states of an Operation.
const (
	running  = "running"
	done     = "done"
	failed   = "failed"
	canceled = "canceled"
)

const (
	maxRunning  = 4
	maxFinished = 100
	defaultWait = 10 * time.Second // how long a request waits for its operation
	maxWait     = 25 * time.Second // upper bound of that wait
)

// operations are up to maxRunning running operations, and the last maxFinished finished ones.
type operations struct {
	mu  sync.Mutex
	ctx context.Context // parent of every operation's context
	all []*job
	wg  sync.WaitGroup
}

// job is an Operation and what runs it. operations.mu guards it.
type job struct {
	Operation
	cancel context.CancelFunc
	ended  chan struct{}
	err    error
}

func (o *operations) init() { o.ctx = context.Background() }

func (o *operations) begin(ctx context.Context) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ctx = ctx
}

func (o *operations) wait() { o.wg.Wait() }

// start runs work in the background as an operation. work reports its progress by calling progress.
// If maxRunning operations are running, start returns the problem too_many.
func (s *Server) start(r *http.Request, kind string, work func(ctx context.Context, progress func(change func(*Operation))) error) (*job, error) {
	o := &s.operations
	o.mu.Lock()
	defer o.mu.Unlock()
	busy := 0
	for _, j := range o.all {
		if j.State == running {
			busy++
		}
	}
	if busy >= maxRunning {
		return nil, webapi.NewProblem(http.StatusTooManyRequests, "too_many", fmt.Sprintf("%d operations are running, which is the limit", busy), "wait until one has finished: GET /api/v1/operations").With("Retry-After", "10")
	}
	ctx, cancel := context.WithCancel(queue.WithActor(o.ctx, queue.ActorOf(r.Context())))
	j := &job{Operation: Operation{ID: uuid.NewString(), Kind: kind, State: running, StartedAt: time.Now()}, cancel: cancel, ended: make(chan struct{})}
	o.all = append(o.all, j)
	if extra := len(o.all) - busy - 1 - maxFinished; extra > 0 {
		o.all = slices.DeleteFunc(o.all, func(j *job) bool {
			extra--
			return extra >= 0 && j.State != running
		})
	}
	o.wg.Go(func() {
		defer cancel()
		err := work(ctx, func(change func(*Operation)) {
			o.mu.Lock()
			defer o.mu.Unlock()
			change(&j.Operation)
		})
		o.finish(s, j, err)
	})
	return j, nil
}

func (o *operations) finish(s *Server, j *job, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	j.FinishedAt, j.err, j.State = &now, err, done
	switch {
	case errors.Is(err, context.Canceled):
		j.State, j.err = canceled, nil
	case err != nil:
		j.State = failed
		j.Problem = s.asProblem(&http.Request{Method: http.MethodPost, URL: operationURL(j.ID)}, err)
	}
	s.log.Info("HTTP: "+j.Kind+" has ended", "operation", j.ID, "state", j.State, "done", j.Done, "took", now.Sub(j.StartedAt).Round(time.Millisecond))
	close(j.ended)
}

// await waits until an operation has ended, at most as long as the request's Prefer header allows.
// It responds with the operation's state: 200 if it has ended, 202 if it is still running, or the
// problem.
func (s *Server) await(w http.ResponseWriter, r *http.Request, j *job) (int, any, error) {
	timer := time.NewTimer(preferredWait(r))
	defer timer.Stop()
	select {
	case <-j.ended:
	case <-timer.C:
	case <-r.Context().Done():
	}
	s.operations.mu.Lock()
	defer s.operations.mu.Unlock()
	switch j.State {
	case running:
		w.Header().Set("Location", operationURL(j.ID).Path)
		return http.StatusAccepted, j.Operation, nil
	case failed:
		return 0, nil, j.Problem
	}
	return http.StatusOK, j.Operation, nil
}

// preferredWait returns the request's Prefer: wait=SECONDS (RFC 7240), at most maxWait; without
// one, defaultWait.
func preferredWait(r *http.Request) time.Duration {
	for _, header := range r.Header.Values("Prefer") {
		for preference := range strings.SplitSeq(header, ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(preference), "=")
			if n, err := strconv.Atoi(value); err == nil && strings.EqualFold(name, "wait") && n >= 0 {
				return min(time.Duration(min(n, 3600))*time.Second, maxWait)
			}
		}
	}
	return defaultWait
}

// changing is the body of redeliver and discard.
type changing struct {
	Filter operate.Filter `json:"filter"`
	Limit  int64          `json:"limit"`
}

func (s *Server) redeliver(w http.ResponseWriter, r *http.Request) (int, any, error) {
	return s.change(w, r, "redeliver", operate.Redeliver)
}

func (s *Server) discard(w http.ResponseWriter, r *http.Request) (int, any, error) {
	return s.change(w, r, "discard", operate.Discard)
}

func (s *Server) change(w http.ResponseWriter, r *http.Request, kind string,
	change func(context.Context, operate.DB, operate.Filter, operate.BulkOptions) (*operate.Bulk, error)) (int, any, error) {
	var in changing
	if err := decode(r, &in); err != nil {
		return 0, nil, err
	}
	if err := checkFilter(r, &in.Filter); err != nil {
		return 0, nil, err
	}
	if in.Limit < 0 {
		return 0, nil, invalid("limit", strconv.FormatInt(in.Limit, 10), "write a positive number, or leave it out")
	}
	j, err := s.start(r, kind, func(ctx context.Context, progress func(func(*Operation))) error {
		result, err := change(ctx, s.cfg.DB, in.Filter, operate.BulkOptions{
			Limit:    in.Limit,
			Progress: func(n int64) { progress(func(o *Operation) { o.Done = n }) },
			Expect:   func(n int64) { progress(func(o *Operation) { o.Expected = &n }) },
		})
		if result != nil {
			progress(func(o *Operation) { o.Result = result })
		}
		return err
	})
	if err != nil {
		return 0, nil, err
	}
	s.logChange(r, kind, "operation", j.ID, "filter", fmt.Sprintf("%+v", in.Filter), "limit", in.Limit)
	return s.await(w, r, j)
}

func (s *Server) backfill(w http.ResponseWriter, r *http.Request) (int, any, error) {
	var in struct {
		Table   string `json:"table"`
		Where   string `json:"where"`
		Restart bool   `json:"restart"`
	}
	if err := decode(r, &in); err != nil {
		return 0, nil, err
	}
	if in.Where != "" {
		// The condition is SQL that runs as the dispatcher's role. Not every local program may run
		// SQL.
		if err := require(r, access.Admin); err != nil {
			return 0, nil, err
		}
	}
	trigger := r.PathValue("name")
	j, err := s.start(r, "backfill", func(ctx context.Context, progress func(func(*Operation))) error {
		report := func(b operate.BackfillStatus) {
			progress(func(o *Operation) { o.Done, o.Expected, o.Backfill = b.Scanned, &b.Expected, &b })
		}
		db := s.cfg.DB
		if s.cfg.Dev != nil && in.Where != "" {
			conn, err := s.cfg.Dev.Backfill(ctx)
			if err != nil {
				return err
			}
			defer conn.Close(context.WithoutCancel(ctx))
			db = conn
		}
		b, err := operate.Backfill(ctx, db, trigger, operate.BackfillOptions{Table: in.Table, Where: in.Where, Restart: in.Restart, Progress: report})
		if b != nil {
			report(*b)
		}
		return err
	})
	if err != nil {
		return 0, nil, err
	}
	s.logChange(r, "backfill", "operation", j.ID, "trigger", trigger, "where", in.Where)
	return s.await(w, r, j)
}

// planReplay responds with what a replay would do.
func (s *Server) planReplay(_ http.ResponseWriter, r *http.Request) (int, any, error) {
	q := r.URL.Query()
	o := operate.ReplayOptions{Payload: q.Get("payload")}
	for _, op := range several(q, "op") {
		o.Ops = append(o.Ops, strings.ToUpper(op))
	}
	if err := checkFilter(r, &operate.Filter{Payload: o.Payload}); err != nil {
		return 0, nil, err
	}
	var err error
	if o.From, err = readTime(q, "from"); err == nil {
		o.To, err = readTime(q, "to")
	}
	if err != nil {
		return 0, nil, err
	}
	plan, err := operate.PlanReplay(r.Context(), s.cfg.DB, r.PathValue("name"), o)
	return http.StatusOK, plan, err
}

func (s *Server) replay(w http.ResponseWriter, r *http.Request) (int, any, error) {
	var in struct {
		From     time.Time `json:"from"`
		To       time.Time `json:"to"`
		AsNew    bool      `json:"as_new"`
		Ops      []string  `json:"ops"`
		Payload  string    `json:"payload"`
		Continue bool      `json:"continue"`
		Restart  bool      `json:"restart"`
	}
	if err := decode(r, &in); err != nil {
		return 0, nil, err
	}
	if err := checkFilter(r, &operate.Filter{Payload: in.Payload}); err != nil {
		return 0, nil, err
	}
	if in.Continue && (!in.From.IsZero() || !in.To.IsZero() || in.AsNew || in.Ops != nil || in.Payload != "" || in.Restart) {
		return 0, nil, invalid("continue", "true", "leave the other keys out: a replay goes on as it began")
	}
	trigger := r.PathValue("name")
	j, err := s.start(r, "replay", func(ctx context.Context, progress func(func(*Operation))) error {
		report := func(p operate.ReplayStatus) {
			progress(func(o *Operation) {
				if o.Done, o.Replay = p.Replayed, &p; !p.More {
					o.Expected = &p.Expected
				}
			})
		}
		p, err := operate.Replay(ctx, s.cfg.DB, trigger, operate.ReplayOptions{
			From: in.From, To: in.To, AsNew: in.AsNew, Ops: in.Ops, Payload: in.Payload, Continue: in.Continue, Restart: in.Restart, Progress: report,
		})
		if p != nil {
			report(*p)
		}
		return err
	})
	if err != nil {
		return 0, nil, err
	}
	s.logChange(r, "replay", "operation", j.ID, "trigger", trigger, "from", in.From, "to", in.To, "as_new", in.AsNew)
	return s.await(w, r, j)
}

func (s *Server) listOperations(http.ResponseWriter, *http.Request) (int, any, error) {
	s.operations.mu.Lock()
	defer s.operations.mu.Unlock()
	out := make([]Operation, 0, len(s.operations.all))
	for _, j := range slices.Backward(s.operations.all) {
		out = append(out, j.Operation)
	}
	return http.StatusOK, map[string]any{"operations": out}, nil
}

func (s *Server) showOperation(_ http.ResponseWriter, r *http.Request) (int, any, error) {
	j, err := s.findOperation(r)
	if err != nil {
		return 0, nil, err
	}
	s.operations.mu.Lock()
	defer s.operations.mu.Unlock()
	return http.StatusOK, j.Operation, nil
}

// cancelOperation ends an operation. Its finished batches stay done.
func (s *Server) cancelOperation(_ http.ResponseWriter, r *http.Request) (int, any, error) {
	j, err := s.findOperation(r)
	if err != nil {
		return 0, nil, err
	}
	j.cancel()
	select {
	case <-j.ended:
	case <-r.Context().Done():
		return 0, nil, r.Context().Err()
	}
	s.logChange(r, "cancel", "operation", j.ID)
	s.operations.mu.Lock()
	defer s.operations.mu.Unlock()
	return http.StatusOK, j.Operation, nil
}

func (s *Server) findOperation(r *http.Request) (*job, error) {
	s.operations.mu.Lock()
	defer s.operations.mu.Unlock()
	id := r.PathValue("id")
	for _, j := range s.operations.all {
		if j.ID == id {
			return j, nil
		}
	}
	return nil, webapi.NewProblem(http.StatusNotFound, "not_found", "operation "+id+" not found", "ask the instance that runs it; an instance forgets its operations when it stops")
}
