package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/sethvargo/go-retry"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
)

// settler writes the outcomes of claimed events. What comes in while one batch is written makes up
// the next. So an outcome is written at once when the settler is idle, and in large batches under
// load.
type settler struct {
	db            *database
	self          *identity
	scheduler     *scheduler
	configuration *configuration
	history       *history
	disk          *diskSpace
	orderer       *orderer
	tell          *observers
	log           *slog.Logger

	health health // of its statements; written by the loop, read by Stats
	signal chan struct{}

	mu      sync.Mutex
	batch   []queue.Settlement
	owners  []*delivery
	urgent  bool          // keys wait for what is in batch
	writing int           // how many outcomes are taken and not yet written
	idle    chan struct{} // closed when there is nothing to write; nil: nobody waits
	last    time.Time     // when the latest batch was taken
}

// A batch smaller than settleFull waits until settlePace after the one before it, since nobody
// waits for a settlement. Measured with 300 events written one by one: 59 to 86 statements, and as
// many flushes of the log, instead of 109 to 227.
const (
	settlePace = 4 * time.Millisecond
	settleFull = 64
)

// noPartition is the SQLSTATE of a row that has no partition: a violated check.
const noPartition = pgerrcode.CheckViolation

// settleChunk bounds a statement, and so its time and the memory of its arrays.
const settleChunk = 1000

// add hands over the outcome of a delivery. The caller sets Fate, Delay, Reason and Attempt.
func (s *settler) add(dl *delivery, st queue.Settlement) {
	if !s.complete(dl, &st) {
		return
	}
	s.mu.Lock()
	urgent := s.enqueue(dl, st)
	n := len(s.batch)
	s.mu.Unlock()
	if n == 1 || n == settleFull || urgent {
		s.wake()
	}
}

// addAll is add for deliveries whose outcomes are to be written by one statement, so that those
// that are retried are due at the same time.
func (s *settler) addAll(all []*delivery, outcomes []queue.Settlement) {
	written := make([]bool, len(all))
	for i, dl := range all {
		written[i] = s.complete(dl, &outcomes[i])
	}
	s.mu.Lock()
	for i, dl := range all {
		if written[i] {
			s.enqueue(dl, outcomes[i])
		}
	}
	s.mu.Unlock()
	s.wake()
}

// complete fills in what the outcome says of the delivery. It returns false if there is nothing to
// write: nothing was claimed, and no attempt was counted.
func (s *settler) complete(dl *delivery, st *queue.Settlement) bool {
	st.ID, st.Trigger, st.Tries, st.Claim = dl.event.ID, dl.lane.id, dl.tries, dl.claim
	if p := dl.placed; p != nil {
		if st.Fate == queue.Released && !p.noted && st.Attempt == nil {
			s.unsent([]*delivery{dl}, st.Delay)
			return false
		}
		st.Lane, st.Merge, st.Blocks = p.lane, p.merge, p.blocks && st.Fate == queue.Dead
	}
	return true
}

// enqueue adds an outcome to the next batch. It reports whether that is to be written sooner now.
func (s *settler) enqueue(dl *delivery, st queue.Settlement) (urgent bool) {
	urgent = dl.placed != nil && dl.placed.line.urgent.Load()
	urgent, s.urgent = urgent && !s.urgent, s.urgent || urgent
	s.batch = append(s.batch, st)
	s.owners = append(s.owners, dl)
	return urgent
}

// unsent hands deliveries back whose outcome is not written, to be sent after a delay.
func (s *settler) unsent(all []*delivery, delay time.Duration) {
	s.scheduler.settled(all)
	back := make([]conclusion, 0, len(all))
	for _, dl := range all {
		if dl.placed != nil {
			back = append(back, conclusion{dl: dl, fate: queue.Released, delay: delay})
		}
	}
	s.orderer.judged(back...)
}

// missed hands a delivery back that was not found in the queue. It is looked for before it is sent.
func (s *settler) missed(dl *delivery) {
	s.scheduler.settled([]*delivery{dl})
	s.orderer.judged(conclusion{dl: dl, fate: queue.Released, lost: true})
}

func (s *settler) wake() {
	select {
	case s.signal <- struct{}{}:
	default:
	}
}

