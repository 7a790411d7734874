package order

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestMergedChangesOfARow(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		changes string // ! behind one that was sent
		n       int
		op      byte
		first   bool
	}{
		"one is sent as it is":                                   {"U", 1, 'U', false},
		"an insert and updates are an insert":                    {"IUU", 3, 'I', true},
		"updates are one update":                                 {"UUUU", 4, 'U', true},
		"updates of which some were sent, too":                   {"U!UU!U", 4, 'U', true},
		"an insert and a delete are nothing":                     {"IUD", 3, 0, false},
		"with the insert perhaps received, a delete":             {"I!UD", 3, 'D', false},
		"with the update perhaps received, a delete":             {"IU!D", 3, 'D', false},
		"an update and a delete are a delete":                    {"UD", 2, 'D', true},
		"a delete and an insert are an update":                   {"DI", 2, 'U', true},
		"with all that follows":                                  {"UDIU", 4, 'U', true},
		"a delete that was perhaps received comes first":         {"D!IU", 1, 'D', false},
		"and so does what it was sent as":                        {"UD!I", 2, 'D', true},
		"an insert that was perhaps received comes first":        {"I!UU", 1, 'I', false},
		"what was tried as an insert is tried again as the same": {"IU!UU", 2, 'I', true},
		"until the row is gone":                                  {"I!UDIU", 3, 'D', false},
		"an insert, a delete and an insert are an insert":        {"IDI", 3, 'I', true},
		"nothing goes past a manual event":                       {"UUMU", 2, 'U', true},
		"which is sent by itself":                                {"MUU", 1, 'M', false},
		"inserts without a captured delete are one":              {"II", 2, 'I', true},
		"deletes without a captured insert are one":              {"DD", 2, 'D', true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var changes []Change
			for _, r := range c.changes {
				if r == '!' {
					changes[len(changes)-1].Sent = true
				} else {
					changes = append(changes, Change{Op: byte(r)})
				}
			}
			require.Equal(t, Merged{N: c.n, Op: c.op, FirstOld: c.first}, Merge(changes))
		})
	}
}

// rowEvent is a change of one row. Versions are above 0; 0 is no row.
type rowEvent struct {
	Change

	old, fresh int
}

// receiverOf is a receiver that takes every request at its word.
type receiverOf struct {
	version int    // of its row; 0: none
	latest  [2]int // index of the event that it applied last, and how many were merged into it
	died    bool   // an owner died in an attempt
}

// apply returns what such a receiver would complain about.
func (r *receiverOf) apply(op byte, old, fresh, event, merged int) string {
	complaint := ""
	repeated := r.latest == [2]int{event, merged}
	r.latest = [2]int{event, merged}
	switch {
	case repeated:
	case op == 'I' && (r.version != 0 || old != 0):
		complaint = "an insert of a row that it has"
	case op == 'U' && r.version == 0:
		complaint = "an update of a row that it lacks"
	case op == 'U' && old == 0 || op == 'D' && (old == 0 || fresh != 0):
		complaint = "a body without the row that it needs"
	}
	r.version = fresh
	return complaint
}

// TestMergedChangesLeaveTheReceiverWhereSingleOnesDo lets attempts fail before or after the receiver
// has applied them, and owners die in an attempt.
func TestMergedChangesLeaveTheReceiverWhereSingleOnesDo(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		version, next := rapid.IntRange(0, 1).Draw(t, "row"), 2
		receiver := receiverOf{version: version, latest: [2]int{-1, 0}}
		var events []rowEvent
		change := func() {
			e := rowEvent{old: version}
			switch {
			case version == 0:
				e.Op, version = 'I', next
			case rapid.Bool().Draw(t, "delete"):
				e.Op, version = 'D', 0
			default:
				e.Op, version = 'U', next
			}
			next++
			e.fresh = version
			events = append(events, e)
		}
		done, deaths := 0, rapid.Bool().Draw(t, "deaths")
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			if done == len(events) || rapid.Bool().Draw(t, "write") {
				change()
				continue
			}
			done += attemptOf(t, &receiver, events, done, deaths)
		}
		for calm := 0; done < len(events); calm++ {
			done += attemptOf(t, &receiver, events, done, false)
			require.Less(t, calm, 1000)
		}
		require.Equal(t, version, receiver.version)
	})
}

// attemptOf makes an attempt of what waits, and returns how many events are settled by it.
func attemptOf(t *rapid.T, receiver *receiverOf, events []rowEvent, done int, deaths bool) int {
	var changes []Change
	for _, e := range events[done:] {
		changes = append(changes, e.Change)
	}
	m := Merge(changes)
	first, last := events[done], &events[done+m.N-1]
	if m.Op == 0 {
		return m.N
	}
	old := last.old
	if m.FirstOld {
		old = first.old
	}
	outcome := rapid.IntRange(0, 4).Draw(t, "outcome")
	if outcome > 0 { // at 0 the request does not arrive
		complaint := receiver.apply(m.Op, old, last.fresh, done+m.N-1, m.N)
		// Who dies in an attempt that merged an insert leaves it to the next owner to send the insert.
		if receiver.died && m.Op == 'I' {
			complaint = ""
		}
		require.Empty(t, complaint)
	}
	switch {
	case outcome <= 1: // as far as the sender knows, it failed
		last.Sent = true
		return 0
	case outcome == 2 && deaths:
		receiver.died = true
		for i := range events {
			events[i].Sent = true
		}
		return 0
	}
	return m.N
}
