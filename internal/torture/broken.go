package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// mutation takes a rule out of the program, to see that the torture test finds out.
type mutation struct {
	file    string // in the module
	find    string // a regular expression
	replace string
	times   int      // how often it has to be found
	only    []string // faults that bring it to light
}

func mutations() map[string]mutation {
	return map[string]mutation{
		// Settle touches whatever row has the event's id, whoever holds it by now.
		"fence": {
			file: "sqlschema/settle.go", find: "`q.claimed_by = \\$6 and q.tries = r.tries`|fence \\+ ` and \\(r.claim = 0 or q.claim = r.claim\\)`",
			replace: "`true`", times: 2,
			only: []string{faultZombie, moodFailing, moodSeconds},
		},
		// The bell is believed to be armed as soon as it is set, whoever is still open that saw it silent.
		"horizon": {file: "sqlschema/doorbell.go", find: `return n, nil`, replace: "return 0, nil", times: 1, only: []string{faultLong, faultApply}},
		// What dead instances held is not given back.
		"reclaim": {
			file: "sqlschema/giveback.go", find: "`tries = q.tries` \\+ entriesHeld", replace: "`tries = q.tries` + entriesHeld + ` and false`", times: 1,
			only: []string{faultKill, faultLong},
		},
	}
}

func brokenNames() []string { return slices.Sorted(maps.Keys(mutations())) }

// apply returns the source without the rule.
func (m mutation) apply(source string) (string, error) {
	re, err := regexp.Compile(m.find)
	if err != nil {
		return "", fmt.Errorf("read the mutation: %w", err)
	}
	if n := len(re.FindAllString(source, -1)); n != m.times {
		return "", fmt.Errorf("break %s: found the rule %d times instead of %d: the mutation has to be brought up to date", m.file, n, m.times)
	}
	return re.ReplaceAllLiteralString(source, m.replace), nil
}

// build compiles rowhook, without a rule if that is asked for. The tree itself stays as it is.
func (l *lab) build(ctx context.Context) (string, error) {
	if l.opt.binary != "" && l.opt.broken == "" {
		path, err := filepath.Abs(l.opt.binary)
		if err != nil {
			return "", fmt.Errorf("find %s: %w", l.opt.binary, err)
		}
		return path, nil
	}
	binary := filepath.Join(l.dir, "rowhook")
	args := []string{"build", "-o", binary}
	if l.opt.broken != "" {
		overlay, err := l.overlay(ctx, mutations()[l.opt.broken])
		if err != nil {
			return "", err
		}
		args = append(args, "-overlay", overlay)
	}
	out, err := exec.CommandContext(ctx, "go", append(args, "github.com/rowhook/rowhook")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build rowhook: %w\n%s", err, out)
	}
	return binary, nil
}

// overlay writes the changed file, and the file that tells the compiler of it.
func (l *lab) overlay(ctx context.Context, m mutation) (string, error) {
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	original := filepath.Join(strings.TrimSpace(string(root)), filepath.FromSlash(m.file))
	source, err := os.ReadFile(original)
	if err != nil {
		return "", fmt.Errorf("break a rule: %w", err)
	}
	changed, err := m.apply(string(source))
	if err != nil {
		return "", err
	}
	copied, list := filepath.Join(l.dir, "broken.go"), filepath.Join(l.dir, "overlay.json")
	text, err := json.Marshal(map[string]map[string]string{"Replace": {original: copied}})
	if err := errors.Join(err, os.WriteFile(copied, []byte(changed), 0o600), os.WriteFile(list, text, 0o600)); err != nil {
		return "", fmt.Errorf("break a rule: %w", err)
	}
	return list, nil
}
