//go:build unix

// Pgtestserver starts one temporary PostgreSQL for the tests of several packages.
//
//	pgtestserver [--set name=value]... [-- command argument...]
//
// With a command it runs the command with the environment that tests need. It stops the server when
// the command ends, and exits with the command's status. Without a command it prints the
// environment as lines for a shell, and serves until Ctrl-C.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/sethvargo/go-retry"

	"github.com/rowhook/rowhook/internal/localpg"
	"github.com/rowhook/rowhook/internal/pgtest"
)

// stopTimeout is how long a command may take to end after a signal.
const stopTimeout = 10 * time.Second

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer cancel()
	code, err := run(ctx, os.Args[1:], os.Stdout)
	if err != nil {
		fmt.Fprintf(os.Stderr, "pgtestserver: %v\n", err)
	}
	os.Exit(code) //nolint:gocritic // the end of the process also ends the notification
}

func run(ctx context.Context, args []string, stdout io.Writer) (code int, err error) {
	var settings []string
	flags := flag.NewFlagSet("pgtestserver", flag.ContinueOnError)
	flags.Func("set", "a PostgreSQL setting, `name=value`", func(s string) error {
		settings = append(settings, s)
		return nil
	})
	if err := flags.Parse(args); err != nil {
		return 2, err
	}
	server, err := pgtest.StartServer(ctx, settings...)
	if err != nil {
		return 1, err
	}
	defer func() {
		if stopErr := server.Stop(context.WithoutCancel(ctx), localpg.Immediate); stopErr != nil {
			code, err = max(code, 1), errors.Join(err, stopErr)
		}
	}()
	environment := pgtest.Environment(server)
	if flags.NArg() > 0 {
		return runCommand(ctx, flags.Args(), environment)
	}

	delete(environment, pgtest.EnvTemporary) // this server outlives a run of the tests
	for _, name := range slices.Sorted(maps.Keys(environment)) {
		fmt.Fprintf(stdout, "export %s='%s'\n", name, environment[name])
	}
	select {
	case <-ctx.Done():
		return 0, nil
	case <-server.Exited():
		return 1, errors.New("postgres ended unexpectedly")
	}
}

// runCommand runs the command in its own process group, and passes signals on to the whole group.
// The go command alone would leave its test programs running when it is terminated.
func runCommand(ctx context.Context, args []string, environment map[string]string) (int, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = os.Environ()
	for name, value := range environment {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = stopTimeout
	err := cmd.Run()
	if ctx.Err() != nil {
		if cmd.Process != nil {
			endGroup(cmd.Process.Pid)
		}
		return 130, errors.New("interrupted")
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), nil
	}
	if err != nil {
		return 1, fmt.Errorf("run %s: %w", args[0], err)
	}
	return 0, nil
}

// endGroup waits until the processes of a group have ended after a SIGTERM, and kills the others
// after stopTimeout.
func endGroup(group int) {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	_ = retry.Do(ctx, retry.NewConstant(10*time.Millisecond), func(context.Context) error {
		if errors.Is(syscall.Kill(-group, 0), syscall.ESRCH) {
			return nil
		}
		return retry.RetryableError(errors.New("running"))
	})
	_ = syscall.Kill(-group, syscall.SIGKILL)
}
