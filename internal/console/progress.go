package console

import (
	"fmt"
	"io"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/rowhook/rowhook/internal/logs"
)

// progress is a bar on the terminal that standard error goes to. Elsewhere it shows nothing.
type progress struct {
	out   io.Writer // nil: no terminal
	width int
	what  string
	total int64 // 0: not known
	more  bool  // the total may be higher
	began time.Time
	drawn time.Time
}

// redraw is how often the bar is drawn at most.
const redraw = 100 * time.Millisecond

func (c *console) progress(what string, total int64, more bool) *progress {
	p := &progress{what: what, total: total, more: more, began: time.Now()}
	f, ok := c.Stderr.(interface{ Fd() uintptr })
	if !ok || !logs.IsTerminal(c.Stderr) {
		return p
	}
	p.out, p.width = c.Stderr, 80
	if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 20 {
		p.width = w
	}
	return p
}

// at shows that so much is done. note is said behind it.
func (p *progress) at(done int64, note string) {
	now := time.Now()
	if p.out == nil || now.Sub(p.drawn) < redraw {
		return
	}
	p.drawn = now
	fmt.Fprint(p.out, "\r\x1b[K"+cut(p.line(done, note, now.Sub(p.began)), p.width-1))
}

func (p *progress) line(done int64, note string, took time.Duration) string {
	rate := 0.0
	if took > 200*time.Millisecond {
		rate = float64(done) / took.Seconds()
	}
	line := p.what + " " + digits(done)
	if p.total > 0 {
		const cells = 30
		part := min(float64(done)/float64(p.total), 1)
		full := int(part * cells)
		sign := map[bool]string{true: "≥"}[p.more]
		line = fmt.Sprintf("%s [%s%s] %3.0f%% %s of %s%s", p.what, strings.Repeat("#", full), strings.Repeat("-", cells-full), 100*part, digits(done), sign, digits(p.total))
	}
	if rate > 0 {
		line += fmt.Sprintf("  %s/s", digits(int64(rate)))
		if left := p.total - done; p.total > 0 && left > 0 && !p.more {
			line += "  " + span(time.Duration(float64(left)/rate*float64(time.Second))) + " left"
		}
	}
	if note != "" {
		line += "  " + note
	}
	return line
}

// end takes the bar away.
func (p *progress) end() {
	if p.out != nil {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}
