package cli

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// WriteManuals writes what packages install beside the program, from the table of commands: a manual
// page for each command and one for rowhook.yaml in man, and completion scripts in completions.
//
// The text of the commands is plain text, and cobra's generator would read it as Markdown. So the
// pages are written here.
func WriteManuals(dir, version string, date time.Time, example []byte) error {
	a := &app{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard}
	root := a.root()
	files := map[string][]byte{}
	m := manual{version: version, date: date}
	for name, page := range m.pages(root) {
		packed, err := pack(page)
		if err != nil {
			return fmt.Errorf("compress %s: %w", name, err)
		}
		files["man/"+name+".gz"] = packed
	}
	packed, err := pack(m.configuration(example))
	if err != nil {
		return fmt.Errorf("compress rowhook.yaml.5: %w", err)
	}
	files["man/rowhook.yaml.5.gz"] = packed
	for shell, name := range map[string]string{"bash": "rowhook.bash", "zsh": "_rowhook", "fish": "rowhook.fish"} {
		var script bytes.Buffer
		if err := writeCompletion(root, shell, &script); err != nil {
			return fmt.Errorf("write the completion script of %s: %w", shell, err)
		}
		files["completions/"+name] = script.Bytes()
	}
	for name, content := range files {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil { //nolint:gosec // for everybody, as packages are
			return err
		}
		if err := os.WriteFile(file, content, 0o644); err != nil { //nolint:gosec // as above
			return err
		}
	}
	return nil
}

// pack compresses without a name and a time, so that the same page is always the same file.
func pack(page []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(page); err != nil {
		return nil, err
	}
	err = w.Close()
	return out.Bytes(), err
}

// manual writes manual pages in the macros of man(7).
type manual struct {
	version string
	date    time.Time
}

// pages returns a page for the program and one for each of its commands, by their file names.
func (m manual) pages(root *cobra.Command) map[string][]byte {
	pages := map[string][]byte{}
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		pages[pageName(cmd)+".1"] = m.page(cmd)
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() && sub.Name() != "help" {
				visit(sub)
			}
		}
	}
	visit(root)
	return pages
}

// pageName is rowhook-events-list for "rowhook events list".
func pageName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

func (m manual) page(cmd *cobra.Command) []byte {
	inherited := cmd.InheritedFlags() // first: UseLine needs the flags of the parents, too
	var p roff
	p.head(pageName(cmd), "1", m)
	p.section("NAME")
	p.text(pageName(cmd) + " - " + strings.ToLower(cmd.Short[:1]) + cmd.Short[1:])
	p.section("SYNOPSIS")
	if cmd.Runnable() && cmd.HasParent() {
		p.bold(cmd.UseLine())
	} else {
		p.bold(cmd.CommandPath() + " COMMAND [flags]")
	}
	p.section("DESCRIPTION")
	long := cmd.Long
	if long == "" {
		long = cmd.Short + "."
	}
	p.prose(long)
	if cmd.HasAvailableSubCommands() {
		p.section("COMMANDS")
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() && sub.Name() != "help" {
				p.item(`\fB`+escape(pageName(sub))+`\fR(1)`, sub.Short)
			}
		}
	}
	p.flags("OPTIONS", cmd.LocalFlags())
	p.flags("OPTIONS OF EVERY COMMAND", inherited)
	if cmd.HasExample() {
		p.section("EXAMPLES")
		p.code(cmd.Example)
	}
	p.section("EXIT STATUS")
	p.text(exitCodes + ".")
	p.section("SEE ALSO")
	see := []string{`\fBrowhook.yaml\fR(5)`}
	for parent := cmd.Parent(); parent != nil; parent = parent.Parent() {
		see = append(see, `\fB`+escape(pageName(parent))+`\fR(1)`)
	}
	p.line(strings.Join(see, ", "))
	return p.Bytes()
}

