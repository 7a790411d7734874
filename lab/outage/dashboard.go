package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"
)

// panel is one query of the dashboard, with what it returned.
type panel struct {
	title, query string
	data, moved  bool  // it returned a number; it returned one other than 0
	err          error // the first error
}

// dashboard is docs/grafana/rowhook.json.
type dashboard struct {
	panels    []*panel
	variables [][2]string // metric and label from which the variables take their values
	asked     int
}

var labelValues = regexp.MustCompile(`^label_values\((\w+), (\w+)\)$`)

// readDashboard reads the dashboard and replaces its variables as Grafana does when all values are
// chosen. The rate interval is the shortest that Grafana uses: four scrapes.
func readDashboard(file string) (*dashboard, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the dashboard: %w", err)
	}
	var in struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
		Templating struct {
			List []struct{ Name, Type, Definition, AllValue string }
		}
	}
	if err := json.Unmarshal(text, &in); err != nil {
		return nil, fmt.Errorf("read the dashboard of %s: %w", file, err)
	}
	d := &dashboard{}
	replace := []string{"$__rate_interval", (4 * scrapeEvery).String()}
	for _, v := range in.Templating.List {
		if v.Type != "query" {
			continue
		}
		m := labelValues.FindStringSubmatch(v.Definition)
		if m == nil {
			return nil, fmt.Errorf("read the dashboard: variable %s is not made by label_values: %q", v.Name, v.Definition)
		}
		d.variables = append(d.variables, [2]string{m[1], m[2]})
		replace = append(replace, "$"+v.Name, v.AllValue)
	}
	for _, p := range in.Panels {
		for _, t := range p.Targets {
			query := strings.NewReplacer(replace...).Replace(t.Expr)
			if strings.Contains(query, "$") {
				return nil, fmt.Errorf("read the dashboard: %s has a variable that is not known: %s", p.Title, query)
			}
			d.panels = append(d.panels, &panel{title: p.Title, query: query})
		}
	}
	return d, nil
}

// askEvery is how often the queries are asked.
const askEvery = 2 * time.Second

// follow asks all queries again and again until ctx is done.
func (d *dashboard) follow(ctx context.Context, p *prometheus) {
	ticker := time.NewTicker(askEvery)
	defer ticker.Stop()
	for ctx.Err() == nil {
		for _, q := range d.panels {
			values, err := p.query(ctx, q.query)
			if ctx.Err() != nil {
				return
			}
			if q.err == nil {
				q.err = err
			}
			for _, v := range values {
				q.data = true
				q.moved = q.moved || v != 0
			}
		}
		d.asked++
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
}

// problems returns the queries that fail or never return anything.
func (d *dashboard) problems() []string {
	var all []string
	for _, q := range d.panels {
		switch {
		case q.err != nil:
			all = append(all, fmt.Sprintf("the dashboard's %q: %s: %v", q.title, q.query, q.err))
		case !q.data:
			all = append(all, fmt.Sprintf("the dashboard's %q was always empty: %s", q.title, q.query))
		}
	}
	return all
}

// choices checks that the dashboard's variables have values to choose from.
func (d *dashboard) choices(ctx context.Context, p *prometheus) error {
	for _, v := range d.variables {
		values, err := p.labelValues(ctx, v[0], v[1])
		if err != nil {
			return err
		}
		if len(values) == 0 {
			return fmt.Errorf("the dashboard has no %s to choose from: no series of %s has one", v[1], v[0])
		}
	}
	return nil
}
