package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/sandbox"
	"github.com/rowhook/rowhook/internal/term"
	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

func (a *app) testCommand() *cobra.Command {
	trial := operate.Trial{}
	var payload string
	cmd := &cobra.Command{
		Use:   "test TRIGGER | --alerts",
		Short: "Send one made-up, signed event to the webhook of a trigger, and show the answer",
		Long: `Send one made-up event to the webhook of a trigger, and show the answer. The request is like that of a real event: the
same headers, signature, network rules and files. The body says "test": true, unless the trigger has a template, and the
header Rowhook-Test is 1, so that a receiver can tell. The row is made up from the columns of the table, with values that suit their types; "when" is
not evaluated.

Nothing is written: the event is not in the queue, not in the history and not in the audit. The request is sent from
here, so the command needs what the dispatcher has: the variables and files that the webhook refers to, its TLS files, and
its network. It gives out what --env and --secrets-dir say, as the dispatcher does. Inside of "rowhook dev -- COMMAND" they are there; for another shell, rowhook dev prints them. The exit code is 0 if the receiver answered with a 2xx status, and else 1.

With --alerts a made-up alert goes to each URL of alerts in the configuration that was applied, with "test": true, and
the heartbeats are called.`,
		Example: `  rowhook test order_placed
  rowhook test --alerts
  rowhook test order_placed --op update --dry-run
  rowhook test order_placed --print
  rowhook test order_placed --payload '{"old": {"id": 7, "status": "placed"}, "new": {"id": 7, "status": "paid"}}'
  rowhook test order_placed --payload @order.json --timeout 5s --json`,
		Args: cobra.MaximumNArgs(1),
	}
	o := a.operating(cmd)
	o.look = true
	var alerts bool
	var g giving
	s := flagSet{cmd.Flags()}
	cmd.Flags().StringVar(&trial.Table, "table", "", "`TABLE` of the event, of a trigger that watches several (default: the first one)")
	cmd.Flags().StringVar(&trial.Op, "op", "", "operation: insert, update, delete, truncate or manual (default: the first one that the trigger captures)")
	cmd.Flags().StringVarP(&payload, "payload", "p", "", "data of the event: JSON, @ and the name of a file, or - for standard input. An object of old, new or both, "+
		"or the row, which is \"old\" for a delete and else \"new\" (default: a made-up row)")
	cmd.Flags().Var((*durationFlag)(&trial.Timeout), "timeout", "how long the receiver may take to answer (default: the timeout of the trigger)")
	cmd.Flags().Lookup("timeout").DefValue = ""
	cmd.Flags().BoolVar(&trial.Unsent, "dry-run", false, "show the request, and do not send it")
	cmd.Flags().BoolVar(&trial.Real, "print", false, "show the finished request for real data, and do not send it: for the newest event of the trigger, of --op if that is given, "+
		"or if there is none, for a row of the table")
	cmd.Flags().BoolVar(&alerts, "alerts", false, "try what alerts of the configuration name, and no trigger")
	guardFlags(&s, &trial.Guard)
	g.flags(&s)
	noError(cmd.RegisterFlagCompletionFunc("op", cobra.FixedCompletions([]string{"insert", "update", "delete", "truncate", "manual"}, cobra.ShellCompDirectiveNoFileComp)))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		a, err := a.one()
		if err != nil {
			return err
		}
		store, err := a.store(g, sandboxNames...)
		if err != nil {
			return err
		}
		switch {
		case alerts && len(args) > 0:
			return usagef("give the name of a trigger or --alerts, not both")
		case alerts:
			for _, name := range []string{"table", "op", "payload", "timeout", "dry-run", "print"} {
				if cmd.Flags().Changed(name) {
					return usagef("--%s is for the test of a trigger, and --alerts tests none", name)
				}
			}
			return a.testAlerts(cmd, o, operate.AlertTrial{Source: store.Get, Guard: trial.Guard, Version: build()})
		case len(args) == 0:
			return usagef("give the name of a trigger, or --alerts: \"rowhook triggers\" lists the names")
		}
		trial.Unsent = trial.Unsent || trial.Real
		pointed := false // at the receiver of rowhook dev
		trial.Trigger, trial.Version, trial.Publish = args[0], build(), a.publisher()
		trial.Source = func(w trigger.Webhook) trigger.Source {
			pointed = sandbox.IsPointed(w)
			return sandbox.VisitorVariables(w, store.Get)
		}
		switch {
		case trial.Timeout < 0, trial.Timeout == 0 && cmd.Flags().Changed("timeout"):
			return usagef("--timeout must be above 0, got %s", trial.Timeout)
		case cmd.Flags().Changed("op") && !slices.Contains([]string{"insert", "update", "delete", "truncate", "manual"}, strings.ToLower(trial.Op)):
			return usagef("--op: unknown operation %q: write insert, update, delete, truncate or manual", trial.Op)
		}
		if cmd.Flags().Changed("payload") {
			if trial.Payload, err = a.readJSON("payload", payload); err != nil {
				return &usageError{err}
			}
		}
		return a.operate(cmd, o, func(ctx context.Context, a *app, conn *pgx.Conn) error {
			r, err := operate.Try(ctx, conn, trial)
			if errors.Is(err, operate.ErrRefused) && pointed {
				return fmt.Errorf("%w; this is a database of rowhook dev, which prints the variables when it has started", err)
			}
			if err != nil {
				return err
			}
			if o.json {
				err = a.printJSON(r)
			} else {
				a.showTrial(r)
			}
			if err != nil {
				return err
			}
			return r.Err()
		})
	}
	return cmd
}

