package docs_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The pages about the code name files, declarations and SQL objects in backticks. Each of these forms is looked up:
//
//	dispatcher/sender.go                       a file or directory of the repository
//	dispatcher/sender.go: sender.attempt   a declaration in that file, in a .sql file an object
//	dispatcher.sender.attempt                  package, then a function, type, constant, method or field
//	rowhook.event_log, rowhook.event_log.claim an object that a migration makes, or a column of one
var (
	quoted      = regexp.MustCompile("`([^`\n]+)`")
	pathForm    = regexp.MustCompile(`^[\w.@-]*\w(/[\w.@*-]+)+/?$|^[\w-]+\.(go|sql|md|yaml|yml|json|pml)$`)
	declForm    = regexp.MustCompile(`^([\w./-]+\.(?:go|sql)): ([\w.]+)$`)
	dottedForm  = regexp.MustCompile(`^[a-z]\w*(\.\w+)+$`)
	elsewhere   = regexp.MustCompile(`^(github\.com|golang\.org|pkg\.go\.dev)/`)
	fencedBlock = regexp.MustCompile("(?ms)^```.*?^```|^(    .*\n)+")
)

// pagesAboutCode are held to what is in the code, by their path from the root.
func pagesAboutCode(t *testing.T) []string {
	t.Helper()
	pages := []string{"docs/architecture.md"}
	decisions, err := filepath.Glob("decisions/*.md")
	require.NoError(t, err)
	for _, d := range decisions {
		pages = append(pages, "docs/"+filepath.ToSlash(d))
	}
	return append(pages, "CONTRIBUTING.md")
}

func TestWhatThePagesAboutTheCodeNameExists(t *testing.T) {
	t.Parallel()
	s := readSources(t)
	named := 0
	var wrong []string
	for _, page := range pagesAboutCode(t) {
		text, err := os.ReadFile("../" + page)
		require.NoError(t, err)
		prose := fencedBlock.ReplaceAllStringFunc(string(text), func(block string) string { return strings.Repeat("\n", strings.Count(block, "\n")) })
		for n, line := range strings.Split(prose, "\n") {
			for _, m := range quoted.FindAllStringSubmatch(line, -1) {
				problem, isName := s.check(m[1])
				if isName {
					named++
				}
				if problem != "" {
					wrong = append(wrong, fmt.Sprintf("%s:%d names `%s`: %s", page, n+1, m[1], problem))
				}
			}
		}
	}
	require.Empty(t, wrong, "%s", strings.Join(wrong, "\n"))
	require.Greater(t, named, 60)
}

func TestGoFilesThatOtherPagesNameExist(t *testing.T) {
	t.Parallel()
	goFile := regexp.MustCompile("`([\\w-]+(?:/[\\w-]+)+\\.go)`")
	for _, page := range allPages(t) {
		text, err := os.ReadFile("../" + page)
		require.NoError(t, err)
		for _, m := range goFile.FindAllSubmatch(text, -1) {
			require.FileExists(t, "../"+string(m[1]), "%s names it", page)
		}
	}
}

// TestEveryPackageIsInTheArchitecture keeps the list of packages whole.
func TestEveryPackageIsInTheArchitecture(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("architecture.md")
	require.NoError(t, err)
	var missing []string
	for _, dir := range slices.Sorted(maps.Keys(readSources(t).dirs)) {
		if dir != "." && strings.Count(dir, "/") < 2 && !strings.Contains(string(text), "`"+dir+"`") {
			missing = append(missing, dir)
		}
	}
	require.Empty(t, missing, "docs/architecture.md lists the packages, and lacks these")
}

