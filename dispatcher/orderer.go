package dispatcher

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/sethvargo/go-retry"

	"github.com/rowhook/rowhook/internal/order"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/webhook"
)

// orderer delivers the events of ordered triggers. It owns lanes of them, reads the lanes, and
// hands the scheduler one event of each key at a time, or a run of them where a request takes
// several. What may be sent next is decided by the package order.
//
// Its loop owns all but conclusions. A statement runs beside the loop, one at a time, so that events
// are handed over meanwhile. Nothing is claimed here, so an event whose attempt was interrupted is
// sent again by the next owner of its lane. If that ends several owners one after another, attempts
// are counted before they are made: see line.suspects.
type orderer struct {
	db        *database
	self      *identity
	scheduler *scheduler
	sender    *sender
	settler   *settler
	pulse     *pulse
	tell      *observers
	log       *slog.Logger

	health health // of its statements; read by Stats

	mu          sync.Mutex
	conclusions []conclusion

	lines     map[int32]*line
	triggers  map[int32]orderedTrigger
	outdated  bool    // lines are not as triggers say
	serves    []int32 // triggers that this instance can send for, as far as others count
	served    []int32 // as last written
	lacks     []queue.LaneWant
	checked   time.Time // when heads that wait for their time were last looked at
	horizon   order.Horizon
	primed    bool // the horizon has a snapshot from before the lanes of every line were first read
	names     tableNames
	answers   chan func()
	asking    bool // a statement is under way
	doubts    int64
	rebalance bool      // who owns which lanes is to be looked at now
	watched   time.Time // when that was last done
	polled    time.Time // when what waits for others was last looked at
	looked    time.Time // when lanes were last looked through from their beginning
	rested    time.Time // no lane is read before
	failures  retry.Backoff
	failed    bool
	resume    time.Time // after a failure: no statement before
}

const (
	// orderPoll is how often to look again at what waits for another key, or for transactions to
	// end: nobody notifies of that.
	orderPoll = 50 * time.Millisecond
	// lookBackEvery is how often lanes are looked through from their beginning, as insurance.
	lookBackEvery = time.Minute
	// keptPayloads bounds the bytes of payloads in memory that wait for their turn. Beyond it they
	// are fetched when they are sent.
	keptPayloads = 32 << 20
)

func newOrderer(db *database, self *identity, scheduler *scheduler, pulse *pulse, tell *observers, log *slog.Logger) *orderer {
	return &orderer{
		db: db, self: self, scheduler: scheduler, pulse: pulse, tell: tell, log: log,
		lines: map[int32]*line{}, answers: make(chan func(), 1), rebalance: true,
	}
}

// run works until ctx is done.
func (o *orderer) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(o.step(ctx, time.Now()))
		select {
		case <-ctx.Done():
			if o.asking {
				(<-o.answers)()
			}
			return
		case <-o.scheduler.order.wake:
		case answer := <-o.answers:
			o.asking = false
			answer()
		case <-timer.C:
		}
	}
}

// step does what there is to do. It returns how long to wait for a signal.
func (o *orderer) step(ctx context.Context, now time.Time) time.Duration {
	o.absorb(now)
	o.configure()
	wait := o.hand(now)
	if !o.asking && ctx.Err() == nil && !now.Before(o.resume) {
		if job := o.job(now); job != nil {
			o.ask(ctx, job)
		}
	}
	busy := o.asking
	for _, n := range o.lines {
		busy = busy || n.lanes.Marked()
	}
	o.scheduler.orderState(busy, wait == 0)
	if wait == 0 { // for room
		wait = time.Hour
	}
	return max(min(wait, o.next(now)), 100*time.Microsecond)
}

// job is a statement. It runs beside the loop, so it uses none of its state. What it returns is run
// by the loop.
type job func(ctx context.Context) (then func(), err error)

