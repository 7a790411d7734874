package cli

import (
	"math"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"

	"github.com/rowhook/rowhook/dispatcher"
)

// fitMemory keeps the dispatcher within allowed bytes, the memory limit of its container or
// service. 0 means that there is no limit. It lowers cfg.PayloadMemory, unless chosen says that it
// was set by a flag or variable. It sets Go's memory limit, unless GOMEMLIMIT is set.
func (a *app) fitMemory(cfg *dispatcher.Config, allowed int64, chosen bool) {
	// Sending needs the same amount once more, and half is left for the rest.
	if share := allowed / 4; share > 0 && share < cfg.PayloadMemory && !chosen {
		a.log.Info("lowering the memory for large payloads, because memory is limited", "limit_bytes", allowed, "payload_memory_bytes", share)
		cfg.PayloadMemory = share
	}
	if set, _ := a.lookup("GOMEMLIMIT"); set == "" {
		debug.SetMemoryLimit(softLimit(*cfg, allowed))
	}
}

// manySources is from how many sources on memory is saved at the cost of processor time.
const manySources = 20

// fitCollector sets how much the heap may grow between two collections, unless GOGC is set. What a
// hundred sources without work hold is some 30 MB, a fifth of it what their sessions have prepared, so
// that a heap of twice that is most of the process.
func (a *app) fitCollector(sources int) {
	if set, _ := a.lookup("GOGC"); set == "" {
		debug.SetGCPercent(growth(sources))
	}
}

// growth is in percent of what is in use.
func growth(sources int) int {
	if sources >= manySources {
		return 50
	}
	return 100
}

// fitBody returns the largest payload unless a flag or variable sets it. During an attempt a
// payload is in memory up to four times: as read from the database, as values, as the body of the
// request, and as garbage that was not collected yet. allowed is as for fitMemory. soft is
// GOMEMLIMIT, or math.MaxInt64.
func fitBody(byDefault, allowed, soft int64) int64 {
	if allowed > 0 {
		soft = min(soft, allowed)
	}
	return min(byDefault, soft/8)
}

// softLimit returns the heap size above which the collector runs more often, so that garbage from
// large payloads does not accumulate. Without it, a dispatcher with 20 MB events took 337 MB, of
// which less than a third was in use. The limit is well above what is in use: large payloads twice,
// 32 KiB for each attempt that may be open (ten times the concurrency), and 64 MiB for the rest. It
// is at most nine tenths of allowed.
func softLimit(cfg dispatcher.Config, allowed int64) int64 {
	limit := 64<<20 + 2*cfg.PayloadMemory + 10*int64(cfg.Concurrency)*(32<<10)
	if allowed > 0 {
		limit = min(limit, allowed/10*9)
	}
	return limit
}

// allowedMemory returns the memory limit in bytes of the container or service that this process
// runs in: the least of its control group and those above it. It returns 0 where there is none, or
// none that can be read.
func allowedMemory() int64 {
	limit, err := memlimit.FromCgroup()
	if err != nil || limit > math.MaxInt64 {
		return 0
	}
	return int64(limit)
}
