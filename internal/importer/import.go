// Package importer makes a rowhook.yaml from the configuration of another program. It holds what all
// imports share: triggers with the place that they come from, the report of what differs, variables in
// the place of secrets, and the file with its comments. The packages below it each read one program's
// configuration.
//
// An import adds triggers and findings to an [Import], and [Import.Finish] returns the file and the
// report. The same input always makes the same output.
package importer

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/trigger"
)

// Place is where a setting stands in what is imported. Line counts from 1; 0 is the file as a whole.
type Place struct {
	File string `json:"file"`
	Line int    `json:"line"`
}

// String returns the form that terminals and editors turn into a link.
func (p Place) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}

// Trigger is an imported trigger.
type Trigger struct {
	Spec  trigger.Spec
	Place Place
	// Comments stand above the trigger in the file, each a paragraph.
	Comments []string
	// Of is what it comes from together with other triggers, such as a sink; "": it comes alone.
	Of string
}

// Import collects what one import finds. Start with [New].
type Import struct {
	from     string
	triggers []Trigger
	findings []Finding
	secrets  secrets
	header   []string
}

// New returns an empty Import. from is what is imported, for the first line of the file and of the
// report, as in "Hasura's metadata (metadata/)".
func New(from string) *Import { return &Import{from: from, secrets: newSecrets()} }

// Say adds a paragraph to the comment at the top of the file.
func (i *Import) Say(paragraph string) { i.header = append(i.header, paragraph) }

// Add adds a trigger. It may only be added once under a name; Taken tells.
func (i *Import) Add(t Trigger) { i.triggers = append(i.triggers, t) }

// Taken returns the trigger that was added under a name.
func (i *Import) Taken(name string) (Trigger, bool) {
	at := slices.IndexFunc(i.triggers, func(t Trigger) bool { return t.Spec.Name == name })
	if at < 0 {
		return Trigger{}, false
	}
	return i.triggers[at], true
}

// Find adds a finding to the report. One that is equal to an earlier one is left out.
func (i *Import) Find(f Finding) {
	if !slices.Contains(i.findings, f) {
		i.findings = append(i.findings, f)
	}
}

// Result is a finished import.
type Result struct {
	// File is the rowhook.yaml. It is valid, and has a comment where something differs.
	File []byte
	// Triggers are those of File, in its order.
	Triggers []trigger.Spec
	Report   Report
}

// Finish names the variables, writes the file and checks it. Triggers whose values are not valid in
// rowhook.yaml are left out, and named in the report. An error means a defect, or that File would be
// too large.
func (i *Import) Finish() (*Result, error) {
	names := i.secrets.names(i.referred())
	for at := range i.triggers {
		spec, err := renamed(i.triggers[at].Spec, names)
		if err != nil {
			return nil, err
		}
		i.triggers[at].Spec = spec
	}
	i.leaveOutInvalid()
	specs := make([]trigger.Spec, len(i.triggers))
	for at, t := range i.triggers {
		specs[at] = t.Spec
	}
	report := i.report(names)
	text, err := i.write(specs, report)
	if err != nil {
		return nil, err
	}
	parsed, err := config.Parse("rowhook.yaml", text)
	if err != nil {
		return nil, fmt.Errorf("the imported file is not valid, which is a defect of the import: %w", err)
	}
	return &Result{File: text, Triggers: parsed.Triggers, Report: report}, nil
}

// leaveOutInvalid removes triggers that rowhook.yaml can't hold as they are.
func (i *Import) leaveOutInvalid() {
	kept := i.triggers[:0:0]
	for _, t := range i.triggers {
		fault := Invalid(t.Spec)
		if fault == "" {
			kept = append(kept, t)
			continue
		}
		i.Find(Finding{Kind: Skipped, Trigger: t.Spec.Name, Place: t.Place, Message: "is not imported, because rowhook.yaml can't hold it: " + fault,
			Remedy: "change it there, and import again, or write the trigger by hand"})
	}
	i.triggers = kept
}

// Invalid returns why rowhook.yaml can't hold a trigger; "": it can.
func Invalid(spec trigger.Spec) string {
	text, err := config.Write(spec)
	if err != nil {
		return err.Error()
	}
	_, err = config.Parse("rowhook.yaml", text)
	wrong, ok := errors.AsType[*config.Error](err)
	if !ok {
		if err != nil {
			return err.Error()
		}
		return ""
	}
	var faults []string
	for _, p := range wrong.Problems {
		faults = append(faults, strings.TrimPrefix(p.Key, "triggers[0].")+": "+p.Message)
	}
	return strings.Join(faults, "; ")
}

// InvalidHeader returns why rowhook.yaml can't hold a header; "": it can.
func InvalidHeader(name, text string) string {
	probe := trigger.DefaultSpec()
	probe.Name, probe.Table, probe.On = "probe", "public.probe", trigger.On{Insert: true, Delete: true}
	probe.Webhook.URL, probe.Webhook.Headers = "https://probe.example", map[string]string{name: text}
	return Invalid(probe)
}

// referred returns the variables that triggers refer to by themselves.
func (i *Import) referred() map[string]bool {
	all := map[string]bool{}
	for _, t := range i.triggers {
		variables, _ := config.References(t.Spec)
		for _, name := range variables {
			all[name] = true
		}
	}
	return all
}

// comparePlaces sorts by file, then by line.
func comparePlaces(a, b Place) int {
	return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
}
