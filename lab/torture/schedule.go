package main

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"
)

// fault is one thing that goes wrong. The seed decides when, and for how long.
type fault struct {
	Kind string `json:"kind"`
	Slot int    `json:"slot"` // the dispatcher that it strikes; everyone: all of them
	// Source is the one that it strikes; everywhere: all of them.
	Source int           `json:"source"`
	At     time.Duration `json:"at"` // since the beginning
	For    time.Duration `json:"for"`
	// Details of some kinds.
	Hard    bool    `json:"hard,omitempty"`    // sends a second signal, also ends the sessions that only listen, or resets instead of closing
	Table   string  `json:"table,omitempty"`   // of a lock, or of the history
	Way     string  `json:"way,omitempty"`     // how writing history fails
	Trigger string  `json:"trigger,omitempty"` // of a mood
	Share   float64 `json:"share,omitempty"`   // of the attempts that a mood strikes
	Step    int     `json:"step,omitempty"`    // of the receiver's clock, in seconds
	Variant variant `json:"-"`
	// A lost path comes back for a moment, again and again.
	Out  time.Duration `json:"out,omitempty"`
	Back time.Duration `json:"back,omitempty"`

	Began time.Time `json:"began,omitzero"`
	Ended time.Time `json:"ended,omitzero"`
	Error string    `json:"error,omitempty"` // of an operation that failed, for instance because of another fault
}

const (
	everyone   = -1 // of slots
	everywhere = -1 // of sources
)

// faultsOf returns those that strike a source.
func faultsOf(faults []*fault, source int) []*fault {
	return slices.DeleteFunc(slices.Clone(faults), func(f *fault) bool { return f.Source != everywhere && f.Source != source })
}

// The kinds of faults that are not moods.
const (
	faultKill        = "kill -9"
	faultTerm        = "SIGTERM"
	faultPause       = "SIGSTOP"
	faultZombie      = "SIGSTOP without sessions" // and its sessions are ended, so that others take over
	faultOverdue     = "SIGSTOP past the lease"
	faultOrphan      = "kill -9 while a transaction hands over"
	faultForge       = "forged announcements"
	faultCrash       = "Postgres restarts (immediate)"
	faultTerminate   = "backends terminated"
	faultLong        = "long transaction"
	faultApply       = "apply"
	faultConnections = "connection limit"
	faultLock        = "queue tables locked"
	faultSchema      = "schema a version down and up"
	faultDisk        = "disk full"
	faultHistory     = "history can't be written"

	databaseCut     = "Postgres connections cut"
	databaseReset   = "Postgres connections reset"
	databaseStall   = "Postgres connections stall"
	databaseAbandon = "Postgres connections half open"
	databaseSlow    = "Postgres connections slow"
	databaseStrand  = "Postgres connections stranded" // the client's side has ended, and the server does not hear of it
	listenLost      = "listen path lost"
	listenAllLost   = "listen paths lost" // of all that have one
	listenStrand    = "listening session stranded"
	listenStall     = "listen path stalls"
	webhookCut      = "webhook connections cut"
	webhookReset    = "webhook connections reset"
	webhookStall    = "webhook connections stall"
	webhookAbandon  = "webhook connections half open"
	webhookSlow     = "webhook connections slow"
	webhookRefuse   = "webhook connections refused"

	brokerKill    = "NATS server killed"
	brokerFull    = "stream full"
	streamCut     = "NATS connections cut"
	streamReset   = "NATS connections reset"
	streamStall   = "NATS connections stall"
	streamAbandon = "NATS connections half open"
	streamSlow    = "NATS connections slow"
	streamRefuse  = "NATS connections refused"
)

// resource is what two faults can't use at the same time.
type resource string

// nature is what is known about a kind.
type nature struct {
	weight      int
	least, most time.Duration
	slot        bool   // it strikes one dispatcher
	uses        string // a resource; if slot is set, each slot has its own
	also        string // another resource
	// duplicates says that an accepted event may be sent again, or that the record of an attempt
	// may be lost. The fault may lose a response, a claim or a settlement, or have a dispatcher
	// considered dead. If it is not set, the fault excuses no duplicate.
	duplicates bool
	// listen says that it strikes the path by which a dispatcher listens, if the dispatcher has
	// one.
	listen bool
	// harmless says that it hampers nothing.
	harmless bool
	// goesOn says that deliveries go on while it is active.
	goesOn bool
	// wide says that it strikes all sources: they share the processes and the server.
	wide bool
	// publishing says that it strikes what is published to NATS, and nothing else.
	publishing bool
}

