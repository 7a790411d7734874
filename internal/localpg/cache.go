package localpg

import (
	"archive/tar"
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	// cacheFormat is part of the names of kept files. It changes with what initdb is asked for, and
	// with the form of the files.
	cacheFormat = "1 utf8 c.utf-8"
	// cacheMagic and a checksum are the first line of a kept file.
	cacheMagic = "rowhook-initdb"
	// The names of kept and of half-written files begin with these.
	keptPrefix = "postgresql-"
	newPrefix  = ".new-"
	// unusedAfter is the age at which kept data that no start has used is deleted.
	unusedAfter = 30 * 24 * time.Hour
	// abandonedAfter is the age at which a half-written file belongs to a process that was killed.
	abandonedAfter = time.Hour
)

// cache keeps the data directory that initdb made, for later starts with the same binaries: initdb
// takes 1.1 to 1.7 s of processor time, and a copy 50 ms in memory. The data has no password.
//
// It is one file, an archive of the directory behind a checksum. A rename puts it in its place
// whole, so any number of processes may make and read it at once. Blocks of zeros, most of the WAL,
// are holes in it. There is no copy on write: 970 files have to be made in any case, and that is
// what takes the time.
type cache struct{ file string }

// openCache returns the cache for these binaries. The name of its file has what tells builds
// apart: the version's whole text, the place, and the size and time of the programs.
func openCache(dir string, b binaries) (cache, error) {
	if dir == "" {
		parent, err := cacheDir()
		if err != nil {
			return cache{}, err
		}
		dir = filepath.Join(parent, "initdb")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return cache{}, fmt.Errorf("make the directory of kept data: %w", err)
	}
	key := sha256.New()
	fmt.Fprintf(key, "%s\n%s\n%s\n", cacheFormat, b.text, b.dir)
	for _, program := range []string{b.postgres(), b.initdb()} {
		info, err := os.Stat(program)
		if err != nil {
			return cache{}, fmt.Errorf("look at the PostgreSQL binaries: %w", err)
		}
		fmt.Fprintf(key, "%d %d\n", info.Size(), info.ModTime().UnixNano())
	}
	name := keptPrefix + versionText(b.version) + "-" + hex.EncodeToString(key.Sum(nil)[:8]) + ".tar"
	return cache{file: filepath.Join(dir, name)}, nil
}

// restore makes the layout's data directory from the kept data. It returns an error that is
// fs.ErrNotExist if there is none. After an error there is no data directory.
func (c cache) restore(ctx context.Context, l layout) (err error) {
	f, err := os.Open(c.file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := private(f); err != nil {
		return fmt.Errorf("the kept data in %s is not used: %w", c.file, err)
	}
	to, err := os.OpenRoot(l.temp) // the server's user owns it, and must not lead root elsewhere
	if err != nil {
		return fmt.Errorf("copy the kept data: %w", err)
	}
	defer to.Close()
	name := filepath.Base(l.data)
	defer func() {
		if err != nil {
			err = errors.Join(err, to.RemoveAll(name))
		}
	}()
	if err := unpack(ctx, f, to, name, l.account); err != nil {
		return fmt.Errorf("copy the kept data from %s: %w", c.file, err)
	}
	if info, err := f.Stat(); err == nil && time.Since(info.ModTime()) > 24*time.Hour {
		_ = os.Chtimes(c.file, time.Now(), time.Now()) // else it is deleted too early, and made anew
	}
	return nil
}

// store keeps the layout's data directory, and deletes what is no longer used.
func (c cache) store(l layout) error {
	from, err := os.OpenRoot(l.data)
	if err != nil {
		return fmt.Errorf("keep the data of initdb: %w", err)
	}
	defer from.Close()
	f, err := os.CreateTemp(filepath.Dir(c.file), newPrefix)
	if err != nil {
		return fmt.Errorf("keep the data of initdb: %w", err)
	}
	err = errors.Join(pack(f, from), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), c.file)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("keep the data of initdb: %w", err), os.Remove(f.Name()))
	}
	return c.prune()
}

func (c cache) prune() error {
	entries, err := os.ReadDir(filepath.Dir(c.file))
	if err != nil {
		return fmt.Errorf("delete unused data of initdb: %w", err)
	}
	for _, entry := range entries {
		after := unusedAfter
		switch name := entry.Name(); {
		case strings.HasPrefix(name, newPrefix):
			after = abandonedAfter
		case !strings.HasPrefix(name, keptPrefix):
			continue // somebody else's
		}
		info, err := entry.Info()
		if err != nil || time.Since(info.ModTime()) < after {
			continue // another process has deleted it, or it is in use
		}
		err = os.Remove(filepath.Join(filepath.Dir(c.file), entry.Name()))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("delete unused data of initdb: %w", err)
		}
	}
	return nil
}

