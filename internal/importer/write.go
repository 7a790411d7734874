package importer

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/trigger"
)

// write returns the file with its comments.
func (i *Import) write(specs []trigger.Spec, r Report) ([]byte, error) {
	text, err := config.WriteAll(specs, trigger.DefaultSettings(), config.Shared)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	paragraph(&out, "", "Imported from "+i.from+".")
	for _, p := range i.header {
		paragraph(&out, "", p)
	}
	for _, p := range variableComments(r.Variables) {
		paragraph(&out, "", p)
	}
	commented(&out, string(text), i.comments(r))
	return out.Bytes(), nil
}

func variableComments(all []Variable) []string {
	var lines []string
	for _, v := range all {
		switch {
		case v.Copy:
			lines = append(lines, fmt.Sprintf("%s: its value stands at %s (%s of %s).", v.Name, v.Uses[0].Place, v.Uses[0].Setting, v.Uses[0].Trigger))
		case v.Warning != "":
			lines = append(lines, v.Name+": "+v.Warning+".")
		default:
			lines = append(lines, v.Name)
		}
	}
	if len(lines) == 0 {
		return nil
	}
	return append([]string{"", "Variables to set where the dispatcher runs:"}, lines...)
}

// comments returns the comments of each trigger by key; "" is above the trigger.
func (i *Import) comments(r Report) map[string]map[string][]string {
	all := map[string]map[string][]string{}
	for _, t := range i.triggers {
		all[t.Spec.Name] = map[string][]string{"": t.Comments}
	}
	for _, f := range r.Findings {
		if f.Kind == Skipped || f.Kind == Note && f.Key == "" {
			continue
		}
		text := f.sentence() + "."
		if f.Setting != "" {
			text = f.Setting + " " + text
		}
		for _, t := range i.triggers {
			if of := all[t.Spec.Name]; t.Spec.Name == f.Trigger || f.Of != "" && f.Of == t.Of {
				of[f.Key] = append(of[f.Key], text)
			}
		}
	}
	return all
}

// commented copies a rowhook.yaml, and puts comments above the keys that they are of. Those of a key
// that the trigger does not have stand above the trigger. Every line of such a file is a key or an
// entry of a list.
func commented(out *bytes.Buffer, text string, comments map[string]map[string][]string) {
	head, blocks := blocksOf(text)
	for _, line := range head {
		out.WriteString(line)
	}
	for _, lines := range blocks {
		name := strings.Trim(strings.TrimSpace(strings.TrimPrefix(lines[0], triggerLine)), `"`)
		keys := keysOf(lines)
		above := map[int][]string{}
		for _, key := range slices.Sorted(maps.Keys(comments[name])) {
			above[max(slices.Index(keys, key), 0)] = append(above[max(slices.Index(keys, key), 0)], comments[name][key]...)
		}
		for at, line := range lines {
			indent := line[:len(line)-len(strings.TrimLeft(line, " "))]
			if at == 0 {
				out.WriteByte('\n')
			}
			for _, comment := range above[at] {
				paragraph(out, indent, comment)
			}
			out.WriteString(line)
		}
	}
}

const triggerLine = "  - name: "

// blocksOf divides a file into the lines before the first trigger, and those of each trigger.
func blocksOf(text string) (head []string, blocks [][]string) {
	for line := range strings.Lines(text) {
		switch last := len(blocks) - 1; {
		case strings.HasPrefix(line, triggerLine):
			blocks = append(blocks, []string{line})
		case last < 0:
			head = append(head, line)
		default:
			blocks[last] = append(blocks[last], line)
		}
	}
	return head, blocks
}

// keysOf returns the path of the key on each line of a trigger, such as webhook.url; "" on lines
// without one.
func keysOf(lines []string) []string {
	keys := make([]string, len(lines))
	var path []string
	for i, line := range lines[1:] {
		content := strings.TrimLeft(line, " ")
		depth := (len(line) - len(content) - len("    ")) / 2
		if strings.HasPrefix(content, "- ") || depth < 0 {
			continue
		}
		key, _, _ := strings.Cut(strings.TrimSpace(content), ":")
		path = append(path[:min(len(path), depth)], strings.Trim(key, `"`))
		keys[i+1] = strings.Join(path, ".")
	}
	return keys
}

// paragraph writes a comment of several lines.
func paragraph(out *bytes.Buffer, indent, text string) {
	const width = 100
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == 0xfeff || r == 0x2028 || r == 0x2029 {
			return ' '
		}
		return r
	}, text)
	if strings.TrimSpace(text) == "" {
		out.WriteString(indent + "#\n")
		return
	}
	line := indent + "#"
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > width && line != indent+"#" {
			out.WriteString(line + "\n")
			line = indent + "#"
		}
		line += " " + word
	}
	out.WriteString(line + "\n")
}
