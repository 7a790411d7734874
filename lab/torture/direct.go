package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/lab/internal/process"
)

// direct is a dispatcher without proxies, and a receiver that counts. It measures what a dispatcher
// needs.
type direct struct {
	lab       *lab
	child     *process.Process
	server    *http.Server
	serving   sync.WaitGroup
	url       string
	delivered atomic.Int64 // attempts that were answered in full
	received  atomic.Int64 // bytes of bodies
	sent      atomic.Int64 // bytes of answers
}

// newDirect starts the receiver. If answer is nil, the receiver accepts.
func (l *lab) newDirect(ctx context.Context, answer func(w http.ResponseWriter, r *http.Request, d *direct)) (*direct, error) {
	d := &direct{lab: l}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for webhooks: %w", err)
	}
	d.url = "http://" + listener.Addr().String()
	d.server = &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		d.received.Add(n)
		if err != nil {
			return
		}
		if answer != nil {
			answer(w, r, d)
		}
		d.delivered.Add(1)
	})}
	d.serving.Go(func() { _ = d.server.Serve(listener) }) // ends with close
	return d, nil
}

// start starts the dispatcher and waits until it is ready.
func (d *direct) start(ctx context.Context, args ...string) error {
	c, err := process.Start(process.Command{
		Name: "the dispatcher", Path: d.lab.binary,
		Args: append([]string{"run", "--log-format", "json", "--grace-period", "1s"}, args...),
		Env:  []string{"DATABASE_URL=" + d.lab.roleURL(d.lab.server.Port())},
	})
	if err != nil {
		return err
	}
	d.child = c
	return c.WaitReady(ctx, time.Minute)
}

// until repeats the question until the answer is yes.
func (d *direct) until(ctx context.Context, within time.Duration, ask func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for {
		yes, err := ask(ctx)
		if yes || err != nil {
			return err
		}
		select {
		case <-d.child.Done():
			return fmt.Errorf("the dispatcher ended: %w%s", process.OrExited(d.child.Err()), d.child.Log())
		case <-ctx.Done():
			return fmt.Errorf("not done within %s; %d attempts so far", within, d.delivered.Load())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// settled waits until no event is owed.
func (d *direct) settled(ctx context.Context, within time.Duration) error {
	return d.until(ctx, within, func(ctx context.Context) (bool, error) {
		var none bool
		err := d.lab.admin.QueryRow(ctx, "select not exists (select from rowhook.event_log)").Scan(&none)
		return none, err
	})
}

func (d *direct) close() error {
	var err error
	if d.child != nil {
		err = d.child.Stop(stopPatience)
	}
	_ = d.server.Close() // nothing can be lost
	d.serving.Wait()
	return err
}

// configure applies the given rowhook.yaml.
func (d *direct) configure(ctx context.Context, text string) error {
	path := filepath.Join(d.lab.dir, "direct.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	_, err := d.lab.command(ctx, "apply", "-f", path)
	return err
}

// exec runs statements as the owner of the tables.
func (d *direct) exec(ctx context.Context, statements ...string) error {
	conn, err := pgx.Connect(ctx, d.lab.roleURL(d.lab.server.Port()))
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Close(ctx)
	for _, sql := range statements {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%.60s: %w", sql, err)
		}
	}
	return nil
}
