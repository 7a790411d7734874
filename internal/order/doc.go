// Package order decides which events of ordered triggers may be sent next. It is the memory of an
// owner of lanes. It has no database, no clock and no goroutine: its caller reads lanes, says what
// it has read and what became of the events that were sent, and asks what comes next.
//
// [Lanes] are the lanes of one trigger that its caller owns. Their events wait in a queue for each
// key, and a key has one run of events out at a time. [Horizon] says which transactions may have
// committed behind the cursor of a lane.
package order
