package dispatcher

import (
	"context"
	"time"
)

// shipment is what the scheduler starts: deliveries of one trigger that go to its receiver together
// and take one slot. A trigger without batches has one delivery in each.
type shipment struct {
	lane       *lane
	deliveries []*delivery // at least one
	started    time.Time
	stalled    bool                    // it hangs, and no longer counts as active
	ended      bool                    // its slot is given back
	url        string                  // of its trigger as it started
	version    string                  // of the row of its trigger as it started
	cancel     context.CancelCauseFunc // ends the attempt; nil: it has none yet
	aimed      aimed                   // the breakers that its outcome concerns
	common     *party                  // its place at its endpoint, among all dispatchers; nil: it needs none
}

// first is the only delivery of a trigger without batches.
func (sh *shipment) first() *delivery { return sh.deliveries[0] }

// expires is when the first of its leases ends.
func (sh *shipment) expires() time.Time {
	end := sh.deliveries[0].expires
	for _, d := range sh.deliveries[1:] {
		if d.expires.Before(end) {
			end = d.expires
		}
	}
	return end
}

// ship makes a shipment of the delivery alone. It needs no memory of its own.
func (d *delivery) ship() *shipment {
	d.self[0] = d
	d.own = shipment{lane: d.lane, deliveries: d.self[:]}
	d.shipment = &d.own
	return d.shipment
}
