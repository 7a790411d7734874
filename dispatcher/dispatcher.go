// Package dispatcher delivers captured events: it claims what is due, sends it, and settles the
// outcomes.
//
// A Dispatcher works on one database, which sqlschema has migrated and where triggers were applied.
// Any number of dispatchers share a database. Three loops, each owned by Run, talk through the
// scheduler:
//
//	claimer      claims; woken by the doorbell, by free slots, by what becomes due and by the poll
//	senders      a goroutine for each attempt; one that ends takes the next event of a free slot
//	settler      writes the outcomes; what came in while one batch was written makes up the next
//
// Beside them run the listener, the pulse, the repairer, the peers, which give back what dead
// instances held, and the maintenance, which makes partitions and drops old ones.
// docs/architecture.md has a drawing.
package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/internal/secret"
	"github.com/rowhook/rowhook/internal/session"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

// Defaults of a Config.
const (
	DefaultPollInterval  = time.Second
	DefaultBatchSize     = 100
	DefaultConcurrency   = 100
	DefaultGracePeriod   = 30 * time.Second
	DefaultPayloadMemory = 64 << 20
	DefaultMaxBody       = 256 << 20
)

// Guard says which addresses may be called. See [webhook.Guard] for its fields and methods.
type Guard = webhook.Guard

// Event is what a request's body says. See [webhook.Event] for its fields.
type Event = webhook.Event

// Result is how an attempt went. See [webhook.Result] for its fields.
type Result = webhook.Result

// Config says how a Dispatcher works. Its zero value works on the database that the PG* variables
// name.
type Config struct {
	// DatabaseURL names the database, as a URL or in keyword form, or as file: and the absolute path of
	// a file that holds it and is read for each connection. Empty: the PG* variables.
	DatabaseURL string
	// ListenURL leads straight to Postgres where DatabaseURL goes through a pooler that shares
	// sessions. Empty: DatabaseURL.
	ListenURL string
	// NoListen does without a session that listens. Events are then found by the poll alone, and if
	// this instance dies, its claims come back by the end of their leases alone.
	NoListen bool
	// PollInterval is how often to look for events, whatever the doorbell says. It is insurance.
	// Default DefaultPollInterval.
	PollInterval time.Duration
	// BatchSize is how many events a claim asks for of a trigger, or more if the trigger has more
	// free slots, or is delivered so quickly that it holds more ahead: up to four times as many.
	// Default DefaultBatchSize.
	BatchSize int
	// Concurrency is how many attempts may be in flight. Attempts that have waited for over a
	// second do not count. Default DefaultConcurrency.
	Concurrency int
	// GracePeriod is how long Run waits for attempts in flight when it stops. Default
	// DefaultGracePeriod.
	GracePeriod time.Duration
	// PayloadMemory bounds the bytes of large payloads that are in memory. A payload above 64 KiB
	// is large: it is fetched when its event is sent. Default DefaultPayloadMemory.
	PayloadMemory int64
	// MaxBody is the largest body of a request in bytes, and so the largest payload. An event with
	// a larger one is a dead letter, and a payload above it is not fetched. Default DefaultMaxBody.
	MaxBody int64
	// Version of the program, for rowhook.instance and the User-Agent. Optional.
	Version string
	// Name of this instance in rowhook.instance. Default: host and process id.
	Name string
	// Lookup reads a variable of the environment, for ${NAME} in a configuration. Default
	// os.LookupEnv.
	Lookup func(name string) (value string, ok bool)
	// Env are the names of the variables that a configuration may refer to, as patterns such as
	// ORDERS_*. Default: every name but Rowhook's own, which are DATABASE_URL and what begins with PG
	// or ROWHOOK_. Of these a configuration may use only what Env names without a *.
	Env []string
	// SecretsDirs are the directories of the files that a configuration may refer to by
	// ${file:PATH}. They are read again when they change. Default: none.
	SecretsDirs []string
	// SourceName is the name of the database where a process serves several: the source in bodies, in
	// lines of the log and in what observers are told. Optional.
	SourceName string
	// Shared is what the dispatchers of a process share. Then PayloadMemory and MaxBody are those of
	// Shared, and so are Concurrency and Version by default. Optional.
	Shared *Shared
	// Process is the number of this process among those that share this database with others, and
	// each of which asks by Members who is there. The session that listens shows it until Run is to
	// stop. 0: none. Optional.
	Process int32
	// Source gives out what a configuration refers to, instead of Lookup, Env and SecretsDirs.
	// Optional.
	Source trigger.Source
	// Guard says which addresses may not be called. What was applied under network is added to it.
	// Optional.
	Guard Guard
	// NATS makes the destination of triggers with nats. Without it, the events of such triggers wait
	// for a dispatcher that has it. Dispatchers of one process that are given the same function may
	// share its connections. Optional.
	NATS func(DestinationConfig) Destination
	// Observers are told what happens. Each sees everything; their order does not matter. Optional.
	Observers []Observer
	// Logger is optional.
	Logger *slog.Logger
}

