// Package dispatcher delivers captured events: it claims what is due, sends it, and settles how that went.
//
// A Dispatcher works on one database that sqlschema has migrated, from the triggers that were applied there. Any number
// of them share a database. Three loops, each owned by Run, talk through the scheduler:
//
//	claimer      woken by the doorbell, by free slots, by what becomes due and by the poll; it alone claims
//	senders      a goroutine per attempt; one that ends takes the next event of a free slot
//	settler      writes the outcomes, everything that came in while it wrote the last
//
// Beside them run the listener and the housekeeper, which gives back what dead instances held, makes partitions and
// drops old ones.
package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rowhook/rowhook/internal/session"
	"github.com/rowhook/rowhook/internal/webhook"
	"github.com/rowhook/rowhook/listener"
	"github.com/rowhook/rowhook/sqlschema"
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

// Guard says which addresses may be called.
type Guard = webhook.Guard

// Event is what a request's body says.
type Event = webhook.Event

// Result is how an attempt went.
type Result = webhook.Result

// Config says how a Dispatcher works. Its zero value works on the database that the PG* variables name.
type Config struct {
	// DatabaseURL names the database, as a URL or in keyword form. Empty: the PG* variables.
	DatabaseURL string
	// ListenURL leads straight to Postgres where DatabaseURL goes through a pooler that shares sessions. Empty: DatabaseURL.
	ListenURL string
	// NoListen does without a session of its own: events are found by the poll alone, and claims of this instance come back by the
	// end of their leases alone.
	NoListen bool
	// PollInterval is how often to look for events whatever the doorbell says. It is insurance. Default DefaultPollInterval.
	PollInterval time.Duration
	// BatchSize is how many events a claim asks for of a trigger, more where it has more free slots. Default DefaultBatchSize.
	BatchSize int
	// Concurrency is how many attempts may be in flight. Those that have waited for over a second do not count.
	// Default DefaultConcurrency.
	Concurrency int
	// GracePeriod is how long Run waits for attempts in flight when it stops. Default DefaultGracePeriod.
	GracePeriod time.Duration
	// PayloadMemory bounds the bytes of payloads above sqlschema.InlinePayload that are in memory. Default DefaultPayloadMemory.
	PayloadMemory int64
	// MaxBody is the largest body of a request in bytes, and so the largest payload. An event with a larger one is a dead letter, and a
	// payload above it is not fetched. Default DefaultMaxBody.
	MaxBody int64
	// Version of the program, for rowhook.instance and the User-Agent. Optional.
	Version string
	// Name of this instance in rowhook.instance. Default: host and process id.
	Name string
	// Lookup resolves ${NAME} references. Default os.LookupEnv.
	Lookup func(name string) (value string, ok bool)
	// Guard says which addresses may not be called. What was applied under network comes on top. Optional.
	Guard Guard
	// Observers are told what happens. Each sees everything; their order does not matter. Optional.
	Observers []Observer
	// Logger is optional.
	Logger *slog.Logger
}

// Dispatcher delivers events while its Run runs. Make it by New.
type Dispatcher struct {
	cfg         Config
	log         *slog.Logger
	tell        *observers
	scheduler   *scheduler
	bell        listener.Doorbell // owned by the claimer
	settler     *settler
	client      *webhook.Client
	payload     *budget
	activity    *activityCounter
	failing     failing
	maintenance maintenance
	history     history
	captures    captures
	// What this instance can't do, as recorded last and when, and when it was tried again. The housekeeper owns them.
	trouble                  sqlschema.Trouble
	toldTrouble, triedUnable time.Time
	measure                  chan struct{} // holds a token while someone measures a payload; see fetch

	claims        *pgxpool.Pool // sessions tuned for claiming; commits don't wait for the disk
	writes        *pgxpool.Pool // sessions that settle
	direct        *pgx.ConnConfig
	id            int32
	departures    int64 // of other instances, as seen at the start
	configuration configuration
	inbox         inbox
	repairer      *repairer
	// What dead instances held and could not yet be given back. The housekeeper owns it.
	unreclaimed []sqlschema.Instance
	pulse       pulse

	ready     chan struct{}
	readyOnce sync.Once
	abort     chan struct{}
	abortOnce sync.Once
	senders   sync.WaitGroup
	sendCtx   context.Context // ends when attempts in flight are to be given up
	flush     atomic.Int64    // nanoseconds that a commit takes, by the last measurement
	uncertain bool            // when claiming ended, a claim may have succeeded without our knowing

	schema             atomic.Int32 // version of the schema rowhook, as last seen; see onSchema
	instance           atomic.Int32 // id, once started
	stopping           atomic.Bool
	silent             atomic.Bool             // writers are, on our account
	notices            atomic.Pointer[float64] // share of the server's queue of notifications that is in use, as last seen
	warnedOf           atomic.Int32            // who the server says keeps that queue from being emptied; 0: it has not said
	pretend            func(*sqlschema.Watch)  // in tests: changes what was seen
	renewSession       func()                  // opens the session that listens anew; nil: none listens
	claiming, settling health
}