// hampers reports that deliveries of a dispatcher may stop because of it. A mood does not count,
// and neither does what happens to messages, since it affects one trigger. A fault that only changes triggers or holds a transaction does not
// count either.
func (n nature) hampers() bool {
	return !n.goesOn && n.uses != "mood" && n.uses != "configuration" && !n.harmless && !n.publishing
}

func natures() map[string]nature {
	const s = time.Second
	return map[string]nature{
		faultKill:        {weight: 4, least: 0, most: 1500 * time.Millisecond, slot: true, uses: "process", duplicates: true, wide: true},
		faultTerm:        {weight: 3, least: 0, most: 1 * s, slot: true, uses: "process", duplicates: true, wide: true},
		faultPause:       {weight: 3, least: s / 2, most: 4 * s, slot: true, uses: "process", duplicates: true, wide: true},
		faultZombie:      {weight: 3, least: 5 * s, most: 8 * s, slot: true, uses: "process", duplicates: true, wide: true},
		faultOverdue:     {least: shortLease + leaseMargin + s, most: shortLease + leaseMargin + 3*s, slot: true, uses: "process", duplicates: true, wide: true},
		faultOrphan:      {weight: 2, least: 4 * s, most: 8 * s, slot: true, uses: "process", duplicates: true, wide: true},
		faultForge:       {weight: 2, least: 2 * s, most: 8 * s, uses: "announcements", harmless: true},
		faultCrash:       {weight: 2, uses: "server", duplicates: true, wide: true},
		faultTerminate:   {weight: 3, slot: true},
		faultLong:        {weight: 3, least: 2 * s, most: 12 * s, harmless: true},
		faultApply:       {weight: 3, uses: "configuration"},
		faultConnections: {weight: 2, least: 2 * s, most: 5 * s, uses: "server", duplicates: true, wide: true},
		faultLock:        {weight: 2, least: s / 2, most: 4 * s, uses: "server"},
		faultSchema:      {weight: 2, least: 1 * s, most: 5 * s, uses: "server", also: "configuration"},
		faultDisk:        {weight: 2, least: s, most: 3 * s, uses: "server", duplicates: true, wide: true},
		faultHistory:     {weight: 1, least: 3 * s, most: 8 * s, uses: "server", goesOn: true},

		databaseCut:     {weight: 2, slot: true, uses: "database", duplicates: true},
		databaseReset:   {weight: 2, slot: true, uses: "database", duplicates: true},
		databaseStall:   {weight: 2, least: s, most: 6 * s, slot: true, uses: "database", duplicates: true},
		databaseAbandon: {weight: 2, least: 2 * s, most: 8 * s, slot: true, uses: "database", duplicates: true},
		databaseSlow:    {weight: 1, least: 2 * s, most: 5 * s, slot: true, uses: "database", duplicates: true},
		databaseStrand:  {weight: 2, least: 2 * s, most: 8 * s, slot: true, uses: "database", duplicates: true},
		// A dispatcher that does not listen is alive, so none of these excuses a duplicate.
		listenLost:    {weight: 3, least: 4 * s, most: 14 * s, slot: true, uses: "listening", listen: true, goesOn: true},
		listenAllLost: {weight: 1, least: 7 * s, most: 14 * s, uses: "listening", listen: true, goesOn: true},
		listenStrand:  {weight: 2, least: 2 * s, most: 8 * s, slot: true, uses: "listening", listen: true, goesOn: true},
		listenStall:   {weight: 1, least: 2 * s, most: 14 * s, slot: true, uses: "listening", listen: true},

		webhookCut:     {weight: 1, slot: true, uses: "webhooks", duplicates: true},
		webhookReset:   {weight: 1, slot: true, uses: "webhooks", duplicates: true},
		webhookStall:   {weight: 2, least: s, most: 5 * s, slot: true, uses: "webhooks", duplicates: true},
		webhookAbandon: {weight: 2, least: 2 * s, most: 6 * s, slot: true, uses: "webhooks", duplicates: true},
		webhookSlow:    {weight: 1, least: 2 * s, most: 4 * s, slot: true, uses: "webhooks", duplicates: true},
		webhookRefuse:  {weight: 1, least: s, most: 4 * s, slot: true, uses: "webhooks", duplicates: true}, // it begins with a cut

		// The stream drops what is published twice, and each outcome is recorded.
		brokerKill:    {weight: 3, least: 0, most: 4 * s, uses: "broker", publishing: true},
		brokerFull:    {weight: 1, least: s, most: 4 * s, uses: "broker", publishing: true},
		streamCut:     {weight: 1, slot: true, uses: "messages", publishing: true},
		streamReset:   {weight: 1, slot: true, uses: "messages", publishing: true},
		streamStall:   {weight: 2, least: s, most: 6 * s, slot: true, uses: "messages", publishing: true},
		streamAbandon: {weight: 2, least: 2 * s, most: 8 * s, slot: true, uses: "messages", publishing: true},
		streamSlow:    {weight: 1, least: 2 * s, most: 4 * s, slot: true, uses: "messages", publishing: true},
		streamRefuse:  {weight: 1, least: s, most: 4 * s, slot: true, uses: "messages", publishing: true},

		moodFailing:  {weight: 2, least: s, most: 5 * s, uses: "mood"},
		moodDown:     {weight: 3, least: 4 * s, most: 12 * s, uses: "mood"},
		moodHanging:  {weight: 2, least: s, most: 5 * s, uses: "mood"},
		moodSeconds:  {weight: 2, least: s, most: 4 * s, uses: "mood"},
		moodDate:     {weight: 2, least: s, most: 4 * s, uses: "mood"},
		moodReset:    {weight: 1, least: s, most: 4 * s, uses: "mood"},
		moodDrip:     {weight: 1, least: s, most: 4 * s, uses: "mood"},
		moodEndless:  {weight: 1, least: s / 2, most: 2 * s, uses: "mood"},
		moodRedirect: {weight: 1, least: s, most: 3 * s, uses: "mood"},
		moodGarbage:  {weight: 1, least: s, most: 3 * s, uses: "mood"},
		moodGone:     {weight: 2, least: 4 * s, most: 8 * s, uses: "mood"},
	}
}

