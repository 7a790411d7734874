package dispatcher

import (
	"errors"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/rowhook/rowhook/webhook"
)

// SharedConfig says what dispatchers of one process share. Its zero value works.
type SharedConfig struct {
	// Concurrency is how many attempts may be in flight in all dispatchers together, as
	// Config.Concurrency says for one. Beyond it each dispatcher may have one. Default
	// DefaultConcurrency.
	Concurrency int
	// PayloadMemory bounds the bytes of large payloads in all dispatchers together, as
	// Config.PayloadMemory does for one. Default DefaultPayloadMemory.
	PayloadMemory int64
	// MaxBody is the largest body of a request. Default DefaultMaxBody.
	MaxBody int64
	// Version of the program, for the User-Agent. Optional.
	Version string
	// Logger is optional.
	Logger *slog.Logger
	// Rates returns the connection string of a source that holds the rate of a trigger over all sources.
	// Without it, the events of such triggers wait in all other sources.
	Rates func(source string) (databaseURL string, err error)
}

// Shared is what dispatchers of one process share, each for a database of its own. Make it by
// NewShared, and give it to them as Config.Shared.
//
//   - They call endpoints by one client: connections, names, TLS and tokens are the same. Those whose
//     settings allow other addresses have a client of their own.
//   - The attempts in flight are bounded in all of them together. Who has fewer goes first, and a tenth
//     is left to those that have less than their part. So none takes from the others by a flood of events,
//     or by endpoints that hang. The concurrency of a trigger holds for all triggers of the same name and
//     endpoint together.
//   - The memory for large payloads is bounded in all of them together.
//   - What keeps one of them from connecting to a host counts for the host in all of them.
//
// Totals are those of each database, and so are rates, unless they are held by the database of one source.
type Shared struct {
	concurrency int
	maxBody     int64
	version     string
	began       time.Time

	clients clients
	places  quota
	room    *budget
	hosts   hosts
	holders rateHolders

	mu        sync.Mutex
	endpoints map[string]*quota // by endpointOf
}

// NewShared makes what dispatchers share.
func NewShared(cfg SharedConfig) (*Shared, error) {
	if cfg.Concurrency < 0 || cfg.PayloadMemory < 0 || cfg.MaxBody < 0 {
		return nil, errors.New("dispatcher: Concurrency, PayloadMemory and MaxBody of what is shared must not be negative")
	}
	setDefault(&cfg.Concurrency, DefaultConcurrency)
	setDefault(&cfg.PayloadMemory, DefaultPayloadMemory)
	setDefault(&cfg.MaxBody, DefaultMaxBody)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Shared{
		concurrency: cfg.Concurrency, maxBody: cfg.MaxBody, version: cfg.Version, began: time.Now(),
		clients: clients{make: clientMaker(cfg.Version, cfg.Concurrency, cfg.MaxBody, cfg.Logger)},
		places:  quota{least: 1, spare: max(1, cfg.Concurrency/10)},
		room:    newBudget(cfg.PayloadMemory), hosts: hosts{all: map[string]*sharedHost{}},
		holders: rateHolders{url: cfg.Rates, all: map[string]*rateHolder{}}, endpoints: map[string]*quota{},
	}, nil
}

// clientMaker makes clients.
func clientMaker(version string, concurrency int, maxBody int64, log *slog.Logger) func(webhook.Guard) *webhook.Client {
	return func(guard webhook.Guard) *webhook.Client {
		return webhook.NewClient(webhook.ClientConfig{
			Version: version, Concurrency: concurrency, Guard: guard, MaxRequestBody: int(min(maxBody, math.MaxInt)),
			Problem: func(err error) {
				log.Warn("can't load the changed TLS files of a webhook; still using the previous ones", "error", err)
			},
		})
	}
}

// apply fills in what a dispatcher has from what it shares.
func (s *Shared) apply(cfg *Config) {
	setDefault(&cfg.Concurrency, s.concurrency)
	setDefault(&cfg.Version, s.version)
	cfg.MaxBody = s.maxBody
}

// join makes a dispatcher one of those that share, until leave is called.
func (s *Shared) join(sch *scheduler) (leave func()) {
	place := s.places.join(s.concurrency, sch.mayStart)
	sch.join(s, place)
	s.holders.enter()
	return func() {
		s.holders.leave()
		sch.part()
		place.leave()
	}
}