// publisher returns what publishes a single event to NATS. nil: this program can't.
func (a *app) publisher() func(context.Context, *trigger.Spec, trigger.Source, webhook.Guard, *webhook.Event) (webhook.Result, error) {
	if a.parts.NATS == nil {
		return nil
	}
	return func(ctx context.Context, spec *trigger.Spec, source trigger.Source, guard webhook.Guard, e *webhook.Event) (webhook.Result, error) {
		d := a.parts.NATS(dispatcher.DestinationConfig{Version: build(), Guard: guard, Logger: a.log})
		defer d.Close()
		ep, err := d.Endpoint(spec, source)
		if err != nil {
			return webhook.Result{}, err
		}
		return ep.Send(ctx, e), nil
	}
}

// testAlerts tries what alerts of the configuration name.
func (a *app) testAlerts(cmd *cobra.Command, o *operating, trial operate.AlertTrial) error {
	return a.operate(cmd, o, func(ctx context.Context, a *app, conn *pgx.Conn) error {
		all, err := operate.TryAlerts(ctx, conn, trial)
		if err != nil {
			return err
		}
		if o.json {
			err = a.printJSON(map[string]any{"alerts": all})
		} else {
			a.showAlertTrials(all)
		}
		if err != nil {
			return err
		}
		return operate.FailedAlerts(all)
	})
}

func (a *app) showAlertTrials(all []operate.AlertTrialResult) {
	page := a.page()
	t := page.Table("ENTRY", "KIND", "TO", "ANSWER")
	for i := range all {
		r := &all[i]
		answer := term.Coloured(r.Error, term.Red)
		if r.Delivered {
			answer = term.Coloured(fmt.Sprintf("%s in %s", statusLine(*r.Status), term.Span(time.Duration(r.DurationMS*float64(time.Millisecond)))), term.Green)
		}
		t.Add(term.Text(fmt.Sprintf("alerts[%d]", r.Entry)), term.Text(r.Kind), term.Text(r.To), answer)
	}
	t.Stack = true
	t.Flush()
}

func (a *app) showTrial(r *operate.TrialResult) {
	page := a.page()
	page.Printf("%s\n", page.Paint(r.Request.Method+" "+term.Clean(r.Request.URL), term.Bold))
	a.showHeaders(page, r.Request.Headers, nil)
	for _, key := range r.Request.PublicKeys {
		page.Printf("  the receiver verifies the signature with %s\n", key)
	}
	if r.Request.Body != nil {
		page.Printf("  %s\n", term.Clean(r.Request.Text()))
	}
	if !r.Sent {
		page.Printf("\nThis is a dry run%s: nothing was sent.\n", trialData(r))
		return
	}
	took := term.Span(time.Duration(*r.DurationMS * float64(time.Millisecond)))
	switch {
	case r.Status == nil:
		page.Printf("\n%s\n", page.Paint(fmt.Sprintf("no response after %s (%s)", took, r.ErrorKind), term.Red))
		return
	case r.Delivered:
		page.Printf("\n%s\n", page.Paint(fmt.Sprintf("%s in %s", statusLine(*r.Status), took), term.Green))
	default:
		page.Printf("\n%s\n", page.Paint(fmt.Sprintf("%s in %s", statusLine(*r.Status), took), term.Red))
	}
	a.showHeaders(page, r.ResponseHeaders, []string{"Content-Type", "Location", "Retry-After", "Server", "Www-Authenticate", "X-Request-Id"})
	if r.ResponseBody != "" {
		const most = 2000 // characters; JSON has all that is kept
		page.Printf("  %s\n", term.Clean(term.Cut(r.ResponseBody, most)))
	}
	if r.Delivered && r.Error != "" {
		page.Printf("%s\n", term.Clean(r.Error))
	}
}

// trialData says what the data of a trial are, if they are real.
func trialData(r *operate.TrialResult) string {
	switch r.Data {
	case operate.DataEvent:
		return " with the data of the event " + r.Event
	case operate.DataRow:
		return " with the data of a row of " + term.Clean(r.Table)
	}
	return ""
}

func statusLine(status int) string {
	return strings.TrimSpace(fmt.Sprintf("%d %s", status, http.StatusText(status)))
}

// showHeaders shows the headers of a JSON object, in their order. only names those to show; nil:
// all.
func (a *app) showHeaders(page *term.Page, headers json.RawMessage, only []string) {
	d := json.NewDecoder(bytes.NewReader(headers))
	if _, err := d.Token(); err != nil {
		return // there are none
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return
		}
		var value any
		if err := d.Decode(&value); err != nil {
			return
		}
		values, several := value.([]any)
		if !several {
			values = []any{value}
		}
		if only != nil && !slices.Contains(only, fmt.Sprint(name)) {
			continue
		}
		for _, v := range values {
			page.Printf("  %s\n", term.Clean(fmt.Sprintf("%s: %s", name, v)))
		}
	}
}
