package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/rowhook/rowhook/internal/child"
)

// devReady is what --ready-file and --output json tell. Its names are a promise.
type devReady struct {
	DatabaseURL string `json:"database_url"`
	SinkURL     string `json:"sink_url"`
	URL         string `json:"url"` // of the HTTP interface; "" with --http off
	// DashboardURL is that of the dashboard, with the token behind a #.
	DashboardURL string         `json:"dashboard_url"`
	Token        string         `json:"token"`  // for the HTTP interface: it has all scopes
	Secret       string         `json:"secret"` // stands for secrets whose variables are not set; "": all are set
	PIDs         devPIDs        `json:"pids"`
	Triggers     []readyTrigger `json:"triggers"`
}

type devPIDs struct {
	Dev      int `json:"dev"`
	Postgres int `json:"postgres"`
}

type readyTrigger struct {
	Name  string `json:"name"`
	Table string `json:"table"`
	// URL is where its events are sent. References that are not to the receiver are not expanded.
	URL string `json:"url"`
	// ForwardURL is where the receiver sends them on.
	ForwardURL string `json:"forward_url,omitempty"`
	Signed     bool   `json:"signed"`
	// Secret is the one that it signs with, if that was made up.
	Secret string `json:"secret,omitempty"`
}

// line returns the JSON, without characters escaped that no one wants to read escaped in a URL.
func (r *devReady) line() ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(r)
	return out.Bytes(), err
}

// readyFile is the file of --ready-file.
type readyFile struct {
	path  string
	info  os.FileInfo // of what was written
	guard *child.Guard
}

// newReadyFile starts the guard that removes the file if this process is killed. With path "" it
// returns a file that does nothing.
func newReadyFile(path string) (*readyFile, error) {
	if path == "" {
		return &readyFile{}, nil
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("find the ready file: %w", err)
	}
	guard, err := child.StartGuard()
	return &readyFile{path: path, guard: guard}, err
}

// write replaces the file at once, so that nobody sees a part of it. It holds a password.
func (f *readyFile) write(line []byte) error {
	if f.path == "" {
		return nil
	}
	temp, err := os.CreateTemp(filepath.Dir(f.path), ".rowhook-ready-") // its mode is 0600
	if err != nil {
		return fmt.Errorf("write the ready file: %w", err)
	}
	_, err = temp.Write(line)
	info, statErr := temp.Stat()
	if err = errors.Join(err, statErr, temp.Close()); err == nil {
		f.guard.Remove(f.path, info)
		err = os.Rename(temp.Name(), f.path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write the ready file: %w", err), os.Remove(temp.Name()))
	}
	f.info = info
	return nil
}

// remove removes the file, unless another process has replaced it.
func (f *readyFile) remove() error {
	if f.path == "" {
		return nil
	}
	var err error
	if now, statErr := os.Stat(f.path); f.info != nil && statErr == nil && os.SameFile(now, f.info) {
		err = os.Remove(f.path)
	}
	return errors.Join(err, f.guard.Dismiss())
}
