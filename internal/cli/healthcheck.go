package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/internal/httpapi"
	"github.com/rowhook/rowhook/internal/queue"
)

func (a *app) healthcheckCommand() *cobra.Command {
	name, address, timeout := "", defaultHTTP, 5*time.Second
	cmd := &cobra.Command{
		Use:   "healthcheck [URL]",
		Short: "Report to a container engine whether the dispatcher works",
		Long: `Exit 0 if the dispatcher of this container reports at /readyz that it is ready. If it does not serve HTTP, exit 0 if a
dispatcher of this host name, or of --instance-name, is registered and alive. With a URL, exit 0 if its answer has a
status of 200 to 299.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			if len(args) == 1 {
				return checkURL(ctx, args[0])
			}
			if known, err := checkReady(ctx, address, a.given(cmd, "http")); known {
				return err
			}
			return a.checkInstances(ctx, name)
		},
	}
	s := flagSet{cmd.Flags()}
	s.text(&name, "instance-name", "the instance name of rowhook run")
	s.text(&address, "http", "the HTTP address of rowhook run")
	s.duration(&timeout, "timeout", "how long to wait for the answer", time.Millisecond)
	return cmd
}

// readyURL returns the URL of readiness for a client on this host, or "" if the address serves
// nothing.
func readyURL(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return ""
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return "http://" + net.JoinHostPort(host, port) + "/readyz"
}

// readyWithin is how long the answer from the default address may take. The program there may not
// be a dispatcher.
const readyWithin = time.Second

// checkReady asks the dispatcher at this address whether it is ready. known is false if no
// dispatcher answers: nothing listens there or, at the default address, another program.
func checkReady(ctx context.Context, address string, chosen bool) (known bool, err error) {
	where := readyURL(address)
	if where == "" {
		return false, nil
	}
	if !chosen {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, readyWithin)
		defer cancel()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, where, http.NoBody)
	if err != nil {
		return chosen, fmt.Errorf("make the request: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return chosen && !errors.Is(err, syscall.ECONNREFUSED), err
	}
	defer resp.Body.Close()
	var said httpapi.Readiness
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<22)).Decode(&said); err != nil || len(said.Checks) == 0 {
		return chosen, fmt.Errorf("%s answered %s", where, resp.Status)
	}
	var problems []error
	for _, c := range said.Checks {
		if !c.OK {
			problems = append(problems, fmt.Errorf("not %s %s", c.Name, c.Detail))
		}
	}
	return true, errors.Join(problems...)
}

func checkURL(ctx context.Context, text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return usagef("invalid URL %q: write one that begins with http:// or https://", text)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, text, http.NoBody)
	if err != nil {
		return fmt.Errorf("make the request: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("%s answered %s", u.Redacted(), resp.Status)
	}
	return nil
}

// checkInstances is checkInstance, and with several sources looks in each: one is enough, as one that is
// away is no reason to restart a dispatcher.
func (a *app) checkInstances(ctx context.Context, name string) error {
	all, err := a.sourcesOf(nil)
	switch {
	case err != nil:
		return err
	case all == nil:
		return a.checkInstance(ctx, name)
	}
	sources, err := a.chosen(all)
	if err != nil {
		return err
	}
	found := make([]error, len(sources))
	var looking sync.WaitGroup
	for i, s := range sources {
		looking.Go(func() {
			b, err := a.at(all, s)
			if err == nil {
				err = b.checkInstance(ctx, name)
			}
			if found[i] = err; err != nil {
				found[i] = fmt.Errorf("%s: %w", s.Name, err)
			}
		})
	}
	looking.Wait()
	if slices.ContainsFunc(found, func(err error) bool { return err == nil }) {
		return nil
	}
	return errors.Join(found...)
}

// cutName is the length of the names of processes that the server has cut off.
const cutName = 63 - len(queue.StandbyPrefix)

// checkInstance looks for a living dispatcher of this name, or of this host if name is "", or a process
// that stands by.
func (a *app) checkInstance(ctx context.Context, name string) error {
	target, err := a.target()
	if err != nil {
		return err
	}
	conn, err := a.connect(ctx, target.throughPooler(), 0)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := checkInstalled(ctx, conn, target); err != nil {
		return err
	}
	a.quiet(ctx, conn)
	who := name
	if name == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("find this host's name: %w", err)
		}
		who = "the host " + host
		name = host + ":"
	}
	rows, err := conn.Query(ctx, "select id from rowhook.instance where name = $1 or right($1, 1) = ':' and starts_with(name, $1)", name)
	if err != nil {
		return explain(err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int32])
	if err != nil {
		return explain(err)
	}
	watch, err := queue.ReadWatch(ctx, conn)
	if err != nil {
		return explain(err)
	}
	if slices.ContainsFunc(ids, watch.IsAlive) {
		return nil
	}
	standby, err := queue.ReadStandby(ctx, conn)
	if err != nil {
		return explain(err)
	}
	for _, by := range standby { // the server cuts long names off
		if by.Name == name || strings.HasSuffix(name, ":") && strings.HasPrefix(by.Name, name) || len(by.Name) >= cutName && strings.HasPrefix(name, by.Name) {
			return nil
		}
	}
	return errors.New("no dispatcher of " + who + " is registered and alive")
}
