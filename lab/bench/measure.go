package main

import "math"

// measure is a line of the table: a value of a scenario, and its goal.
type measure struct {
	scenario string
	value    string // name in sample.Values
	title    string
	unit     string
	scale    float64 // factor from the value to the unit; 0: 1
	digits   int     // after the point
	goal     float64 // in the unit; 0: none
	atMost   bool    // the goal is an upper bound
	either   string  // of measures with the same word, one that reaches its goal is enough
	guarded  bool    // a ratio that must not fall; more is better
}

// met reports whether a value, in the measure's unit, reaches the goal.
func (m *measure) met(v float64) bool {
	if math.IsNaN(v) {
		return false
	}
	if m.atMost {
		return v <= m.goal
	}
	return v >= m.goal
}

func (m *measure) in(v float64) float64 {
	if m.scale != 0 {
		return v * m.scale
	}
	return v
}

// measures are the lines of the table, in order.
func measures() []measure {
	const percent, mega = 100, 1e-6
	all := []measure{
		{scenario: "A", value: "low_p50", title: "20/s, p50", unit: "ms", digits: 2, goal: 0.7, atMost: true},
		{scenario: "A", value: "low_p99", title: "20/s, p99", unit: "ms", digits: 2, goal: 1.3, atMost: true},
		{scenario: "A", value: "high_p50", title: "500/s, p50", unit: "ms", digits: 2, goal: 0.8, atMost: true},
		{scenario: "A", value: "high_p99", title: "500/s, p99", unit: "ms", digits: 2, goal: 2.5, atMost: true},
		{scenario: "A", value: "notify_p50", title: "floor: NOTIFY with its commit, p50", unit: "ms", digits: 2},
		{scenario: "A", value: "notify_p99", title: "floor: NOTIFY with its commit, p99", unit: "ms", digits: 2},
		{scenario: "A", value: "notify_low_p50", title: "floor: the same at 20/s, p50", unit: "ms", digits: 2},
		{scenario: "A", value: "notify_low_p99", title: "floor: the same at 20/s, p99", unit: "ms", digits: 2},
		{scenario: "A", value: "notify_high_p50", title: "floor: the same at 500/s, p50", unit: "ms", digits: 2},
		{scenario: "A", value: "notify_high_p99", title: "floor: the same at 500/s, p99", unit: "ms", digits: 2},
		{scenario: "A", value: "low_to_same", title: "20/s, p50, against its floor", unit: "x", digits: 2},
		{scenario: "A", value: "high_to_same", title: "500/s, p50, against its floor", unit: "x", digits: 2},
		{scenario: "A", value: "low_to_notify", title: "floor / p50 at 20/s", unit: "%", scale: percent, guarded: true},
		{scenario: "A", value: "high_to_notify", title: "floor / p50 at 500/s", unit: "%", scale: percent, guarded: true},
		{scenario: "B", value: "rate", title: "drained and recorded", unit: "/s", goal: 16000, either: "B"},
		{scenario: "B", value: "floor", title: "floor: HTTP alone", unit: "/s"},
		{scenario: "B", value: "of_floor", title: "of the floor", unit: "%", scale: percent, goal: 50, either: "B", guarded: true},
		{scenario: "B", value: "net_floor", title: "floor: net/http alone, 64 at once", unit: "/s"},
		{scenario: "B", value: "of_net_floor", title: "of that floor", unit: "%", scale: percent, goal: 65},
		{scenario: "B", value: "cpu", title: "CPU of all, an event", unit: "ms", digits: 3},
		{scenario: "B", value: "floor_cpu", title: "floor: CPU of HTTP alone, an event", unit: "ms", digits: 3},
		{scenario: "B", value: "cpu_of_floor", title: "floor / CPU of all", unit: "%", scale: percent, guarded: true},
		{scenario: "B", value: "last_tenth", title: "last tenth / first", unit: "%", scale: percent},
		{scenario: "C", value: "rate", title: "commits while delivering", unit: "/s", goal: 5500},
		{scenario: "C", value: "plain", title: "floor: no trigger", unit: "/s"},
		{scenario: "C", value: "of_plain", title: "of no trigger", unit: "%", scale: percent, guarded: true},
		{scenario: "C", value: "delivered", title: "delivered meanwhile", unit: "/s"},
		{scenario: "C", value: "behind_p50", title: "behind, p50", unit: "ms", digits: 1},
		{scenario: "C", value: "behind_p99", title: "behind, p99", unit: "ms", digits: 1, goal: 20, atMost: true},
		{scenario: "C", value: "catch_up", title: "last receipt after last commit", unit: "s", digits: 2},
		{scenario: "C'", value: "plain", title: "floor: no trigger", unit: "/s"},
		{scenario: "C'", value: "stopped", title: "dispatcher stopped", unit: "/s"},
		{scenario: "C'", value: "stopped_share", title: "of no trigger", unit: "%", scale: percent, goal: 70, guarded: true},
		{scenario: "C'", value: "silent", title: "bell silent", unit: "/s"},
		{scenario: "C'", value: "silent_share", title: "of no trigger", unit: "%", scale: percent, goal: 70, guarded: true},
		{scenario: "C'", value: "busy", title: "bell silent, 2,000/s delivered", unit: "/s"},
		{scenario: "C'", value: "busy_share", title: "of no trigger", unit: "%", scale: percent, guarded: true},
		{scenario: "D", value: "received", title: "delivered", unit: "/s", goal: 1950},
		{scenario: "D", value: "of_limit", title: "of the limit", unit: "%", scale: percent, digits: 1, guarded: true},
		{scenario: "D", value: "floor", title: "floor: HTTP alone", unit: "/s"},
		{scenario: "D", value: "of_floor", title: "of the floor", unit: "%", scale: percent, digits: 1},
		{scenario: "E", value: "rate", title: "drained and recorded", unit: "/s"},
		{scenario: "E", value: "last_tenth", title: "last tenth / first", unit: "%", scale: percent, goal: 95, guarded: true},
		{scenario: "F", value: "rate", title: "drained and recorded", unit: "/s"},
		{scenario: "F", value: "alone", title: "floor: without a history", unit: "/s"},
		{scenario: "F", value: "of_alone", title: "of that", unit: "%", scale: percent, goal: 95, guarded: true},
	}
	for _, m := range []measure{
		{value: "low_p50", title: "20/s, p50"}, {value: "low_p99", title: "20/s, p99"},
		{value: "high_p50", title: "500/s, p50"}, {value: "high_p99", title: "500/s, p99"},
	} {
		all = append(all,
			measure{scenario: "G", value: m.value, title: m.title, unit: "ms", digits: 2},
			measure{scenario: "G", value: "ratio_" + m.value, title: m.title + ", against one trigger", unit: "%", scale: percent, goal: 120, atMost: true})
	}
	all = append(all,
		measure{scenario: "G", value: "inverse_low_p50", title: "one trigger / this, p50 at 20/s", unit: "%", scale: percent, guarded: true},
		measure{scenario: "G", value: "inverse_high_p50", title: "one trigger / this, p50 at 500/s", unit: "%", scale: percent, guarded: true},
		measure{scenario: "H", value: "plain", title: "no trigger, a row", unit: "us", digits: 1},
		measure{scenario: "H", value: "added", title: "the trigger adds", unit: "us", digits: 1, goal: 10, atMost: true},
		measure{scenario: "H", value: "added_silent", title: "with the bell silent", unit: "us", digits: 1},
		measure{scenario: "H", value: "added_wal", title: "WAL added, a row", unit: "B"},
		measure{scenario: "H", value: "share", title: "no trigger / with", unit: "%", scale: percent, digits: 1, guarded: true},
		measure{scenario: "I", value: "queries", title: "queries", unit: "/s", digits: 2, goal: 2, atMost: true},
		measure{scenario: "I", value: "cpu_rowhook", title: "CPU, dispatcher", unit: "% of a core", scale: percent, digits: 2, goal: 0.2, atMost: true},
		measure{scenario: "I", value: "cpu_server", title: "CPU, Postgres", unit: "% of a core", scale: percent, digits: 2, goal: 0.2, atMost: true},
		measure{scenario: "J", value: "one", title: "one dispatcher", unit: "/s"},
		measure{scenario: "J", value: "received", title: "four dispatchers", unit: "/s"},
		measure{scenario: "J", value: "times", title: "four against one", unit: "x", digits: 2, goal: 3.8, guarded: true},
	)
	for _, size := range []struct{ suffix, name string }{{"10", "10 kB"}, {"100", "100 kB"}, {"1000", "1 MB"}} {
		all = append(all,
			measure{scenario: "K", value: "bytes" + size.suffix, title: size.name, unit: "MB/s", scale: mega},
			measure{scenario: "K", value: "floor" + size.suffix, title: size.name + ", floor: HTTP alone", unit: "MB/s", scale: mega},
			measure{scenario: "K", value: "of_floor" + size.suffix, title: size.name + ", of the floor", unit: "%", scale: percent, goal: 50, guarded: true},
			measure{scenario: "K", value: "memory" + size.suffix, title: size.name + ", peak memory", unit: "MB"})
	}
	all = append(all,
		measure{scenario: "L", value: "command", title: "the slowest command", unit: "ms", goal: 300, atMost: true},
		measure{scenario: "L", value: "endpoint", title: "the slowest endpoint", unit: "ms", goal: 300, atMost: true},
		measure{scenario: "L", value: "count", title: "the slowest count before redeliver or discard", unit: "ms"},
		measure{scenario: "M", value: "before", title: "200/s, p99 beside nothing", unit: "ms", digits: 1})
	for _, work := range []string{"redeliver", "backfill", "retention"} {
		all = append(all,
			measure{scenario: "M", value: work, title: "p99 beside " + work, unit: "ms", digits: 1},
			measure{scenario: "M", value: work + "_ratio", title: "of that beside nothing", unit: "%", scale: percent, goal: 200, atMost: true},
			measure{scenario: "M", value: work + "_rate", title: work, unit: "events/s"})
	}
	for _, n := range []string{"100", "1000"} {
		all = append(all,
			measure{scenario: "stream", value: "rate" + n, title: n + " attempts, drained into a stream and recorded", unit: "/s"},
			measure{scenario: "stream", value: "webhook" + n, title: n + " attempts, the same into webhooks", unit: "/s"},
			measure{scenario: "stream", value: "times" + n, title: n + " attempts, against webhooks", unit: "x", digits: 2, goal: 2},
			measure{scenario: "stream", value: "cpu" + n, title: n + " attempts, CPU of all, an event", unit: "ms", digits: 3},
			measure{scenario: "stream", value: "webhook_cpu" + n, title: n + " attempts, CPU of all, a webhook", unit: "ms", digits: 3})
		for _, who := range []struct{ value, event, webhook string }{{"dispatcher", "the dispatcher", "the dispatcher"}, {"postgres", "Postgres", "Postgres"}, {"receiver", "the server of NATS", "the receiver"}} {
			all = append(all,
				measure{scenario: "stream", value: "cpu" + n + "_" + who.value, title: n + " attempts, CPU of " + who.event + ", an event", unit: "ms", digits: 3},
				measure{scenario: "stream", value: "webhook_cpu" + n + "_" + who.value, title: n + " attempts, CPU of " + who.webhook + ", a webhook", unit: "ms", digits: 3})
		}
	}
	return append(all, append(distanceMeasures(), deliveryMeasures()...)...)
}

