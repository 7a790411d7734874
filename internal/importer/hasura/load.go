package hasura

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rowhook/rowhook/internal/importer"
)

// loader reads files of one directory, and nothing outside of it, whatever links and includes say.
type loader struct {
	root  *os.Root // nil: what is read has no directory, as standard input
	name  string   // of the directory, for messages
	left  int      // how many values may still be read
	bytes int      // how many bytes have been read
	files int
	open  []string // the files that include each other
}

func newLoader(root *os.Root, name string) *loader {
	return &loader{root: root, name: name, left: mostNodes}
}

// file reads a file by its path in the directory.
func (l *loader) file(at string) (*node, error) {
	place := importer.Place{File: path.Join(filepath.ToSlash(l.name), at)}
	if l.files++; l.files > mostFiles {
		return nil, fault(place, "is one of more than %d files; is this Hasura's metadata?", mostFiles)
	}
	// To open something else, such as a named pipe, may wait for ever.
	if info, err := l.root.Stat(filepath.FromSlash(at)); err != nil {
		return nil, cantRead(place, err)
	} else if !info.Mode().IsRegular() {
		return nil, fault(place, "is no regular file; is this Hasura's metadata?")
	}
	f, err := l.root.Open(filepath.FromSlash(at))
	if err != nil {
		return nil, cantRead(place, err)
	}
	defer f.Close()
	return l.read(place, path.Dir(at), f)
}

// read reads a file whose includes are relative to dir.
func (l *loader) read(place importer.Place, dir string, from io.Reader) (*node, error) {
	data, err := io.ReadAll(io.LimitReader(from, mostBytes+1))
	if err != nil {
		return nil, cantRead(place, err)
	}
	if l.bytes += len(data); len(data) > mostBytes || l.bytes > mostTotal {
		return nil, fault(place, "is larger than %d MB, or all files are larger than %d MB; is this Hasura's metadata?", mostBytes>>20, mostTotal>>20)
	}
	b := builder{place: place, dir: dir, left: &l.left}
	return b.parse(data)
}

func cantRead(place importer.Place, err error) error {
	cause := err
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		cause = pe.Err
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fault(place, "does not exist; export the metadata again (hasura metadata export), or correct the path")
	case strings.Contains(cause.Error(), "escapes"):
		return fault(place, "leads out of the directory, and an import reads nothing outside of it; put the file there, or give the directory above")
	}
	return fault(place, "can't be read (%v); check the file and its rights", cause)
}

// exists reports whether the directory has a file.
func (l *loader) exists(at string) bool {
	info, err := l.root.Stat(filepath.FromSlash(at))
	return err == nil && info.Mode().IsRegular()
}

const quotedInclude = "!include "

// resolve returns the value that an include stands for: a YAML tag, or a text that begins with
// !include, as Hasura's CLI writes it. It returns other values as they are.
func (l *loader) resolve(n *node) (*node, error) {
	if n == nil {
		return nil, nil
	}
	at := n.text
	switch {
	case n.kind == include:
	case n.kind == text && strings.HasPrefix(n.text, quotedInclude):
		at = strings.TrimSpace(strings.TrimPrefix(n.text, quotedInclude))
	default:
		return n, nil
	}
	at = strings.Trim(at, `"'`)
	if l.root == nil {
		return nil, fault(n.place, "includes the file %s, and standard input has no files beside it; give the directory, or export the metadata as JSON (hasura metadata export -o json)", at)
	}
	if at == "" || path.IsAbs(at) || filepath.IsAbs(at) || strings.ContainsRune(at, '\\') {
		return nil, fault(n.place, "includes %q, which is no path in the directory, and an import reads nothing outside of it; write a path relative to this file", at)
	}
	to := path.Join(n.dir, at)
	if to == ".." || strings.HasPrefix(to, "../") {
		return nil, fault(n.place, "includes %q, which leads out of the directory, and an import reads nothing outside of it; put the file there, or give the directory above", at)
	}
	if slices.Contains(l.open, to) {
		return nil, fault(n.place, "includes %q, which includes this file; remove one of the two", at)
	}
	if len(l.open) >= mostNested {
		return nil, fault(n.place, "is included over %d files; is this Hasura's metadata?", mostNested)
	}
	l.open = append(l.open, to)
	defer func() { l.open = l.open[:len(l.open)-1] }()
	value, err := l.file(to)
	if err != nil {
		if f, ok := errors.AsType[*faultError](err); ok && f.place.Line == 0 {
			return nil, fault(n.place, "includes %s, which %s", at, f.message)
		}
		return nil, err
	}
	return l.resolve(value)
}

