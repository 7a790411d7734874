package console

import (
	"bytes"
	"context"
	"io"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/rowhook/rowhook/internal/logs"
)

// leastWatch is how often something may be looked at, at most.
const leastWatch = 100 * time.Millisecond

// watch has show write again and again until ctx ends, which is no error. On a terminal each picture takes the place of the one before, if
// redraw says so; elsewhere they come one after another.
func (c *console) watch(ctx context.Context, every time.Duration, redraw bool, show func(c *console) error) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	redraw = redraw && logs.IsTerminal(c.Stdout)
	for first := true; ; first = false {
		var picture bytes.Buffer
		painter := *c
		painter.Stdout, painter.Terminal = &picture, c.Stdout
		if err := show(&painter); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		switch {
		case redraw:
			if err := c.draw(picture.String(), first); err != nil {
				return err
			}
		case !first && !bytes.HasPrefix(picture.Bytes(), []byte("{")):
			c.printf("\n%s", picture.Bytes())
		default:
			c.printf("%s", picture.Bytes())
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// draw writes over what is on the terminal, line by line, and clears what is left: a screen that is cleared first would flicker.
func (c *console) draw(picture string, first bool) error {
	lines := strings.Split(strings.TrimRight(picture, "\n"), "\n")
	if f, ok := c.Stdout.(interface{ Fd() uintptr }); ok {
		if _, height, err := term.GetSize(int(f.Fd())); err == nil && height > 1 && len(lines) > height-1 {
			lines = lines[:height-1]
		}
	}
	var b strings.Builder
	if first {
		b.WriteString("\x1b[2J")
	}
	b.WriteString("\x1b[H")
	for _, line := range lines {
		b.WriteString(line + "\x1b[K\n")
	}
	b.WriteString("\x1b[J")
	_, err := io.WriteString(c.Stdout, b.String())
	return err
}
