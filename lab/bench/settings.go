package main

import "time"

// sizes say how much each scenario does. The full sizes are for the published table, the quick ones
// for every change.
type sizes struct {
	Repeat     int
	HTTPFloor  int           // posts
	NotifyLoop int           // round trips
	LowRate    time.Duration // of scenario A at 20/s
	HighRate   time.Duration // of A at 500/s
	Drain      int           // events of B
	Writing    time.Duration // of C
	Pricing    time.Duration // of each part of C'
	SlowDrain  int           // events of D
	OpenDrain  int           // events of E
	Archived   int           // events of F's history
	Triggers   int           // of G
	Paused     int           // events of G's paused trigger
	Hanging    int           // events of G's hanging trigger
	Bulk       int           // rows of H
	BulkPairs  int           // statements of H, each with and without
	Idle       time.Duration // of I
	Shared     int           // events of J for one dispatcher; four get four times as many
	LargeBytes int           // of each size of K
	Waiting    int           // waiting events of L and M
	Dead       int           // dead letters of L and M
	Backfilled int           // rows of M
	Window     time.Duration // of M
	Beside     time.Duration // the longest work for which M has room
	Keys       int           // of the ordered drain
	Hot        int           // waiting events of the hot key
	BesideHot  time.Duration // of the latencies beside it
	Rated      time.Duration // of the scenario rate, after its burst
	Outage     time.Duration // of the scenario outage
	Down       int           // events that wait in it
	CurvePoint time.Duration // 0: no curve
	CurveRates []int
}

func fullSizes() sizes {
	return sizes{
		Repeat: 3, HTTPFloor: 50_000, NotifyLoop: 1000, LowRate: 30 * time.Second, HighRate: 10 * time.Second,
		Drain: 50_000, Writing: 20 * time.Second, Pricing: 8 * time.Second, SlowDrain: 20_000, OpenDrain: 100_000,
		Archived: 5_000_000, Triggers: 1000, Paused: 1_000_000, Hanging: 100_000, Bulk: 100_000, BulkPairs: 5,
		Idle: time.Minute, Shared: 10_000, LargeBytes: 100 << 20,
		Waiting: 1_000_000, Dead: 100_000, Backfilled: 1_000_000, Window: 15 * time.Second, Beside: time.Hour,
		Keys: 5000, Hot: 50_000, BesideHot: 30 * time.Second, Rated: time.Minute, Outage: time.Minute, Down: 1_000_000, CurvePoint: 4 * time.Second, CurveRates: curveRates(),
	}
}

func quickSizes() sizes {
	return sizes{
		Repeat: 1, HTTPFloor: 20_000, NotifyLoop: 300, LowRate: 4 * time.Second, HighRate: 3 * time.Second,
		Drain: 20_000, Writing: 5 * time.Second, Pricing: 2 * time.Second, SlowDrain: 6_000, OpenDrain: 40_000,
		Archived: 300_000, Triggers: 200, Paused: 50_000, Hanging: 5_000, Bulk: 50_000, BulkPairs: 3,
		Idle: 6 * time.Second, Shared: 2_500, LargeBytes: 24 << 20,
		Waiting: 50_000, Dead: 5_000, Backfilled: 5_000, Window: 3 * time.Second, Beside: 10 * time.Minute,
		Keys: 2000, Hot: 20_000, BesideHot: 4 * time.Second, Rated: 6 * time.Second, Outage: 8 * time.Second, Down: 20_000,
	}
}

func curveRates() []int {
	return []int{20, 50, 100, 200, 300, 450, 600, 800, 1000, 1300, 1600, 2000, 2500, 3000}
}
