package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/internal/child"
)

// devOptions are the flags of dev.
type devOptions struct {
	command          []string // after --
	file, data       string
	bin              string
	init, migrations []string
	port             int
	sinkPort         int
	toSink           bool // deliveries go to the built-in receiver, not to the configured URLs
	sinkChosen       bool // a flag says so
	http             string
	tokens           string // file of named tokens
	forwardTo        string
	forwarded        []string // names of triggers; none: all
	readyFile        string
	json             bool
	showing          bool
	once, offline    bool
	nats             bool // a server of NATS is started, and triggers with nats publish to it
	outlive          bool
	watching         bool
	stopTimeout      time.Duration
	giving           giving // what the configuration may refer to
}

func (o *devOptions) flags(cmd *cobra.Command) {
	*o = devOptions{http: "127.0.0.1:0", stopTimeout: devCommandStop, watching: true}
	f := cmd.Flags()
	f.SetInterspersed(false) // of rowhook dev pytest -x, -x is no flag of this command
	s := flagSet{f}
	f.StringVarP(&o.file, "file", "f", "", "configuration to apply instead of the sample table and trigger: a `file`, or a directory of them")
	f.StringArrayVar(&o.init, "init", nil, "SQL `file`, or directory of .sql files, that creates the tables; it runs first in a new database; repeat it for several")
	f.StringArrayVar(&o.migrations, "migrate", nil, "`command` of the shell that creates or changes the tables, after --init, at every start; it has DATABASE_URL; repeat it for several")
	f.BoolVar(&o.toSink, "sink", false, "send every delivery to the built-in receiver instead of the configured URLs; --sink=false: don't "+
		"(default: with a COMMAND, --ready-file, --output json or --forward-to)")
	f.BoolVar(&o.nats, "nats", false, "start a server of NATS with JetStream, and have triggers with nats publish to it; what arrives is shown. It needs rowhook-nats")
	f.BoolVar(&o.showing, "show", false, "show deliveries also with a COMMAND, on standard error, or with --output json, as JSON lines")
	f.BoolVar(&o.once, "once", false, "deliver an insert, an update and a delete, compare them with the expected bodies, and exit")
	s.text(&o.forwardTo, "forward-to", "send deliveries on to the app at this `URL`, with path and query of the configured URL, and show its answers")
	f.StringArrayVar(&o.forwarded, "trigger", nil, "with --forward-to: forward only this trigger's deliveries, `NAME`; repeat it for several")
	s.text(&o.readyFile, "ready-file", "`file` to write when all is ready: JSON with addresses and process ids. It is removed at the end")
	add(&s, &o.json, "output", "what standard output gets: text for people, or one JSON line when all is ready", oneOf(map[string]bool{
		"text": false, "json": true,
	}, "text", "json"))
	s.text(&o.http, "http", "address that serves health, metrics and the operators' commands; port 0: a free one; \"off\": none")
	s.tokensFile(&o.tokens, "http-tokens", "file of named tokens for HTTP, beside the token of this start; with it, everybody needs one")
	s.yesNo(&o.watching, "watch", "apply the configuration again when its file changes")
	s.duration(&o.stopTimeout, "stop-timeout", "how long the COMMAND may take to end after a signal, before it is killed", 0)
	s.yesNo(&o.outlive, "outlive-parent", "go on when the program ends that has started this one; nohup does the same")
	s.text(&o.data, "data", "`directory` that keeps the data for the next start")
	s.text(&o.bin, "postgres-bin", "`directory` of the Postgres programs (initdb, postgres)")
	s.number(&o.port, "postgres-port", "TCP port of the private Postgres on 127.0.0.1; 0: a free one", 0, 65535)
	s.number(&o.sinkPort, "sink-port", "TCP port of the receiver on 127.0.0.1; 0: a free one", 0, 65535)
	o.giving.flags(&s)
	s.yesNo(&o.offline, "no-download", "fail if no Postgres programs are installed, instead of downloading them")
}

