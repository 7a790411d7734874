package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/term"
)

func (a *app) auditCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Show who paused, resumed, redelivered, discarded or applied what",
		Long: `Show who steered Rowhook, latest first: pause, resume, redeliver, discard, backfill, invoke, apply and migrate, by this program and
by HTTP, with the database role, the user and host or the token, the address, and what came of it. Of manual events
(invoke) it has the first of each minute. It is kept for 90 days, in rowhook.audit.`,
		Example: `  rowhook audit --since 7d
  rowhook audit --action pause,resume --json`,
		Args: cobra.NoArgs,
	}
	o := a.operating(cmd)
	var list operate.AuditOptions
	var times filterFlags
	times.addTimes(cmd)
	cmd.Flags().StringSliceVarP(&list.Triggers, "trigger", "t", nil, "only of this `trigger`; repeat it, or separate them by commas")
	cmd.Flags().StringSliceVar(&list.Actions, "action", nil, "only this `action`: "+strings.Join(operate.Audited(), ", ")+"; repeat it, or separate them by commas")
	cmd.Flags().IntVarP(&list.Limit, "limit", "n", operate.DefaultLimit, fmt.Sprintf("at most so many, up to %d", operate.MaxLimit))
	cmd.Flags().Int64Var(&list.Before, "cursor", 0, "go on where an earlier list has ended")
	noError(cmd.RegisterFlagCompletionFunc("action", cobra.FixedCompletions(operate.Audited(), cobra.ShellCompDirectiveNoFileComp)))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var err error
		for _, action := range list.Actions {
			if !slices.Contains(operate.Audited(), action) {
				err = fmt.Errorf("--action: %q is not recorded: write one of %s", action, strings.Join(operate.Audited(), ", "))
			}
		}
		if list.Limit <= 0 {
			err = fmt.Errorf("--limit: ask for 1 to %d, and go on with --cursor", operate.MaxLimit)
		}
		if err == nil {
			list.Since, list.Until, err = times.times()
		}
		if err != nil {
			return &usageError{err}
		}
		return a.operate(cmd, o, func(ctx context.Context, conn *pgx.Conn) error {
			page, err := operate.Audit(ctx, conn, list)
			if err != nil {
				return err
			}
			if o.json {
				return a.printJSON(page)
			}
			a.showAudit(page)
			return nil
		})
	}
	return cmd
}

func (a *app) showAudit(page *operate.AuditPage) {
	if len(page.Entries) == 0 {
		fmt.Fprintln(a.stderr, "Nothing is recorded.")
		return
	}
	t := a.page().Table("AT", "ACTION", "TRIGGER", "WHO", "")
	for i := range page.Entries {
		d := &page.Entries[i]
		target := strings.Join(d.Target, ", ")
		if target == "" {
			target = "-"
		}
		who := d.Who + ", role " + d.Role
		if d.Client != "" {
			who += ", " + d.Client
		}
		t.Add(term.Text(d.At.Local().Format(time.DateTime)), term.Text(d.Action), term.Text(target), term.Text(who), term.Coloured(details(d.Detail), term.Dim))
	}
	t.Flush()
	if page.Next != 0 {
		fmt.Fprintf(a.stderr, "There are more: --cursor %d\n", page.Next)
	}
}

// details writes the members of an object, and leaves out what is empty.
func details(detail json.RawMessage) string {
	var all map[string]json.RawMessage
	if json.Unmarshal(detail, &all) != nil {
		return string(detail)
	}
	var parts []string
	for name, value := range all {
		var s string
		if json.Unmarshal(value, &s) != nil {
			s = string(value)
		}
		if s != "" && s != "{}" && s != "[]" && s != "null" {
			parts = append(parts, strings.ReplaceAll(name, "_", " ")+": "+s)
		}
	}
	slices.Sort(parts)
	return strings.Join(parts, "; ")
}
