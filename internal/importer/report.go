package importer

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/internal/sorting"
)

// Kind says what became of a setting.
type Kind string

// The kinds of findings. They are a promise: scripts read them.
const (
	// Skipped is a trigger that is not in the file.
	Skipped Kind = "skipped"
	// NotCarried is a setting that is not in the file. Its trigger is, without it.
	NotCarried Kind = "not_carried_over"
	// Differs is a setting that is in the file and does not mean quite the same there.
	Differs Kind = "differs"
	// Note is to know. Nothing has to be done for the triggers to work.
	Note Kind = "note"
)

// Finding is something that a person should know about an import.
type Finding struct {
	Kind    Kind   `json:"kind"`
	Trigger string `json:"trigger,omitempty"`
	Place
	// Setting is the path of the setting in what is imported, such as request_transform.body.
	Setting string `json:"setting,omitempty"`
	// Message says what the setting is, and what became of it. It begins with a verb, whose subject is
	// the setting or the trigger. It never holds a secret.
	Message string `json:"message"`
	// Remedy is what to do. "": nothing.
	Remedy string `json:"remedy,omitempty"`
	// Key is the key of rowhook.yaml above which the file has this as a comment, such as webhook.body.
	// "": above the trigger. A Note is in the file only if it has a Key.
	Key string `json:"-"`
	// Of is what several triggers come from: the comment is one of each of them. See [Trigger.Of].
	Of string `json:"-"`
}

// Variable is a variable that has to be set where the dispatcher runs.
type Variable struct {
	Name string `json:"name"`
	// Copy says that its value stood in what is imported, at Uses[0], and is not in the file: it has to
	// be copied from there.
	Copy bool  `json:"copy"`
	Uses []Use `json:"uses"`
	// Warning says why a dispatcher does not give it out as it is; "": it does.
	Warning string `json:"warning,omitempty"`
}

// Use is where a variable is used.
type Use struct {
	Trigger string `json:"trigger"`
	Place
	Setting string `json:"setting"`
}

// Report is what an import tells. Its JSON keys are a promise; docs/hasura.md describes them.
type Report struct {
	From      string     `json:"from"`
	Triggers  int        `json:"triggers"`
	Variables []Variable `json:"variables"`
	Findings  []Finding  `json:"findings"`
}

// Lost returns the number of triggers and settings that are not in the file.
func (r *Report) Lost() int {
	n := 0
	for _, f := range r.Findings {
		if f.Kind == Skipped || f.Kind == NotCarried {
			n++
		}
	}
	return n
}

func (i *Import) report(names map[string]string) Report {
	r := Report{From: i.from, Triggers: len(i.triggers), Variables: i.variables(names), Findings: []Finding{}}
	r.Findings = append(r.Findings, i.findings...)
	sorting.By(r.Findings, func(a, b Finding) int { return comparePlaces(a.Place, b.Place) })
	return r
}

// variables lists what triggers refer to, those to be copied first, each kind by name.
func (i *Import) variables(names map[string]string) []Variable {
	all := map[string]*Variable{}
	of := func(name string) *Variable {
		if all[name] == nil {
			all[name] = &Variable{Name: name, Warning: refusedName(name), Uses: []Use{}}
		}
		return all[name]
	}
	used := i.referred()
	for _, s := range i.secrets.all {
		if !used[names[s.token]] { // what it was a part of is not in the file
			continue
		}
		v := of(names[s.token])
		v.Copy, v.Uses = true, append(v.Uses, s.uses...)
	}
	for _, t := range i.triggers {
		variables, _ := config.References(t.Spec)
		for _, name := range variables {
			v := of(name)
			if v.Copy {
				continue
			}
			uses := i.secrets.uses[useOf{t.Spec.Name, name}]
			if len(uses) == 0 {
				uses = []Use{{Trigger: t.Spec.Name, Place: t.Place}}
			}
			v.Uses = append(v.Uses, uses...)
		}
	}
	list := []Variable{}
	for _, v := range all {
		if len(v.Uses) > 0 {
			list = append(list, *v)
		}
	}
	sorting.By(list, func(a, b Variable) int {
		if a.Copy != b.Copy {
			if a.Copy {
				return -1
			}
			return 1
		}
		return strings.Compare(a.Name, b.Name)
	})
	return list
}

// Print writes the report for people.
func (r *Report) Print(w io.Writer) {
	fmt.Fprintf(w, "Imported %s from %s.\n", plural(r.Triggers, "trigger"), r.From)
	r.printVariables(w)
	for _, group := range []struct {
		kind  Kind
		title string
	}{
		{Skipped, "Not imported:"},
		{NotCarried, "Not carried over:"},
		{Differs, "Different from before:"},
		{Note, "To know:"},
	} {
		first := true
		for _, f := range r.Findings {
			if f.Kind != group.kind {
				continue
			}
			if first {
				fmt.Fprintf(w, "\n%s\n", group.title)
				first = false
			}
			fmt.Fprintf(w, "  %s\n", f.String())
		}
	}
	switch {
	case len(r.Findings) > 0:
	case r.Triggers == 0:
		fmt.Fprintf(w, "\nNothing to import is in it: see that it is the right file or directory.\n")
	default:
		fmt.Fprintf(w, "\nEvery setting is carried over.\n")
	}
}

func (r *Report) printVariables(w io.Writer) {
	first := true
	for _, v := range r.Variables {
		if first {
			fmt.Fprintf(w, "\nSet where the dispatcher runs:\n")
			first = false
		}
		use := v.Uses[0]
		fmt.Fprintf(w, "  %s: ", v.Name)
		if v.Copy {
			fmt.Fprintf(w, "copy the value from %s (%s of %s)", use.Place, use.Setting, use.Trigger)
		} else {
			fmt.Fprintf(w, "as before, for %s", usedBy(v.Uses))
		}
		if v.Warning != "" {
			fmt.Fprintf(w, "; %s", v.Warning)
		}
		fmt.Fprintln(w)
	}
}

// usedBy names the triggers of uses, at most three of them.
func usedBy(uses []Use) string {
	var names []string
	for _, u := range uses {
		if !slices.Contains(names, u.Trigger) {
			names = append(names, u.Trigger)
		}
	}
	if len(names) > 3 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:2], ", "), len(names)-2)
	}
	return strings.Join(names, ", ")
}

// String returns one line: trigger, place, setting, what became of it, and what to do.
func (f Finding) String() string {
	var parts []string
	for _, part := range []string{f.Trigger, f.Place.String(), f.Setting} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	return strings.Join(append(parts, f.sentence()), ": ")
}

func (f Finding) sentence() string {
	if f.Remedy == "" {
		return f.Message
	}
	return f.Message + "; " + f.Remedy
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
