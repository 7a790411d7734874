package cli

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/internal/sink"
)

func (a *app) sinkCommand() *cobra.Command {
	address := "127.0.0.1:8080"
	s := &sink.Sink{Keep: sink.DefaultKeep, Behaviour: sink.Behaviour{Status: http.StatusOK}}
	failure := ""
	cmd := &cobra.Command{
		Use:   "sink",
		Short: "Receive events and show them; fail on request",
		Long: `Receive events and show each in a line: the time, the operation, the trigger, the end of the event id, the attempt, and
the time since the row was written.

The sink answers 200, unless flags say otherwise, or PUT /behaviour while it runs. Tests ask it over HTTP, and need
neither sleep nor poll: GET /deliveries lists deliveries or waits for some, POST /verify judges them, and DELETE
/deliveries removes them. GET /openapi.json describes all of it, and docs/receiver.md explains it.

Others can reach the sink only if --listen names an address that they can reach. There are no passwords.`,
		Example: `  rowhook sink --listen 127.0.0.1:9000 --format full
  rowhook sink --fail 2                            every event fails twice, then works
  rowhook sink --fail all --failure 503 --retry-after 2s
  rowhook sink --fail-rate 0.1 --delay 200ms       one attempt in ten fails; all are slow
  rowhook sink --failure hang                      no answer, until the sender gives up
  curl 'http://127.0.0.1:8080/deliveries?trigger=order_placed&path=new.id&value=7&wait=5s'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := setFailure(&s.Behaviour, failure); err != nil {
				return usagef("--failure or ROWHOOK_FAILURE: %w", err)
			}
			if s.Behaviour.RetryAfter%time.Second != 0 {
				return usagef("--retry-after or ROWHOOK_RETRY_AFTER: %s is no whole number of seconds, which Retry-After has; write 1s", s.Behaviour.RetryAfter)
			}
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			return a.sink(ctx, s, address)
		},
	}
	f := flagSet{cmd.Flags()}
	b := &s.Behaviour
	f.text(&address, "listen", "`address` to listen on; :8080 is port 8080 on every interface")
	add(&f, &s.Format, "format", "format of a delivery", oneOf(map[string]sink.Format{
		"line": sink.FormatLine, "full": sink.FormatFull, "json": sink.FormatJSON,
	}, "line", "full", "json"))
	f.secret(&s.Secret, "secret", "secret of signatures, or the public key (whpk_...) of Ed25519; the sink answers 401 to requests without a valid one. Set the variable: the list of processes shows flags")
	f.number(&s.Keep, "keep", "number of deliveries to keep, within 64 MiB of headers and bodies", 1, 1_000_000)
	f.number(&b.Status, "status", "status of the answer to accepted requests", 200, 599)
	f.number(&b.BodySize, "body-size", "size in bytes of the body of that answer; 0: a short text", 0, 1<<30)
	f.duration(&b.Delay, "delay", "how long to wait before every answer", 0)
	add(&f, &b.Fail, "fail", "number of attempts of each event that fail before one succeeds, or all", failCount())
	add(&f, &b.FailRate, "fail-rate", "share of attempts that fail at random, 0 to 1", fraction())
	add(&f, &b.Seed, "seed", "seed of the random failures, to repeat them", seed())
	f.text(&failure, "failure", "how an attempt fails: a status, hang, close (the connection), or redirect:URL (default 500). Without --fail and --fail-rate every attempt fails")
	f.duration(&b.RetryAfter, "retry-after", "Retry-After of failures with an answer, in whole seconds; 0: none", 0)
	f.yesNo(&b.RetryAfterAsDate, "retry-after-date", "send Retry-After as a date")
	return cmd
}

func (a *app) sink(ctx context.Context, s *sink.Sink, address string) error {
	s.Out = a.stdout
	l, err := listenOn(ctx, address)
	if err != nil {
		return err
	}
	a.log.Info("receiving", "at", "http://"+l.Addr().String())
	return s.Serve(ctx, l)
}

// listenOn opens a TCP port.
func listenOn(ctx context.Context, address string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	var dns *net.DNSError
	var syntax *net.AddrError
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("can't listen on %s: another program uses this port; choose another one", address)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("can't listen on %s: permission denied; choose a port above 1023", address)
	case errors.Is(err, syscall.EADDRNOTAVAIL), errors.As(err, &dns):
		return nil, usagef("can't listen on %s: this machine has no such address; use 127.0.0.1:PORT, or :PORT for all of them", address)
	case errors.As(err, &syntax):
		return nil, usagef("can't listen on %q: %s; write HOST:PORT, such as 127.0.0.1:8080, or :8080", address, syntax.Err)
	}
	return nil, fmt.Errorf("can't listen on %s: %w", address, err)
}

// setFailure reads --failure.
func setFailure(b *sink.Behaviour, text string) error {
	if text == "" {
		return nil
	}
	if b.Fail == 0 && b.FailRate == 0 {
		b.Fail = -1
	}
	if url, ok := strings.CutPrefix(text, "redirect:"); ok && url != "" {
		b.Redirect = url
		return nil
	}
	switch text {
	case "hang":
		b.Hang = true
		return nil
	case "close":
		b.CloseConnection = true
		return nil
	}
	status, err := strconv.Atoi(text)
	if err != nil || status < 100 || status > 599 || status/100 == 2 {
		return fmt.Errorf("want a status other than 2xx from 100 to 599, hang, close, or redirect:URL, not %q", text)
	}
	b.FailStatus = status
	return nil
}

func failCount() syntax[int] {
	return syntax[int]{
		kind: "number|all",
		parse: func(s string) (int, error) {
			if strings.EqualFold(s, "all") {
				return -1, nil
			}
			n, err := strconv.Atoi(s)
			if err != nil || n < 0 {
				return 0, errors.New("want a whole number from 0, or all")
			}
			return n, nil
		},
		format: func(n int) string {
			if n < 0 {
				return "all"
			}
			return strconv.Itoa(n)
		},
	}
}

func fraction() syntax[float64] {
	return syntax[float64]{
		kind: "rate",
		parse: func(s string) (float64, error) {
			f, err := strconv.ParseFloat(s, 64)
			if err != nil || math.IsNaN(f) || f < 0 || f > 1 {
				return 0, errors.New("want a number from 0 to 1")
			}
			return f, nil
		},
		format: func(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) },
	}
}

func seed() syntax[uint64] {
	return syntax[uint64]{
		kind: "number",
		parse: func(s string) (uint64, error) {
			n, err := strconv.ParseUint(s, 10, 64)
			if err != nil {
				return 0, errors.New("want a whole number from 0")
			}
			return n, nil
		},
		format: func(n uint64) string { return strconv.FormatUint(n, 10) },
	}
}