// Dispatcher delivers events while its Run runs. Make it by New. It holds the parts, and starts and
// ends their loops. What a part may touch is in its own type.
type Dispatcher struct {
	cfg  Config
	log  *slog.Logger
	self *identity
	db   *database

	scheduler     *scheduler
	inbox         *inbox
	destinations  destinations
	configuration *configuration
	references    *references
	loader        *loader
	claimer       *claimer
	sender        *sender
	payloads      *payloads
	settler       *settler
	pacer         *pacer
	totals        *totals
	repairer      *repairer
	taker         *taker
	orderer       *orderer
	listening     *listening
	pulse         *pulse
	peers         *peers
	commits       *commitTime
	notifications *notificationQueue
	maintenance   *maintenance
	alerter       *alerter
	history       *history
	captures      *captures
	activity      *activityCounter
	failing       *failing
	breakers      *breakers
	expirer       *expirer
	trimmer       *trimmer

	abort     chan struct{}
	abortOnce sync.Once
	instance  atomic.Int32 // id, once started; written by start, read by Stats
	stopping  atomic.Bool  // written by Run, read by Stats
}

// identity is this instance. start draws the id before the loops start; nothing changes after that.
type identity struct {
	id            int32
	name, version string // see Config
}

// New checks the configuration and makes a Dispatcher. It does not connect.
func New(cfg Config) (*Dispatcher, error) {
	if cfg.PollInterval < 0 || cfg.BatchSize < 0 || cfg.Concurrency < 0 || cfg.GracePeriod < 0 || cfg.PayloadMemory < 0 || cfg.MaxBody < 0 {
		return nil, errors.New("dispatcher: PollInterval, BatchSize, Concurrency, GracePeriod, PayloadMemory and MaxBody must not be negative")
	}
	if cfg.Shared != nil {
		cfg.Shared.apply(&cfg)
	}
	setDefault(&cfg.PollInterval, DefaultPollInterval)
	setDefault(&cfg.BatchSize, DefaultBatchSize)
	setDefault(&cfg.Concurrency, DefaultConcurrency)
	setDefault(&cfg.GracePeriod, DefaultGracePeriod)
	setDefault(&cfg.PayloadMemory, DefaultPayloadMemory)
	setDefault(&cfg.MaxBody, DefaultMaxBody)
	if cfg.Lookup == nil {
		cfg.Lookup = os.LookupEnv
	}
	if cfg.Source == nil {
		rules := secret.Rules{Env: cfg.Env, Dirs: cfg.SecretsDirs, Own: func() secret.Own { return session.Secrets(cfg.DatabaseURL, cfg.ListenURL) }}
		store, err := secret.New(cfg.Lookup, rules)
		if err != nil {
			return nil, fmt.Errorf("dispatcher: Env and SecretsDirs: %w", err)
		}
		cfg.Source = store.Get
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.SourceName != "" {
		cfg.Logger = cfg.Logger.With("source", cfg.SourceName)
	}
	cfg.Name = InstanceName(cfg.Name)
	return compose(cfg), nil
}

// InstanceName returns the name of an instance whose Config.Name is configured. It may be "".
func InstanceName(configured string) string {
	if configured == "" {
		host, err := os.Hostname()
		if err != nil {
			host = "unknown"
		}
		configured = fmt.Sprintf("%s:%d", host, os.Getpid())
	}
	// The name goes into a column of type text, which holds no other bytes.
	return strings.ReplaceAll(strings.ToValidUTF8(configured, "?"), "\x00", "?")
}

// compose makes the parts.
func compose(cfg Config) *Dispatcher {
	log, tell := cfg.Logger, newObservers(cfg.Observers, cfg.SourceName)
	clientPool, room := &clients{make: clientMaker(cfg.Version, cfg.Concurrency, cfg.MaxBody, log)}, newBudget(cfg.PayloadMemory)
	if cfg.Shared != nil {
		clientPool, room = &cfg.Shared.clients, cfg.Shared.room
	}
	client := &client{pool: clientPool}
	to := destinations{trigger.KindWebhook: webhooks{client, client.guard, client.close}}
	if cfg.NATS != nil {
		to[trigger.KindNATS] = cfg.NATS(DestinationConfig{Version: cfg.Version, Guard: cfg.Guard, MaxBody: int(min(cfg.MaxBody, math.MaxInt)), Logger: log})
	}
	self := &identity{name: cfg.Name, version: cfg.Version}
	db := &database{pooled: cfg.ListenURL != "" || cfg.NoListen, application: applicationName(cfg.Name)}
	commits := &commitTime{db: db, self: self}
	notifications := &notificationQueue{}
	configuration := &configuration{}
	history := &history{db: db, log: log}
	captures := &captures{db: db, log: log, changed: make(chan struct{}, 1)}
	activity := newActivityCounter(db, self, log)
	failing := &failing{log: log, begin: newOccasion()}
	disk := &diskSpace{db: db, tell: tell, log: log}

	scheduler := newScheduler(cfg.Concurrency, cfg.BatchSize)
	scheduler.maxBody, scheduler.source = cfg.MaxBody, cfg.SourceName
	inbox := &inbox{scheduler: scheduler}
	pulse := newPulse(db, self, inbox, log)
	scheduler.pulse = pulse
	if cfg.Shared != nil {
		pulse.slots, pulse.calm = cfg.Shared.began, (&calm{scheduler: scheduler}).is
	}
	listening := &listening{cfg: &cfg, db: db, self: self, inbox: inbox, pulse: pulse, tell: tell, log: log, ready: make(chan struct{})}
	repairer := newRepairer(db, scheduler, log)
	settler := &settler{
		db: db, self: self, scheduler: scheduler, configuration: configuration, history: history, disk: disk, tell: tell, log: log,
		signal: make(chan struct{}, 1),
	}
	unable := &unableTriggers{scheduler: scheduler, settler: settler, inbox: inbox, log: log}
	references := &references{source: cfg.Source, inbox: inbox, files: newOccasion()}
	loader := &loader{
		db: db, guard: cfg.Guard, references: references, destinations: to, configuration: configuration, scheduler: scheduler, settler: settler,
		unable: unable, captures: captures, tell: tell, log: log,
	}
	payloads := &payloads{
		db: db, self: self, scheduler: scheduler, settler: settler, failing: failing, log: log,
		maxBody: cfg.MaxBody, room: room, measure: make(chan struct{}, 1),
	}
	sender := &sender{
		scheduler: scheduler, settler: settler, payloads: payloads, unable: unable, activity: activity, failing: failing,
		inbox: inbox, tell: tell, log: log,
	}
	taker := &taker{db: db, self: self, pulse: pulse, scheduler: scheduler, sender: sender, inbox: inbox, tell: tell, log: log, signal: make(chan struct{}, 1)}
	inbox.taker = taker
	orderer := newOrderer(db, self, scheduler, pulse, tell, log)
	orderer.sender, orderer.settler = sender, settler
	sender.orderer, settler.orderer = orderer, orderer
	d := &Dispatcher{
		orderer: orderer, taker: taker,
		cfg: cfg, log: log, self: self, db: db, scheduler: scheduler, inbox: inbox, destinations: to, configuration: configuration,
		references: references, loader: loader, sender: sender, payloads: payloads, settler: settler, repairer: repairer, listening: listening, pulse: pulse,
		commits: commits, notifications: notifications, history: history, captures: captures, activity: activity, failing: failing,
		pacer:  &pacer{db: db, scheduler: scheduler, sender: sender, settler: settler, shared: cfg.Shared, log: log},
		totals: &totals{db: db, self: self, scheduler: scheduler, pulse: pulse, log: log},
		claimer: &claimer{
			db: db, self: self, scheduler: scheduler, inbox: inbox, loader: loader, sender: sender, repairer: repairer, taker: taker, session: listening,
			commits: commits, notifications: notifications, disk: disk, tell: tell, log: log,
			pollInterval: cfg.PollInterval, noListen: cfg.NoListen, ringWithin: ringWithin,
		},
		peers: &peers{
			db: db, self: self, scheduler: scheduler, inbox: inbox, pulse: pulse, configuration: configuration, unable: unable,
			trouble: &troubleRecord{db: db, self: self, scheduler: scheduler, history: history, activity: activity, log: log},
			commits: commits, log: log, noListen: cfg.NoListen,
		},
		maintenance: &maintenance{
			db: db, scheduler: scheduler, configuration: configuration, history: history, captures: captures, tell: tell, log: log,
		},
		breakers: &breakers{db: db, self: self, scheduler: scheduler, settler: settler, log: log},
		expirer:  &expirer{db: db, scheduler: scheduler, activity: activity, failing: failing, log: log},
		trimmer:  &trimmer{db: db, self: self, configuration: configuration, log: log},
		abort:    make(chan struct{}),
	}
	db.schema.log, db.schema.halt, db.schema.resume = log, d.halt, d.resume
	d.alerter = &alerter{
		db: db, self: self, configuration: configuration, scheduler: scheduler, captures: captures, client: client, source: cfg.Source, ill: d.ill,
		log: log, now: make(chan struct{}),
	}
	return d
}

// halt has this instance stand still, since it can't work on the schema rowhook.
func (d *Dispatcher) halt() {
	d.settler.giveBack(d.scheduler.halt())
	d.scheduler.wake()
	d.listening.show()
}

// resume ends a halt. Others may have had the lanes of this instance, and anything may have become
// due.
func (d *Dispatcher) resume() {
	d.pulse.doubts.Add(1)
	d.scheduler.resume()
	d.inbox.askReload()
	d.inbox.inherit()
	d.listening.show()
}

// ill reports that this instance has trouble with the database, so that another one may be in a
// better position to tell of trouble.
func (d *Dispatcher) ill() bool {
	if d.db.schema.standsStill() {
		return true
	}
	now := time.Now()
	for _, h := range []*health{&d.claimer.health, &d.taker.health, &d.settler.health, &d.orderer.health} {
		if h.problem(now) != "" {
			return true
		}
	}
	return !d.pulse.registered.Load()
}

func setDefault[T comparable](v *T, byDefault T) {
	var zero T
	if *v == zero {
		*v = byDefault
	}
}

// Ready is closed once triggers are loaded and, unless NoListen is set, the session listens.
func (d *Dispatcher) Ready() <-chan struct{} { return d.listening.ready }

// Abort makes a Run that is stopping give up what is in flight at once, instead of at the end of
// the grace period.
func (d *Dispatcher) Abort() { d.abortOnce.Do(func() { close(d.abort) }) }

// Run delivers until ctx is done. Then it claims no more, waits for the attempts in flight within
// the grace period, and settles. It gives back what it has claimed and not sent; that claim does
// not count as an attempt. It returns nil when all that is done. It returns an error if it could
// not start, or if something could not be settled in time: the leases then bring those events back.
//
// While it runs, it retries failures of the database without end. While the schema rowhook has a
// version that this program can't work on, it stands still, and Stats.Claiming says why. Run may be called once, and again
// if it could not start.
func (d *Dispatcher) Run(ctx context.Context) error {
	d.destinations.setGuard(d.cfg.Guard)
	defer d.destinations.close()
	if d.cfg.Shared != nil {
		defer d.cfg.Shared.join(d.scheduler)()
		defer d.cfg.Shared.room.share()()
	}
	if err := d.db.open(d.cfg.DatabaseURL, d.cfg.ListenURL, d.notifications.noticed); err != nil {
		return err
	}
	defer d.db.close()
	if err := d.start(ctx); err != nil {
		return err
	}

	// Two contexts end it: the caller's ends claiming, the sender's ends sending.
	sendCtx, stopSending := context.WithCancel(context.WithoutCancel(ctx))
	defer stopSending()
	d.sender.ctx = sendCtx
	settleCtx, stopSettling := context.WithCancel(context.WithoutCancel(ctx))
	defer stopSettling()

	var loops, settling, listening, reporting, beating, pacing, taking sync.WaitGroup
	beatCtx, stopBeating := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBeating()
	beating.Go(func() { d.pulse.run(beatCtx) })
	takeCtx, stopTaking := context.WithCancel(context.WithoutCancel(ctx))
	defer stopTaking()
	listenCtx, stopListening := context.WithCancel(context.WithoutCancel(ctx))
	defer stopListening()
	if !d.cfg.NoListen {
		d.listening.open()
		listening.Go(func() { d.listening.run(listenCtx) })
		if d.cfg.Process != 0 { // another one takes over before what is in flight here has ended
			listening.Go(func() { <-ctx.Done(); d.listening.leave() })
		}
	}
	settling.Go(func() { d.settler.run(settleCtx) })
	taking.Go(func() { d.taker.run(takeCtx) })
	loops.Go(func() { d.claimer.run(ctx) })
	loops.Go(func() { d.repairer.run(ctx) })
	loops.Go(func() { d.orderer.run(ctx) })
	loops.Go(func() { d.peers.run(ctx) })
	loops.Go(func() { d.maintenance.run(ctx) })
	loops.Go(func() { d.activity.run(ctx) })
	loops.Go(func() { d.alerter.run(ctx) })
	loops.Go(func() { d.references.run(ctx) })
	loops.Go(func() { d.sender.watchStalls(ctx) })
	loops.Go(func() { d.breakers.run(ctx) })
	loops.Go(func() { d.expirer.run(ctx) })
	loops.Go(func() { d.trimmer.run(ctx) })
	loops.Go(func() { d.sender.keepTimetable(ctx) })
	pacing.Go(func() { d.pacer.run(sendCtx) })
	pacing.Go(func() { d.totals.run(sendCtx) })
	reporting.Go(func() { d.failing.run(settleCtx) })
	loops.Wait() // ctx is done
	d.stopping.Store(true)

	d.settler.giveBack(d.scheduler.close())
	d.releaseLanes(ctx)
	d.finishSending(stopSending)
	stopSending()
	pacing.Wait()
	// Until here it gives back what is still handed over to it.
	stopTaking()
	taking.Wait()
	lastWords, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	left := d.settler.finish(lastWords)
	d.orderer.release(lastWords)
	d.activity.write(lastWords)
	stopSettling()
	settling.Wait()
	reporting.Wait()
	d.failing.look(time.Now(), true)
	stopBeating()
	beating.Wait()
	err := d.unregister(left)
	// The instance lock is released last, so that no other instance takes this one for dead while
	// it still settles.
	stopListening()
	listening.Wait()
	if err == nil {
		d.log.Info("stopped: all events are settled or given back")
	}
	return err
}

// releaseLanes gives back the lanes of which nothing is in flight, so that the others need not wait
// for what is.
func (d *Dispatcher) releaseLanes(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	d.orderer.release(ctx)
}

// stopTimeout bounds the last writes of a dispatcher that stops.
const stopTimeout = 10 * time.Second

// finishSending waits for the attempts in flight until the grace period ends, or until Abort. Then
// it cancels them.
func (d *Dispatcher) finishSending(cancel context.CancelFunc) {
	open := d.scheduler.inFlight()
	if open > 0 {
		d.log.Info("stopping: waiting for attempts in flight", "attempts", open, "at_most", d.cfg.GracePeriod)
	}
	done := make(chan struct{})
	go func() { d.sender.attempts.Wait(); close(done) }()
	timer := time.NewTimer(d.cfg.GracePeriod)
	defer timer.Stop()
	select {
	case <-done:
		return
	case <-timer.C:
	case <-d.abort:
	}
	open = d.scheduler.inFlight()
	d.log.Warn("stopping: canceling attempts in flight; their events will be sent again", "attempts", open)
	cancel()
	<-done
}

func (d *Dispatcher) unregister(left int) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if problem := d.db.schema.unworkable(); left > 0 && problem != nil {
		return fmt.Errorf("stopped without settling %d events, which will be sent again: %w", left, problem)
	}
	if left > 0 || d.claimer.uncertain {
		// Its row in rowhook.instance stays. With its lock released, the other instances find it
		// dead and give back what it holds.
		return fmt.Errorf("stopped without settling %d events, which will be sent again: the database did not answer", left)
	}
	// The session that listens may be opened anew at this time.
	d.pulse.gone.Store(true)
	if err := queue.Unregister(ctx, d.db.writes, d.self.id); err != nil {
		return err
	}
	if d.db.schema.version.Load() >= queue.HandoverSchema {
		for more := true; more; {
			var err error
			if _, more, err = queue.ReturnStrays(ctx, d.db.writes); err != nil {
				return err
			}
		}
	}
	return queue.NotifyPeers(ctx, d.db.claims, queue.StoppedPayload)
}