// run writes until ctx is done.
func (s *settler) run(ctx context.Context) {
	for {
		batch, owners, err := s.next(ctx)
		if err != nil || len(batch) > 0 && !s.write(ctx, batch, owners, false) {
			return // ctx is done
		}
	}
}

// next waits for the next batch, and takes it. The batch is empty if finish waits and nothing is
// left.
func (s *settler) next(ctx context.Context) (batch []queue.Settlement, owners []*delivery, err error) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for wait := s.wait(); wait > 0; wait = s.wait() {
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-s.signal:
		case <-timer.C:
		}
	}
	batch, owners = s.take()
	return batch, owners, nil
}

// wait is how long the next batch may grow; 0: it is to be taken now.
func (s *settler) wait() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch n := len(s.batch); {
	case s.idle != nil || n >= settleFull || n > 0 && s.urgent:
		return 0
	case n == 0:
		return time.Hour // until there is a signal
	}
	return time.Until(s.last.Add(settlePace))
}

func (s *settler) take() ([]queue.Settlement, []*delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := min(len(s.batch), settleChunk)
	batch, owners := s.batch[:n:n], s.owners[:n:n]
	if n == len(s.batch) {
		s.batch, s.owners, s.urgent = nil, nil, false
	} else {
		s.batch, s.owners = s.batch[n:], s.owners[n:]
	}
	s.writing, s.last = n, time.Now()
	if n == 0 && s.idle != nil {
		close(s.idle)
		s.idle = nil
	}
	return batch, owners
}

// finish waits until all is written, or ctx is done. It returns how many outcomes are not written.
func (s *settler) finish(ctx context.Context) int {
	s.mu.Lock()
	if len(s.batch)+s.writing == 0 {
		s.mu.Unlock()
		return 0
	}
	if s.idle == nil {
		s.idle = make(chan struct{})
	}
	idle := s.idle
	s.mu.Unlock()
	s.wake()
	select {
	case <-idle:
		return 0
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.batch) + s.writing
}

// allWritten reports whether no outcome waits to be written.
func (s *settler) allWritten() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.batch)+s.writing == 0
}

// write settles a batch, and retries for as long as it takes. mayHaveCommitted says that an earlier
// try may have been committed without our knowing. It returns false only when ctx is done.
func (s *settler) write(ctx context.Context, batch []queue.Settlement, owners []*delivery, mayHaveCommitted bool) bool {
	failures, bare := 0, s.history.avoided(time.Now())
	var blamed error // why the batch is tried without history
	suspected, escaped := 0, false
	err := retry.Do(ctx, pg.Backoff(firstRetry), func(ctx context.Context) error {
		n, err := s.try(ctx, batch, mayHaveCommitted, bare)
		if err == nil {
			if failures > 0 && !bare {
				s.log.Info("events are settled again")
			}
			s.recorded(batch, bare, blamed)
			s.settled(batch, owners, n, mayHaveCommitted)
			return nil
		}
		failures++
		switch {
		case pg.IsState(err, noPartition):
			if made := s.partition(ctx, batch); made != nil && ctx.Err() == nil {
				bare, blamed = true, made
			}
		case isDiskFull(err):
			s.disk.free(ctx)
		case pg.IsUnstorable(err) && !escaped:
			escaped = true
			escapeResponses(batch)
			if n, err = s.try(ctx, batch, mayHaveCommitted, bare); err == nil {
				s.recorded(batch, bare, blamed)
				s.settled(batch, owners, n, mayHaveCommitted)
				return nil
			}
			if pg.IsBadData(err) {
				return err
			}
		case pg.IsBadData(err) || isRefusedRow(err):
			return err // the server rejects what is in the batch: retrying does not help
		case pg.IsData(err):
			if suspected++; suspected >= mostSuspected {
				return err
			}
		}
		mayHaveCommitted = true
		if failures == 1 && blamed == nil && ctx.Err() == nil {
			s.log.Error("can't settle events; retrying until it succeeds", append(eventAttrs(owners), "error", err)...)
		}
		if !bare && !s.db.schema.standsStill() && mayBlame(err, failures) {
			bare, blamed = true, err
		}
		return retry.RetryableError(err)
	})
	if err == nil {
		return true
	}
	if ctx.Err() != nil {
		return false
	}
	return s.isolate(ctx, batch, owners, mayHaveCommitted, err)
}

