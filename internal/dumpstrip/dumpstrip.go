// Package dumpstrip removes Rowhook from a database dump in plain text, as pg_dump and pg_restore
// write it. It removes the schema rowhook with everything in it, the capture triggers on the user's
// tables, and rights on them and their membership in publications. It copies the other bytes of the
// dump unchanged.
//
// It parses the SQL, so it does not depend on comments, which some tools remove from dumps. Its
// memory is bounded by the largest statement that it must read whole, such as a CREATE TRIGGER.
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

// Report is the result of Strip.
type Report struct {
	Removed int // number of removed statements
	// Depending are the beginnings of kept statements that refer to an object in the schema
	// rowhook.
	Depending []string
}

// Strip copies a dump without Rowhook. It returns an error for other formats than plain text, and
// for a dump that is incomplete.
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
	// pg_dump writes a setting before the first statement that needs a new value. If that statement
	// is removed, a later one may need the setting. So settings are held back until a kept
	// statement needs them.
	settings map[string]string // their values in the output
	held     []setting
}

// setting is a SET statement that was held back.
type setting struct {
	name, value string
	text        []byte
	passed      bool // the statement after it was removed
}

func (s *stripper) refuseOtherFormats() error {
	begin, err := s.in.Peek(512)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return fmt.Errorf("read the dump: %w", err)
	case bytes.HasPrefix(begin, []byte("PGDMP")):
		return errors.New("the dump has pg_dump's custom format, but only plain text can be filtered: dump with --format=plain, or convert it with \"pg_restore -f - FILE\"")
	case len(begin) >= 262 && string(begin[257:262]) == "ustar":
		return errors.New("the dump has pg_dump's tar format, but only plain text can be filtered: dump with --format=plain, or convert it with \"pg_restore -f - FILE\"")
	case bytes.HasPrefix(begin, []byte("\x1f\x8b")), bytes.HasPrefix(begin, []byte("\x28\xb5\x2f\xfd")), bytes.HasPrefix(begin, []byte("\x04\x22\x4d\x18")):
		return errors.New("the dump is compressed, but only plain text can be filtered: unpack it first, for example with \"gunzip -c FILE | rowhook strip\"")
	}
	return nil
}

// run reads statement by statement. White space after a statement belongs to it. A comment before a
// statement belongs to that one: pg_dump puts one before each object.
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
				return errors.Join(err, s.release(func(h setting) bool { return !h.passed }), s.write(heading))
			}
			continue
		}
		if err := s.statement(heading); err != nil {
			return err
		}
		heading = nil
	}
}

// headings matches the comment that pg_dump writes before an object. Its second group is the
// object's schema.
var (
	headings  = regexp.MustCompile(`(?m)^-- (Data for |Statistics for )?Name: .*; Type: [A-Z ]+; Schema: (.*); Owner:`)
	viaParent = regexp.MustCompile(`^-- load via partition root "?rowhook"?\.`)
)

// comment writes a comment that no statement follows. It drops the heading of an object in the
// schema rowhook: pg_dump writes a heading without a statement for a table without rows.
func (s *stripper) comment(text []byte) error {
	if len(text) == 0 {
		return nil
	}
	if m := headings.FindSubmatch(text); m != nil && string(m[2]) == schema || viaParent.Match(text) {
		return nil
	}
	return errors.Join(s.release(func(h setting) bool { return !h.passed }), s.write(text))
}

// readComment reads a comment and the white space after it. A comment is lines that begin with two
// dashes, or text between /* and */.
func (s *stripper) readComment() (text []byte, err error) {
	next, _ := s.in.Peek(2) // run has peeked these bytes without an error
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
			next, _ = s.in.Peek(2) // the next read returns the error again
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

// statement reads a statement and the white space after it. It writes both with the heading, unless
// the statement is Rowhook's.
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

// drop reads a statement without writing it. If it is a COPY, drop also skips its rows.
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

// copyData reads the rows after a COPY, up to the line with a backslash and a dot, and writes them
// if keep.
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
			return fmt.Errorf("the dump ends within the rows of the COPY at line %d: it is incomplete, so dump again", began)
		case err != nil:
			return fmt.Errorf("read the dump: %w", err)
		}
		s.line++
		// The first line is the rest of the line with the COPY.
		if lines++; whole && lines > 1 && strings.TrimRight(string(part), "\r\n") == `\.` {
			return nil
		}
	}
}

// heldSettings are the settings that are held back, with the statements that need them. Every
// statement needs the session authorization.
var heldSettings = map[string]*regexp.Regexp{
	"session authorization":       regexp.MustCompile(``),
	"default_tablespace":          regexp.MustCompile(`^create (unlogged )?table |^create materialized view |^create (unique )?index |^alter table .* add constraint `),
	"default_table_access_method": regexp.MustCompile(`^create (unlogged )?table |^create materialized view `),
}

// hold holds a setting back. It replaces one of the same name that no kept statement has needed.
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

// release writes the wanted settings among those held back. It skips a setting whose value the
// output already has, if the statement after it was removed.
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

// take notes settings that change how the following text is read.
func (s *stripper) take(name, value string) {
	if name == "standard_conforming_strings" {
		s.escapes = value == "off" || value == "false"
	}
}

// writeKept writes a statement, or its beginning, after the held settings that it needs and its
// heading.
func (s *stripper) writeKept(heading, text []byte, tokens []token) error {
	begin := beginningOf(tokens)
	err := s.release(func(h setting) bool { return !h.passed || tokens == nil || heldSettings[h.name].MatchString(begin) })
	if len(tokens) > 0 && (tokens[0].is("grant") || tokens[0].is("revoke") || tokens[0].is("alter") && len(tokens) > 1 && tokens[1].is("default")) {
		delete(s.settings, "session authorization") // after rights pg_dump repeats this setting in any case
	}
	return errors.Join(err, s.write(heading), s.write(text))
}
