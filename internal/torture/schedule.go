package main

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"
)

// fault is one thing that goes wrong, at a moment and for a time that the seed decides.
type fault struct {
	Kind string        `json:"kind"`
	Slot int           `json:"slot"` // the dispatcher that it strikes; everyone: all of them
	At   time.Duration `json:"at"`   // since the beginning
	For  time.Duration `json:"for"`
	// What is drawn for some kinds.
	Hard    bool    `json:"hard,omitempty"`    // a second signal; or also the sessions that only listen
	Table   string  `json:"table,omitempty"`   // of a lock
	Trigger string  `json:"trigger,omitempty"` // of a mood
	Share   float64 `json:"share,omitempty"`   // of the attempts that a mood strikes
	Step    int     `json:"step,omitempty"`    // of the receiver's clock, in seconds
	Variant variant `json:"-"`

	Began time.Time `json:"began,omitzero"`
	Ended time.Time `json:"ended,omitzero"`
	Error string    `json:"error,omitempty"` // an operation that failed, for instance because another fault was at work
}

const everyone = -1

// The kinds of faults that are not moods.
const (
	faultKill        = "kill -9"
	faultTerm        = "SIGTERM"
	faultPause       = "SIGSTOP"
	faultZombie      = "SIGSTOP without sessions" // its sessions are ended meanwhile, so that others take over
	faultOverdue     = "SIGSTOP past the lease"
	faultCrash       = "Postgres restarts (immediate)"
	faultTerminate   = "backends terminated"
	faultLong        = "long transaction"
	faultApply       = "apply"
	faultConnections = "connection limit"
	faultLock        = "queue tables locked"
	faultDisk        = "disk full"

	databaseCut     = "Postgres connections cut"
	databaseReset   = "Postgres connections reset"
	databaseStall   = "Postgres connections stall"
	databaseAbandon = "Postgres connections half open"
	databaseSlow    = "Postgres connections slow"
	webhookCut      = "webhook connections cut"
	webhookReset    = "webhook connections reset"
	webhookStall    = "webhook connections stall"
	webhookAbandon  = "webhook connections half open"
	webhookSlow     = "webhook connections slow"
	webhookRefuse   = "webhook connections refused"
)

// resource is what two faults can't use at the same time.
type resource string

// nature is what there is to know of a kind.
type nature struct {
	weight      int
	least, most time.Duration
	slot        bool   // it strikes one dispatcher
	uses        string // a resource; of a slot, each slot has its own
	// duplicates says that it can make an event arrive although it had been accepted before, or lose the record of an attempt: an answer,
	// a claim or a settlement may be lost, or a dispatcher be taken for dead. Where it does not, a duplicate has no excuse.
	duplicates bool
}

func natures() map[string]nature {
	const s = time.Second
	return map[string]nature{
		faultKill:        {weight: 4, least: 0, most: 1500 * time.Millisecond, slot: true, uses: "process", duplicates: true},
		faultTerm:        {weight: 3, least: 0, most: 1 * s, slot: true, uses: "process", duplicates: true},
		faultPause:       {weight: 3, least: s / 2, most: 4 * s, slot: true, uses: "process", duplicates: true},
		faultZombie:      {weight: 3, least: 5 * s, most: 8 * s, slot: true, uses: "process", duplicates: true},
		faultOverdue:     {least: shortLease + leaseMargin + s, most: shortLease + leaseMargin + 3*s, slot: true, uses: "process", duplicates: true},
		faultCrash:       {weight: 2, uses: "server", duplicates: true},
		faultTerminate:   {weight: 3, slot: true},
		faultLong:        {weight: 3, least: 2 * s, most: 12 * s},
		faultApply:       {weight: 3, uses: "configuration"},
		faultConnections: {weight: 2, least: 2 * s, most: 5 * s, uses: "server", duplicates: true},
		faultLock:        {weight: 2, least: s / 2, most: 4 * s, uses: "server"},
		faultDisk:        {weight: 2, least: s, most: 3 * s, uses: "server", duplicates: true},

		databaseCut:     {weight: 2, slot: true, uses: "database", duplicates: true},
		databaseReset:   {weight: 2, slot: true, uses: "database", duplicates: true},
		databaseStall:   {weight: 2, least: s, most: 6 * s, slot: true, uses: "database", duplicates: true},
		databaseAbandon: {weight: 2, least: 2 * s, most: 8 * s, slot: true, uses: "database", duplicates: true},
		databaseSlow:    {weight: 1, least: 2 * s, most: 5 * s, slot: true, uses: "database", duplicates: true},
		webhookCut:      {weight: 1, slot: true, uses: "webhooks", duplicates: true},
		webhookReset:    {weight: 1, slot: true, uses: "webhooks", duplicates: true},
		webhookStall:    {weight: 2, least: s, most: 5 * s, slot: true, uses: "webhooks", duplicates: true},
		webhookAbandon:  {weight: 2, least: 2 * s, most: 6 * s, slot: true, uses: "webhooks", duplicates: true},
		webhookSlow:     {weight: 1, least: 2 * s, most: 4 * s, slot: true, uses: "webhooks", duplicates: true},
		webhookRefuse:   {weight: 1, least: s, most: 4 * s, slot: true, uses: "webhooks", duplicates: true}, // it begins with a cut

		moodFailing:  {weight: 2, least: s, most: 5 * s, uses: "mood"},
		moodHanging:  {weight: 2, least: s, most: 5 * s, uses: "mood"},
		moodSeconds:  {weight: 2, least: s, most: 4 * s, uses: "mood"},
		moodDate:     {weight: 2, least: s, most: 4 * s, uses: "mood"},
		moodReset:    {weight: 1, least: s, most: 4 * s, uses: "mood"},
		moodDrip:     {weight: 1, least: s, most: 4 * s, uses: "mood"},
		moodEndless:  {weight: 1, least: s / 2, most: 2 * s, uses: "mood"},
		moodRedirect: {weight: 1, least: s, most: 3 * s, uses: "mood"},
		moodGarbage:  {weight: 1, least: s, most: 3 * s, uses: "mood"},
	}
}