// recorded tells the history whether it was written with a batch that has attempts to record.
func (s *settler) recorded(batch []queue.Settlement, bare bool, blamed error) {
	if general, own := s.configuration.retention(); general.Delivered == 0 && general.Attempts == 0 && own == nil {
		return
	}
	n := 0
	for i := range batch {
		if batch[i].Attempt != nil {
			n++
		}
	}
	switch {
	case n == 0:
	case bare:
		s.history.failed(blamed, n)
	default:
		s.history.written()
	}
}

func (s *settler) try(ctx context.Context, batch []queue.Settlement, mayHaveCommitted, bare bool) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	general, own := s.configuration.retention()
	var keeps map[int32]queue.Keeps
	for id, r := range own {
		if keeps == nil {
			keeps = make(map[int32]queue.Keeps, len(own))
		}
		keeps[id] = queue.Keeps{Delivered: r.Delivered > 0, Attempts: r.Attempts > 0}
	}
	var db pg.Queryer = s.db.writes
	if s.db.pooled {
		db = tuned{db, s.db.tunings.settle}
	}
	began := time.Now()
	s.health.begin(began)
	var n int
	err := s.db.onSchema(ctx, func(int32) (err error) {
		n, err = queue.Settle(ctx, db, queue.SettleOptions{
			Instance:         s.self.id,
			KeepDelivered:    general.Delivered > 0,
			KeepAttempts:     general.Attempts > 0,
			Own:              keeps,
			NoHistory:        bare,
			MayHaveCommitted: mayHaveCommitted,
		}, batch)
		return err
	})
	err = queue.ExplainHidden(err)
	s.health.ended(err)
	if err != nil {
		s.tell.failed("settle", err)
	} else {
		s.tell.settled(len(batch), time.Since(began))
	}
	return n, err
}

// isolate finds the settlement that Postgres rejects for its content, and writes it without the
// response.
func (s *settler) isolate(ctx context.Context, batch []queue.Settlement, owners []*delivery, mayHaveCommitted bool, err error) bool {
	if n := len(batch); n > 1 {
		return s.write(ctx, batch[:n/2], owners[:n/2], mayHaveCommitted) && s.write(ctx, batch[n/2:], owners[n/2:], mayHaveCommitted)
	}
	st := &batch[0]
	// A value that can't be stored came with the response. A value that can't be read is in the
	// event.
	own := !isRefusedRow(err) && !pg.IsState(err, pgerrcode.UntranslatableCharacter, pgerrcode.CharacterNotInRepertoire, pgerrcode.InvalidTextRepresentation, pgerrcode.NumericValueOutOfRange, pgerrcode.StringDataRightTruncationDataException)
	if moves := st.Fate == queue.Delivered || st.Fate == queue.Dead; moves && !st.Bare && (own || !hasResponse(st.Attempt)) {
		s.log.Error("an event's payload can't be stored with its outcome; recording the outcome without it", "event", eventID(owners[0]), "trigger", owners[0].event.Trigger, "error", err)
		st.Bare = true
		if st.Fate == queue.Dead {
			st.Reason += " (the payload is lost: " + toASCII(err.Error()) + ")"
		}
		return s.write(ctx, batch, owners, mayHaveCommitted)
	}
	if hasResponse(st.Attempt) {
		s.log.Error("the database rejects a receiver's response; recording the attempt without it", "event", eventID(owners[0]), "trigger", owners[0].event.Trigger, "error", err)
		a := *st.Attempt // others may share it
		a.Header, a.Body, a.Error = nil, "", responseLost
		if st.Attempt = &a; st.Fate == queue.Dead {
			st.Reason = a.Error
		}
		return s.write(ctx, batch, owners, mayHaveCommitted)
	}
	if batch[0].Attempt != nil {
		if n, bareErr := s.try(ctx, batch, mayHaveCommitted, true); bareErr == nil {
			s.log.Error("the database rejects the history of an event; the event is settled without it", "event", eventID(owners[0]), "trigger", owners[0].event.Trigger, "error", err)
			s.settled(batch, owners, n, mayHaveCommitted)
			return true
		}
	}
	s.log.Error("the database rejects the settlement of an event; the event will be sent again when its lease ends", "event", eventID(owners[0]), "trigger", owners[0].event.Trigger, "error", err)
	s.unsent(owners, fetchRetry)
	return true
}

