package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/pprof"
	"strconv"
	"syscall"
	"time"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/jetstream"
)

// runDispatch is the process of a dispatcher with profiles. Its arguments are the concurrency and
// the prefix of the profiles' paths.
func runDispatch(ctx context.Context, args []string) (err error) {
	if len(args) != 2 {
		return errors.New("want a concurrency and a path")
	}
	concurrency, err := strconv.Atoi(args[0])
	if err != nil {
		return fmt.Errorf("read the concurrency: %w", err)
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer stop()
	cpu, err := os.Create(args[1] + ".cpu.pprof")
	if err != nil {
		return fmt.Errorf("write a profile: %w", err)
	}
	defer func() { err = errors.Join(err, cpu.Close()) }()
	if err := pprof.StartCPUProfile(cpu); err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	defer pprof.StopCPUProfile()
	d, err := dispatcher.New(dispatcher.Config{
		DatabaseURL: os.Getenv("DATABASE_URL"), Concurrency: concurrency, GracePeriod: time.Second,
		Logger: slog.New(slog.NewJSONHandler(os.Stderr, nil)), Version: "bench",
		NATS: new(jetstream.Connections).Destination,
	})
	if err != nil {
		return err
	}
	if err := d.Run(ctx); err != nil {
		return err
	}
	return writeAllocations(args[1] + ".allocs.pprof")
}

func writeAllocations(path string) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write a profile: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	runtime.GC()
	return pprof.Lookup("allocs").WriteTo(f, 0)
}
