package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/internal/logs"
)

// The exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2 // wrong usage or configuration
	// exitPending says that apply --dry-run --exit-code has found changes. It is not 1, so that a
	// pipeline does not take a failure for a reason to apply.
	exitPending = 3
)

// exitCodes lists them for people.
const exitCodes = "0 done, 1 failed, 2 wrong usage or configuration, 3 changes are pending (only apply --dry-run --exit-code)"

// usageError is a mistake of the caller: wrong flags, variables or configuration.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// codeError ends the program with this exit code. What there is to say was said.
type codeError int

func (e codeError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func (a *app) exitCode(err error) int {
	if code, ok := errors.AsType[codeError](err); ok {
		return int(code)
	}
	var usage *usageError
	var file *config.Error
	if !a.started || errors.As(err, &usage) || errors.As(err, &file) {
		return exitUsage
	}
	return exitFailed
}

// report prints once why the command failed. If the log is JSON, the error is a line of the log.
func (a *app) report(err error) {
	if errors.As(err, new(codeError)) {
		return
	}
	text := err.Error()
	if !a.started && !strings.Contains(text, "--help") {
		text += "\nSee rowhook --help."
	}
	if a.global.format == logs.FormatJSON {
		a.log.Error(text)
		return
	}
	fmt.Fprintln(a.stderr, "rowhook: "+text)
}

// guessFormat looks for a wish for JSON when the flags or variables could not be read. The one that
// asks for JSON may not have been read either.
func (a *app) guessFormat(args []string) {
	format, _ := a.lookup("ROWHOOK_LOG_FORMAT")
	for i, arg := range args {
		if value, ok := strings.CutPrefix(arg, "--log-format="); ok {
			format = value
		} else if arg == "--log-format" && i+1 < len(args) {
			format = args[i+1]
		}
	}
	if strings.EqualFold(strings.TrimSpace(format), string(logs.FormatJSON)) {
		a.global.format = logs.FormatJSON
		a.log = a.logger(a.global.level)
	}
}
