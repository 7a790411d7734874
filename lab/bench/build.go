package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// build is a rowhook program to be measured.
type build struct {
	name string // "this" or "other"
	path string
	// profile is a directory for CPU and allocation profiles. If it is set, the dispatcher runs in
	// a child of this program instead of rowhook, from the same source. If it is empty, there are
	// no profiles.
	profile string
	text    string // what its command version prints
	peer    bool   // it is another program than rowhook: see peers
}

// buildTree compiles the tree of the working directory.
func buildTree(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "rowhook")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", path, "github.com/rowhook/rowhook")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build rowhook: %w\n%s", err, out)
	}
	return path, nil
}

// newBuild checks a program, and asks it for its version.
func newBuild(ctx context.Context, name, path string) (build, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return build{}, fmt.Errorf("find %s: %w", path, err)
	}
	out, err := exec.CommandContext(ctx, path, "version").Output()
	if err != nil {
		return build{}, fmt.Errorf("ask %s for its version: %w", path, err)
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return build{name: name, path: path, text: first}, nil
}

// self returns the path of this program, to start it as a child.
func self() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	return path, nil
}