// survivable are the faults after which every process should hold as much as before.
func survivable() []string {
	return []string{
		faultTerminate, faultLong, faultForge, faultApply, faultHistory, databaseCut, databaseReset, databaseStall, databaseStrand,
		listenLost, listenAllLost, listenStrand, listenStall, webhookCut, webhookReset, webhookStall, webhookSlow, webhookRefuse,
		moodFailing, moodDown, moodHanging, moodSeconds, moodDate, moodReset, moodDrip, moodEndless, moodRedirect, moodGarbage, moodGone,
	}
}

// plan is what a schedule is drawn from.
type plan struct {
	seed    uint64
	length  time.Duration
	slots   int
	without []string // kinds that do not work on this machine
	only    []string // kinds to use; none: all
	listen  bool     // the listen paths come and go most of the time
	sources int      // 0 or 1: there is one database
	nats    bool     // the source publishing publishes to a stream
}

// othersLess is how many times less often the other faults strike while the listen paths come and
// go.
const othersLess = 4

const (
	firstFault = 2 * time.Second
	shortGap   = 300 * time.Millisecond
	longGap    = 2200 * time.Millisecond
	// restartTime is how long a fault keeps its resource beyond its own time, if it ends with a
	// start.
	restartTime = 2 * time.Second
)

// schedule draws the faults, sorted by time. The same plan gives the same schedule.
func (p plan) schedule() []*fault {
	d := drawing{plan: p, r: rand.New(rand.NewPCG(p.seed, 0)), busy: map[resource][]use{}} //nolint:gosec // no secret
	// A lease takes time to end. So such a pause comes first, and then every two and a half
	// minutes.
	if len(p.only) == 0 {
		for at := 5 * time.Second; at < p.length; at += 150 * time.Second {
			d.add(faultOverdue, at)
		}
	}
	if p.listen { // faults of listen paths as often as possible, sometimes of all at once; others less often
		for at := 15 * time.Second; at < p.length; at += 45 * time.Second {
			d.add(listenAllLost, at)
		}
		d.fill(p.deck(func(n nature) bool { return n.listen }), 1)
		d.fill(p.deck(func(n nature) bool { return !n.listen }), othersLess)
	} else {
		d.fill(p.deck(func(nature) bool { return true }), 1)
	}
	slices.SortStableFunc(d.faults, func(a, b *fault) int { return int(a.At - b.At) })
	return d.faults
}

