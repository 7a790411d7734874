package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/internal/queue"
)

// rateHolders are the databases that hold rates of triggers over all sources. The dispatchers of a
// process share one pool for each, which has no session while no slots are asked for.
type rateHolders struct {
	url func(source string) (string, error)

	mu    sync.Mutex
	users int // dispatchers
	all   map[string]*rateHolder
}

// rateHolder is the way to one of them.
type rateHolder struct {
	url string
	db  *database
}

func (h *rateHolders) enter() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.users++
}

// leave ends the use by a dispatcher. The last one closes the pools.
func (h *rateHolders) leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.users--; h.users > 0 {
		return
	}
	for source, at := range h.all {
		at.db.close()
		delete(h.all, source)
	}
}

// sessions returns the sessions of a source. Its connection string may have changed since.
func (h *rateHolders) sessions(source string) (*sessionShare, error) {
	if h.url == nil {
		return nil, errors.New("this program does not know the databases of other sources")
	}
	url, err := h.url(source)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	at := h.all[source]
	if at == nil || at.url != url {
		db := &database{pooled: true, application: applicationName("rates")} // it may lead through a pooler
		if err := db.open(url, "", nil); err != nil {
			return nil, err
		}
		if at != nil {
			go at.db.close() // it waits for who uses it
		}
		at = &rateHolder{url, db}
		h.all[source] = at
	}
	return at.db.claims, nil
}

// farRates is what a pacer knows of the sources that hold rates of its triggers.
type farRates struct {
	asking sync.WaitGroup

	mu       sync.Mutex
	problems map[string]string // by the source, as last logged
}

// askOthers asks for the slots of triggers whose rate another source holds, and returns the wants of the
// rest. Nobody waits for the answers: a trigger that is asked for is not asked for again before.
func (p *pacer) askOthers(ctx context.Context, wants []queue.SlotWant) (own []queue.SlotWant) {
	far := map[string][]queue.SlotWant{}
	for _, w := range wants {
		if w.Holder == "" {
			own = append(own, w)
		} else {
			far[w.Holder] = append(far[w.Holder], w)
		}
	}
	for source, wants := range far {
		p.far.asking.Go(func() { p.reserveAt(ctx, source, wants) })
	}
	return own
}

// reserveAt is reserve at the source that holds the rates. After a failure, it is asked again when the
// lanes say so.
func (p *pacer) reserveAt(parent context.Context, source string, wants []queue.SlotWant) {
	ctx, cancel := context.WithTimeout(parent, statementTimeout)
	defer cancel()
	asked := time.Now()
	slots, err := p.slotsAt(ctx, source, wants)
	p.take(wants, slots, asked)
	p.scheduler.askForSlots()
	if parent.Err() == nil {
		p.tell(source, err)
	}
}

// slotsAt reserves at the source that holds the rates.
func (p *pacer) slotsAt(ctx context.Context, source string, wants []queue.SlotWant) ([]queue.Slots, error) {
	if p.shared == nil {
		return nil, errors.New("this program works on one database alone: start it with the file that has the sources")
	}
	db, err := p.shared.holders.sessions(source)
	if err != nil {
		return nil, err
	}
	slots, missing, err := queue.ReserveSlotsAt(ctx, db, source, wants)
	if err == nil && len(missing) > 0 {
		err = fmt.Errorf("%s: not applied in the source %s with rate.held_by: %[2]s: apply the configuration there", config.Names(missing), source)
	}
	return slots, err
}

// tell logs what is new about a source that holds rates.
func (p *pacer) tell(source string, err error) {
	f := &p.far
	f.mu.Lock()
	defer f.mu.Unlock()
	problem := ""
	if err != nil {
		problem = err.Error()
	}
	switch {
	case f.problems[source] == problem:
		return
	case problem != "":
		p.log.Error("can't plan the requests of triggers whose rate another source holds; their events wait", "holder", source, "error", problem)
	default:
		p.log.Info("requests of triggers whose rate another source holds are planned again", "holder", source)
	}
	if f.problems == nil {
		f.problems = map[string]string{}
	}
	f.problems[source] = problem
}
