package cli

import (
	"fmt"
	"strings"

	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/sqlschema"
)

// planned is the JSON of apply. Its keys are a promise; docs/configuration.md describes them.
type planned struct {
	Configuration string         `json:"configuration"`
	Database      string         `json:"database"`
	DryRun        bool           `json:"dry_run"`
	Pending       bool           `json:"pending"`
	Schema        schemaVersions `json:"schema"`
	Changes       []change       `json:"changes"`
	Warnings      []finding      `json:"warnings"`
}

type schemaVersions struct {
	From int32 `json:"from"`
	To   int32 `json:"to"`
}

type change struct {
	Action        string       `json:"action"`
	Object        string       `json:"object"`
	Name          string       `json:"name"`
	Table         string       `json:"table,omitempty"`
	Trigger       string       `json:"trigger,omitempty"`
	Detail        string       `json:"detail,omitempty"`
	Lock          string       `json:"lock,omitempty"`
	WaitingEvents int64        `json:"waiting_events"`
	Rights        []string     `json:"rights,omitempty"`
	Differences   []difference `json:"differences"`
}

type difference struct {
	Key    string `json:"key"`
	Action string `json:"action"`
	Old    any    `json:"old,omitempty"`
	New    any    `json:"new,omitempty"`
	Secret bool   `json:"secret,omitempty"`
}

// planJSON returns the document of a plan, with the warnings of the configuration before its own.
func planJSON(plan *sqlschema.Plan, cfg *config.Config, database string, dryRun bool) planned {
	p := planned{
		Configuration: cfg.File, Database: database, DryRun: dryRun, Pending: dryRun && !plan.Empty(),
		Schema: schemaVersions{plan.From, plan.To}, Changes: []change{}, Warnings: findings(cfg.Warnings),
	}
	for _, c := range plan.Changes() {
		p.Changes = append(p.Changes, changeJSON(&c))
	}
	for _, w := range plan.Warnings {
		p.Warnings = append(p.Warnings, finding{Message: w})
	}
	return p
}

func changeJSON(c *sqlschema.Change) change {
	j := change{
		Action: actionWord(c.Action), Object: strings.ReplaceAll(c.Object, " ", "_"), Name: c.Name, Table: c.Table, Trigger: c.Trigger,
		Detail: c.Detail, Lock: c.Lock, WaitingEvents: c.Events, Rights: c.Rights, Differences: []difference{},
	}
	if c.Role != "" {
		j.Object, j.Name, j.Detail = "rights", c.Role, "" // the detail is the rights in one text
	}
	for _, d := range c.Differences {
		j.Differences = append(j.Differences, difference{Key: d.Key, Action: actionWord(d.Action), Old: d.Old, New: d.New, Secret: d.Secret})
	}
	return j
}

func actionWord(a sqlschema.Action) string {
	switch a {
	case sqlschema.Create:
		return "create"
	case sqlschema.Replace:
		return "change"
	case sqlschema.Remove:
		return "remove"
	}
	return fmt.Sprintf("%c", a)
}
