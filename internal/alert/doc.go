// Package alert decides who is told of which trouble, and when. It has no database, no clock and no
// goroutine. A dispatcher that looks after the alerts calls [Plan] with what is wrong at the moment
// and with what the receivers were told so far. It gets what to write down and what to send.
//
// A receiver is told once when a trouble begins and once when it ends. If a trouble comes back
// within [PairEvery], the receiver is told of all of it in one message when that time is over. If it
// stands for [StandsAfter] meanwhile, the receiver is told then.
package alert
