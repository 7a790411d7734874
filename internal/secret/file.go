package secret

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Largest is the greatest size of a file that is given out, in bytes.
const Largest = 1 << 20

// settled is how old a change of a file must be to be told from a later one by its time alone. File
// systems keep times in steps of up to two seconds.
const settled = 2 * time.Second

// file is a file as it was read.
type file struct {
	value string
	info  fs.FileInfo
	read  time.Time
}

// same reports whether the file has not changed since it was read.
func (f *file) same(info fs.FileInfo) bool {
	return os.SameFile(f.info, info) && f.info.Size() == info.Size() && f.info.ModTime().Equal(info.ModTime()) && f.read.Sub(info.ModTime()) > settled
}

// file returns the content of a file of Rules.Dirs, without a newline at its end. It reads the file
// again if it has changed.
func (s *Store) file(path string) (string, error) {
	dir, below, err := s.locate(path)
	if err != nil {
		return "", err
	}
	// The root is opened anew, as the directory itself may be replaced. It lets nothing lead out of
	// it, whatever becomes of links meanwhile.
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", unreadable(path, err)
	}
	defer root.Close()
	s.mu.Lock()
	known := s.files[path]
	s.mu.Unlock()
	if info, err := root.Stat(below); err == nil && known != nil && known.same(info) && !s.isOwnFile(info) {
		return known.value, nil
	}
	f, err := readIn(root, below)
	if err != nil {
		return "", unreadable(path, err)
	}
	if s.isOwnFile(f.info) || s.holdsOwn(f.value) {
		return "", &RefusedError{"the file " + path, "it holds a password or a token of Rowhook itself", "use another file"}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[path] = f
	return f.value, nil
}

// isOwnFile reports whether a file is one of the program's own.
func (s *Store) isOwnFile(info fs.FileInfo) bool {
	return slices.ContainsFunc(s.owned().Files, func(path string) bool {
		own, err := os.Stat(path)
		return err == nil && os.SameFile(own, info)
	})
}

// Read returns the content of a file that the program itself uses, as that of a reference.
func Read(path string) (string, error) {
	f, err := read(path, os.Stat, os.OpenFile)
	switch {
	case err == nil:
		return f.value, nil
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("%w: create it, or correct the path", unreadable(path, err))
	case errors.Is(err, fs.ErrPermission):
		return "", fmt.Errorf("%w: let the user of this process read it", unreadable(path, err))
	}
	return "", unreadable(path, err)
}

func readIn(root *os.Root, name string) (*file, error) { return read(name, root.Stat, root.OpenFile) }

// errNotRegular says that a path is that of a directory, a pipe or a device.
var errNotRegular = errors.New("it is no regular file: name a file that holds the text alone")

// errChanging says that a file was written while it was read.
var errChanging = errors.New("it is being written: write a new file beside it and rename that")

// read reads a file. What is no regular file is not read: a pipe or a device could block for ever, or
// do something.
func read(name string, stat func(string) (fs.FileInfo, error), open func(string, int, fs.FileMode) (*os.File, error)) (*file, error) {
	info, err := stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errNotRegular
	}
	f, err := open(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	at := time.Now()
	if info, err = f.Stat(); err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() { // it was replaced
		return nil, errNotRegular
	}
	text, err := io.ReadAll(io.LimitReader(f, Largest+1))
	if err != nil {
		return nil, err
	}
	if len(text) > Largest {
		return nil, fmt.Errorf("it has more than %d bytes", Largest)
	}
	after, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if after.Size() != int64(len(text)) || !after.ModTime().Equal(info.ModTime()) {
		return nil, errChanging
	}
	value := string(text)
	if line, ok := strings.CutSuffix(value, "\n"); ok {
		value = strings.TrimSuffix(line, "\r")
	}
	if value == "" {
		return nil, errors.New("it is empty")
	}
	return &file{value, info, at}, nil
}

// unreadable returns an error that names a file and why it can't be read. The causes of the system
// name it, too.
func unreadable(path string, err error) error {
	var named *fs.PathError
	if errors.As(err, &named) {
		err = named.Err
	}
	switch {
	case strings.Contains(err.Error(), "path escapes from parent"):
		return &RefusedError{"the file " + path, "it is a link that leads out of the directory", "put the file itself there, or a link that is relative and stays within"}
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("the file %s does not exist", path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("the file %s can't be read: permission denied", path)
	}
	return fmt.Errorf("the file %s can't be read: %w", path, err)
}

// CheckDir returns a directory of Rules.Dirs in its clean form, or what is wrong with it. It need not
// exist yet.
func CheckDir(dir string) (string, error) {
	if !filepath.IsAbs(dir) {
		return "", fmt.Errorf("%q is no absolute path of a directory: write one such as /run/secrets", dir)
	}
	clean := filepath.Clean(dir)
	resolved := clean
	if real, err := filepath.EvalSymlinks(clean); err == nil {
		resolved = real
	}
	for _, path := range []string{clean, resolved} {
		for _, bad := range []string{"/proc", "/sys", "/dev"} {
			if path == filepath.VolumeName(path)+string(filepath.Separator) || path == bad || strings.HasPrefix(path, bad+"/") && !strings.HasPrefix(path, "/dev/shm/") {
				return "", fmt.Errorf("%q can't be a directory of secrets, as it holds what is not meant for webhooks: name one that holds nothing else, such as /run/secrets", dir)
			}
		}
	}
	return clean, nil
}