func hasResponse(a *queue.Attempt) bool {
	return a != nil && (a.Header != nil || a.Body != "" || a.Error != "" && a.Error != responseLost)
}

// responseLost replaces the error of an attempt whose response could not be stored.
const responseLost = "the response could not be stored"

// mostSuspected is how often a batch is retried that fails for lack of memory or a similar cause.
// That may pass, or one event may be at fault.
const mostSuspected = 2

// isRefusedRow reports that a constraint rejects a row.
func isRefusedRow(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && strings.HasPrefix(pg.Code, "23")
}

// escapeResponses writes the characters of responses that are not ASCII by their code points, for a
// database whose encoding lacks some of them.
func escapeResponses(batch []queue.Settlement) {
	for i := range batch {
		batch[i].Reason = toASCII(batch[i].Reason)
		if a := batch[i].Attempt; a != nil {
			a.Error, a.Body = toASCII(a.Error), toASCII(a.Body)
			if a.Header != nil {
				a.Header = []byte(toASCII(string(a.Header))) // in JSON it means the same
			}
		}
	}
}

// toASCII replaces each character beyond ASCII as JSON does: \u00e9.
func toASCII(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return r >= utf8.RuneSelf || r == 0 }) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == 0:
		case r < utf8.RuneSelf:
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// partition makes the partitions that the batch needs.
func (s *settler) partition(ctx context.Context, batch []queue.Settlement) error {
	// Archived events are dated by the server's clock, attempts by ours.
	days := map[time.Time]bool{}
	for i := range batch {
		if a := batch[i].Attempt; a != nil {
			days[a.StartedAt.UTC().Truncate(24*time.Hour)] = true
		}
	}
	if err := queue.EnsurePartitions(ctx, s.db.writes); err != nil {
		return err
	}
	for day := range days {
		if err := queue.EnsureDay(ctx, s.db.writes, day); err != nil {
			return err
		}
	}
	return nil
}

// settled tells the scheduler what is written, and when retries become due.
func (s *settler) settled(batch []queue.Settlement, owners []*delivery, n int, mayHaveCommitted bool) {
	s.scheduler.settled(owners)
	if lost := len(batch) - n; lost > 0 && !mayHaveCommitted {
		s.log.Warn("events were taken over by another instance before this one settled them; they are delivered twice", append([]any{"taken_over", lost, "among", len(owners)}, eventAttrs(owners)...)...)
	}
	now := time.Now()
	s.judge(batch, owners, n)
	s.passOn(batch, owners)
	for i := range batch {
		if owners[i].placed != nil {
			continue
		}
		if f := batch[i].Fate; f == queue.Retried || f == queue.Released {
			s.scheduler.noteDue(batch[i].Trigger, now.Add(batch[i].Delay))
		}
	}
}

// passOn rings for events that were handed over to this instance and given back.
func (s *settler) passOn(batch []queue.Settlement, owners []*delivery) {
	var triggers []int32
	for i, dl := range owners {
		if dl.handed && batch[i].Fate == queue.Released && !slices.Contains(triggers, batch[i].Trigger) {
			triggers = append(triggers, batch[i].Trigger)
		}
	}
	ringFor(s.db, s.log, triggers)
}

// judge tells the orderer what became of the deliveries that have an order. n is how many of the
// batch were found.
func (s *settler) judge(batch []queue.Settlement, owners []*delivery, n int) {
	var all []conclusion
	lost := 0
	for i, dl := range owners {
		if batch[i].Lost {
			lost++
		}
		if dl.placed != nil {
			all = append(all, conclusion{dl: dl, fate: batch[i].Fate, delay: batch[i].Delay, lost: batch[i].Lost})
		}
	}
	if len(all) == 0 {
		return
	}
	for i := range all {
		all[i].doubt = n < len(batch)-lost
	}
	s.orderer.judged(all...)
}

// giveBack releases deliveries that will not be sent.
func (s *settler) giveBack(unsent []*delivery) {
	for _, dl := range unsent {
		s.add(dl, queue.Settlement{Fate: queue.Released})
	}
}