// header returns the first line of a kept file, which has the same length for every checksum.
func header(sum hash.Hash32) string { return fmt.Sprintf("%s %08x\n", cacheMagic, sum.Sum32()) }

func newSum() hash.Hash32 { return crc32.New(crc32.MakeTable(crc32.Castagnoli)) }

// pack writes the regular files and the directories of a data directory. All have the modes that
// initdb gives them.
func pack(f *os.File, from *os.Root) error {
	sum := newSum()
	if _, err := f.WriteString(header(sum)); err != nil {
		return err
	}
	out := &sparseFile{file: f, at: int64(len(header(sum)))}
	archive := tar.NewWriter(io.MultiWriter(out, sum))
	err := fs.WalkDir(from.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		switch {
		case entry.IsDir():
			return archive.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o700})
		case !entry.Type().IsRegular():
			return fmt.Errorf("%s is neither a file nor a directory", name)
		}
		return packFile(archive, from, name)
	})
	if err = errors.Join(err, archive.Close(), out.finish()); err != nil {
		return err
	}
	_, err = f.WriteAt([]byte(header(sum)), 0)
	return err
}

func packFile(archive *tar.Writer, from *os.Root, name string) error {
	f, err := from.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600, Size: info.Size()}); err != nil {
		return err
	}
	_, err = io.Copy(archive, f)
	return err
}

// unpack makes the directory name of root from a kept file, for the account. It returns an error if
// the file is not as pack wrote it.
func unpack(ctx context.Context, f *os.File, root *os.Root, name string, acct account) error {
	first := make([]byte, len(header(newSum())))
	if _, err := io.ReadFull(f, first); err != nil {
		return fmt.Errorf("read its checksum: %w", err)
	}
	sum := newSum()
	in := io.TeeReader(bufio.NewReaderSize(f, 1<<18), sum)
	archive, buffer := tar.NewReader(in), make([]byte, 1<<18)
	dirs := map[string]*os.Root{} // a path from root on would be walked again for each file
	defer func() {
		for _, dir := range dirs {
			_ = dir.Close()
		}
	}()
	for {
		entry, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err = cmp.Or(err, ctx.Err()); err != nil {
			return err
		}
		if entry.Typeflag == tar.TypeDir {
			dir, err := unpackDir(root, filepath.Join(name, entry.Name), acct)
			if err != nil {
				return err
			}
			dirs[entry.Name] = dir
			continue
		}
		dir, base := filepath.Split(entry.Name)
		parent := dirs[cmp.Or(strings.TrimSuffix(dir, "/"), ".")]
		if parent == nil {
			return fmt.Errorf("it has no directory %q", dir)
		}
		if err := unpackFile(archive, parent, base, acct, buffer); err != nil {
			return err
		}
	}
	if _, err := io.CopyBuffer(io.Discard, in, buffer); err != nil {
		return err
	}
	if string(first) != header(sum) {
		return errors.New("it is damaged: its checksum is wrong")
	}
	return nil
}

func unpackDir(root *os.Root, name string, acct account) (*os.Root, error) {
	if err := root.Mkdir(name, 0o700); err != nil {
		return nil, err
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(acct.ownFile(f), f.Close()); err != nil {
		return nil, err
	}
	return root.OpenRoot(name)
}

func unpackFile(in io.Reader, dir *os.Root, name string, acct account, buffer []byte) error {
	f, err := dir.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	out := &sparseFile{file: f}
	_, err = io.CopyBuffer(out, in, buffer)
	return errors.Join(err, out.finish(), acct.ownFile(f), f.Close())
}

// sparseFile writes a file, and leaves holes for blocks of zeros. Call finish after the last write.
type sparseFile struct {
	file    *os.File
	at, end int64 // where the next write goes; how far the file reaches
}

// hole is the least number of zeros that is left out: a page of PostgreSQL.
const hole = 8192

func (s *sparseFile) Write(p []byte) (int, error) {
	from := 0 // p[from:to] is not written yet
	for to := 0; to < len(p); {
		next := min(len(p), to+hole-int((s.at+int64(to))%hole))
		if bytes.Count(p[to:next], []byte{0}) < next-to {
			to = next
			continue
		}
		if err := s.writeAt(p[from:to], s.at+int64(from)); err != nil {
			return 0, err
		}
		from, to = next, next
	}
	if err := s.writeAt(p[from:], s.at+int64(from)); err != nil {
		return 0, err
	}
	s.at += int64(len(p))
	return len(p), nil
}

func (s *sparseFile) writeAt(p []byte, at int64) error {
	if len(p) == 0 {
		return nil
	}
	_, err := s.file.WriteAt(p, at)
	s.end = at + int64(len(p))
	return err
}

// finish gives the file its length if it ends with a hole.
func (s *sparseFile) finish() error {
	if s.end == s.at {
		return nil
	}
	return s.file.Truncate(s.at)
}
