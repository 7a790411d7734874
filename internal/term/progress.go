package term

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// Progress is a bar on a terminal. Elsewhere it shows nothing.
type Progress struct {
	out   io.Writer // nil: no terminal
	width int
	what  string
	total int64 // 0: not known
	more  bool  // the total may be higher
	began time.Time
	drawn time.Time
}

// redraw is the shortest time between two drawings of the bar.
const redraw = 100 * time.Millisecond

// NewProgress returns a bar on w. what says what goes on. A total of 0 is not known, and more says
// that it may be higher.
func NewProgress(w io.Writer, what string, total int64, more bool) *Progress {
	p := &Progress{what: what, total: total, more: more, began: time.Now()}
	if IsTerminal(w) {
		p.out, p.width = w, Width(w, nil, DefaultWidth)
	}
	return p
}

// At shows how much is done, with a note behind it.
func (p *Progress) At(done int64, note string) {
	now := time.Now()
	if p.out == nil || now.Sub(p.drawn) < redraw {
		return
	}
	p.drawn = now
	fmt.Fprint(p.out, "\r\x1b[K"+Cut(p.line(done, note, now.Sub(p.began)), p.width-1))
}

// End takes the bar away.
func (p *Progress) End() {
	if p.out != nil {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}

func (p *Progress) line(done int64, note string, took time.Duration) string {
	rate := 0.0
	if took > 200*time.Millisecond {
		rate = float64(done) / took.Seconds()
	}
	line := p.what + " " + Digits(done)
	if p.total > 0 {
		const cells = 30
		part := min(float64(done)/float64(p.total), 1)
		full := int(part * cells)
		sign := map[bool]string{true: "≥"}[p.more]
		line = fmt.Sprintf("%s [%s%s] %3.0f%% %s of %s%s", p.what, strings.Repeat("#", full), strings.Repeat("-", cells-full),
			100*part, Digits(done), sign, Digits(p.total))
	}
	if rate > 0 {
		line += fmt.Sprintf("  %s/s", Digits(int64(rate)))
		if left := p.total - done; p.total > 0 && left > 0 && !p.more {
			line += "  " + Span(time.Duration(float64(left)/rate*float64(time.Second))) + " left"
		}
	}
	if note != "" {
		line += "  " + note
	}
	return line
}
