package dispatcher

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/sethvargo/go-retry"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/listener"
)

// sweepEvery is how often a busy dispatcher sweeps every lane. A sweep finds the events of
// transactions that committed late.
const sweepEvery = 50 * time.Millisecond

// claimer is the loop that claims. Nothing else claims, so it shares none of its state but what
// Stats reads.
type claimer struct {
	db            *database
	self          *identity
	scheduler     *scheduler
	inbox         *inbox
	loader        *loader
	sender        *sender
	repairer      *repairer
	taker         *taker
	session       *listening
	commits       *commitTime
	notifications *notificationQueue
	disk          *diskSpace
	tell          *observers
	log           *slog.Logger
	pollInterval  time.Duration // Config.PollInterval
	noListen      bool          // Config.NoListen
	ringWithin    time.Duration // how long after its commit a notification may arrive

	health health      // of its statements; read by Stats
	silent atomic.Bool // writers are silent on this dispatcher's account; read by Stats
	// uncertain says that a claim may have succeeded without our knowing. It is read when run has
	// returned.
	uncertain bool

	bell        listener.Doorbell
	polled      time.Time // when all lanes were last marked by the interval poll
	found       bool      // a watch has found events that are due, and the interval is nearly over
	delayed     time.Time // when the due times of delayed events were last asked for
	swept       time.Time // when all lanes were last marked for a sweep while writers are silent
	failures    retry.Backoff
	failed      bool
	resume      time.Time     // after a failure: nothing is done before
	number      int64         // of the latest claim
	took        time.Duration // how long the latest claim took
	called      time.Time     // when other instances were last called for help
	horizon     uint64        // taken when the doorbell was last armed
	listens     bool          // a session listens, as last read from the inbox
	allowance   float64       // how many loads of the configuration may follow at once
	refilled    time.Time     // when allowance was last added to
	postponed   bool          // a load waits until allowance is enough
	unannounced unannounced   // new events for which no notification has arrived
	muted       bool          // nobody may ring; see mute
	offer       offer
	said        muteWords
	still       bool // it stands still, and has let writers ring
	cost        claimCost
	names       tableNames
}

// run claims until ctx is done.
func (c *claimer) run(ctx context.Context) {
	// If an id should ever be drawn twice, its claims have other numbers.
	c.polled, c.number = time.Now(), time.Now().UnixMicro()
	c.awaitSession(ctx)
	c.scheduler.markAll(true)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		wait := c.step(ctx)
		if ctx.Err() != nil {
			c.letGo()
			return
		}
		if wait <= 0 {
			continue
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			c.letGo()
			return
		case <-c.scheduler.signal:
		case <-timer.C:
		}
	}
}