// TestPackagesImportOnlyWhatStandsBelowThem reads the order of the list of packages.
func TestPackagesImportOnlyWhatStandsBelowThem(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("architecture.md")
	require.NoError(t, err)
	_, list, ok := strings.Cut(string(text), "\n## The packages\n")
	require.True(t, ok)
	list, _, ok = strings.Cut(list, "no part of the program")
	require.True(t, ok)
	s := readSources(t)
	var order []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([\\w/]+)`").FindAllStringSubmatch(list, -1) {
		order = append(order, m[1])
	}
	require.Greater(t, len(order), 10)
	for i, dir := range order {
		for imported := range s.imports[dir] {
			require.Contains(t, order[i+1:], imported, "%s imports it, so it has to stand below it in docs/architecture.md, or not be imported", dir)
		}
	}
}

// sources is what the code declares.
type sources struct {
	dirs     map[string]bool            // that hold Go files other than tests
	imports  map[string]map[string]bool // directory to those that it imports, tests aside
	packages map[string]bool            // their names
	declared map[string][]string        // name, with its package before it, to the files that declare it
	inFile   map[string]map[string]bool // file to names without the package
	sql      map[string]bool            // objects of the schema rowhook, and their columns
}

func readSources(t *testing.T) *sources {
	t.Helper()
	s := &sources{
		dirs: map[string]bool{}, imports: map[string]map[string]bool{}, packages: map[string]bool{}, declared: map[string][]string{},
		inFile: map[string]map[string]bool{}, sql: map[string]bool{},
	}
	require.NoError(t, filepath.WalkDir("..", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && (strings.HasPrefix(d.Name(), ".") && d.Name() != ".." || d.Name() == "node_modules") {
			return fs.SkipDir
		}
		name := strings.TrimPrefix(filepath.ToSlash(file), "../")
		switch {
		case strings.HasSuffix(name, "_test.go"):
		case strings.HasSuffix(name, ".go"):
			return s.readGo(file, name)
		case strings.HasSuffix(name, ".sql") && strings.Contains(name, "/migrations/"):
			return s.readSQL(file, name)
		}
		return nil
	}))
	return s
}

func (s *sources) readGo(file, name string) error {
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	dir := path.Dir(name)
	s.dirs[dir], s.packages[f.Name.Name] = true, true
	if s.imports[dir] == nil {
		s.imports[dir] = map[string]bool{}
	}
	for _, i := range f.Imports {
		if imported, ok := strings.CutPrefix(strings.Trim(i.Path.Value, `"`), "github.com/rowhook/rowhook/"); ok {
			s.imports[dir][imported] = true
		}
	}
	s.inFile[name] = map[string]bool{}
	add := func(parts ...string) {
		declared := strings.Join(parts, ".")
		s.inFile[name][declared] = true
		s.declared[f.Name.Name+"."+declared] = append(s.declared[f.Name.Name+"."+declared], name)
	}
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil {
				add(d.Name.Name)
			} else {
				add(receiver(d.Recv.List[0].Type), d.Name.Name)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch spec := spec.(type) {
				case *ast.ValueSpec:
					for _, id := range spec.Names {
						add(id.Name)
					}
				case *ast.TypeSpec:
					add(spec.Name.Name)
					if fields, ok := spec.Type.(*ast.StructType); ok {
						for _, field := range fields.Fields.List {
							for _, id := range field.Names {
								add(spec.Name.Name, id.Name)
							}
						}
					}
				}
			}
		}
	}
	return nil
}

// receiver is the name of a method's type, less pointers and type parameters.
func receiver(t ast.Expr) string {
	switch t := t.(type) {
	case *ast.StarExpr:
		return receiver(t.X)
	case *ast.IndexExpr:
		return receiver(t.X)
	case *ast.IndexListExpr:
		return receiver(t.X)
	case *ast.Ident:
		return t.Name
	}
	return ""
}

var (
	sqlObject = regexp.MustCompile(`(?m)^ *create (?:or replace )?(?:unique |unlogged )?(?:table|view|sequence|function|index|trigger)(?: if not exists)? (?:rowhook\.)?(\w+)`)
	sqlTable  = regexp.MustCompile(`(?ms)^create (?:unlogged )?table (?:if not exists )?rowhook\.(\w+) \((.*?)^\)`)
	sqlColumn = regexp.MustCompile(`(?m)^  (\w+) +[\w"]`)
	sqlAdded  = regexp.MustCompile(`alter table rowhook\.(\w+) +add column (?:if not exists )?(\w+)`)
)