// items returns the entries of a list, each with its includes resolved. A list in a list is flattened
// where an entry is an include of several.
func (l *loader) items(n *node, what string) ([]*node, error) {
	n, err := l.resolve(n)
	if err != nil || !n.isSet() {
		return nil, err
	}
	if n.kind != list {
		return nil, fault(n.place, "%s are not a list here; is this Hasura's metadata?", what)
	}
	var out []*node
	for _, item := range n.items {
		value, err := l.resolve(item)
		switch {
		case err != nil:
			return nil, err
		case value.kind == list && value != item:
			more, err := l.items(value, what)
			if err != nil {
				return nil, err
			}
			out = append(out, more...)
		case value.isSet():
			out = append(out, value)
		}
	}
	return out, nil
}

// deep resolves all includes in a value.
func (l *loader) deep(n *node) (*node, error) {
	n, err := l.resolve(n)
	if err != nil || n == nil {
		return n, err
	}
	for i := range n.items {
		if n.items[i], err = l.deep(n.items[i]); err != nil {
			return nil, err
		}
	}
	for i := range n.entries {
		if n.entries[i].value, err = l.deep(n.entries[i].value); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// directory returns the metadata of a directory as a whole, and what they are, for people.
func (l *loader) directory() (*node, string, error) {
	base := "."
	for _, candidate := range l.candidates() {
		if l.hasMetadata(candidate) {
			base = candidate
			break
		}
	}
	in := func(name string) string { return path.Join(base, name) }
	version := ""
	if l.exists(in("version.yaml")) {
		n, err := l.file(in("version.yaml"))
		if err != nil {
			return nil, "", err
		}
		version = n.get("version").scalar()
	}
	hasSources, hasTables := l.exists(in("databases/databases.yaml")), l.exists(in("tables.yaml"))
	switch {
	case hasSources && (version != "2" || !hasTables):
		n, err := l.whole(base, "sources", "databases/databases.yaml")
		return n, versioned(version, "3"), err
	case hasTables:
		n, err := l.whole(base, "tables", "tables.yaml")
		return n, versioned(version, "2"), err
	case l.exists(in("databases.yaml")): // the directory databases of the metadata
		n, err := l.whole(base, "sources", "databases.yaml")
		return n, versioned(version, "3"), err
	}
	for _, name := range []string{"metadata.json", "metadata.yaml", "metadata.yml", "migrations/metadata.yaml", "migrations/metadata.json"} {
		if l.exists(in(name)) {
			n, err := l.file(in(name))
			return n, name, err
		}
	}
	return nil, "", fault(importer.Place{File: l.name}, "is no directory of Hasura's metadata: it has no databases/databases.yaml, no tables.yaml and no metadata.json; "+
		"give the directory that hasura metadata export writes, or a file")
}

// whole puts the files of a directory where their content is in exported metadata.
func (l *loader) whole(base, key, name string) (*node, error) {
	n, err := l.file(path.Join(base, name))
	if err != nil {
		return nil, err
	}
	out := &node{kind: group, place: n.place, dir: n.dir, entries: []entry{{key, n.place, n}}}
	if at := path.Join(base, "cron_triggers.yaml"); l.exists(at) {
		crons, err := l.file(at)
		if err != nil {
			return nil, err
		}
		out.entries = append(out.entries, entry{"cron_triggers", crons.place, crons})
	}
	return out, nil
}

func versioned(version, otherwise string) string {
	if version == "" {
		version = otherwise
	}
	return "version " + version
}

// candidates are directories that may hold the metadata: the one that is given, what config.yaml of a
// project says, and metadata.
func (l *loader) candidates() []string {
	all := []string{"."}
	if l.exists("config.yaml") {
		if n, err := l.file("config.yaml"); err == nil {
			named := path.Clean(filepath.ToSlash(n.get("metadata_directory").scalar()))
			if filepath.IsLocal(filepath.FromSlash(named)) {
				all = append(all, named)
			}
		}
	}
	return append(all, "metadata", "hasura/metadata", "hasura")
}

func (l *loader) hasMetadata(dir string) bool {
	return slices.ContainsFunc([]string{"databases/databases.yaml", "tables.yaml", "metadata.json", "metadata.yaml", "metadata.yml"}, func(name string) bool {
		return l.exists(path.Join(dir, name))
	})
}

// scalar returns the text of a single value; "": there is none.
func (n *node) scalar() string {
	if !n.isScalar() {
		return ""
	}
	return n.text
}
