package metrics

// Kind is a metric's type.
type Kind string

// The kinds.
const (
	Counter   Kind = "counter"
	Gauge     Kind = "gauge"
	Histogram Kind = "histogram"
)

// Definition says what a metric is.
type Definition struct {
	Name   string
	Kind   Kind
	Labels []string
	Help   string
	// Shared metrics describe the database, so every instance of it reports the same: take max, not sum, over instances.
	Shared bool
}

// Definitions lists every metric of Rowhook's own, in the order of the reference. Those of the Go runtime and the process come with
// client_golang.
func Definitions() []Definition {
	trigger := []string{"trigger"}
	return []Definition{
		{"rowhook_events_captured_total", Counter, trigger, "Events that this instance claimed for the first time. Over all instances that is what was captured, less what still waits for its first claim; redelivered events count again.", false},
		{"rowhook_attempts_total", Counter, []string{"trigger", "outcome"}, "Finished attempts. outcome: delivered, failed, or canceled where this instance stopped first.", false},
		{"rowhook_attempt_failures_total", Counter, []string{"trigger", "reason"}, "Failed attempts by reason: a class of status (3xx, 4xx, 5xx, other) or refused, dns, tls, timeout, reset, unreachable, bad_url, too_large, bad_payload, denied.", false},
		{"rowhook_events_dead_total", Counter, trigger, "Events that ran out of attempts here and became dead letters.", false},
		{"rowhook_first_attempt_delay_seconds", Histogram, trigger, "From the change (or a redelivery) to the beginning of the first attempt.", false},
		{"rowhook_delivery_delay_seconds", Histogram, trigger, "From the change (or a redelivery that succeeds at once) to the end of the attempt that delivered it, failed attempts and their waits included.", false},
		{"rowhook_webhook_duration_seconds", Histogram, trigger, "How long attempts took, to the last byte of the response or the failure.", false},
		{"rowhook_attempts_in_flight", Gauge, trigger, "Attempts under way in this instance.", false},
		{"rowhook_events_queued", Gauge, trigger, "Events claimed by this instance that wait for a free slot.", false},
		{"rowhook_trigger_unable", Gauge, trigger, "1 while this instance can't build the trigger's webhook, as a variable, a file or a correct URL is missing, and so leaves its events to others.", false},

		{"rowhook_backlog_events", Gauge, []string{"trigger", "state"}, "Events owed, by state: waiting, in_flight, retrying. Above some thousands an estimate.", true},
		{"rowhook_backlog_oldest_age_seconds", Gauge, trigger, "Age of the oldest event owed; 0: none is.", true},
		{"rowhook_dead_letters", Gauge, trigger, "Dead letters that wait for someone to act. Above some thousands an estimate.", true},
		{"rowhook_trigger_paused", Gauge, trigger, "1 while the trigger is paused.", true},
		{"rowhook_trigger_uncaptured", Gauge, trigger, "1 while changes of the trigger's table are not recorded, or not all: the table was replaced, or capture triggers were dropped or disabled.", true},

		{"rowhook_claims_total", Counter, []string{"result"}, "Claims that the database answered. result: events, or empty.", false},
		{"rowhook_claim_duration_seconds", Histogram, nil, "How long claims took.", false},
		{"rowhook_claim_batch_events", Histogram, nil, "Events that a claim brought, of those that brought any.", false},
		{"rowhook_settle_duration_seconds", Histogram, nil, "How long the statements took that record outcomes.", false},
		{"rowhook_settle_batch_outcomes", Histogram, nil, "Outcomes that such a statement recorded.", false},
		{"rowhook_database_errors_total", Counter, []string{"statement", "reason"}, "Statements that failed and are tried again. statement: claim, settle; reason: connection, disk_full, read_only, canceled, rejected, other.", false},
		{"rowhook_claiming", Gauge, nil, "0 while claims do not get through.", false},
		{"rowhook_settling", Gauge, nil, "0 while outcomes can't be recorded.", false},
		{"rowhook_payload_memory_bytes", Gauge, nil, "Large payloads in memory.", false},

		{"rowhook_doorbell_rings_total", Counter, nil, "Notifications received.", false},
		{"rowhook_doorbell_silences_total", Counter, nil, "Times that this instance asked writers for silence.", false},
		{"rowhook_doorbell_silent", Gauge, nil, "1 while writers are silent on account of this instance, which then looks by itself.", false},
		{"rowhook_notification_queue_usage", Gauge, nil, "Share of the server's queue of notifications that is in use. From 0.25 on nobody is asked to notify; once it is 1 commits that notify fail.", false},
		{"rowhook_poll_found_events_total", Counter, nil, "New events that the interval poll found although writers should have rung: each is a missed wake-up.", false},
		{"rowhook_listening", Gauge, nil, "1 while a session listens; missing with --no-listen.", false},
		{"rowhook_listener_reconnects_total", Counter, nil, "Sessions that were opened after one that listened was lost.", false},

		{"rowhook_instances", Gauge, []string{"state"}, "Registered dispatchers. state: alive, or dead where its session is gone and its events were not given back yet.", true},
		{"rowhook_queue_live_tuples", Gauge, nil, "Live rows of the hot table, by Postgres' statistics.", true},
		{"rowhook_queue_dead_tuples", Gauge, nil, "Dead rows of the hot table that vacuum has not removed, by Postgres' statistics.", true},
		{"rowhook_queue_bytes", Gauge, nil, "Size of the hot table with its indexes.", true},
		{"rowhook_history_bytes", Gauge, []string{"table"}, "Size of the history: event_archive, invocation_log.", true},
		{"rowhook_history_partitions", Gauge, []string{"table"}, "Partitions of the history, those made ahead of time included.", true},
		{"rowhook_history_ahead_seconds", Gauge, nil, "For how long the history has partitions, over three days as a rule; 0: today's is missing, and what is delivered is not kept.", true},
		{"rowhook_history_written", Gauge, nil, "0 while this instance settles events without history, as that can't be written.", false},
		{"rowhook_history_dropped_partitions_total", Counter, nil, "Partitions of the history that this instance dropped or emptied, as they were over their retention or took too much room.", false},
		{"rowhook_history_dropped_bytes_total", Counter, nil, "What those took.", false},
		{"rowhook_queue_vacuums_total", Counter, nil, "Vacuums of the hot table that this instance began, as autovacuum was late.", false},
		{"rowhook_vacuum_held_back_seconds", Gauge, nil, "How long the session or prepared transaction that holds back vacuum has been open; 0: none for a second.", true},
		{"rowhook_vacuum_held_back_transactions", Gauge, nil, "Transactions since what holds back vacuum began; 0: nothing does.", true},
		{"rowhook_schema_version", Gauge, nil, "Version of the schema rowhook.", true},
		{"rowhook_database_up", Gauge, nil, "1 if the database answered the questions behind the shared metrics, which otherwise are missing.", false},
		{"rowhook_database_read_seconds", Gauge, nil, "How long those questions took. They are asked at most every 10 s, and where that is slow twice running, for a fiftieth of the time.", false},
		{"rowhook_build_info", Gauge, []string{"version", "goversion"}, "1, with the version of the program.", false},
	}
}
