package main

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// referenceRounds is how often a second look measures each build, in turn.
const referenceRounds = 3

// commitOf returns the commit that a program was built from. It returns "" if the build does not
// say, or if the tree had uncommitted changes.
func commitOf(path string) string {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return ""
	}
	var commit string
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			commit = s.Value
		case s.Key == "vcs.modified" && s.Value != "false":
			return ""
		}
	}
	return commit
}

// buildReference compiles rowhook from a commit of the repository that holds the working directory.
// It does not change the tree or the index. It writes everything below dir.
func buildReference(ctx context.Context, dir, commit string) (string, error) {
	tree := filepath.Join(dir, "tree")
	if err := os.Mkdir(tree, 0o750); err != nil {
		return "", fmt.Errorf("make a directory for the reference: %w", err)
	}
	top, err := output(ctx, "", nil, "git", "rev-parse", "--show-toplevel")
	if err != nil {
		return "", err
	}
	top = strings.TrimSpace(top)
	index := []string{"GIT_INDEX_FILE=" + filepath.Join(dir, "index")}
	if _, err := output(ctx, top, index, "git", "read-tree", commit+"^{tree}"); err != nil {
		return "", err
	}
	if _, err := output(ctx, top, index, "git", "checkout-index", "--all", "--prefix="+tree+"/"); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "rowhook")
	_, err = output(ctx, tree, nil, "go", "build", "-buildvcs=false", "-o", path, ".")
	return path, err
}

// output runs a command and returns its output. Its error contains what the command wrote to
// standard error.
func output(ctx context.Context, dir string, env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", errors.Join(fmt.Errorf("%s %s: %w", name, args[0], err), errors.New(strings.TrimSpace(stderr.String())))
	}
	return stdout.String(), nil
}

// slowerThan returns the problems that the other build does not have in the same run. If a ratio is
// low for both builds, the machine is the reason: a ratio depends on the processor, the disk and
// the kernel by a factor of two. A loss or a duplicate stays a problem, whatever the other build
// does.
func slowerThan(now *results, problems []problem) []problem {
	var left []problem
	for _, p := range problems {
		this, other := now.find(p.scenario, "this"), now.find(p.scenario, "other")
		if p.ratio && this != nil && other != nil {
			v, reference := this.Median[p.value], other.Median[p.value]
			if reference > 0 && v >= floorShare*reference {
				continue
			}
			p.text += fmt.Sprintf("; the reference reaches %.3f beside it", reference)
		}
		left = append(left, p)
	}
	return left
}
