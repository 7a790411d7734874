package cli

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/internal/access"
	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/term"
	"github.com/rowhook/rowhook/trigger"
)

const httpTokensVariable = "ROWHOOK_HTTP_TOKENS" //nolint:gosec // its name

// tokensFile adds a flag for the file of named tokens.
func (s *flagSet) tokensFile(to *string, name, usage string) {
	s.text(to, name, usage)
	s.twin(name, httpTokensVariable)
}

func (a *app) tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make, list and remove tokens for the HTTP interface and the dashboard",
		Long: `Make, list and remove named tokens for the HTTP interface and the dashboard. The audit shows the name of a token for what is
done with it. They are kept in a file, which "rowhook run --http-tokens FILE" reads, and reads again within a second when it
changes. The file has a digest of each token, and not the token, so who reads the file can't use it.

Scopes: status (how triggers and dispatchers are doing, without data of rows), payloads (data of rows, and the responses of
receivers), steer (pause, resume, redeliver, discard, retry, cancel, invoke, backfill), admin (everything: also a backfill's
condition, which is SQL). Each includes status.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.tokenAddCommand(), a.tokenListCommand(), a.tokenRemoveCommand())
	return cmd
}

// tokenOptions are the flags of all commands of tokens.
type tokenOptions struct {
	file string
	json bool
}

func (o *tokenOptions) flags(cmd *cobra.Command) {
	s := flagSet{cmd.Flags()}
	s.tokensFile(&o.file, "file", "`file` of tokens")
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
}

func (o *tokenOptions) check() error {
	if o.file == "" {
		return usagef("which file has the tokens? Write --file FILE, or set %s, as rowhook run --http-tokens does", httpTokensVariable)
	}
	return nil
}

// shownToken is a token in JSON.
type shownToken struct {
	Name   string     `json:"name"`
	Scopes []string   `json:"scopes"`
	Made   time.Time  `json:"made"`
	Until  *time.Time `json:"until"` // null: it does not end
	Ended  bool       `json:"ended"`
	Token  string     `json:"token,omitempty"` // of a new one
}

func showToken(t *access.Token, secret string) shownToken {
	out := shownToken{Name: t.Name, Scopes: t.Scopes.Names(), Made: t.Made, Ended: t.Ended(time.Now()), Token: secret}
	if !t.Until.IsZero() {
		out.Until = &t.Until
	}
	return out
}

func (a *app) tokenAddCommand() *cobra.Command {
	var o tokenOptions
	var scope, until string
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Make a token, and print it this once",
		Long: `Make a token, write its digest into the file, and print the token: this once, as it is kept nowhere. NAME is what the audit
