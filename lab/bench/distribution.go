package main

import (
	"math"
	"slices"
)

// percentile returns the value below which the share p (0 to 1) of the sorted values lies. It
// interpolates linearly between two values. It returns NaN for no values.
func percentile(sorted []float64, p float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	at := p * float64(len(sorted)-1)
	low := int(math.Floor(at))
	high := min(low+1, len(sorted)-1)
	return sorted[low] + (sorted[high]-sorted[low])*(at-float64(low))
}

// median returns the middle of values in any order.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return percentile(sorted, 0.5)
}

// tenths returns the rate of each tenth of the arrivals, in events per second. The arrivals are in
// nanoseconds, in any order.
func tenths(stamps []int64) []float64 {
	sorted := slices.Sorted(slices.Values(stamps))
	n := len(sorted) / 10
	if n < 2 {
		return nil
	}
	rates := make([]float64, 10)
	for i := range rates {
		first, last := sorted[i*n], sorted[(i+1)*n-1]
		rates[i] = float64(n-1) / (float64(last-first) / 1e9)
	}
	return rates
}

// latencies returns the times from commit to arrival, sorted and in milliseconds, of the events
// from seq first to last that have both. The slices are indexed by seq.
func latencies(commits, stamps []int64, first, last int) []float64 {
	out := make([]float64, 0, last-first+1)
	for seq := first; seq <= last; seq++ {
		if commits[seq] != 0 && stamps[seq] != 0 {
			out = append(out, float64(stamps[seq]-commits[seq])/1e6)
		}
	}
	slices.Sort(out)
	return out
}