func (o *orderer) ask(ctx context.Context, j job) {
	o.asking = true
	go func() {
		// A stop does not cancel a statement that is under way.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), statementTimeout)
		defer cancel()
		o.health.begin(time.Now())
		then, err := j(ctx)
		err = queue.ExplainHidden(err)
		o.health.ended(err)
		o.answers <- func() {
			if then != nil {
				then()
			}
			o.ended(ctx, err)
		}
	}()
}

// ended takes in how a statement ended.
func (o *orderer) ended(ctx context.Context, err error) {
	switch {
	case err == nil && o.failed:
		o.failed = false
		o.log.Info("lanes of ordered triggers are read again")
	case err != nil && ctx.Err() == nil:
		o.tell.failed("read lanes", err)
		if !o.failed {
			o.failed = true
			o.failures = pg.Backoff(firstRetry)
			o.log.Log(ctx, o.db.schema.level(), "a statement on the lanes of ordered triggers failed; retrying until it succeeds", "error", err)
		}
		wait, _ := o.failures.Next() // without a limit it never stops
		o.resume = time.Now().Add(wait)
	}
}

// job returns the statement to send now; nil: none.
func (o *orderer) job(now time.Time) job {
	if len(o.lines) > 0 && !o.primed {
		return o.prime(now)
	}
	if (len(o.lines) > 0 || len(o.serves) > 0 || len(o.served) > 0) && (o.rebalance || now.Sub(o.watched) >= watchEvery) {
		o.rebalance, o.watched = false, now
		if o.horizon.Open() { // one that read the doorbell as silent notifies nobody when it commits
			for _, n := range o.lines {
				n.lanes.Mark()
			}
		}
		if now.Sub(o.looked) >= lookBackEvery {
			o.looked = now
			for _, n := range o.lines {
				n.lanes.LookBack()
			}
		}
		return o.seats()
	}
	if j := o.claim(); j != nil {
		return j
	}
	if j := o.give(); j != nil {
		return j
	}
	if now.Sub(o.polled) >= orderPoll {
		if j := o.poll(); j != nil {
			o.polled = now
			return j
		}
	}
	if j := o.recheck(now); j != nil {
		return j
	}
	return o.read(now)
}

// next is how long there is nothing to do by the clock.
func (o *orderer) next(now time.Time) time.Duration {
	wait := time.Hour
	if len(o.lines) > 0 {
		wait = max(o.watched.Add(watchEvery).Sub(now), time.Millisecond)
	}
	if now.Before(o.resume) {
		return min(wait, o.resume.Sub(now))
	}
	for _, n := range o.lines {
		if due := n.lanes.Tick(now); !due.IsZero() {
			wait = min(wait, due.Sub(now))
		}
		if n.lanes.Moving() || n.lanes.Unsure() {
			wait = min(wait, max(o.polled.Add(orderPoll).Sub(now), time.Millisecond))
		}
		if n.lanes.Marked() && now.Before(o.rested) {
			wait = min(wait, o.rested.Sub(now))
		}
	}
	return wait
}

// configure takes over which ordered triggers there are, and what was marked.
func (o *orderer) configure() {
	if all, serves, changed := o.scheduler.orderedTriggers(); changed {
		o.serves, o.triggers, o.outdated = serves, all, true
	}
	marked, reseat := o.scheduler.markedOrders()
	o.rebalance = o.rebalance || reseat
	if d := o.pulse.doubts.Load(); d != o.doubts {
		o.doubts, o.rebalance = d, true
		for _, n := range o.lines {
			n.leaveAll(true)
		}
	}
	if o.outdated {
		o.outdated = false
		o.reconfigure()
	}
	for _, id := range marked {
		if n := o.lines[id]; n != nil {
			n.lanes.Mark()
		}
	}
}