shows for what is done with the token: a person, a team or a program. The file is made if there is none.`,
		Example: `  rowhook token add ann --scope status,payloads,steer --until 2027-01-31 --file /etc/rowhook/tokens
  rowhook token add prometheus --scope status --file /etc/rowhook/tokens > /etc/prometheus/rowhook-token
  ROWHOOK_HTTP_TOKENS=tokens rowhook token add contractor --scope status --until 14d --json`,
		Args: cobra.ExactArgs(1),
	}
	o.flags(cmd)
	cmd.Flags().StringVar(&scope, "scope", "", "what it may do: some of "+strings.Join(access.Names(), ", ")+", separated by commas (required)")
	cmd.Flags().StringVar(&until, "until", "", "when it ends: a day, whose end in UTC is meant, a `time`, or a duration from now, such as 90d (default: never)")
	noError(cmd.RegisterFlagCompletionFunc("scope", cobra.FixedCompletions(access.Names(), cobra.ShellCompDirectiveNoFileComp)))
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		if err := o.check(); err != nil {
			return err
		}
		if scope == "" {
			return &usageError{errors.New("missing --scope: write some of " + strings.Join(access.Names(), ", ") + ", separated by commas")}
		}
		scopes, err := access.ParseScopes(scope)
		if err != nil {
			return usagef("--scope: %w", err)
		}
		end, err := parseEnd(until, time.Now())
		if err != nil {
			return usagef("--until: %w", err)
		}
		if err := access.CheckName(args[0]); err != nil {
			return &usageError{err}
		}
		t, secret, err := access.Add(o.file, args[0], scopes, end)
		if err != nil {
			return err
		}
		if loose := access.Loose(o.file); loose != "" {
			a.log.Warn(loose)
		}
		if o.json {
			return a.printJSON(showToken(&t, secret))
		}
		fmt.Fprintf(a.stderr, "The token %s has the scopes %s%s. It is shown this once:\n", t.Name, t.Scopes, ending(&t))
		fmt.Fprintln(a.stdout, secret)
		return nil
	}
	return cmd
}

func ending(t *access.Token) string {
	if t.Until.IsZero() {
		return ", and does not end"
	}
	return " until " + t.Until.Format(time.RFC3339)
}

// parseEnd reads when a token ends. "" means never. An end that has passed is an error.
func parseEnd(text string, now time.Time) (end time.Time, err error) {
	if text == "" {
		return end, nil
	}
	if d, err := trigger.ParseDuration(text); err == nil {
		end = now.Add(d.Std())
	} else if day, err := time.ParseInLocation(time.DateOnly, text, time.UTC); err == nil {
		end = day.AddDate(0, 0, 1).Add(-time.Second)
	} else if t, ok := operate.ParseTime(text, time.UTC); ok {
		end = t
	} else {
		return end, fmt.Errorf("%q is no end: write a day such as 2027-01-31, a time such as 2027-01-31T18:00:00Z, or a duration such as 90d", text)
	}
	if !end.After(now) {
		return end, fmt.Errorf("%s has passed", end.UTC().Format(time.RFC3339))
	}
	return end.UTC().Truncate(time.Second), nil
}

func (a *app) tokenListCommand() *cobra.Command {
	var o tokenOptions
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the tokens of a file",
		Example: "  rowhook token list --file /etc/rowhook/tokens",
		Args:    cobra.NoArgs,
	}
	o.flags(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		if err := o.check(); err != nil {
			return err
		}
		tokens, err := access.Read(o.file)
		if err != nil {
			return err
		}
		if loose := access.Loose(o.file); loose != "" {
			a.log.Warn(loose)
		}
		if o.json {
			out := []shownToken{}
			for i := range tokens {
				out = append(out, showToken(&tokens[i], ""))
			}
			return a.printJSON(map[string]any{"tokens": out})
		}
		if len(tokens) == 0 {
			fmt.Fprintln(a.stderr, "The file has no tokens.")
			return nil
		}
		t := a.page().Table("NAME", "SCOPES", "UNTIL", "MADE")
		for i := range tokens {
			until := term.Text("never")
			if k := &tokens[i]; k.Ended(time.Now()) {
				until = term.Coloured(k.Until.Format(time.RFC3339)+", has ended", term.Red)
			} else if !k.Until.IsZero() {
				until = term.Text(k.Until.Format(time.RFC3339))
			}
			t.Add(term.Text(tokens[i].Name), term.Text(tokens[i].Scopes.String()), until, term.Text(tokens[i].Made.Format(time.RFC3339)))
		}
		t.Flush()
		return nil
	}
	return cmd
}

func (a *app) tokenRemoveCommand() *cobra.Command {
	var o tokenOptions
	cmd := &cobra.Command{
		Use:   "remove NAME",
		Short: "Remove a token, which ends it at once",
		Long: `Remove a token from the file. Dispatchers that read the file reject it from the next request on, and end its open streams
within some seconds. What was begun with it goes on.`,
		Example: "  rowhook token remove contractor --file /etc/rowhook/tokens",
		Args:    cobra.ExactArgs(1),
	}
	o.flags(cmd)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		if err := o.check(); err != nil {
			return err
		}
		if err := access.Remove(o.file, args[0]); err != nil {
			return err
		}
		if o.json {
			return a.printJSON(map[string]string{"removed": args[0]})
		}
		fmt.Fprintf(a.stderr, "Removed the token %s.\n", args[0])
		return nil
	}
	return cmd
}