// complete takes the arguments, and fills in what flags leave open.
func (o *devOptions) complete(cmd *cobra.Command, args []string) error {
	dash := cmd.ArgsLenAtDash()
	switch {
	case dash < 0 && len(args) > 0:
		return usagef("unexpected argument %q: write a command after --, as in rowhook dev -- %s; the configuration file is the value of -f",
			args[0], strings.Join(args, " "))
	case dash > 0:
		return usagef("unexpected argument %q before --", args[0])
	case dash == 0 && (len(args) == 0 || args[0] == ""):
		return usagef("there is no command after --: write one, as in rowhook dev -- go test ./..., or leave -- out")
	}
	o.command = args
	o.sinkChosen = cmd.Flags().Changed("sink")
	if o.file == "" && !o.once && (o.forProgram() || o.forwardTo != "" || len(o.init) > 0 || len(o.migrations) > 0) {
		if _, err := os.Stat(defaultFile); err == nil {
			o.file = defaultFile
		}
	}
	if err := o.check(); err != nil {
		return err
	}
	if !o.sinkChosen {
		o.toSink = o.file == "" || o.forProgram() || o.forwardTo != ""
	}
	return nil
}

// forProgram reports whether a program uses what dev starts, and not a person who watches.
func (o *devOptions) forProgram() bool { return len(o.command) > 0 || o.readyFile != "" || o.json }

// check returns an error for options that contradict each other.
func (o *devOptions) check() error {
	withoutFile := o.file == ""
	switch {
	case o.once && (!withoutFile || o.forProgram() || o.forwardTo != "" || len(o.init)+len(o.migrations) > 0):
		return usagef("--once shows the sample table and can't be combined with -f, --init, --migrate, --forward-to, --ready-file, --output json or a command: leave one of them out")
	case o.toSink && withoutFile && !o.forProgram():
		return usagef("--sink needs -f: the sample trigger sends to the built-in receiver anyway")
	case o.sinkChosen && !o.toSink && withoutFile:
		return usagef("--sink=false needs -f: the sample trigger has no other URL")
	case o.sinkChosen && !o.toSink && o.forwardTo != "":
		return usagef("--sink=false can't be combined with --forward-to, which forwards what the built-in receiver gets: leave one of them out")
	case len(o.init) > 0 && withoutFile:
		return usagef("--init needs -f, or a rowhook.yaml in this directory: the sample creates its own table")
	case len(o.migrations) > 0 && withoutFile:
		return usagef("--migrate needs -f, or a rowhook.yaml in this directory: the sample creates its own table")
	case len(o.forwarded) > 0 && o.forwardTo == "":
		return usagef("--trigger needs --forward-to: it says which deliveries are forwarded")
	case o.json && len(o.command) > 0:
		return usagef("--output json can't be combined with a command, whose output standard output is: use --ready-file")
	case o.file == standardInput && len(o.command) > 0:
		return usagef("-f - can't be combined with a command, whose input standard input is: name a file")
	}
	if len(o.command) > 0 && len(o.migrations) == 0 { // a migration may make the program
		if _, err := child.Find(o.command[0]); err != nil {
			return err
		}
	}
	return checkReadyFile(o.readyFile)
}

// checkReadyFile returns an error unless the file can be made, and is not another's.
func checkReadyFile(path string) error {
	if path == "" {
		return nil
	}
	if strings.ContainsAny(path, "\r\n") {
		return usagef("--ready-file: the name has a line break")
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return usagef("--ready-file: %s is not a file: name one", path) // reading a pipe would wait for its writer
	}
	content, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		temp, err := os.CreateTemp(filepath.Dir(path), ".rowhook-ready-")
		if err != nil {
			return usagef("--ready-file: %w; name a file in a directory that exists and can be written", err)
		}
		return errors.Join(temp.Close(), os.Remove(temp.Name()))
	case err != nil:
		return usagef("--ready-file: %w; name a file", err)
	case len(content) > 0 && !strings.HasPrefix(string(content), `{"database_url":`):
		return usagef("--ready-file: %s exists and was not written by rowhook dev, which would replace it: name another file", path)
	}
	if err := os.Remove(path); err != nil { // nobody may take it for this run's
		return fmt.Errorf("remove the ready file of an earlier start: %w", err)
	}
	return nil
}