// start draws the id, registers this instance and loads the triggers.
func (d *Dispatcher) start(ctx context.Context) error {
	conn, err := d.db.writes.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("connect to the database: %w", err)
	}
	defer conn.Release()
	if err := sqlschema.CheckRights(ctx, conn); err != nil {
		return err
	}
	have, know, err := sqlschema.Compatible(ctx, conn.Conn())
	if err != nil {
		return err
	}
	d.db.schema.version.Store(have)
	if have != know {
		d.log.Warn("the schema rowhook has another version than this program; the two are compatible, but upgrade the older one when you can", "schema", have, "program", know)
	}
	secured, err := queue.FindSecured(ctx, conn)
	if err != nil {
		return err
	}
	for i := range secured {
		d.log.Warn(secured[i].Problem(), "remedy", secured[i].Remedy())
	}
	if d.self.id, err = queue.NewInstance(ctx, conn); err != nil {
		return err
	}
	if err := queue.EnsurePartitions(ctx, conn); err != nil {
		d.log.Warn("can't create history partitions in advance; retrying", "error", err)
	}
	if err := d.loader.load(ctx); err != nil {
		return err
	}
	w, err := d.peers.look(ctx, conn)
	if err != nil {
		return err
	}
	d.peers.departures = w.Departures
	// The watch may say that writers are to be muted, before the bell is first armed.
	d.inbox.watched(&w, time.Now(), false)
	// An instance that listens says so once it holds its lock. If it said so before, it could be
	// found dead in between.
	if err := d.pulse.enroll(ctx, conn, false); err != nil {
		return err
	}
	d.breakers.step(ctx, time.Now())
	d.instance.Store(d.self.id)
	d.commits.measure(ctx)
	if d.cfg.NoListen {
		d.listening.without()
	}
	return nil
}
