package order

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// world is a database in miniature, and an owner of its lanes. Transactions draw numbers, commit
// late or not at all, and are seen through snapshots.
type world struct {
	strict   bool
	ofKey    int
	lanes    int
	xid      uint64
	seq      int64
	complete uint64 // highest transaction that has ended
	open     map[uint64]*transaction
	rows     map[int64]*row
	now      time.Time

	l       *Lanes
	h       Horizon
	out     []Run
	epoch   int64
	leaving map[int16]bool     // lanes that the owner gives back
	epochs  map[*Entry]int64   // of what is out
	sent    map[string][]int64 // settled, by key
	written map[string][]int64 // committed, by key
}

type transaction struct {
	xid  uint64
	rows []*row
	keys map[string]bool // that it has locked
}

type row struct {
	seq   int64
	key   string
	tries int32
}

func newWorld(strict bool) *world {
	w := &world{strict: strict, lanes: 3, xid: 100, complete: 99, open: map[uint64]*transaction{}, rows: map[int64]*row{}, now: time.Unix(1e9, 0),
		sent: map[string][]int64{}, written: map[string][]int64{}}
	return w
}

// begin has another owner, or the same one, take all lanes.
func (w *world) begin() {
	w.l, w.h, w.out, w.leaving = NewLanes(Options{Strict: w.strict}), Horizon{}, nil, map[int16]bool{}
	w.epochs = map[*Entry]int64{}
	w.l.ofKey, w.l.inAll = w.ofKey, 20
	w.epoch++
	for n := range w.lanes {
		w.l.Take(int16(n), w.epoch)
	}
}

func (w *world) lane(key string) int16 { return int16(int(key[1]-'0') % w.lanes) }

// snapshot is what a statement sees.
func (w *world) snapshot() (Snapshot, map[int64]row) {
	s := Snapshot{Xmax: w.complete + 1, Next: w.xid, Seq: w.seq}
	s.Xmin = s.Xmax
	for xid := range w.open {
		if xid < s.Xmax {
			s.Xip = append(s.Xip, xid)
			s.Xmin = min(s.Xmin, xid)
		}
	}
	slices.Sort(s.Xip)
	seen := map[int64]row{}
	for seq, r := range w.rows {
		seen[seq] = *r
	}
	return s, seen
}

// round reads what there is to read. while runs after the snapshot was taken and before the owner
// gets the answer.
func (w *world) round(need int, while func()) {
	reads := w.l.Reads(need, w.h.Recent())
	s, seen := w.snapshot()
	at := w.now
	while()
	var pages []Page
	for _, r := range reads {
		p := Page{End: End{Last: r.After}}
		for seq, row := range seen {
			if seq > r.After && seq <= r.UpTo && w.lane(row.key) == r.Lane {
				p.Entries = append(p.Entries, &Entry{ID: [16]byte{byte(seq), byte(seq >> 8)}, Seq: seq, Key: row.key, Tries: row.tries, Read: at})
			}
		}
		slices.SortFunc(p.Entries, func(a, b *Entry) int { return int(a.Seq - b.Seq) })
		if limit := min(r.Limit, 5); len(p.Entries) >= limit {
			p.Entries, p.More = p.Entries[:limit], true
		}
		if len(p.Entries) > 0 {
			p.Last = p.Entries[len(p.Entries)-1].Seq
		}
		pages = append(pages, p)
	}
	from, late := w.h.Observe(s)
	w.l.Took(reads, pages, from, late, w.now)
	if !w.l.Owes() {
		w.l.Raise(w.h.Bound())
	}
}

func (w *world) send(t require.TestingT, most int) bool {
	w.l.Tick(w.now)
	for _, e := range w.l.Stale(1000) {
		r, there := w.rows[e.Seq]
		var tries int32
		if there {
			tries = r.tries
		}
		w.l.Seen(e, there, tries, time.Time{}, w.now, w.now)
	}
	run := w.l.Next(w.now, most)
	if run != nil {
		require.False(t, w.leaving[w.lane(run[0].Key)], "a lane that is given back sends")
		for _, e := range run {
			w.epochs[e] = w.l.Epoch(e.Lane)
		}
		w.out = append(w.out, run)
	}
	return run != nil
}

