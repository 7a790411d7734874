package operate

import "github.com/rowhook/rowhook/internal/queue"

// dueNow is SQL for the due_at of an event q of the queue that becomes due now. It stays parked.
const dueNow = "clock_timestamp() + case when q.due_at > " + queue.ParkedFrom + " then interval '1752000 hours' else interval '0' end"

// inPlace is SQL for a dead letter d that goes back into its place in the order of its key: it
// holds the key, and its trigger still has the lane.
const inPlace = "(coalesce(d.blocks, false) and exists (select from rowhook.lane l where l.trigger_id = d.trigger_id and l.lane = d.lane))"
