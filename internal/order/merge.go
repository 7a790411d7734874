package order

// Change is an event of a key as Merge sees it.
type Change struct {
	Op byte // I, U or D; any other is sent by itself
	// Sent says that the receiver may have it. It was tried, by itself or as what earlier ones were
	// merged into, or another owner had its lane and may have tried it. An owner that dies in an
	// attempt leaves no trace of it.
	Sent bool
}

// Merged is what several changes of one row are sent as.
type Merged struct {
	N  int  // how many of the changes, from the first on, at least 1
	Op byte // of what is sent, with the new row of the last of them; 0: nothing is sent
	// FirstOld says that it is sent with the old row of the first. Otherwise it has its own.
	FirstOld bool
}

// Merge says what the changes of one row are sent as, in their order. A receiver that has the row as
// it was before the first, or as any that was Sent left it, has it as the last left it when it has
// applied what is sent. An insert is only sent to a receiver that can't have the row, and an update
// only to one that can't lack it. If no such thing can be sent for all changes, it is for as many as
// possible.
//
//	first  ... last   row in the end   sent as
//	insert            there            the insert of the last row
//	insert            gone             nothing
//	update or delete  there            an update from the first old row to the last one
//	update or delete  gone             a delete of the first old row
//
// One that was Sent before the last makes the following difference: if the row is gone in the end, a
// delete is sent. If it is there, and there was a moment without it, what comes before is sent first.
func Merge(changes []Change) Merged {
	best := Merged{N: 1, Op: changes[0].Op}
	if !mergeable(changes[0].Op) {
		return best
	}
	mayLack, mayHave := changes[0].Op == 'I', changes[0].Op != 'I'
	for i, c := range changes {
		if !mergeable(c.Op) {
			break
		}
		there := c.Op != 'D'
		if m := (Merged{N: i + 1, FirstOld: true}); i > 0 {
			switch {
			case there && mayLack && mayHave:
				m.N = 0
			case there && mayLack:
				m.Op = 'I'
			case there:
				m.Op = 'U'
			case mayHave:
				m.Op, m.FirstOld = 'D', changes[0].Op != 'I'
			default:
				m.FirstOld = false // nothing is sent, and each is kept as it is
			}
			if m.N > 0 {
				best = m
			}
		}
		if c.Sent {
			mayLack, mayHave = mayLack || !there, mayHave || there
		}
	}
	return best
}

func mergeable(op byte) bool { return op == 'I' || op == 'U' || op == 'D' }