// reconfigure takes over the ordered triggers.
func (o *orderer) reconfigure() {
	for id, t := range o.triggers {
		n := o.lines[id]
		if n == nil {
			n = &line{lanes: order.NewLanes(t.options()), grants: map[int16]*grant{}, doubted: map[int16]time.Time{}, before: map[int16]int64{}}
			o.lines[id] = n
			o.rebalance, o.primed = true, false
		}
		n.trigger, n.gone = t, false
		n.lanes.Configure(t.options())
	}
	for id, n := range o.lines {
		if _, there := o.triggers[id]; !there && !n.gone {
			n.gone, o.rebalance = true, true
			n.leaveAll(false)
		}
	}
}

// hand gives the scheduler what may be sent, as far as it has room. It returns how long to wait
// before it looks again; 0: until there is room.
func (o *orderer) hand(now time.Time) (wait time.Duration) {
	wait = time.Hour
	if !o.pulse.isFresh(now) {
		return 100 * time.Millisecond
	}
	for _, n := range o.lines {
		n.lanes.Tick(now)
		if n.gone || n.lanes.Ready() == 0 {
			o.scheduler.waitsInOrder(n.trigger.lane, false)
			n.urgent.Store(n.lanes.Entries() > n.lanes.Out())
			continue
		}
		room := o.scheduler.room(n.trigger.lane)
		if room <= 0 && n.trigger.Spec.Retry.MaxAge > 0 {
			o.expire(n, now)
		}
		var all []*delivery
		for len(all) < room {
			run := n.lanes.Next(now, n.most(room-len(all)))
			if run == nil {
				break
			}
			all = append(all, o.deliverRun(n, run, now)...)
		}
		n.urgent.Store(n.lanes.Ready() == 0 && n.lanes.Entries() > n.lanes.Out())
		o.scheduler.waitsInOrder(n.trigger.lane, n.lanes.Ready() > 0)
		if n.lanes.Ready() > 0 {
			wait = 0
		}
		if len(all) == 0 {
			continue
		}
		start, unsent := o.scheduler.offer(n.trigger.lane, all, now)
		for _, sh := range start {
			o.sender.send(sh)
		}
		o.settler.giveBack(unsent)
	}
	return wait
}

// expire gives up the heads of keys that have expired while nothing of their trigger may be sent.
func (o *orderer) expire(n *line, now time.Time) {
	if now.Sub(n.expired) < expireEvery {
		return
	}
	n.expired = now
	old := n.lanes.TakeOld(now, mostExpired, func(e *order.Entry) bool {
		c := loadOf(e)
		return expired(&n.trigger.Spec, &delivery{event: webhook.Event{CreatedAt: c.CreatedAt}, renewed: c.RenewedAt}, now)
	})
	if len(old) == mostExpired {
		n.expired = now.Add(time.Second - expireEvery) // there may be more
	}
	for _, e := range old {
		d := o.deliver(n, e)
		o.scheduler.hold(d)
		o.sender.expire(d)
	}
}

// deliverRun makes the deliveries of a run: several for one request, or one in the stead of several.
func (o *orderer) deliverRun(n *line, run order.Run, now time.Time) (all []*delivery) {
	if n.trigger.Spec.Order.Latest {
		if d := o.merge(n, run, now); d != nil {
			all = append(all, d)
		}
		return all
	}
	run = n.together(run, now)
	for _, e := range run {
		d := o.deliver(n, e)
		if len(run) > 1 {
			d.key, d.placed.run = e.Key, run[0]
		}
		all = append(all, d)
	}
	return all
}

// deliver makes the delivery of an event.
func (o *orderer) deliver(n *line, e *order.Entry) *delivery {
	c := loadOf(e)
	c.Tries = e.Tries + 1
	d := &delivery{
		lane: n.trigger.lane, tries: c.Tries, broken: c.Interrupted, held: c.Held, packed: c.Packed, due: c.DueAt, renewed: c.RenewedAt, expires: time.Now().Add(longestLease * 365),
		event: o.scheduler.event(n.trigger.lane, c),
		placed: &placed{
			line: n, entry: e, lane: queue.Lane{Trigger: n.trigger.ID, Lane: e.Lane, Epoch: n.lanes.Epoch(e.Lane)}, grant: n.grants[e.Lane],
			blocks: n.trigger.Spec.Order.Blocks(), suspect: n.suspects(e),
		},
	}
	if len(o.tell.onClaimed) > 0 {
		o.tell.claimed([]queue.Claimed{*c}, 0)
	}
	return d
}