// New checks the configuration and makes a Dispatcher. It does not connect.
func New(cfg Config) (*Dispatcher, error) {
	if cfg.PollInterval < 0 || cfg.BatchSize < 0 || cfg.Concurrency < 0 || cfg.GracePeriod < 0 || cfg.PayloadMemory < 0 || cfg.MaxBody < 0 {
		return nil, errors.New("dispatcher: negative PollInterval, BatchSize, Concurrency, GracePeriod, PayloadMemory or MaxBody")
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
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Name == "" {
		host, err := os.Hostname()
		if err != nil {
			host = "unknown"
		}
		cfg.Name = fmt.Sprintf("%s:%d", host, os.Getpid())
	}
	cfg.Name = strings.ReplaceAll(strings.ToValidUTF8(cfg.Name, "?"), "\x00", "?") // it goes into a column of text
	d := &Dispatcher{
		cfg: cfg, log: cfg.Logger, tell: newObservers(cfg.Observers),
		scheduler: newScheduler(cfg.Concurrency, cfg.BatchSize),
		client: webhook.NewClient(webhook.ClientConfig{
			Version: cfg.Version, Concurrency: cfg.Concurrency, Guard: cfg.Guard, MaxRequestBody: int(min(cfg.MaxBody, math.MaxInt)),
			Problem: func(err error) {
				cfg.Logger.Warn("a webhook's TLS files changed and can't be used, going on with those read before", "error", err)
			},
		}),
		payload:  newBudget(cfg.PayloadMemory),
		activity: newActivityCounter(),
		pulse:    newPulse(),
		captures: captures{changed: make(chan struct{}, 1)},
		measure:  make(chan struct{}, 1),
		ready:    make(chan struct{}),
		abort:    make(chan struct{}),
	}
	d.settler = newSettler(d)
	d.repairer = newRepairer(d)
	return d, nil
}

func setDefault[T comparable](v *T, byDefault T) {
	var zero T
	if *v == zero {
		*v = byDefault
	}
}

// Ready is closed once triggers are loaded and, unless NoListen is set, the session listens.
func (d *Dispatcher) Ready() <-chan struct{} { return d.ready }

// Abort makes a Run that is stopping give up what is in flight at once instead of at the end of the grace period.
func (d *Dispatcher) Abort() { d.abortOnce.Do(func() { close(d.abort) }) }

// Run delivers until ctx is done. Then it claims no more, waits for the attempts in flight within the grace period, settles,
// and gives back what it had claimed but not sent, that claim not counted. It returns nil when that is done, and an error where it
// could not start, or where something could not be settled in time: its leases then bring those events back.
//
// While it runs, failures of the database are retried for as long as it takes. Run may be called once, and again if it could not start.
func (d *Dispatcher) Run(ctx context.Context) error {
	defer d.client.Close()
	if err := d.connect(); err != nil {
		return err
	}
	defer d.claims.Close()
	defer d.writes.Close()
	if err := d.start(ctx); err != nil {
		return err
	}

	// Two contexts to stop by: the caller's ends claiming, sendCtx ends sending.
	sendCtx, stopSending := context.WithCancel(context.WithoutCancel(ctx))
	defer stopSending()
	d.sendCtx = sendCtx
	settleCtx, stopSettling := context.WithCancel(context.WithoutCancel(ctx))
	defer stopSettling()

	var loops, settling, listening, reporting, beating sync.WaitGroup
	beatCtx, stopBeating := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBeating()
	beating.Go(func() { d.beat(beatCtx) })
	listenCtx, stopListening := context.WithCancel(context.WithoutCancel(ctx))
	defer stopListening()
	if !d.cfg.NoListen {
		l := d.newListener()
		d.renewSession = l.Renew
		listening.Go(func() { _ = l.Run(listenCtx) }) // its fields are set; it only ends with listenCtx
	}
	settling.Go(func() { d.settler.run(settleCtx) })
	loops.Go(func() { d.claim(ctx) })
	loops.Go(func() { d.repairer.run(ctx) })
	loops.Go(func() { d.watchPeers(ctx) })
	loops.Go(func() { d.maintainTables(ctx) })
	loops.Go(func() { d.watchStalls(ctx) })
	reporting.Go(func() { d.watchFailures(settleCtx) })
	loops.Wait() // ctx is done
	d.stopping.Store(true)

	d.giveBack(d.scheduler.close())
	d.finishSending(stopSending)
	lastWords, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	left := d.settler.finish(lastWords)
	d.writeActivity(lastWords)
	stopSettling()
	settling.Wait()
	reporting.Wait()
	d.failing.look(d.log, time.Now(), true)
	stopBeating()
	beating.Wait()
	err := d.unregister(left)
	// The instance lock is let go last, so that nobody takes this instance for dead while it still settles.
	stopListening()
	listening.Wait()
	if err == nil {
		d.log.Info("stopped: everything is settled or given back")
	}
	return err
}

// stopTimeout bounds the last writes of a dispatcher that stops.
const stopTimeout = 10 * time.Second

// finishSending waits for the attempts in flight: for the grace period, or until Abort; then it cancels them.
func (d *Dispatcher) finishSending(cancel context.CancelFunc) {
	open := d.scheduler.inFlight()
	if open > 0 {
		d.log.Info("stopping: waiting for attempts in flight", "attempts", open, "at_most", d.cfg.GracePeriod)
	}
	done := make(chan struct{})
	go func() { d.senders.Wait(); close(done) }()
	timer := time.NewTimer(d.cfg.GracePeriod)
	defer timer.Stop()
	select {
	case <-done:
		return
	case <-timer.C:
	case <-d.abort:
	}
	open = d.scheduler.inFlight()
	d.log.Warn("stopping: giving up attempts in flight, they will be made again", "attempts", open)
	cancel()
	<-done
}

func (d *Dispatcher) unregister(left int) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if left > 0 || d.uncertain {
		// Its row stays: with its lock gone the others find it dead, and give back what it holds.
		return fmt.Errorf("stopped without settling %d events, which will be sent again: the database did not answer", left)
	}
	if err := sqlschema.Unregister(ctx, d.writes, d.id); err != nil {
		return err
	}
	return sqlschema.Call(ctx, d.claims, sqlschema.StoppedPayload)
}

