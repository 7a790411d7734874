package order

// fewKnown is how many events of a lane may be in memory for LookBack to have it read again.
const fewKnown = 100

// LookBack has lanes with few events in memory read again from their beginning, up to their cursor.
// By the protocol nothing is there that is not known. LookBack is insurance, as the interval poll is
// for other triggers. In a lane with many events it would read all of them once more.
func (l *Lanes) LookBack() {
	for _, ln := range l.lanes {
		if len(ln.known) <= fewKnown && len(ln.full) == 0 {
			ln.owe(0)
		}
	}
}
