package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/sethvargo/go-retry"

	"github.com/rowhook/rowhook/lab/internal/process"
)

const (
	startPatience = time.Minute
	stopPatience  = 20 * time.Second
)

// program is a program that serves HTTP. It can be ended and started again.
type program struct {
	command process.Command
	address string // of its HTTP server
	health  string // a path that answers 200 once the program works
	child   *process.Process
}

// launch starts a program, which is told the address to serve, and waits until it works.
func (l *lab) launch(ctx context.Context, p *program) error {
	if l.opt.logs != "" && p.command.Log == nil {
		f, err := os.Create(filepath.Join(l.opt.logs, p.command.Name+".log"))
		if err != nil {
			return fmt.Errorf("open the log file: %w", err)
		}
		p.command.Log = f
	}
	l.programs = append(l.programs, p)
	return p.start(ctx)
}

func (p *program) start(ctx context.Context) (err error) {
	if p.child, err = process.Start(p.command); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	err = retry.Do(ctx, retry.NewConstant(50*time.Millisecond), func(ctx context.Context) error {
		select {
		case <-p.child.Done():
			return process.OrExited(p.child.Err())
		default:
			return p.works(ctx)
		}
	})
	if err != nil {
		return fmt.Errorf("start %s: %w%s", p.command.Name, err, p.child.Log())
	}
	return nil
}

// works asks whether the program is healthy.
func (p *program) works(ctx context.Context) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.address+p.health, nil)
	if err != nil {
		return fmt.Errorf("ask for its health: %w", err)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return retry.RetryableError(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return retry.RetryableError(errors.New(response.Status))
	}
	return nil
}

// kill ends the program by SIGKILL.
func (p *program) kill() { p.child.Kill() }

// close ends the program for good.
func (p *program) close() error {
	var err error
	if p.child != nil {
		err = p.child.Stop(stopPatience)
	}
	if c, ok := p.command.Log.(io.Closer); ok {
		err = errors.Join(err, c.Close())
	}
	return err
}
