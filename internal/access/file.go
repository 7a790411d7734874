package access

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rowhook/rowhook/internal/suggest"
)

// header begins a new file.
const header = `# Tokens of Rowhook's HTTP interface: see rowhook token --help. The tokens themselves are not kept.
`

// maxFile is the largest file of tokens that is read, in bytes: some thousands of tokens.
const maxFile = 1 << 20

// Read returns the tokens of a file. An error names the line, and what to do.
func Read(path string) ([]Token, error) {
	text, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no file of tokens %s: \"rowhook token add NAME --scope status --file %s\" makes one: %w", path, path, fs.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("read the file of tokens: %w", err)
	}
	return parse(path, text)
}

// readFile returns the content of a file, or a little more than maxFile of it. What is no file, such
// as a pipe, would let requests wait for it.
func readFile(path string) ([]byte, error) {
	if info, err := os.Stat(path); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile+1))
}

func parse(path string, text []byte) ([]Token, error) {
	if len(text) > maxFile {
		return nil, fmt.Errorf("the file of tokens %s has more than %d bytes: is it another file?", path, maxFile)
	}
	tokens := []Token{}
	names, digests := map[string]bool{}, map[[sha256.Size]byte]string{}
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		if blank(line) {
			continue
		}
		t, err := parseLine(line)
		if err != nil {
			return nil, fmt.Errorf("%s, line %d: %w; mend or delete the line, and make the token again with \"rowhook token add\"", path, number, err)
		}
		if names[t.Name] {
			return nil, fmt.Errorf("%s, line %d: the name %s stands there twice; delete one of the lines", path, number, t.Name)
		}
		if other := digests[t.Digest]; other != "" { // else a token that is removed would stay valid as the other
			return nil, fmt.Errorf("%s, line %d: %s is the same token as %s; delete one of the lines", path, number, t.Name, other)
		}
		names[t.Name], digests[t.Digest] = true, t.Name
		tokens = append(tokens, t)
	}
	return tokens, nil
}

func blank(line string) bool {
	line = strings.TrimSpace(line)
	return line == "" || line[0] == '#'
}

// Add makes a token and writes it into a file, which it makes if there is none. secret is the token,
// which is kept nowhere.
func Add(path, name string, scopes Scopes, until time.Time) (t Token, secret string, err error) {
	if err := CheckName(name); err != nil {
		return t, "", err
	}
	err = edit(path, func(text []byte) ([]byte, error) {
		tokens, err := parse(path, text)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(tokens, func(t Token) bool { return t.Name == name }) {
			return nil, fmt.Errorf("there is a token %s already: take another name, or run \"rowhook token remove %s\" first", name, name)
		}
		if len(text) == 0 {
			text = []byte(header)
		}
		if text[len(text)-1] != '\n' {
			text = append(text, '\n')
		}
		t, secret = New(name, scopes, until)
		return append(text, t.line()+"\n"...), nil
	})
	return t, secret, err
}

// Remove deletes a token from a file.
func Remove(path, name string) error {
	return edit(path, func(text []byte) ([]byte, error) {
		tokens, err := parse(path, text)
		if err != nil {
			return nil, err
		}
		var names []string
		for _, t := range tokens {
			names = append(names, t.Name)
		}
		if !slices.Contains(names, name) {
			return nil, fmt.Errorf("%s has no token %s%s: rowhook token list shows those that it has", path, name, suggest.Hint(name, names))
		}
		var out bytes.Buffer
		for line := range strings.Lines(string(text)) {
			if blank(line) || strings.Fields(line)[0] != name {
				out.WriteString(line)
			}
		}
		return out.Bytes(), nil
	})
}

// edit replaces a file by what change makes of its content, at once: whoever reads it sees the old
// or the new content. Its mode and its owner stay. A new file is its owner's alone.
func edit(path string, change func([]byte) ([]byte, error)) (err error) {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	unlock, err := lock(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("write the file of tokens: %w", err)
	}
	defer unlock()
	var text []byte
	info, err := os.Stat(path)
	switch {
	case err == nil:
		text, err = readFile(path)
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	}
	if err != nil {
		return fmt.Errorf("read the file of tokens: %w", err)
	}
	if text, err = change(text); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return fmt.Errorf("write the file of tokens: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // the first error is what matters
			err = fmt.Errorf("write the file of tokens: %w", err)
		}
	}()
	_, err = f.Write(text)
	if err == nil && info != nil {
		err = errors.Join(own(f, info), f.Chmod(info.Mode().Perm()))
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// Loose returns what is wrong with the mode of a file of tokens; "": nothing. Whoever may write it
// lets themselves in. Whoever reads it learns the names.
func Loose(path string) string {
	info, err := os.Stat(path)
	if err != nil || !modes {
		return ""
	}
	switch mode := info.Mode().Perm(); {
	case mode&0o022 != 0:
		return fmt.Sprintf("others may write the file of tokens %s (mode %04o), and so let themselves in: run chmod 0600 on it, or 0640 with a group that may read it", path, mode)
	case mode&0o004 != 0:
		return fmt.Sprintf("everybody may read the file of tokens %s (mode %04o): run chmod 0600 on it, or 0640 with a group that may read it", path, mode)
	}
	return ""
}