func (s *sources) readSQL(file, name string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	s.inFile[name] = map[string]bool{}
	add := func(object string) {
		s.sql["rowhook."+object], s.inFile[name]["rowhook."+object] = true, true
	}
	for _, m := range sqlObject.FindAllStringSubmatch(string(text), -1) {
		add(m[1])
	}
	for _, m := range sqlTable.FindAllStringSubmatch(string(text), -1) {
		for _, column := range sqlColumn.FindAllStringSubmatch(m[2], -1) {
			add(m[1] + "." + column[1])
		}
	}
	for _, m := range sqlAdded.FindAllStringSubmatch(string(text), -1) {
		add(m[1] + "." + m[2])
	}
	return nil
}

// check says what is wrong with a text in backticks, and whether it has the form of a name at all.
func (s *sources) check(text string) (problem string, isName bool) {
	if m := declForm.FindStringSubmatch(text); m != nil {
		file, name := m[1], m[2]
		names, ok := s.inFile[file]
		switch {
		case ok && names[name]:
			return "", true
		case ok:
			return "it does not declare that" + s.hint(name), true
		}
		return "there is no such file" + s.hint(name), true
	}
	text, _, _ = strings.Cut(text, " ") // a command with its arguments
	switch {
	case elsewhere.MatchString(text):
		return "", false
	case pathForm.MatchString(text):
		if found, err := filepath.Glob("../" + text); err != nil || len(found) == 0 {
			return "there is no such file", true
		}
		return "", true
	case dottedForm.MatchString(text):
		first, rest, _ := strings.Cut(text, ".")
		switch {
		case first == "rowhook" && (s.sql[text] || strings.HasPrefix(rest, "yaml")):
			return "", true
		case first == "rowhook":
			return "no migration makes it", true
		case !s.packages[first]:
			return "there is no package " + first + s.hint(rest), true
		case s.declared[text] == nil:
			return "package " + first + " does not declare it" + s.hint(rest), true
		}
		return "", true
	}
	return "", false
}

// hint says where a name is declared now, or one that ends in the same way.
func (s *sources) hint(name string) string {
	var same, alike []string
	last := name[strings.LastIndex(name, ".")+1:]
	for file, names := range s.inFile {
		for n := range names {
			switch {
			case n == name:
				same = append(same, file+": "+n)
			case n[strings.LastIndex(n, ".")+1:] == last:
				alike = append(alike, file+": "+n)
			}
		}
	}
	if same == nil {
		same = alike
	}
	if same == nil {
		return ""
	}
	slices.Sort(same)
	return "; there is " + strings.Join(same[:min(len(same), 3)], ", ")
}

// allPages are the Markdown files of the repository, by their path from the root.
func allPages(t *testing.T) (pages []string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir("..", func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == ".cache" || d.Name() == "node_modules" || d.Name() == "testdata"):
			return fs.SkipDir
		case strings.HasSuffix(file, ".md"):
			pages = append(pages, strings.TrimPrefix(filepath.ToSlash(file), "../"))
		}
		return nil
	}))
	require.Contains(t, pages, "README.md")
	return pages
}

func TestEveryLinkBetweenPagesLeadsSomewhere(t *testing.T) {
	t.Parallel()
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	for _, page := range allPages(t) {
		text, err := os.ReadFile("../" + page)
		require.NoError(t, err)
		for _, m := range link.FindAllSubmatch(text, -1) {
			target := string(m[1])
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			file, anchor, _ := strings.Cut(target, "#")
			at := page
			if file != "" {
				at = path.Join(path.Dir(page), file)
			}
			// What leaves the repository is the forge's own, such as ../../security/advisories/new.
			if strings.HasPrefix(at, "../") {
				continue
			}
			_, err := os.Stat("../" + at)
			require.NoError(t, err, "%s links to %s", page, target)
			if anchor != "" {
				require.Contains(t, anchors(t, at), anchor, "%s links to %s", page, target)
			}
		}
	}
}

var heading = regexp.MustCompile(`(?m)^#+ +(.+)$`)

// anchors are what forges call the headings of a page.
func anchors(t *testing.T, page string) (all []string) {
	t.Helper()
	text, err := os.ReadFile("../" + page)
	require.NoError(t, err)
	dropped := regexp.MustCompile(`[^\p{L}\p{N}\- _]`)
	for _, m := range heading.FindAllStringSubmatch(string(text), -1) {
		all = append(all, strings.ReplaceAll(dropped.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-"))
	}
	return all
}
