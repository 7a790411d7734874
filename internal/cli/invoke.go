package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/internal/operate"
)

func (a *app) invokeCommand() *cobra.Command {
	var payload, session, trace string
	cmd := &cobra.Command{
		Use:   "invoke TRIGGER",
		Short: "Record a MANUAL event with your own payload",
		Long: `Record a MANUAL event for a trigger with manual: true, and print its id. The payload is any JSON value. The receiver gets
it as "new". Applications do the same in their own transaction: select rowhook.emit('order_placed', '{"id": 7}').`,
		Example: `  rowhook invoke order_placed --payload '{"id": 7}'
  rowhook invoke order_placed --payload @order.json --session '{"x-hasura-user-id": "7"}'
  jq -c .order dump.json | rowhook invoke order_placed --payload -`,
		Args: cobra.ExactArgs(1),
	}
	o := a.operating(cmd)
	cmd.Flags().StringVarP(&payload, "payload", "p", "", "payload: JSON, @ and the name of a file, or - for standard input (required)")
	cmd.Flags().StringVar(&session, "session", "", "session_variables of the event: a JSON object such as {\"x-hasura-user-id\": \"7\"}, @ and the name of a file, or - for standard input")
	cmd.Flags().StringVar(&trace, "trace", "", "trace_context of the event: JSON, such as {\"traceparent\": \"00-...\"}, @ and the name of a file, or - for standard input")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !cmd.Flags().Changed("payload") {
			return &usageError{errors.New(`missing --payload: write JSON, as in --payload '{"id": 7}', @ and the name of a file, or - for standard input`)}
		}
		event, piped := operate.Manual{Trigger: args[0]}, ""
		for _, part := range []struct {
			flag string
			text string
			to   *json.RawMessage
		}{{"payload", payload, &event.Payload}, {"session", session, &event.SessionVariables}, {"trace", trace, &event.TraceContext}} {
			if !cmd.Flags().Changed(part.flag) {
				continue
			}
			if part.text == "-" {
				if piped != "" {
					return &usageError{fmt.Errorf("--%s and --%s can't both read standard input: write JSON, or @ and the name of a file", piped, part.flag)}
				}
				piped = part.flag
			}
			var err error
			if *part.to, err = a.readJSON(part.flag, part.text); err != nil {
				return &usageError{err}
			}
		}
		return a.operate(cmd, o, func(ctx context.Context, a *app, conn *pgx.Conn) error {
			id, err := operate.Record(ctx, conn, event)
			if err != nil {
				return err
			}
			if o.json {
				return a.printJSON(map[string]string{"id": id})
			}
			a.printf("%s\n", id)
			return nil
		})
	}
	return cmd
}

// maxPayload is the largest text that Postgres can store, in bytes.
const maxPayload = 1 << 30

// readJSON returns the value of a flag: JSON, @ and the name of a file, or - for standard input.
func (a *app) readJSON(flag, arg string) (json.RawMessage, error) {
	switch {
	case arg == "-":
		data, err := io.ReadAll(io.LimitReader(a.stdin, maxPayload))
		if err != nil {
			return nil, fmt.Errorf("read the %s from standard input: %w", flag, err)
		}
		return data, nil
	case strings.HasPrefix(arg, "@"):
		data, err := os.ReadFile(arg[1:])
		if err != nil {
			return nil, fmt.Errorf("read the %s: %w", flag, err)
		}
		return data, nil
	}
	return json.RawMessage(arg), nil
}