// commonPlaces makes a trigger one of those that go to the same endpoint.
func (s *Shared) commonPlaces(endpoint string, limit int, wake func()) *party {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.endpoints[endpoint]
	if q == nil {
		q = &quota{}
		s.endpoints[endpoint] = q
	}
	return q.join(limit, wake)
}

// leavePlaces ends what commonPlaces has begun.
func (s *Shared) leavePlaces(endpoint string, p *party) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.leave() && s.endpoints[endpoint] == p.of {
		delete(s.endpoints, endpoint)
	}
}

// Below is the scheduler's side. All of it holds the mutex of the scheduler, unless said otherwise.

// joined is what a scheduler shares with others.
type joined struct {
	*Shared // nil: nothing

	place *party // among all attempts
}

// join begins to share. It takes the mutex.
func (s *scheduler) join(shared *Shared, place *party) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shared = joined{shared, place}
}

// part ends sharing. It takes the mutex.
func (s *scheduler) part() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.lanes {
		s.leaveEndpoint(l)
	}
	s.shared.hosts.leave(s)
}

// mayStart says that there may be room for what others have kept from beginning. It takes no mutex.
func (s *scheduler) mayStart() {
	s.later.note(time.Now())
	s.wake()
	s.wakeOrderer()
}

// passRoom has others go on, if those that were woken for room have left some.
func (s *scheduler) passRoom() {
	if s.shared.Shared == nil {
		return
	}
	s.shared.place.pass()
	for _, l := range s.lanes {
		if l.common.party != nil {
			l.common.party.pass()
		}
	}
}

// common is a lane's part of the attempts at its endpoint, over all dispatchers that share.
type common struct {
	endpoint string
	party    *party // nil: it has no part
}

// endpointOf names the endpoint of a lane, over all databases. A URL may be another one in each of them,
// by what it refers to.
func endpointOf(l *lane) string {
	return l.trigger.Spec.Name + "\x00" + l.trigger.Spec.Address() + "\x00" + l.endpoint.Origin()
}

// shareEndpoint gives a lane that was configured its part of the attempts at its endpoint.
func (s *scheduler) shareEndpoint(l *lane) {
	if s.shared.Shared == nil {
		return
	}
	limit, endpoint := l.trigger.Spec.Concurrency, ""
	if limit > 0 && l.endpoint != nil && l.unable == nil {
		endpoint = endpointOf(l)
	}
	if endpoint != l.common.endpoint {
		s.leaveEndpoint(l)
		if endpoint != "" {
			l.common = common{endpoint, s.shared.commonPlaces(endpoint, limit, s.mayStart)}
		}
	}
	if l.common.party != nil {
		l.common.party.bound(limit)
	}
}

func (s *scheduler) leaveEndpoint(l *lane) {
	if l.common.party != nil {
		s.shared.leavePlaces(l.common.endpoint, l.common.party)
	}
	l.common = common{}
}

// enterShared begins an attempt of a lane, as far as others count it, if they leave room for it. If they don't,
// mayStart is called when they do.
func (s *scheduler) enterShared(l *lane) bool {
	if s.shared.Shared == nil {
		return true
	}
	common := l.common.party
	if common != nil && !common.enter(true) {
		return false
	}
	// Beside a trigger that has nearly all, the others of its dispatcher have the part that is left over.
	if s.shared.place.enter(l.inFlight < s.reserve()) {
		return true
	}
	if common != nil {
		common.end(false)
	}
	return false
}

// occupy counts an attempt that begins, and has entered.
func (s *scheduler) occupy(sh *shipment) {
	s.active++
	s.open++
	s.stalls.arises()
	sh.common = sh.lane.common.party
}

// yield says that an attempt hangs: it does not count against the limit any more.
func (s *scheduler) yield() {
	s.active--
	if s.shared.Shared != nil {
		s.shared.place.stall()
	}
}

// vacate counts an attempt that ends.
func (s *scheduler) vacate(sh *shipment) {
	s.open--
	if !sh.stalled {
		s.active--
	}
	if s.shared.Shared == nil {
		return
	}
	s.shared.place.end(sh.stalled)
	if sh.common != nil {
		sh.common.end(false)
	}
}

// slotsOf is how many attempts of a lane may be in flight, as far as is to be expected.
func (s *scheduler) slotsOf(l *lane) int {
	slots := l.concurrency(s.limit)
	if l.common.party != nil {
		slots = min(slots, l.common.party.fair())
	}
	return slots
}
