package main

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
)

// rules are docs/prometheus/rules.yml.
type rules struct {
	Groups []group `yaml:"groups"`
}

type group struct {
	Name  string `yaml:"name"`
	Rules []rule `yaml:"rules"`
}

type rule struct {
	Alert       string            `yaml:"alert"`
	Expr        string            `yaml:"expr"`
	For         string            `yaml:"for,omitempty"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

func readRules(file string) (*rules, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the rules: %w", err)
	}
	var r rules
	if err := yaml.UnmarshalWithOptions(text, &r, yaml.Strict()); err != nil {
		return nil, fmt.Errorf("read the rules of %s: %w", file, err)
	}
	return &r, nil
}

// severities returns the severity of each alert, by name.
func (r *rules) severities() map[string]string {
	all := map[string]string{}
	for _, g := range r.Groups {
		for _, a := range g.Rules {
			all[a.Alert] = a.Labels["severity"]
		}
	}
	return all
}

// shorten divides every duration by the factor: how long a condition has to hold, the ranges, and
// the ages above which events and transactions are too old. It does not change other thresholds.
func (r *rules) shorten(factor float64) error {
	for _, g := range r.Groups {
		for i := range g.Rules {
			a := &g.Rules[i]
			var err error
			if a.For != "" {
				a.For, err = divide(a.For, factor)
			}
			if err == nil {
				a.Expr, err = shortenExpression(a.Expr, factor)
			}
			if err != nil {
				return fmt.Errorf("shorten %s: %w", a.Alert, err)
			}
		}
	}
	return nil
}

var (
	ranges = regexp.MustCompile(`\[[^\]]+\]`)
	ages   = regexp.MustCompile(`(_age_seconds|_held_back_seconds)\) > (\d+)`)
)

func shortenExpression(expression string, factor float64) (string, error) {
	var failed error
	expression = ranges.ReplaceAllStringFunc(expression, func(s string) string {
		d, err := divide(strings.Trim(s, "[]"), factor)
		if err != nil {
			failed = err
		}
		return "[" + d + "]"
	})
	expression = ages.ReplaceAllStringFunc(expression, func(s string) string {
		m := ages.FindStringSubmatch(s)
		seconds, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			failed = err
		}
		return m[1] + ") > " + strconv.FormatFloat(seconds/factor, 'g', -1, 64)
	})
	return expression, failed
}

// divide divides a duration such as 5m or 12h. The result is in milliseconds.
func divide(duration string, factor float64) (string, error) {
	d, err := time.ParseDuration(duration)
	if err != nil {
		return "", fmt.Errorf("a duration with a unit that Go does not know: %w", err)
	}
	return fmt.Sprintf("%dms", int64(float64(d.Milliseconds())/factor)), nil
}

// mountSelector is the part of the rules that users are told to adjust.
const mountSelector = `{mountpoint=~"/|/var/lib/postgresql.*", fstype!="tmpfs"}`

// adjust makes the alert about the disk watch this mount point.
func (r *rules) adjust(mountpoint string) error {
	for _, g := range r.Groups {
		for i := range g.Rules {
			if a := &g.Rules[i]; a.Alert == "RowhookDiskNearlyFull" {
				if strings.Count(a.Expr, mountSelector) != 2 {
					return fmt.Errorf("the alert %s has no selector %s: update mountSelector in lab/outage/rules.go", a.Alert, mountSelector)
				}
				a.Expr = strings.ReplaceAll(a.Expr, mountSelector, fmt.Sprintf("{mountpoint=%q}", mountpoint))
				return nil
			}
		}
	}
	return fmt.Errorf("there is no alert RowhookDiskNearlyFull")
}

func (r *rules) write(file string) error {
	text, err := yaml.Marshal(r)
	if err != nil {
		return fmt.Errorf("write the rules: %w", err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return fmt.Errorf("write the rules: %w", err)
	}
	return nil
}
