// Package dumpstrip takes what is Rowhook's out of a database dump in plain text, as pg_dump and pg_restore write it: the schema rowhook
// with everything in it, the capture triggers on the user's tables, and rights and publications of these. What is left are the
// bytes of the dump as they were.
//
// It goes by the SQL, so that it makes no difference which comments a tool has removed from a dump, and needs no more memory than
// the largest statement that it has to see whole, such as a CREATE TRIGGER.
package dumpstrip

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// Report says what Strip did.
type Report struct {
	Removed int // statements
	// Depending are statements that were kept although they refer to something in the schema rowhook, by their beginnings.
	Depending []string
}

// Strip copies a dump without what is Rowhook's.
func Strip(w io.Writer, r io.Reader) (Report, error) {
	s := &stripper{in: bufio.NewReaderSize(r, 1<<16), out: bufio.NewWriterSize(w, 1<<16), line: 1, captures: map[string]bool{}, settings: map[string]string{"session authorization": ""}}
	if err := s.refuseOtherFormats(); err != nil {
		return Report{}, err
	}
	err := s.run()
	if flushErr := s.out.Flush(); err == nil && flushErr != nil {
		err = fmt.Errorf("write the dump: %w", flushErr)
	}
	return s.report, err
}

type stripper struct {
	in     *bufio.Reader
	out    *bufio.Writer
	line   int
	report Report

	escapes  bool            // backslashes are escapes in plain strings: standard_conforming_strings is off
	captures map[string]bool // names of the capture triggers that were removed
	// Settings that pg_dump writes before the first statement that needs another value. Where that was removed, the next one needs it.
	settings map[string]string // as the output has them
	held     []setting
}

// setting is a statement that was held back.
type setting struct {
	name, value string
	text        []byte
	passed      bool // what came next was removed
}

func (s *stripper) refuseOtherFormats() error {
	begin, err := s.in.Peek(512)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return fmt.Errorf("read the dump: %w", err)
	case bytes.HasPrefix(begin, []byte("PGDMP")):
		return errors.New("this is a dump in pg_dump's custom format, and only text can be filtered: make it with --format=plain, or turn it into text by \"pg_restore -f - FILE\"")
	case len(begin) >= 262 && string(begin[257:262]) == "ustar":
		return errors.New("this is a dump in pg_dump's tar format, and only text can be filtered: make it with --format=plain, or turn it into text by \"pg_restore -f - FILE\"")
	case bytes.HasPrefix(begin, []byte("\x1f\x8b")), bytes.HasPrefix(begin, []byte("\x28\xb5\x2f\xfd")), bytes.HasPrefix(begin, []byte("\x04\x22\x4d\x18")):
		return errors.New("this is compressed, and only text can be filtered: unpack it first, such as by \"gunzip -c FILE | rowhook strip\"")
	}
	return nil
}

// run goes from statement to statement. What is between two of them belongs to the first as far as it is white space, and comments that
// pg_dump puts before each object belong to the second.
func (s *stripper) run() error {
	space, err := s.space()
	if err != nil {
		return err
	}
	if err := s.write(space); err != nil {
		return err
	}
	var heading []byte // the comment before the next statement, with the white space behind it
	for {
		next, err := s.in.Peek(2)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read the dump: %w", err)
		}
		if len(next) == 0 || string(next) == "--" || string(next) == "/*" {
			if err := s.comment(heading); err != nil {
				return err
			}
			if len(next) == 0 {
				return s.release(func(h setting) bool { return !h.passed })
			}
			if heading, err = s.readComment(); err != nil {
				return errors.Join(err, s.write(heading))
			}
			continue
		}
		if err := s.statement(heading); err != nil {
			return err
		}
		heading = nil
	}
}

// heading of pg_dump, of which its schema is the fourth part.
var (
	headings  = regexp.MustCompile(`(?m)^-- (Data for |Statistics for )?Name: .*; Type: [A-Z ]+; Schema: (.*); Owner:`)
	viaParent = regexp.MustCompile(`^-- load via partition root "?rowhook"?\.`)
)

// comment writes one that stands for itself. One that says that something of the schema rowhook follows, and nothing does, is not written: a
// table without rows is dumped so.
func (s *stripper) comment(text []byte) error {
	if len(text) == 0 {
		return nil
	}
	if m := headings.FindSubmatch(text); m != nil && string(m[2]) == schema || viaParent.Match(text) {
		return nil
	}
	return errors.Join(s.release(func(h setting) bool { return !h.passed }), s.write(text))
}

// readComment reads lines that begin with two dashes, or what is between /* and */, and the white space behind it.
func (s *stripper) readComment() (text []byte, err error) {
	next, _ := s.in.Peek(2) // it was peeked at before
	if string(next) == "/*" {
		l := &lexer{s: s}
		_, _, err = l.next() // the slash
		if err == nil {
			err = l.blockComment()
		}
		text = l.raw
	} else {
		for string(next) == "--" {
			var line []byte
			if line, err = s.in.ReadBytes('\n'); err != nil && !errors.Is(err, io.EOF) {
				return append(text, line...), fmt.Errorf("read the dump: %w", err)
			}
			text = append(text, line...)
			s.line++
			next, _ = s.in.Peek(2) // an error comes again
		}
		err = nil
	}
	if err != nil {
		return text, err
	}
	space, err := s.space()
	return append(text, space...), err
}

// space reads white space.
func (s *stripper) space() (text []byte, err error) {
	for {
		c, err := s.in.ReadByte()
		switch {
		case errors.Is(err, io.EOF):
			return text, nil
		case err != nil:
			return text, fmt.Errorf("read the dump: %w", err)
		case !isSpace(c):
			return text, s.in.UnreadByte()
		}
		if c == '\n' {
			s.line++
		}
		text = append(text, c)
	}
}

