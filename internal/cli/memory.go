package cli

import (
	"math"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"

	"github.com/rowhook/rowhook/dispatcher"
)

// fitMemory keeps the dispatcher within allowed bytes, those that its container or service may have; 0: there is no limit. chosen says that someone
// gave cfg.PayloadMemory; otherwise it becomes less where little is allowed. GOMEMLIMIT in the environment has precedence over the limit that is set.
func (a *app) fitMemory(cfg *dispatcher.Config, allowed int64, chosen bool) {
	// Sending takes as much again, and half is left for all else.
	if share := allowed / 4; share > 0 && share < cfg.PayloadMemory && !chosen {
		a.log.Info("memory is limited, so less of it is for big payloads", "limit_bytes", allowed, "payload_memory_bytes", share)
		cfg.PayloadMemory = share
	}
	if set, _ := a.lookup("GOMEMLIMIT"); set == "" {
		debug.SetMemoryLimit(softLimit(*cfg, allowed))
	}
}

// fitBody is the largest payload where nobody chose one. While it is sent it is in memory up to four times: as it comes from the database, as
// values, as the request's body, and as what the collector has not freed yet. allowed is as for fitMemory, soft is GOMEMLIMIT or huge.
func fitBody(byDefault, allowed, soft int64) int64 {
	if allowed > 0 {
		soft = min(soft, allowed)
	}
	return min(byDefault, soft/8)
}

// softLimit is from where on garbage is collected more often, before that of large payloads piles up: with 20 MB events a dispatcher took 337 MB, of
// which less than a third was in use. It is well above what is in use: large payloads twice, some 32 KiB for each attempt that may be open (ten times
// the concurrency), and 64 MiB for all else; but nine tenths of what is allowed, if that is less.
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