// connect makes the pools. They connect when they are first used.
func (d *Dispatcher) connect() error {
	cfg, err := session.ParsePool(d.cfg.DatabaseURL)
	if err != nil {
		return fmt.Errorf("read the database URL: %w", err)
	}
	cfg.ConnConfig.RuntimeParams["application_name"] = d.application()
	cfg.MinConns, cfg.MaxConnIdleTime = 0, 5*time.Minute
	// A ping before the statement would delay every wake from sleep; a dead connection shows in the statement itself.
	cfg.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return false }
	cfg.ConnConfig.OnNotice = d.noticed
	d.direct = cfg.ConnConfig
	if d.cfg.ListenURL != "" {
		if d.direct, err = session.Parse(d.cfg.ListenURL); err != nil {
			return fmt.Errorf("read the listen URL: %w", err)
		}
		d.direct.RuntimeParams["application_name"] = d.application()
	}
	writes, claims := cfg.Copy(), cfg.Copy()
	d.direct.RuntimeParams["search_path"], d.direct.RuntimeParams[sqlschema.RowSecurity] = "pg_catalog", "off"
	if d.pooled() {
		throughPooler(writes.ConnConfig)
		throughPooler(claims.ConnConfig)
	} else {
		tune(writes.ConnConfig.RuntimeParams)
		tune(claims.ConnConfig.RuntimeParams)
		// Losing a claim in a crash of the server only makes its events due again.
		claims.ConnConfig.RuntimeParams["synchronous_commit"] = "off"
	}
	claims.MaxConns, writes.MaxConns = 3, 4 // the claimer, the housekeeper and the pulse; to be alive must not wait for what they do
	if d.claims, err = pgxpool.NewWithConfig(context.Background(), claims); err != nil {
		return fmt.Errorf("prepare connections: %w", err)
	}
	if d.writes, err = pgxpool.NewWithConfig(context.Background(), writes); err != nil {
		d.claims.Close()
		return fmt.Errorf("prepare connections: %w", err)
	}
	return nil
}