// deliveryMeasures are the lines of the scenarios about order, batches, rates and outages.
func deliveryMeasures() []measure {
	const percent = 100
	all := []measure{
		{scenario: "batch", value: "rate", title: "drained and recorded", unit: "/s"},
		{scenario: "batch", value: "single", title: "single requests", unit: "/s"},
		{scenario: "batch", value: "times", title: "against single requests", unit: "x", digits: 2, goal: 3, guarded: true},
		{scenario: "batch", value: "per_request", title: "events in a request", digits: 1},
	}
	for _, m := range []measure{
		{value: "low_p50", title: "20/s, p50"}, {value: "low_p99", title: "20/s, p99"},
		{value: "high_p50", title: "500/s, p50"}, {value: "high_p99", title: "500/s, p99"},
	} {
		all = append(all,
			measure{scenario: "batch-wait", value: m.value, title: m.title, unit: "ms", digits: 2},
			measure{scenario: "batch-wait", value: "ratio_" + m.value, title: m.title + ", against no batch", unit: "%", scale: percent, goal: 115, atMost: true})
	}
	return append(all,
		measure{scenario: "rate", value: "burst", title: "in the first second"},
		measure{scenario: "rate", value: "mean", title: "after it", unit: "/s", digits: 1},
		measure{scenario: "rate", value: "of_rate", title: "of 50/s", unit: "%", scale: percent, digits: 1, goal: 95},
		measure{scenario: "rate", value: "of_rate", title: "of 50/s", unit: "%", scale: percent, digits: 1, goal: 105, atMost: true},
		measure{scenario: "rate", value: "highest", title: "most in any second", goal: 60, atMost: true},
		measure{scenario: "outage", value: "first", title: "attempts until it counts as failing"},
		measure{scenario: "outage", value: "attempts", title: "attempts after that", unit: "/s", digits: 2, goal: 1, atMost: true},
		measure{scenario: "outage", value: "log", title: "log lines", goal: 20, atMost: true},
		measure{scenario: "outage", value: "alone_p99", title: "another trigger before, p99", unit: "ms", digits: 2},
		measure{scenario: "outage", value: "p99", title: "another trigger meanwhile, p99", unit: "ms", digits: 2},
		measure{scenario: "outage", value: "ratio_p99", title: "of that before", unit: "%", scale: percent, goal: 120, atMost: true},
		measure{scenario: "outage", value: "back", title: "full speed after its return", unit: "s", digits: 1, goal: 10, atMost: true},
		measure{scenario: "outage", value: "rate", title: "full speed", unit: "/s"},
		measure{scenario: "outage", value: "dead_letters", title: "dead letters"},
		measure{scenario: "order", value: "rate", title: "drained and recorded", unit: "/s"},
		measure{scenario: "order", value: "plain", title: "without order", unit: "/s"},
		measure{scenario: "order", value: "of_plain", title: "of that", unit: "%", scale: percent, goal: 100, guarded: true},
		measure{scenario: "order", value: "dead", title: "dead tuples, an event", digits: 2, goal: 1.1, atMost: true},
		measure{scenario: "hot-key", value: "alone_p99", title: "other keys alone, p99", unit: "ms", digits: 2},
		measure{scenario: "hot-key", value: "p99", title: "other keys beside it, p99", unit: "ms", digits: 2},
		measure{scenario: "hot-key", value: "ratio_p99", title: "of that alone", unit: "x", digits: 2, goal: 1.5, atMost: true},
		measure{scenario: "order-4", value: "one", title: "one dispatcher", unit: "/s"},
		measure{scenario: "order-4", value: "received", title: "four dispatchers", unit: "/s"},
		measure{scenario: "order-4", value: "shared", title: "lanes shared after the fourth has started", unit: "ms"},
		measure{scenario: "order-4", value: "busiest", title: "events sent by the busiest", unit: "%", scale: percent, digits: 1},
		measure{scenario: "order-4", value: "times", title: "four against one", unit: "x", digits: 2, goal: 3.5, guarded: true},
	)
}

// costs are the columns of the second table.
func costs() []measure {
	return []measure{
		{value: "cpu_dispatcher", title: "CPU dispatcher", unit: "ms/event", digits: 3},
		{value: "cpu_postgres", title: "CPU Postgres", unit: "ms/event", digits: 3},
		{value: "cpu_sessions", title: "its sessions for the dispatcher", unit: "ms/event", digits: 3},
		{value: "cpu_receiver", title: "CPU receiver", unit: "ms/event", digits: 3},
		{value: "memory", title: "peak memory", unit: "MB", digits: 1},
		{value: "lost", title: "lost", goal: 0, atMost: true},
		{value: "duplicates", title: "duplicates", goal: 0, atMost: true},
		{value: "wal", title: "WAL", unit: "B/event"},
		{value: "dead", title: "dead tuples", unit: "/event", digits: 2},
	}
}

// memoryGoal is the most memory in MB that a dispatcher may use while it drains B.
const memoryGoal = 30