// retake has the owner take lanes again that it has given back.
func (w *world) retake() {
	for n, idle := range w.l.Leaving() {
		if idle {
			w.l.Drop(n)
			w.epoch++
			w.l.Take(n, w.epoch)
			delete(w.leaving, n)
		}
	}
}

// settle ends a run: delivered, or tried again from an entry on.
func (w *world) settle(i int, failsFrom int) {
	run := w.out[i]
	w.out = slices.Delete(w.out, i, i+1)
	for n, e := range run {
		if w.epochs[e] != w.l.Epoch(e.Lane) { // by the fence nothing is written
			e.Due = w.now
			w.l.Done(e, Returned, w.now)
			continue
		}
		if n < failsFrom {
			delete(w.rows, e.Seq)
			w.sent[e.Key] = append(w.sent[e.Key], e.Seq)
			w.l.Done(e, Gone, w.now)
			continue
		}
		w.rows[e.Seq].tries++
		e.Tries, e.Due = e.Tries+1, w.now.Add(time.Second)
		w.l.Done(e, Again, w.now)
	}
}

// byAnother has another owner of a lane deliver the first events of each key.
func (w *world) byAnother(lane int16, most int) {
	seqs := map[string][]int64{}
	for seq, r := range w.rows {
		if w.lane(r.key) == lane {
			seqs[r.key] = append(seqs[r.key], seq)
		}
	}
	for key, of := range seqs {
		slices.Sort(of)
		for _, seq := range of[:min(most, len(of))] {
			delete(w.rows, seq)
			w.sent[key] = append(w.sent[key], seq)
		}
	}
}

func (w *world) end(xid uint64, commits bool) {
	t := w.open[xid]
	delete(w.open, xid)
	w.complete = max(w.complete, xid)
	for _, r := range t.rows {
		if commits {
			w.rows[r.seq] = r
			w.written[r.key] = append(w.written[r.key], r.seq)
		}
	}
}

func (w *world) check(t *rapid.T) {
	flying := map[string]bool{}
	for _, run := range w.out {
		require.False(t, flying[run[0].Key], "two runs of one key")
		flying[run[0].Key] = true
	}
	n := 0
	for _, ln := range w.l.lanes {
		blocked := 0
		for _, k := range ln.keys {
			if k.state == ready {
				n++
			}
			if k.state.blocks() {
				blocked++
			}
			require.True(t, slices.IsSortedFunc(k.waiting, func(a, b *Entry) int { return int(a.Seq - b.Seq) }))
		}
		require.Equal(t, blocked, ln.blocked)
	}
	require.Equal(t, n, w.l.Ready())
	if w.strict {
		for key, seqs := range w.sent {
			require.True(t, slices.IsSorted(seqs), "%s: %v", key, seqs)
		}
	}
}

