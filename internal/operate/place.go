package operate

import (
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/trigger"
)

// dueNow is SQL for the due_at of an event q of the queue that becomes due now. It stays parked.
const dueNow = "clock_timestamp() + case when q.due_at > " + queue.ParkedFrom + " then " + queue.ParkedSQL + " else interval '0' end"

// blocking is SQL for a trigger t whose dead letters hold their keys. The owners of lanes look for
// the dead letters of no other trigger.
const blocking = "(t.removed_at is null and coalesce(t.spec->'order'->>'on_dead', '') = '" + trigger.OnDeadBlock + "')"

// inPlace is SQL for a dead letter d that goes back into its place in the order of its key: it
// holds the key, and its trigger still has the lane. If its trigger does not ask for that any more,
// nobody would look for it there.
const inPlace = "(coalesce(d.blocks, false) and exists (select from rowhook.lane l join rowhook.trigger t on t.id = l.trigger_id where l.trigger_id = d.trigger_id and l.lane = d.lane and " + blocking + "))"

// holds is SQL for a dead letter e that holds its key.
const holds = "(coalesce(e.blocks, false) and exists (select from rowhook.trigger t where t.id = e.trigger_id and " + blocking + "))"
