package metrics

// Kind is the type of a metric.
type Kind string

// The kinds.
const (
	Counter   Kind = "counter"
	Gauge     Kind = "gauge"
	Histogram Kind = "histogram"
)

// Definition describes a metric.
type Definition struct {
	Name   string
	Kind   Kind
	Labels []string
	Help   string
	// Shared metrics describe the database, and every instance reports the same values. Aggregate
	// them over instances by max, not by sum.
	Shared bool
}

// Definitions returns every metric of Rowhook itself, in the order of the reference. client_golang
// adds those of the Go runtime and the process.
func Definitions() []Definition {
	trigger := []string{"trigger"}
	return []Definition{
		{"rowhook_events_captured_total", Counter, trigger, "First claims of events by this instance. The sum over all instances is the number of captured events, without those that wait for their first claim. Redelivered events count again.", false},
		{"rowhook_events_handed_over_total", Counter, trigger, "First deliveries that needed no claim, since the writer handed the event over to this instance, which was awake. They count as captured, too.", false},
		{"rowhook_attempts_total", Counter, []string{"trigger", "outcome"}, "Finished attempts. outcome: delivered, failed, or canceled if this instance stopped first.", false},
		{"rowhook_attempt_failures_total", Counter, []string{"trigger", "reason"}, "Failed attempts, of each event of a batch. reason: a class of status (3xx, 4xx, 5xx, other), or refused, dns, tls, timeout, reset, unreachable, bad_url, too_large, bad_payload, denied, token, unauthorized, rejected, bad_answer.", false},
		{"rowhook_events_dead_total", Counter, trigger, "Events that ran out of attempts here and became dead letters.", false},
		{"rowhook_first_attempt_delay_seconds", Histogram, trigger, "Time from the change, or from a redelivery, to the beginning of the first attempt.", false},
		{"rowhook_delivery_delay_seconds", Histogram, trigger, "Time from the change, or from a redelivery that succeeds at once, to the end of the successful attempt. It includes failed attempts and the waits after them.", false},
		{"rowhook_webhook_duration_seconds", Histogram, trigger, "Duration of attempts, to the last byte of the response or to the failure.", false},
		{"rowhook_attempts_in_flight", Gauge, trigger, "Attempts that are running in this instance.", false},
		{"rowhook_events_queued", Gauge, trigger, "Events that this instance has claimed and that wait for a free slot.", false},
		{"rowhook_trigger_unable", Gauge, trigger, "1 while this instance can't build the trigger's webhook, because a variable, a file or a valid URL is missing. Other instances may deliver its events.", false},
		{"rowhook_endpoint_failing", Gauge, trigger, "1 while the trigger's endpoint or its host fails: the trigger's events wait, and one at a time probes the endpoint. All instances agree within 1.5 s.", false},

		{"rowhook_backlog_events", Gauge, []string{"trigger", "state"}, "Unsettled events. state: waiting, in_flight, retrying. Above some thousands it is an estimate.", true},
		{"rowhook_backlog_oldest_age_seconds", Gauge, trigger, "Age of the oldest unsettled event, from when it was recorded or sent again by hand; 0: there is none.", true},
		{"rowhook_dead_letters", Gauge, trigger, "Dead letters, which wait until somebody redelivers or discards them. Above some thousands it is an estimate.", true},
		{"rowhook_blocked_keys", Gauge, trigger, "Keys of an ordered trigger that a dead letter holds: later events of these keys wait until somebody redelivers or discards it. It stops at some thousands.", true},
		{"rowhook_trigger_paused", Gauge, trigger, "1 while the trigger is paused.", true},
		{"rowhook_trigger_uncaptured", Gauge, trigger, "1 while some or all changes of the trigger's table are not recorded, because the table was replaced, or capture triggers were dropped or disabled.", true},

		{"rowhook_claims_total", Counter, []string{"result"}, "Claims that succeeded. result: events, or empty.", false},
		{"rowhook_claim_duration_seconds", Histogram, nil, "Duration of claims.", false},
		{"rowhook_claim_batch_events", Histogram, nil, "Events per claim, without empty claims.", false},
		{"rowhook_settle_duration_seconds", Histogram, nil, "Duration of the statements that record outcomes.", false},
		{"rowhook_settle_batch_outcomes", Histogram, nil, "Outcomes per statement that records outcomes.", false},
		{"rowhook_database_errors_total", Counter, []string{"statement", "reason"}, "Statements that failed and are retried. statement: claim, settle; reason: connection, disk_full, read_only, canceled, rejected, other.", false},
		{"rowhook_claiming", Gauge, nil, "0 while claims fail.", false},
		{"rowhook_settling", Gauge, nil, "0 while outcomes can't be recorded.", false},
		{"rowhook_payload_memory_bytes", Gauge, nil, "Memory of large payloads.", false},

		{"rowhook_doorbell_rings_total", Counter, nil, "Notifications received.", false},
		{"rowhook_doorbell_silences_total", Counter, nil, "Times that this instance silenced the writers' notifications.", false},
		{"rowhook_doorbell_silent", Gauge, nil, "1 while this instance has silenced the writers' notifications. It polls meanwhile.", false},
		{"rowhook_notification_queue_usage", Gauge, nil, "Usage of the server's notification queue, 0 to 1. From 0.25 on Rowhook's writers do not notify. At 1 commits that notify fail.", false},
		{"rowhook_poll_found_events_total", Counter, nil, "New events that the interval poll found although their writers should have notified. Each is a missed wake-up.", false},
		{"rowhook_listening", Gauge, nil, "1 while a session listens for notifications; missing with --no-listen.", false},
		{"rowhook_listener_reconnects_total", Counter, nil, "Sessions that were opened after a listening session was lost.", false},

		{"rowhook_instances", Gauge, []string{"state"}, "Registered dispatchers. state: alive, or dead if its session is gone and its events were not given back yet.", true},
		{"rowhook_queue_live_tuples", Gauge, nil, "Live rows of rowhook.event_log, by Postgres' statistics.", true},
		{"rowhook_queue_dead_tuples", Gauge, nil, "Dead rows of rowhook.event_log that vacuum has not removed, by Postgres' statistics.", true},
		{"rowhook_queue_bytes", Gauge, nil, "Size of rowhook.event_log with its indexes.", true},
		{"rowhook_history_bytes", Gauge, []string{"table"}, "Size of the history. table: event_archive, invocation_log.", true},
		{"rowhook_history_partitions", Gauge, []string{"table"}, "Partitions of the history, including those for days to come.", true},
		{"rowhook_history_ahead_seconds", Gauge, nil, "Time until the history runs out of partitions, usually more than three days; 0: today's is missing, and delivered events are not kept.", true},
		{"rowhook_history_written", Gauge, nil, "0 while this instance settles events without history, because history can't be written.", false},
		{"rowhook_history_dropped_partitions_total", Counter, nil, "Partitions of the history that this instance dropped or emptied, because their retention was over or the history was too large.", false},
		{"rowhook_history_dropped_bytes_total", Counter, nil, "Size of the partitions that this instance dropped or emptied.", false},
		{"rowhook_queue_vacuums_total", Counter, nil, "Vacuums of rowhook.event_log that this instance began, because autovacuum was late.", false},
		{"rowhook_vacuum_held_back_seconds", Gauge, nil, "Age of the session or prepared transaction that holds back vacuum; 0: none older than a second does.", true},
		{"rowhook_vacuum_held_back_transactions", Gauge, nil, "Transactions since the beginning of what holds back vacuum; 0: nothing does.", true},
		{"rowhook_source_ready", Gauge, []string{"source"}, "1 while the source is served, by this process or by another one that it stands by, as /readyz says of it. Only where there are several sources; all other metrics of a dispatcher have the label source then, too.", false},
		{"rowhook_source_served", Gauge, []string{"source"}, "1 while this process itself serves the source. Only where there are several sources.", false},
		{"rowhook_source_processes", Gauge, []string{"source"}, "Processes that share the source, and see each other there; 0: this one serves it whatever others do. Only where there are several sources.", false},
		{"rowhook_schema_version", Gauge, nil, "Version of the schema rowhook.", true},
		{"rowhook_database_up", Gauge, nil, "1 if the queries behind the shared metrics succeeded; otherwise these metrics are missing.", false},
		{"rowhook_database_read_seconds", Gauge, nil, "Duration of the queries behind the shared metrics. They run at most every 10 s, and after two slow ones in a row for at most a fiftieth of the time.", false},
		{"rowhook_build_info", Gauge, []string{"version", "goversion"}, "Always 1. The labels are the versions of the program and of Go.", false},
	}
}