func TestEveryEventIsSentInTheOrderOfItsKeyWhateverCommitsLate(t *testing.T) {
	t.Parallel()
	for _, strict := range []bool{false, true} {
		t.Run(fmt.Sprintf("strict %v", strict), func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(t *rapid.T) {
				w := newWorld(strict)
				w.ofKey = rapid.SampledFrom([]int{1, 2, 5, 1000}).Draw(t, "of a key")
				w.begin()
				write := func(t *rapid.T) {
					key := fmt.Sprintf("k%d", rapid.IntRange(0, 6).Draw(t, "key"))
					var tx *transaction
					if len(w.open) > 0 && rapid.Bool().Draw(t, "same") {
						tx = w.open[rapid.SampledFrom(sortedXids(w.open)).Draw(t, "tx")]
					} else {
						tx = &transaction{xid: w.xid, keys: map[string]bool{}}
						w.open[w.xid] = tx
						w.xid++
					}
					if !strict { // a key is a row: its lock makes the next writer wait
						for _, other := range w.open {
							if other != tx && other.keys[key] {
								return
							}
						}
					}
					tx.keys[key] = true
					w.seq++
					tx.rows = append(tx.rows, &row{seq: w.seq, key: key})
				}
				end := func(t *rapid.T) {
					if len(w.open) > 0 {
						w.end(rapid.SampledFrom(sortedXids(w.open)).Draw(t, "tx"), rapid.IntRange(0, 9).Draw(t, "commits") > 0)
					}
				}
				settle := func(t *rapid.T) {
					if len(w.out) > 0 {
						w.settle(rapid.IntRange(0, len(w.out)-1).Draw(t, "which"), rapid.IntRange(0, 3).Draw(t, "fails"))
					}
				}
				t.Repeat(map[string]func(*rapid.T){
					"write":  write,
					"write2": write,
					"end":    end,
					"read": func(t *rapid.T) {
						w.l.Mark()
						meanwhile := rapid.SliceOfN(rapid.IntRange(0, 3), 0, 3).Draw(t, "meanwhile")
						w.round(rapid.IntRange(0, 5).Draw(t, "need"), func() {
							for _, what := range meanwhile {
								[]func(*rapid.T){write, end, settle, func(t *rapid.T) { w.send(t, 2) }}[what](t)
							}
						})
					},
					"send":   func(t *rapid.T) { w.send(t, rapid.IntRange(1, 3).Draw(t, "most")) },
					"settle": settle,
					"wait":   func(*rapid.T) { w.now = w.now.Add(1500 * time.Millisecond) },
					"discard": func(t *rapid.T) {
						if len(w.rows) == 0 || len(w.out) > 0 {
							return
						}
						var seqs []int64
						for seq := range w.rows {
							seqs = append(seqs, seq)
						}
						slices.Sort(seqs)
						seq := rapid.SampledFrom(seqs).Draw(t, "seq")
						r := w.rows[seq]
						delete(w.rows, seq)
						w.written[r.key] = slices.DeleteFunc(w.written[r.key], func(s int64) bool { return s == seq })
						w.now = w.now.Add(staleAfter + 1)
					},
					"crash": func(t *rapid.T) {
						if rapid.IntRange(0, 4).Draw(t, "crash") == 0 {
							w.begin()
						}
					},
					"restart": func(t *rapid.T) {
						if rapid.IntRange(0, 4).Draw(t, "restart") == 0 {
							w.l.Restart(int16(rapid.IntRange(0, w.lanes-1).Draw(t, "lane")))
						}
					},
					"leave": func(t *rapid.T) {
						n := int16(rapid.IntRange(0, w.lanes-1).Draw(t, "lane"))
						w.leaving[n] = true
						w.l.Leave(n)
					},
					"retake": func(*rapid.T) { w.retake() },
					"anew": func(t *rapid.T) { // whatever is out
						n := int16(rapid.IntRange(0, w.lanes-1).Draw(t, "lane"))
						if !strict {
							w.byAnother(n, rapid.IntRange(0, 3).Draw(t, "by another"))
						}
						w.epoch++
						w.l.Take(n, w.epoch)
						delete(w.leaving, n)
					},
					"": w.check,
				})
				for _, xid := range sortedXids(w.open) {
					w.end(xid, true)
				}
				for i := 0; len(w.rows)+w.l.Entries() > 0; i++ {
					require.Less(t, i, 2000, "stuck")
					w.retake()
					w.l.Mark()
					w.round(5, func() {})
					for w.send(t, 1) {
					}
					for len(w.out) > 0 {
						w.settle(0, 1)
					}
					w.now = w.now.Add(1100 * time.Millisecond)
					w.check(t)
				}
				require.LessOrEqual(t, w.l.Entries(), 0)
				for key, seqs := range w.written {
					if strict {
						slices.Sort(seqs)
					}
					got := slices.Compact(slices.Clone(w.sent[key]))
					if !strict {
						require.ElementsMatch(t, seqs, without(got, seqs))
						require.True(t, slices.IsSorted(without(got, seqs)), "%s: %v", key, got)
						continue
					}
					require.True(t, slices.Equal(seqs, without(got, seqs)), "%s: %v, not %v", key, got, seqs)
				}
			})
		})
	}
}

// without leaves out what was discarded after it was sent.
func without(got, written []int64) []int64 {
	return slices.DeleteFunc(got, func(s int64) bool { return !slices.Contains(written, s) })
}

func sortedXids(open map[uint64]*transaction) []uint64 {
	var all []uint64
	for xid := range open {
		all = append(all, xid)
	}
	slices.Sort(all)
	return all
}