// deck lists the kinds for which the function returns true, each as often as its weight.
func (p plan) deck(which func(nature) bool) []string {
	var deck []string
	all := natures()
	for _, kind := range slices.Sorted(maps.Keys(all)) {
		if slices.Contains(p.without, kind) || len(p.only) > 0 && !slices.Contains(p.only, kind) || all[kind].publishing && !p.nats || !which(all[kind]) {
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
	return deck
}

// drawing is a schedule that is being drawn.
type drawing struct {
	plan

	r      *rand.Rand
	busy   map[resource][]use
	faults []*fault
}

// use is a time during which a resource is in use.
type use struct{ from, to time.Duration }

// add draws a fault of a kind, unless its resource is in use.
func (d *drawing) add(kind string, at time.Duration) bool {
	f := d.draw(d.r, kind, at)
	used, span := d.used(natures()[kind], f), use{f.At, f.At + f.For + restartTime}
	inUse := func(u use) bool { return u.from < span.to && span.from < u.to }
	if f.At+f.For > d.length || slices.ContainsFunc(used, func(r resource) bool { return slices.ContainsFunc(d.busy[r], inUse) }) {
		return false
	}
	for _, r := range used {
		d.busy[r] = append(d.busy[r], span)
	}
	d.faults = append(d.faults, f)
	return true
}

// fill distributes a deck over the time. Gaps are stretch times as long as usual.
func (d *drawing) fill(deck []string, stretch int64) {
	var hand []string
	for at := firstFault; at < d.length && len(deck) > 0; at += time.Duration(stretch * (int64(shortGap) + d.r.Int64N(int64(longGap-shortGap)))) {
		for range 2 * len(deck) { // a fault whose resource is in use goes to the bottom
			if len(hand) == 0 {
				hand = slices.Clone(deck)
				d.r.Shuffle(len(hand), func(i, j int) { hand[i], hand[j] = hand[j], hand[i] })
			}
			kind := hand[0]
			hand = hand[1:]
			if d.add(kind, at) {
				break
			}
			hand = append(hand, kind)
		}
	}
}

// listeners is how many dispatchers have a listen path of their own: the first ones. One has none,
// unless the listen paths are what is tested. A dispatcher without one knows that its sessions are
// its own, and works differently.
func (p plan) listeners() int {
	if p.slots > 1 && !p.listen {
		return p.slots - 1
	}
	return p.slots
}

// used returns what no other fault may use at the same time.
func (p plan) used(n nature, f *fault) []resource {
	switch {
	case n.uses == "":
		return nil
	case n.listen && f.Slot == everyone:
		var all []resource
		for slot := range p.listeners() {
			all = append(all, resource(fmt.Sprint(n.uses, slot)))
		}
		return all
	case n.slot:
		return []resource{resource(fmt.Sprint(n.uses, f.Slot))}
	case n.uses == "mood":
		return []resource{resource(n.uses + f.Trigger)}
	}
	all := []resource{resource(n.uses)}
	if n.also != "" {
		all = append(all, resource(n.also))
	}
	return all
}

// draw decides the details of a fault.
func (p plan) draw(r *rand.Rand, kind string, at time.Duration) *fault {
	n := natures()[kind]
	f := &fault{Kind: kind, Slot: everyone, At: at, For: n.least}
	if n.most > n.least {
		f.For += time.Duration(r.Int64N(int64(n.most - n.least)))
	}
	switch {
	case n.slot && n.listen:
		f.Slot = r.IntN(p.listeners())
	case n.slot:
		f.Slot = r.IntN(p.slots)
	}
	switch kind {
	case faultTerm, faultTerminate:
		f.Hard = r.IntN(3) == 0
	case listenLost, listenAllLost:
		f.Hard = r.IntN(2) == 0
		f.Out, f.Back = time.Second+time.Duration(r.Int64N(int64(9*time.Second))), time.Duration(r.Int64N(int64(1500*time.Millisecond)))
	case faultHistory:
		f.Way = []string{noPartitions, historyRefused, historyForbidden}[r.IntN(3)]
		f.Table = []string{"event_archive", "invocation_log"}[r.IntN(2)]
	case faultLock:
		f.Table = []string{"event_log", "event_archive", "invocation_log", "instance", "setting", "trigger"}[r.IntN(6)]
	case faultApply:
		f.Variant = randomVariant(r)
	case moodHanging, moodDrip: // patient and ordered would wait for their ten minutes
		f.Trigger = []string{plain, brittle, latest, spanning, bulk, paced}[r.IntN(6)]
	case moodGone:
		f.Trigger = pausing
	case moodFailing, moodSeconds, moodDate, moodReset, moodEndless, moodRedirect, moodGarbage, moodDown:
		f.Trigger = triggers()[r.IntN(len(triggers()))]
	}
	switch {
	case n.publishing:
		f.Source = publishing
	case p.sources > 1 && n.wide:
		f.Source = everywhere
	case p.sources > 1:
		f.Source = r.IntN(p.sources)
	}
	if n.uses == "mood" {
		if f.Share = 0.3 + 0.7*r.Float64(); kind == moodDown || kind == moodGone {
			f.Share = 1
		}
		f.Step = []int{0, 0, 3600, -3600, 86400 * 365}[r.IntN(5)]
	}
	return f
}
