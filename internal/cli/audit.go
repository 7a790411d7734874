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
		Short: "Show who paused, resumed, redelivered, discarded, erased or applied what",
		Long: `Show the commands of operators, latest first: pause, resume, redeliver, retry, discard, backfill, replay, invoke, cancel, erase, cutover,
apply and migrate, by this program and by HTTP. Each has the database role, the user and host or the token, the address, and the result.
Of manual events (invoke) only the first of each minute is recorded. Entries are kept for 90 days, in rowhook.audit.`,
		Example: `  rowhook audit --since 7d
  rowhook audit --action pause,resume --json`,
		Args: cobra.NoArgs,
	}
	o := a.operating(cmd)
	o.across = true
	var list operate.AuditOptions
	var times filterFlags
	times.addTimes(cmd)
	cmd.Flags().StringSliceVarP(&list.Triggers, "trigger", "t", nil, "only entries of this `trigger`; repeat it, or separate several by commas")
	cmd.Flags().StringSliceVar(&list.Actions, "action", nil, "only entries of this `action`: "+strings.Join(operate.Audited(), ", ")+"; repeat it, or separate several by commas")
	cmd.Flags().IntVarP(&list.Limit, "limit", "n", operate.DefaultLimit, fmt.Sprintf("largest number of entries, up to %d", operate.MaxLimit))
	cmd.Flags().Int64Var(&list.Before, "cursor", 0, "continue where an earlier list ended")
	noError(cmd.RegisterFlagCompletionFunc("action", cobra.FixedCompletions(operate.Audited(), cobra.ShellCompDirectiveNoFileComp)))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var err error
		for _, action := range list.Actions {
			if !slices.Contains(operate.Audited(), action) {
				err = fmt.Errorf("--action: unknown action %q: write one of %s", action, strings.Join(operate.Audited(), ", "))
			}
		}
		if list.Limit <= 0 {
			err = fmt.Errorf("--limit must be 1 to %d, got %d; use --cursor for more", operate.MaxLimit, list.Limit)
		}
		if err == nil {
			list.Since, list.Until, err = times.times()
		}
		if err != nil {
			return &usageError{err}
		}
		return a.operate(cmd, o, func(ctx context.Context, a *app, conn *pgx.Conn) error {
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
		fmt.Fprintln(a.stderr, "No entries match.")
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

// details returns the members of an object that are not empty.
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
