package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/rowhook/rowhook/internal/term"
)

// errUnchanged says that the answer to a question was not yes.
var errUnchanged = errors.New("nothing was changed")

// confirm asks a question on the terminal, unless yes was said already.
func (a *app) confirm(ctx context.Context, yes bool, question string) error {
	if yes {
		return nil
	}
	if !term.IsTerminal(a.stdin) {
		return usagef("nothing was changed: there is no terminal to ask on (%s); repeat the command with --yes to go ahead", question)
	}
	fmt.Fprint(a.stderr, question+" Type yes to go ahead: ")
	answer := make(chan string, 1)
	go func() { // A terminal can't be told to end a read. If ctx ends first, this goes with the program.
		line, err := readLine(a.stdin)
		if err != nil {
			line = ""
		}
		answer <- line
	}()
	select {
	case line := <-answer:
		if strings.EqualFold(strings.TrimSpace(line), "yes") {
			return nil
		}
	case <-ctx.Done():
		fmt.Fprintln(a.stderr)
	}
	return errUnchanged
}

// readLine reads to the end of a line and no further.
func readLine(r io.Reader) (string, error) {
	var line []byte
	var b [1]byte
	for {
		n, err := r.Read(b[:])
		if n == 1 {
			if b[0] == '\n' {
				return string(line), nil
			}
			line = append(line, b[0])
		}
		if err != nil {
			return string(line), err
		}
	}
}
