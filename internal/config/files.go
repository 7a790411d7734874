package config

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// file is one file of a configuration as it was read.
type file struct {
	name string // its path, as messages show it
	data []byte
}

// Fingerprint returns a hash of what Load would read at path: the names and the contents of the
// files. It is for a caller that watches the path: while the fingerprint is the same, another Load
// returns the same. The error is the one that Load would return. A file that an editor replaces may
// be missing for a moment.
func Fingerprint(path string) (string, error) {
	files, _, err := readAll(path)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for _, f := range files {
		// Lengths keep a content that looks like the next file's name apart from that name.
		fmt.Fprintf(h, "%d %s %d ", len(f.name), f.name, len(f.data))
		h.Write(f.data)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// readAll reads the file at path or, if path is a directory, the configuration files in it, sorted
// by name. ignored are the names of other entries of the directory, without hidden ones.
func readAll(path string) (files []file, ignored []string, err error) {
	if path == "" {
		return nil, nil, unreadable(path, fs.ErrNotExist, "no configuration file was given; give the path of one, such as rowhook.yaml")
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return readDirectory(path)
	}
	data, err := read(path)
	if err != nil {
		return nil, nil, err
	}
	return []file{{path, data}}, nil, nil
}

// readDirectory reads the files *.yaml and *.yml that are directly in a directory. It follows
// symbolic links and skips hidden entries, because Kubernetes mounts a ConfigMap as links that lead
// through a hidden directory, ..data.
func readDirectory(path string) (files []file, ignored []string, err error) {
	entries, err := os.ReadDir(path) // sorted by name
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, nil, unreadable(path, err, "permission to list the directory is denied; allow the user that runs rowhook to read it")
	case err != nil:
		return nil, nil, unreadable(path, err, "can't list the directory (%v); check the path", reason(err))
	}
	var problems []Problem
	total := 0
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".") {
			continue
		}
		if !isConfigName(name) {
			ignored = append(ignored, name)
			continue
		}
		full := filepath.Join(path, name)
		data, err := readEntry(full, e.Type()&fs.ModeSymlink != 0)
		var wrong *Error
		if errors.As(err, &wrong) {
			problems = append(problems, wrong.Problems...)
			continue
		}
		if total += len(data); total > MaxSize {
			return nil, nil, unreadable(path, nil, "the files in it are larger than %d MB together; is this the right directory?", MaxSize>>20)
		}
		files = append(files, file{full, data})
	}
	if len(problems) > 0 {
		return nil, nil, &Error{Problems: problems}
	}
	if len(files) == 0 {
		return nil, nil, unreadable(path, nil, "%s", nothingIn(ignored))
	}
	return files, ignored, nil
}

func isConfigName(name string) bool {
	return slices.Contains([]string{".yaml", ".yml"}, filepath.Ext(name))
}

// nothingIn says that a directory has no configuration, and what it has instead.
func nothingIn(ignored []string) string {
	what := "it is empty"
	if len(ignored) > 0 {
		what = "it has " + Names(ignored)
	}
	return fmt.Sprintf("the directory has no file *.yaml or *.yml directly in it (%s); put the configuration there, or give the path of another directory or of a file", what)
}

// Names lists names of files for people, at most five of them.
func Names(names []string) string {
	const most = 5
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

// readEntry reads a file of a directory. It opens nothing but files: to open a named pipe would
// wait for a writer.
func readEntry(path string, link bool) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case link && errors.Is(err, fs.ErrNotExist):
		return nil, unreadable(path, err, "is a symbolic link to a file that does not exist; correct or remove it")
	case err != nil:
		return read(path) // it says why
	case info.IsDir():
		return nil, unreadable(path, nil, "is a directory, and only files directly in the given directory are read; move its files up, or give it another name")
	case !info.Mode().IsRegular():
		return nil, unreadable(path, nil, "is not a regular file; remove it, or give it another name")
	}
	return read(path)
}

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, unreadable(path, err, "the file does not exist; check the path, or write one with rowhook init")
	case errors.Is(err, fs.ErrPermission):
		return nil, unreadable(path, err, "permission to read the file is denied; allow the user that runs rowhook to read it")
	case err != nil:
		return nil, unreadable(path, err, "can't open the file (%v); check the path", reason(err))
	}
	defer func() { _ = f.Close() }() // the file was only read
	data, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return nil, unreadable(path, err, "can't read the file (%v); check that it is a readable text file", reason(err))
	}
	return data, nil
}

// unreadable returns the error for a path that can't be read. cause may be nil.
func unreadable(path string, cause error, format string, args ...any) error {
	p := Problem{Position: Position{File: path}, Message: fmt.Sprintf(format, args...)}
	return &Error{Problems: []Problem{p}, cause: cause}
}

// reason returns an operating system's error without its path: the message begins with the path
// already.
func reason(err error) error {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return pathErr.Err
	}
	return err
}