// application is what sessions of this instance are called in pg_stat_activity. The server keeps 63 bytes of ASCII and, by its version, writes
// other characters as question marks or as escapes: names that it would change get a sum of what they were, which keeps them apart.
func (d *Dispatcher) application() string {
	const most = 63
	name := "rowhook " + d.cfg.Name
	ascii := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, name)
	if ascii == name && len(name) <= most {
		return name
	}
	sum := fnv.New32a()
	_, _ = sum.Write([]byte(name)) // never fails
	return fmt.Sprintf("%.*s#%08x", most-9, ascii, sum.Sum32())
}

// pooled reports that the database URL may lead through a pooler that hands out sessions by transaction.
func (d *Dispatcher) pooled() bool { return d.cfg.ListenURL != "" || d.cfg.NoListen }

// tune keeps the planner from scanning the queue's tables: planned while they are empty, or were when they were last analyzed, a
// sequential scan looks cheapest, or a bitmap and a sort of all that is due, and the plan would stay when a million events wait.
func tune(params map[string]string) {
	for name, value := range map[string]string{
		"search_path": "pg_catalog", "jit": "off", "plan_cache_mode": "force_generic_plan",
		"enable_seqscan": "off", "enable_bitmapscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off",
		"statement_timeout": "0", "lock_timeout": "0", // ours are set with each statement
		"default_transaction_isolation": "read committed", "TimeZone": "UTC",
		"idle_in_transaction_session_timeout": "60s", sqlschema.RowSecurity: "off",
	} {
		params[name] = value
	}
}

// start draws an id and loads the triggers.
func (d *Dispatcher) start(ctx context.Context) error {
	conn, err := d.writes.Acquire(ctx)
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
	d.schema.Store(have)
	if have != know {
		d.log.Warn("the schema rowhook is of another version than this program, and compatible: bring both to the same one when you can", "schema", have, "program", know)
	}
	secured, err := sqlschema.FindSecured(ctx, conn)
	if err != nil {
		return err
	}
	for i := range secured {
		d.log.Warn(secured[i].Problem(), "remedy", secured[i].Remedy())
	}
	if d.id, err = sqlschema.NewInstance(ctx, conn); err != nil {
		return err
	}
	if err := sqlschema.EnsurePartitions(ctx, conn); err != nil {
		d.log.Warn("can't make partitions ahead of time, trying again later", "error", err)
	}
	if err := d.reload(ctx); err != nil {
		return err
	}
	w, err := d.look(ctx, conn)
	if err != nil {
		return err
	}
	d.departures = w.Departures
	d.inbox.mu.Lock()
	d.inbox.watch = &w // it may say that nobody is to ring, before the bell is first armed
	d.inbox.mu.Unlock()
	// Where it listens it registers as listening once it holds its lock, so that nobody finds it dead in between.
	if err := d.enroll(ctx, conn, false); err != nil {
		return err
	}
	d.instance.Store(d.id)
	d.measureFlush(ctx)
	if d.cfg.NoListen {
		d.log.Warn("not listening: changes are found by polling", "every", d.cfg.PollInterval)
		d.readyOnce.Do(func() { close(d.ready) })
	}
	return nil
}

// measureFlush notes what the quickest of a few small commits takes: the rate at which writers that NOTIFY can commit, and
// so the one at which the doorbell has to go silent, depends on it.
func (d *Dispatcher) measureFlush(ctx context.Context) {
	var least time.Duration
	for range 3 {
		began := time.Now()
		if err := sqlschema.Touch(ctx, d.writes, d.id); err != nil {
			return // the last measurement stays; others report failures of the database
		}
		if took := time.Since(began); least == 0 || took < least {
			least = took
		}
	}
	d.flush.Store(int64(least))
}

// newListener makes the listener whose session also holds the instance lock.
func (d *Dispatcher) newListener() *listener.Listener {
	return &listener.Listener{
		Connect: func(ctx context.Context) (*pgx.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			return session.Connect(ctx, d.direct)
		},
		Prepare: func(ctx context.Context, conn *pgx.Conn) error {
			ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			return d.holdLock(ctx, conn)
		},
		Channel:   sqlschema.Channel,
		Notified:  d.notified,
		Listening: d.listening,
		Lost:      func(error) { d.lost() },
		Ping: func(ctx context.Context, channel, payload string) error {
			return sqlschema.Ping(ctx, d.writes, channel, payload)
		},
		PingChannel: fmt.Sprintf("rowhook_ping_%d", d.id),
		Logger:      d.log,
	}
}