// survivable are the faults after which every process, and all that it holds, should be as before.
func survivable() []string {
	return []string{
		faultTerminate, faultLong, faultApply, databaseCut, databaseReset, databaseStall, webhookCut, webhookReset, webhookStall, webhookSlow, webhookRefuse,
		moodFailing, moodHanging, moodSeconds, moodDate, moodReset, moodDrip, moodEndless, moodRedirect, moodGarbage,
	}
}

// plan says what a schedule is made of.
type plan struct {
	seed    uint64
	length  time.Duration
	slots   int
	without []string // kinds that can't be had here
	only    []string // kinds to use; none: all
}

const (
	firstFault = 2 * time.Second
	shortGap   = 300 * time.Millisecond
	longGap    = 2200 * time.Millisecond
	// restartTime is for how long a fault that ends with a start keeps its resource beyond its own time.
	restartTime = 2 * time.Second
)

// schedule draws the faults, in the order of their times. The same plan gives the same schedule.
func (p plan) schedule() []*fault {
	r := rand.New(rand.NewPCG(p.seed, 0)) //nolint:gosec // no secret
	all := natures()
	var deck []string
	for _, kind := range slices.Sorted(maps.Keys(all)) {
		if slices.Contains(p.without, kind) || len(p.only) > 0 && !slices.Contains(p.only, kind) {
			continue
		}
		weight := all[kind].weight
		if len(p.only) > 0 {
			weight = 1
		}
		for range weight {
			deck = append(deck, kind)
		}
	}
	busy := map[resource]time.Duration{} // until when
	var faults []*fault
	add := func(kind string, at time.Duration) bool {
		f := p.draw(r, kind, at)
		n := all[kind]
		key := resource(n.uses)
		if n.slot {
			key = resource(fmt.Sprint(n.uses, f.Slot))
		} else if n.uses == "mood" {
			key = resource(n.uses + f.Trigger)
		}
		if f.At+f.For > p.length || n.uses != "" && busy[key] > f.At {
			return false
		}
		busy[key] = f.At + f.For + restartTime
		faults = append(faults, f)
		return true
	}
	// A lease takes its time: such a pause comes first, and then every two and a half minutes.
	if len(p.only) == 0 {
		for at := 5 * time.Second; at < p.length; at += 150 * time.Second {
			add(faultOverdue, at)
		}
	}
	var hand []string
	for at := firstFault; at < p.length && len(deck) > 0; at += shortGap + time.Duration(r.Int64N(int64(longGap-shortGap))) {
		for range 2 * len(deck) { // what is in use is put under the others
			if len(hand) == 0 {
				hand = slices.Clone(deck)
				r.Shuffle(len(hand), func(i, j int) { hand[i], hand[j] = hand[j], hand[i] })
			}
			kind := hand[0]
			hand = hand[1:]
			if add(kind, at) {
				break
			}
			hand = append(hand, kind)
		}
	}
	slices.SortStableFunc(faults, func(a, b *fault) int { return int(a.At - b.At) })
	return faults
}

// draw makes up the details of a fault.
func (p plan) draw(r *rand.Rand, kind string, at time.Duration) *fault {
	n := natures()[kind]
	f := &fault{Kind: kind, Slot: everyone, At: at, For: n.least}
	if n.most > n.least {
		f.For += time.Duration(r.Int64N(int64(n.most - n.least)))
	}
	if n.slot {
		f.Slot = r.IntN(p.slots)
	}
	switch kind {
	case faultTerm, faultTerminate:
		f.Hard = r.IntN(3) == 0
	case faultLock:
		f.Table = []string{"event_log", "event_archive", "invocation_log", "instance", "setting", "trigger"}[r.IntN(6)]
	case faultApply:
		f.Variant = randomVariant(r)
	case moodHanging, moodDrip: // patient would wait for its ten minutes
		f.Trigger = []string{plain, brittle}[r.IntN(2)]
	case moodFailing, moodSeconds, moodDate, moodReset, moodEndless, moodRedirect, moodGarbage:
		f.Trigger = []string{plain, patient, brittle}[r.IntN(3)]
	}
	if n.uses == "mood" {
		f.Share = 0.3 + 0.7*r.Float64()
		f.Step = []int{0, 0, 3600, -3600, 86400 * 365}[r.IntN(5)]
	}
	return f
}
