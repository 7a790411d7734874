package dashboard

import (
	"bytes"
	"fmt"
	"path"
	"regexp"
	"strings"
)

// The page's modules are served as one: 40 small files take a third more, compressed, and a request
// each. Bundling asks for little, since they have a form that a test holds them to: imports stand
// first, exports are constants, functions and classes, and modules do not import each other in a
// circle. Modules of other projects stay files of their own.

// entry is the module that imports all others, and bundle what they are served as.
const (
	entry  = "main.js"
	bundle = "app.js"
)

var (
	importStatement = regexp.MustCompile(`(?m)^import (?:(\w+)|\{([^}]*)\}) from "([^"]+)";$`)
	exportFrom      = regexp.MustCompile(`(?m)^export \{([^}]*)\} from "([^"]+)";$`)
	exportList      = regexp.MustCompile(`(?m)^export \{([^}]*)\};$`)
	exportOne       = regexp.MustCompile(`(?m)^export ((?:async )?function\*?|class|const) (\w+)`)
	renamed         = regexp.MustCompile(`(\w+) as (\w+)`)
	leftOver        = regexp.MustCompile(`(?m)^(?:import|export)\b.*$`)
)

// bundler joins modules. Each becomes a function that returns what it exports, so names of one are
// not seen in another.
type bundler struct {
	modules map[string][]byte // without comments, by their path
	names   map[string]string // the variable of each module; "": it is being added
	count   int               // of variables
	imports bytes.Buffer      // of modules of other projects
	body    bytes.Buffer
}

// bundled returns the entry and all that it imports, as one module. It panics if one has another form:
// the files are a part of the program.
func bundled(modules map[string][]byte) []byte {
	b := &bundler{modules: modules, names: map[string]string{}}
	b.add(entry)
	return append(b.imports.Bytes(), b.body.Bytes()...)
}

// add adds a module after those that it imports, and returns its variable.
func (b *bundler) add(name string) string {
	if variable, known := b.names[name]; known {
		if variable == "" {
			panic("modules of the dashboard import each other in a circle, through " + name)
		}
		return variable
	}
	text, ok := b.modules[name]
	if !ok {
		panic("a module of the dashboard imports " + name + ", which is missing")
	}
	b.count++
	variable := fmt.Sprintf("m%d", b.count)
	if strings.HasPrefix(name, "vendor/") {
		b.names[name] = variable
		_, _ = fmt.Fprintf(&b.imports, "import * as %s from \"./%s\";\n", variable, name)
		return variable
	}
	b.names[name] = ""
	from := func(relative string) string { return b.add(path.Join(path.Dir(name), relative)) }
	var exported []string
	text = replace(importStatement, text, func(m []string) string {
		if m[1] != "" {
			return fmt.Sprintf("const %s = %s.default;", m[1], from(m[3]))
		}
		return fmt.Sprintf("const {%s} = %s;", renamed.ReplaceAllString(m[2], "$1: $2"), from(m[3]))
	})
	text = replace(exportFrom, text, func(m []string) string {
		exported = append(exported, renamed.ReplaceAllString(m[1], "$2"))
		return fmt.Sprintf("const {%s} = %s;", renamed.ReplaceAllString(m[1], "$1: $2"), from(m[2]))
	})
	text = replace(exportList, text, func(m []string) string {
		exported = append(exported, renamed.ReplaceAllString(m[1], "$2: $1"))
		return ""
	})
	text = replace(exportOne, text, func(m []string) string {
		exported = append(exported, m[2])
		return m[1] + " " + m[2]
	})
	if line := leftOver.Find(text); line != nil {
		panic(fmt.Sprintf("the module %s of the dashboard has a form that can't be bundled: %s", name, line))
	}
	b.names[name] = variable
	_, _ = fmt.Fprintf(&b.body, "// %s\nconst %s = (() => {\n%s\nreturn {%s};\n})();\n", name, variable, text, strings.Join(exported, ", "))
	return variable
}

// replace replaces each match by what f makes of its groups, which keeps the number of lines.
func replace(re *regexp.Regexp, text []byte, f func(groups []string) string) []byte {
	return re.ReplaceAllFunc(text, func(match []byte) []byte {
		var groups []string
		for _, g := range re.FindSubmatch(match) {
			groups = append(groups, string(g))
		}
		out := f(groups)
		return append([]byte(out), bytes.Repeat([]byte("\n"), bytes.Count(match, []byte("\n"))-strings.Count(out, "\n"))...)
	})
}
