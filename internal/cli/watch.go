package cli

import (
	"bytes"
	"context"
	"time"

	"github.com/rowhook/rowhook/internal/term"
)

// leastWatch is the shortest time between two looks.
const leastWatch = 100 * time.Millisecond

// watch calls show again and again until ctx ends, which is no error. If redraw is set, each
// picture takes the place of the one before on a terminal. Otherwise they come one after another.
func (a *app) watch(ctx context.Context, every time.Duration, redraw bool, show func(page *term.Page) error) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	redraw = redraw && term.IsTerminal(a.stdout)
	for first := true; ; first = false {
		var picture bytes.Buffer
		page := a.page()
		if err := show(page.To(&picture)); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		switch {
		case redraw:
			if err := page.Redraw(picture.String(), first); err != nil {
				return err
			}
		case !first && !bytes.HasPrefix(picture.Bytes(), []byte("{")):
			a.printf("\n%s", picture.Bytes())
		default:
			a.printf("%s", picture.Bytes())
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}