// configuration is the page of rowhook.yaml: the annotated file is its reference.
func (m manual) configuration(example []byte) []byte {
	var p roff
	p.head("rowhook.yaml", "5", m)
	p.section("NAME")
	p.text("rowhook.yaml - which row changes Rowhook delivers to which webhooks")
	p.section("DESCRIPTION")
	p.text("This is the annotated example. It has every key. A key directly behind a # shows its default.")
	p.code(string(example))
	p.section("SEE ALSO")
	p.line(`\fBrowhook\fR(1), \fBrowhook\-check\fR(1), \fBrowhook\-apply\fR(1)`)
	return p.Bytes()
}

// roff is a page as it grows.
type roff struct{ bytes.Buffer }

func (p *roff) head(name, section string, m manual) {
	p.line(fmt.Sprintf(`.TH "%s" "%s" "%s" "Rowhook %s" "Rowhook"`,
		escape(strings.ToUpper(name)), section, m.date.UTC().Format(time.DateOnly), escape(m.version)))
	p.line(".nh")
	p.line(".ad l")
}

func (p *roff) line(s string)       { p.WriteString(s + "\n") }
func (p *roff) section(name string) { p.line(".SH " + name) }
func (p *roff) text(s string)       { p.line(escape(s)) }
func (p *roff) bold(s string)       { p.line(`\fB` + escape(s) + `\fR`) }

// prose writes paragraphs. Lines that are indented are code.
func (p *roff) prose(text string) {
	first := true
	for block := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		var code []string
		flush := func() {
			if len(code) > 0 {
				p.code(strings.Join(code, "\n"))
				code = nil
			}
		}
		if !first {
			p.line(".PP")
		}
		first = false
		for line := range strings.SplitSeq(block, "\n") {
			if strings.HasPrefix(line, "  ") {
				code = append(code, line)
				continue
			}
			flush()
			p.text(line)
		}
		flush()
	}
}

// code writes lines as they are.
func (p *roff) code(text string) {
	if last := p.Bytes(); !bytes.HasSuffix(last, []byte("\n.PP\n")) && !bytes.HasPrefix(last[bytes.LastIndexByte(last[:len(last)-1], '\n')+1:], []byte(".SH ")) {
		p.line(".PP")
	}
	p.line(".RS 2")
	p.line(".nf")
	for line := range strings.SplitSeq(strings.Trim(text, "\n"), "\n") {
		p.text(strings.TrimPrefix(line, "  "))
	}
	p.line(".fi")
	p.line(".RE")
}

// item writes a term, which is roff already, and what it means.
func (p *roff) item(term, meaning string) {
	p.line(".TP")
	p.line(term)
	p.text(meaning)
}

func (p *roff) flags(title string, flags *pflag.FlagSet) {
	if !flags.HasAvailableFlags() {
		return
	}
	p.section(title)
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		kind, usage := describeFlag(f)
		term := `\fB\-\-` + escape(f.Name) + `\fR`
		if f.Shorthand != "" {
			term = `\fB\-` + f.Shorthand + `\fR, ` + term
		}
		if kind != "" {
			term += ` \fI` + escape(kind) + `\fR`
		}
		p.item(term, usage)
	})
}

// describeFlag returns the kind of a flag's value, "" for a switch, and what the flag does with its
// default.
func describeFlag(f *pflag.Flag) (kind, usage string) {
	kind, usage = pflag.UnquoteUsage(f)
	if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "[]" {
		usage += fmt.Sprintf(" (default %s)", f.DefValue)
	}
	return kind, usage
}

var roffEscapes = strings.NewReplacer(`\`, `\e`, `-`, `\-`, `'`, `\(aq`, "`", `\(ga`, `^`, `\(ha`, `~`, `\(ti`, `"`, `\(dq`)

// escape keeps roff from reading a text as requests.
func escape(text string) string {
	text = roffEscapes.Replace(text)
	if strings.HasPrefix(text, ".") {
		text = `\&` + text
	}
	return text
}
