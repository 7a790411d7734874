package order

import "time"

// Entry is an event in the queue of its key. With Leave set it stands for an event of another key
// that this key has to wait for, since its row had this key before.
type Entry struct {
	ID    [16]byte
	Lane  int16
	Seq   int64
	Key   string
	Op    byte
	Tries int32     // attempts that were made, as far as they count
	Sent  bool      // the receiver may have it, although no attempt was counted
	Due   time.Time // by the caller's clock; it is not sent before
	// First says that nothing of its key was settled since the lane was taken. What was out when an
	// owner died is that for the next one. Next sets it.
	First bool
	// Move says that the event has to wait for the key that its row had before.
	Move bool
	// Leave says that this is not an event of the key, but the place at which the event left it.
	// Nothing behind it may be sent before the event has left the queue.
	Leave bool
	Told  bool      // of Leave: the other key knows that the event may be sent
	Read  time.Time // when it was last seen in the database
	Load  any       // what the caller keeps of it
	// Weight is how many bytes that takes.
	Weight int

	key   *key
	epoch int64 // of the lane when it was handed out
}

// known is the name of an entry within its lane. An event and the place at which it left another
// key may be in one lane.
func (e *Entry) known() int64 {
	if e.Leave {
		return 2*e.Seq + 1
	}
	return 2 * e.Seq
}

// Run is what is sent next of a key: one event, or several in their order.
type Run []*Entry

// Outcome is what became of an entry that was handed out.
type Outcome byte

// The outcomes.
const (
	Gone     Outcome = iota // it is settled, and has left the queue
	Again                   // it is settled, and is sent again at Entry.Due
	Returned                // it was not sent, or its outcome could not be written
)