// loadOf is the event of an entry.
func loadOf(e *order.Entry) *queue.Claimed {
	c, ok := e.Load.(*queue.Claimed)
	if !ok {
		return &queue.Claimed{ID: e.ID}
	}
	return c
}

// mine reports whether a shipment may be sent: the lanes of its events are this instance's.
func (o *orderer) mine(sh *shipment) bool {
	for _, d := range sh.deliveries {
		p := d.placed
		if p == nil {
			continue
		}
		// The beat is looked at first: doubts come before the beat that ends them.
		if !o.pulse.isFresh(time.Now()) || !p.grant.holds(o.pulse.doubts.Load()) {
			return false
		}
	}
	return true
}

// note counts the attempts of a shipment that may end this dispatcher, before they are made. missing
// are those of its deliveries that are not in the queue, or in another instance's lane.
func (o *orderer) note(ctx context.Context, sh *shipment) (missing []*delivery, err error) {
	var attempts []queue.LaneAttempt
	var suspects []*delivery
	for _, d := range sh.deliveries {
		if p := d.placed; p != nil && p.suspect {
			attempts = append(attempts, queue.LaneAttempt{ID: d.event.ID, Tries: d.tries, Lane: p.lane})
			suspects = append(suspects, d)
			p.noted = true
		}
	}
	if len(attempts) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	noted, err := queue.NoteAttempts(ctx, o.db.writes, o.self.id, attempts)
	if err != nil {
		o.tell.failed("count attempts", err)
		o.log.Debug("attempts can't be counted before they are made, so they wait", "error", err)
		return nil, err
	}
	for _, d := range suspects {
		if !slices.Contains(noted, d.event.ID) {
			d.placed.noted = false
			missing = append(missing, d)
		}
	}
	return missing, nil
}

// judged takes in what became of deliveries. Any goroutine may call it.
func (o *orderer) judged(v ...conclusion) {
	o.mu.Lock()
	o.conclusions = append(o.conclusions, v...)
	o.mu.Unlock()
	o.scheduler.wakeOrderer()
}

// absorb applies what became of deliveries.
func (o *orderer) absorb(now time.Time) {
	o.mu.Lock()
	all := o.conclusions
	o.conclusions = nil
	o.mu.Unlock()
	for i := range all {
		o.conclude(&all[i], now)
	}
}

func (o *orderer) conclude(v *conclusion, now time.Time) {
	p := v.dl.placed
	lanes, e := p.line.lanes, p.entry
	e.Sent = e.Sent || p.tried
	if v.lost {
		o.rebalance = true
		e.Read = time.Time{} // it is looked at before it is sent again
	}
	outcome := order.Gone
	switch {
	case v.lost || v.fate == queue.Released:
		outcome = order.Returned
		e.Due = now.Add(v.delay)
	case v.fate == queue.Retried:
		outcome = order.Again
		loadOf(e).Interrupted = false
		e.Tries, e.Due = v.dl.tries, now.Add(v.delay)
	case v.fate == queue.Dead && p.blocks:
		lanes.Bury(e, now)
	}
	for _, passed := range p.over {
		if outcome == order.Gone {
			lanes.Done(passed, order.Gone, now)
		} else {
			lanes.Done(passed, order.Returned, now)
		}
	}
	lanes.Done(e, outcome, now)
	if v.doubt {
		lanes.Restart(e.Lane)
	}
}

// weight is how many bytes of payload an event has in memory.
func weight(c *queue.Claimed) int { return len(c.Old) + len(c.New) + len(c.Session) + len(c.Trace) }