func (s *stripper) write(text []byte) error {
	if _, err := s.out.Write(text); err != nil {
		return fmt.Errorf("write the dump: %w", err)
	}
	return nil
}

// statement reads one, up to the white space behind it, and writes it with its heading unless it is Rowhook's.
func (s *stripper) statement(heading []byte) error {
	if c, err := s.in.Peek(1); err == nil && c[0] == '\\' { // a command of psql
		line, err := s.in.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read the dump: %w", err)
		}
		s.line++
		space, err := s.space()
		return errors.Join(err, s.writeKept(heading, append(line, space...), nil))
	}
	l := &lexer{s: s, escapes: s.escapes}
	verdict := undecided
	for verdict == undecided && !l.ended {
		if err := l.token(); err != nil {
			return errors.Join(err, s.writeKept(heading, l.raw, nil))
		}
		verdict = s.judge(l)
	}
	if verdict == removed {
		return s.drop(l, heading)
	}
	if name, value, ok := l.setting(); ok && l.ended {
		space, err := s.space()
		text := append(l.raw, space...)
		if err == nil {
			s.take(name, value)
		}
		if _, follows := heldSettings[name]; follows && len(heading) == 0 && err == nil {
			return s.hold(setting{name: name, value: value, text: text})
		}
		return errors.Join(err, s.writeKept(heading, text, l.tokens))
	}
	if err := s.writeKept(heading, l.raw, l.tokens); err != nil {
		return err
	}
	l.raw = l.raw[:0]
	for !l.ended {
		err := l.token()
		if writeErr := s.write(l.raw); err != nil || writeErr != nil {
			return errors.Join(err, writeErr)
		}
		l.raw = l.raw[:0]
	}
	if l.mentions {
		s.report.Depending = append(s.report.Depending, l.beginning())
	}
	if l.copies() {
		if err := s.copyData(true); err != nil {
			return err
		}
	}
	space, err := s.space()
	return errors.Join(err, s.write(space))
}

// drop leaves a statement out, with its rows if it is a COPY.
func (s *stripper) drop(l *lexer, heading []byte) error {
	s.report.Removed++
	for i := range s.held {
		s.held[i].passed = true
	}
	if len(heading) > 0 && !headings.Match(heading) && !viaParent.Match(heading) {
		if err := s.write(heading); err != nil {
			return err
		}
	}
	for !l.ended {
		l.raw = l.raw[:0]
		if err := l.token(); err != nil {
			return err
		}
	}
	if l.copies() {
		if err := s.copyData(false); err != nil {
			return err
		}
	}
	_, err := s.space()
	return err
}

// copyData reads the rows that follow a COPY, up to the line with a backslash and a dot.
func (s *stripper) copyData(keep bool) error {
	began, lines, begins := s.line, 0, true
	for {
		part, err := s.in.ReadSlice('\n')
		if keep {
			if err := s.write(part); err != nil {
				return err
			}
		}
		whole := begins
		begins = err == nil
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF):
			if whole && strings.TrimRight(string(part), "\r\n") == `\.` {
				return nil
			}
			return fmt.Errorf("the dump ends within the rows of the COPY at line %d: it is not whole", began)
		case err != nil:
			return fmt.Errorf("read the dump: %w", err)
		}
		s.line++
		// The first line is what is left of the one with the COPY itself.
		if lines++; whole && lines > 1 && strings.TrimRight(string(part), "\r\n") == `\.` {
			return nil
		}
	}
}

// The settings that are held back, and what needs them. Everything needs to know whose it is.
var heldSettings = map[string]*regexp.Regexp{
	"session authorization":       regexp.MustCompile(``),
	"default_tablespace":          regexp.MustCompile(`^create (unlogged )?table |^create materialized view |^create (unique )?index |^alter table .* add constraint `),
	"default_table_access_method": regexp.MustCompile(`^create (unlogged )?table |^create materialized view `),
}

// hold keeps a setting until it is known what comes next, and instead of one of the same name that nothing has needed.
func (s *stripper) hold(h setting) error {
	for i, was := range s.held {
		if was.name == h.name && was.passed {
			if was.value != h.value {
				h.passed = true
				s.held[i] = h
			}
			return nil
		}
	}
	if err := s.release(func(was setting) bool { return was.name == h.name }); err != nil {
		return err
	}
	s.held = append(s.held, h)
	return nil
}

// release writes those of the settings that were held back. What set something else before was removed where the output has that value already.
func (s *stripper) release(wanted func(setting) bool) error {
	kept := s.held[:0]
	for _, h := range s.held {
		if !wanted(h) {
			kept = append(kept, h)
			continue
		}
		if value, known := s.settings[h.name]; known && h.passed && value == h.value {
			continue
		}
		if err := s.write(h.text); err != nil {
			return err
		}
		s.settings[h.name] = h.value
	}
	s.held = kept
	return nil
}

// take notes what the settings say of the text that follows.
func (s *stripper) take(name, value string) {
	if name == "standard_conforming_strings" {
		s.escapes = value == "off" || value == "false"
	}
}

// writeKept writes a statement, or the beginning of one, and before it what it needs.
func (s *stripper) writeKept(heading, text []byte, tokens []token) error {
	begin := beginningOf(tokens)
	err := s.release(func(h setting) bool { return !h.passed || tokens == nil || heldSettings[h.name].MatchString(begin) })
	if len(tokens) > 0 && (tokens[0].is("grant") || tokens[0].is("revoke") || tokens[0].is("alter") && len(tokens) > 1 && tokens[1].is("default")) {
		delete(s.settings, "session authorization") // pg_dump says it again after rights, whatever it was
	}
	return errors.Join(err, s.write(heading), s.write(text))
}
