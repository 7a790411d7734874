package sink

import "hash/maphash"

// attempts counts the arrivals of each event at each path. It keeps one to two generations of
// events: when the younger one is full, the older one is dropped. An entry has the same size
// whatever its event is, so their number bounds the memory: the default takes at most 40 MiB.
type attempts struct {
	young, old map[visit]count
	generation int // events in one generation; 0: defaultGeneration
	seed       maphash.Seed
}

const defaultGeneration = 1 << 18

type visit struct {
	path uint64 // a hash, since paths can be long
	id   [16]byte
}

// count is what is known of the arrivals of an event.
type count struct {
	tries    int32 // arrivals so far
	rule     int32 // the Rule that responded last
	under    int32 // of the arrivals, those that it responded to one after another
	accepted bool
	cut      bool  // the last one was closed without a response, on a connection that was used before
	retry    int32 // Delivery.CurrentRetry of the last one
}

// repeats reports whether d is the same attempt as the last arrival. A sender whose kept connection
// is closed before the response can't know whether the request arrived, so it may repeat it at once
// on a new connection.
func (c *count) repeats(d *Delivery) bool {
	return c.cut && !d.reused && c.retry == int32(d.CurrentRetry)
}

func (a *attempts) clear() { a.young, a.old = nil, nil }

// load returns what is known of an event at a path, and where to store it.
func (a *attempts) load(path string, id [16]byte) (visit, count) {
	if a.young == nil {
		a.young = map[visit]count{}
		if a.seed == (maphash.Seed{}) {
			a.seed = maphash.MakeSeed()
		}
	}
	key := visit{maphash.String(a.seed, path), id}
	c, ok := a.young[key]
	if !ok {
		c = a.old[key]
	}
	return key, c
}

func (a *attempts) store(key visit, c count) {
	generation := a.generation
	if generation == 0 {
		generation = defaultGeneration
	}
	if _, ok := a.young[key]; !ok && len(a.young) >= generation {
		a.old, a.young = a.young, map[visit]count{}
	}
	a.young[key] = c
}