// awaitSession waits until the session that holds the instance lock is open, before anything is
// claimed. What an instance has claimed that was never seen alive comes back only by the end of its
// lease.
func (c *claimer) awaitSession(ctx context.Context) {
	timer := time.NewTimer(sessionWithin)
	defer timer.Stop()
	select {
	case <-c.session.ready:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// sessionWithin is how long to wait for that session before doing without it.
const sessionWithin = 5 * time.Second

// letGo has writers ring again, and gives back what claims took whose answers were lost. It does so
// before the attempts in flight are waited for.
func (c *claimer) letGo() {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	// While writers are muted, the other instances look by themselves. The bell is Unarmed also
	// after a request for silence that the stop cut off before its answer came.
	if state := c.bell.State(); !c.muted && (state == listener.Silent || state == listener.Unarmed && !c.noListen) {
		if _, err := queue.Ring(ctx, c.db.claims, queue.Handover{}); err != nil {
			c.log.Warn("can't arm the doorbell before stopping; another instance will arm it", "error", err)
		}
	}
	if c.db.schema.version.Load() >= queue.HandoverSchema {
		c.offer.handover.Instance = c.self.id // a watch that was read before may have said another one
	}
	c.endOffer(ctx)
	c.uncertain = !c.repairer.finish(ctx)
}

// step does what there is to do. It returns how long to wait for a signal; 0: not at all.
func (c *claimer) step(ctx context.Context) time.Duration {
	now := time.Now()
	if wait := c.resume.Sub(now); wait > 0 {
		return wait
	}
	if c.db.schema.standsStill() {
		c.standStill(ctx)
		return c.pollInterval
	}
	c.still = false
	if err := c.listen(ctx, now); err != nil {
		return c.fail(ctx, "update the doorbell", err)
	}
	if err := c.reportMissed(ctx, now); err != nil {
		return c.fail(ctx, "update the doorbell", err)
	}
	if c.found || !now.Before(c.pollAt()) {
		c.polled, c.found = now, false
		c.expectAnnounced(now)
		c.scheduler.markAll(true)
	}
	if now.Sub(c.delayed) >= c.pollInterval {
		c.delayed = now
		c.scheduler.forgetDelayed()
	}
	next := c.scheduler.ripen(now)
	wants, lanes, again := c.scheduler.wants(now)
	if len(wants) > 0 {
		if err := c.claimFor(ctx, wants, lanes); err != nil {
			c.scheduler.requeue(lanes)
			return c.fail(ctx, "claim events", err)
		}
		return 0
	}
	if unasked := c.scheduler.unaskedDue(); len(unasked) > 0 {
		if err := c.askNextDue(ctx, unasked); err != nil {
			return c.fail(ctx, "look for the next due event", err)
		}
		return 0
	}
	c.unannounced.polling = false
	c.health.ended(nil)
	return c.wait(now, next, again)
}

// standStill leaves all to others. What it is told meanwhile it reads when it goes on.
func (c *claimer) standStill(ctx context.Context) {
	if c.still {
		return
	}
	c.still = true
	if c.bell.State() == listener.Silent && !c.muted {
		ctx, cancel := context.WithTimeout(ctx, statementTimeout)
		defer cancel()
		if _, err := queue.Ring(ctx, c.db.claims, queue.Handover{}); err != nil {
			c.log.Debug("can't arm the doorbell before standing still; another instance arms it", "error", err)
		}
	}
	c.bell.Lost()
	c.silent.Store(false)
	c.endOffer(ctx)
}

// pollAt is when the interval poll is due. A watch that has found nothing due is as good as one. The peers
// wake the claimer when it has found something, or can't be had. So the poll comes by itself only when
// watches have stayed away for a while.
func (c *claimer) pollAt() time.Time {
	at := c.polled.Add(c.pollInterval)
	if !c.watchPolls() {
		return at
	}
	if spared := c.inbox.lastNothingDue().Add(c.pollInterval + watchesMissing); at.Before(spared) {
		return spared
	}
	return at
}

// watchesMissing is for how long watches may stay away before the claimer polls by itself.
const watchesMissing = 3 * time.Second

// watchPolls reports whether a watch comes at least as often as the interval poll.
func (c *claimer) watchPolls() bool { return c.pollInterval >= beatEvery }

// wait is the time until the first of these: the interval poll, an event that becomes due, a claim
// that had to wait, and what the doorbell wants.
func (c *claimer) wait(now, next, again time.Time) time.Duration {
	wait := c.pollAt().Sub(now)
	for _, t := range []time.Time{next, again, c.offer.again} {
		if !t.IsZero() {
			wait = min(wait, t.Sub(now))
		}
	}
	if c.postponed {
		wait = min(wait, reloadEvery)
	}
	if c.unannounced.events != nil {
		wait = min(wait, c.unannounced.polled.Add(c.ringWithin).Sub(now))
	}
	if c.listens {
		if w, ok := c.bell.Wait(now); ok {
			if c.bell.State() == listener.Silent {
				// Many triggers make a claim slow. Claims may take half of the time.
				w = max(w, c.took)
			}
			wait = min(wait, w)
		}
	}
	return max(wait, 100*time.Microsecond)
}

// listen reads the inbox, loads the configuration if asked to, and looks after the doorbell.
func (c *claimer) listen(ctx context.Context, now time.Time) error {
	s := c.inbox.take()
	for range s.rings {
		c.bell.Rang()
	}
	if s.bellLost {
		c.loseBell(ctx)
	}
	if s.watch != nil {
		c.mute(ctx, s.watch)
		c.quiet(ctx, s.watch)
		c.watched(s.watch)
		c.found = s.watch.Due && c.watchPolls() && now.Sub(c.polled) >= c.pollInterval-beatEvery/4
		if !s.listens && !c.noListen {
			// This instance can't hear writers ring, and the poll interval may be long.
			c.scheduler.markAll(true)
		}
	}
	c.allowance = min(c.allowance+float64(now.Sub(c.refilled))/float64(reloadEvery), reloadBurst)
	c.refilled = now
	s.reload = s.reload || c.postponed
	c.postponed = s.reload && c.allowance < 1
	if s.reload && !c.postponed {
		c.allowance--
		if err := c.loader.load(ctx); err != nil {
			c.inbox.askReload()
			return err
		}
		c.taker.look() // events of triggers that are new may have been handed over
	}
	if c.listens = s.listens && !c.noListen; !c.listens {
		return nil
	}
	return c.tendBell(ctx, now)
}

// The loads of the configuration are bounded, since any role may ask for one by NOTIFY.
const (
	reloadEvery = 100 * time.Millisecond // in the long run
	reloadBurst = 10.0
)

// loseBell forgets what the bell says. If writers are silent for this instance, they ring again for
// the others.
func (c *claimer) loseBell(ctx context.Context) {
	if c.bell.State() == listener.Silent && !c.muted {
		ctx, cancel := context.WithTimeout(ctx, statementTimeout)
		defer cancel()
		if _, err := queue.Ring(ctx, c.db.claims, queue.Handover{}); err != nil {
			// The bell is armed when a session listens again.
			c.log.Debug("can't arm the doorbell after the listening session was lost; it is armed when a session listens again", "error", err)
		}
	}
	c.bell.Lost()
	c.endOffer(ctx)
}

func (c *claimer) tendBell(ctx context.Context, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	c.bell.Flush(c.commits.get())
	c.bell.Found(c.scheduler.takeFound())
	c.bell.Saturated(c.scheduler.saturated())
	switch c.bell.Next(now) {
	case listener.Arm:
		horizon, err := queue.Ring(ctx, c.db.claims, c.takeOver())
		if err != nil {
			c.bell.Lost()
			return err
		}
		c.horizon = horizon
		c.bell.Armed(now)
		c.doorbellIs(listener.Arming)
		c.scheduler.markAll(true)
		c.scheduler.forgetDelayed()
		c.taker.look()
		c.log.Debug("doorbell armed", "horizon", horizon)
	case listener.Check:
		pending, err := queue.Pending(ctx, c.db.claims, c.horizon)
		if err != nil {
			return err
		}
		if c.bell.Checked(now, pending) {
			c.scheduler.markAll(true)
			c.scheduler.forgetDelayed()
			c.taker.look()
			// Only the owner of a lane finds what is in it, and only who can send a trigger claims for it.
			if c.scheduler.hasOrder() || len(c.scheduler.unable()) > 0 {
				return queue.NotifyPeers(ctx, c.db.claims, queue.HelpPayload)
			}
		}
	case listener.Silence:
		if err := queue.Silence(ctx, c.db.claims, c.self.id); err != nil {
			c.bell.Lost() // it may have been set all the same
			return err
		}
		c.bell.Silenced(now)
		c.doorbellIs(listener.Silent)
		c.log.Debug("doorbell silenced")
	case listener.None:
	}
	if err := c.renewOffer(ctx); err != nil {
		return err
	}
	if c.bell.State() == listener.Silent {
		c.scheduler.markHot(now)
		if now.Sub(c.swept) >= sweepEvery {
			c.swept = now
			c.scheduler.markAll(true)
		}
	}
	return nil
}

// watched compares what the peers' loop has read with what this dispatcher believes of the
// doorbell. If the bell is silent for an instance that is gone, or for this one without its
// knowing, it is armed anew. While another instance keeps writers silent, every lane is marked at
// each watch, since that instance may hang.
func (c *claimer) watched(w *queue.Watch) {
	c.offer.watched(w, c.self.id, time.Now())
	if w.Handed {
		c.taker.look()
	}
	if w.Doorbell == queue.Ringing {
		if c.muted {
			c.bell.Lost() // it was armed, for instance by a dispatcher of an older version
		}
		return
	}
	ours := w.Doorbell == c.self.id
	if ours && c.bell.State() != listener.Silent || !ours && !w.IsAlive(w.Doorbell) {
		c.bell.Lost()
	}
	if !ours {
		c.scheduler.markAll(true)
	}
}

func (c *claimer) claimFor(ctx context.Context, wants []queue.Want, lanes []*lane) error {
	// A stop does not cancel a claim that is under way. What the claim brings is given back in
	// order.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), statementTimeout)
	defer cancel()
	asked := time.Now()
	conn, err := c.db.claims.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	pid := conn.Conn().PgConn().PID()
	var session pg.Queryer = conn
	if c.db.pooled {
		session = tuned{conn, c.db.tunings.claim}
	}
	c.health.begin(asked)
	claim, nonEmpty := queue.Claim, c.cost.preferNonEmpty(len(wants), asked)
	if nonEmpty {
		claim = queue.ClaimNonEmpty
	}
	c.number++
	var events []queue.Claimed
	by := queue.Claimant{Instance: c.self.id, Number: c.number}
	try := func() error {
		return c.db.onSchema(ctx, func(int32) (err error) {
			events, err = claim(ctx, session, by, wants)
			return err
		})
	}
	// One event is to blame. With the payloads fetched one by one, it costs no other event.
	if err = try(); pg.IsData(err) {
		c.log.Debug("a claim failed on the data of an event; claiming again without payloads", "error", err)
		for i := range wants {
			wants[i].Hold = true
		}
		err = try()
	}
	conn.Release()
	named := true
	if err == nil {
		err = c.names.give(ctx, c.db.claims, wants, events)
		named = err == nil
	}
	if err != nil {
		if !named || !pg.WasRefused(err) {
			c.repairer.add(interrupted{by: by, wants: wants, backend: pid, asked: asked})
		}
		return err
	}
	c.recovered()
	c.bell.Found(len(events))
	now := time.Now()
	c.took = now.Sub(asked)
	c.cost.note(len(wants), nonEmpty, len(events), c.took)
	c.health.ended(nil)
	c.noteUnannounced(events)
	c.tell.claimed(events, c.took)
	start, unsent, notices, full := c.scheduler.claimed(wants, lanes, events, asked, now)
	c.sender.begin(start, unsent)
	for _, n := range notices {
		n.log(c.log)
	}
	if full && c.scheduler.saturated() && c.bell.State() == listener.Silent && now.Sub(c.called) > callEvery {
		c.called = now
		return queue.NotifyPeers(ctx, c.db.claims, queue.HelpPayload)
	}
	return nil
}

// callEvery is how often a saturated dispatcher calls its peers for help while writers are silent
// on its account.
const callEvery = 100 * time.Millisecond

// lockedRetry is the delay before retrying events that are due but were not claimed, usually
// because another session holds their locks.
const lockedRetry = 20 * time.Millisecond

// nextDueMargin is how far the question for the next due times looks back behind the latest claim.
// If the answer takes longer than that, askNextDue asks again: events may have become due in
// between.
const nextDueMargin = time.Second

// askNextDue asks when the next event of drained lanes becomes due. An event that became due after
// their latest claim was sent counts too, since that claim did not see it.
func (c *claimer) askNextDue(ctx context.Context, triggers []int32) error {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	asked := time.Now()
	next, err := queue.NextDue(ctx, c.db.claims, triggers, c.scheduler.unseen(triggers, asked.Add(nextDueMargin)))
	// After that time, events that became due between the claim and the answer may be in neither.
	if err != nil || time.Since(asked) > nextDueMargin {
		c.scheduler.forgetDue(triggers)
	}
	if err != nil {
		return err
	}
	for id, in := range next {
		if in == 0 {
			in = lockedRetry
		}
		c.scheduler.noteDue(id, time.Now().Add(in))
	}
	c.recovered()
	return nil
}

// fail records a failure of the database, and returns how long to wait.
func (c *claimer) fail(ctx context.Context, what string, err error) time.Duration {
	if ctx.Err() != nil {
		return 0
	}
	err = queue.ExplainHidden(err)
	c.health.ended(err)
	c.tell.failed("claim", err)
	if c.db.schema.standsStill() { // the log says why
		return 0
	}
	if !c.failed {
		c.failed = true
		c.failures = pg.Backoff(firstRetry)
		c.log.Error("a database statement failed; retrying until it succeeds", "what", what, "error", err)
	}
	if isDiskFull(err) {
		c.disk.free(ctx)
	}
	wait, _ := c.failures.Next() // without a limit it never stops
	c.resume = time.Now().Add(wait)
	return wait
}

func (c *claimer) recovered() {
	if c.failed {
		c.failed = false
		c.log.Info("database statements succeed again")
		c.scheduler.markAll(true)
	}
}

// doorbellIs records what the bell says on this dispatcher's account.
func (c *claimer) doorbellIs(state listener.State) {
	c.silent.Store(state == listener.Silent)
	c.tell.doorbell(state)
}
