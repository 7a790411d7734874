package cli

import (
	"encoding/json"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/config"
)

// stopping is what run may take to end beyond the grace period: the HTTP interface five seconds,
// the last spans three.
const stopping = 8 * time.Second

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile("../../" + file)
	require.NoError(t, err)
	return string(text)
}

// understand checks that the program takes these arguments and variables, and returns the command
// that they run.
func understand(t *testing.T, args []string, environment ...string) *cobra.Command {
	t.Helper()
	a := &app{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard}
	root, known := a.root(), map[string]bool{}
	cmd, rest, err := root.Find(args)
	require.NoError(t, err)
	require.True(t, cmd.HasParent(), "%q names no command", args)
	require.NoError(t, cmd.ParseFlags(rest), "%q", args)
	require.NoError(t, cmd.ValidateArgs(cmd.Flags().Args()), "%q", args)
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		for _, name := range f.Annotations[twinKey] {
			known[name] = true
		}
	})
	if cmd.Name() == "run" {
		known[httpTokenVariable], known[httpReadTokenVariable] = true, true
	}
	for _, name := range environment {
		if strings.HasPrefix(name, "ROWHOOK_") {
			require.True(t, known[name], "rowhook %s does not read %s", cmd.Name(), name)
		}
	}
	return cmd
}

func flagValue(cmd *cobra.Command, name string) string { return cmd.Flag(name).Value.String() }

// references are the variables that the triggers of a file refer to.
func references(t *testing.T, name, text string) []string {
	t.Helper()
	c, err := config.Parse(name, []byte(text))
	require.NoError(t, err)
	return referencesOf(c)
}

func referencesOf(c *config.Config) (names []string) {
	for _, trigger := range c.Triggers {
		variables, _ := config.References(trigger)
		names = append(names, variables...)
	}
	return names
}

// parse reads YAML into a value that has the keys that the test looks at.
func parse[T any](t *testing.T, text string) (v T) {
	t.Helper()
	require.NoError(t, yaml.Unmarshal([]byte(text), &v))
	return v
}

var jsonList = regexp.MustCompile(`\[.*\]`)

// instruction is the list of words that a Dockerfile gives an instruction in brackets.
func instruction(t *testing.T, dockerfile, name string) (words []string) {
	t.Helper()
	for line := range strings.Lines(dockerfile) {
		if strings.HasPrefix(line, name+" ") {
			require.NoError(t, json.Unmarshal([]byte(jsonList.FindString(line)), &words), line)
		}
	}
	require.NotEmpty(t, words, name)
	return words
}

func TestTheImageStartsAndChecksWhatTheProgramHas(t *testing.T) {
	t.Parallel()
	dockerfile := read(t, "Dockerfile")
	require.Equal(t, "run", understand(t, instruction(t, dockerfile, "CMD")).Name())
	check := instruction(t, dockerfile, "HEALTHCHECK")
	require.Equal(t, instruction(t, dockerfile, "ENTRYPOINT")[0], check[0])
	cmd := understand(t, check[1:])
	require.Equal(t, "healthcheck", cmd.Name())
	engine, err := time.ParseDuration(regexp.MustCompile(`--timeout=(\w+)`).FindStringSubmatch(dockerfile)[1])
	require.NoError(t, err)
	own, err := time.ParseDuration(flagValue(cmd, "timeout"))
	require.NoError(t, err)
	require.Greater(t, engine, own, "the engine ends the check before it has said what is wrong")

	// The compiler runs on the builder's platform, whatever the image's is.
	require.Contains(t, dockerfile, "FROM --platform=$BUILDPLATFORM golang:"+regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, "go.mod"))[1]+"-alpine")
}

func TestTheBuilderOfTheImageGetsEveryPackageOfTheProgram(t *testing.T) {
	t.Parallel()
	given := map[string]bool{}
	for line := range strings.Lines(read(t, ".dockerignore")) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "!"); ok {
			given[strings.TrimSuffix(path, "/")] = true
			_, err := os.Stat("../../" + path)
			require.NoError(t, err)
		}
	}
	list := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", "github.com/rowhook/rowhook")
	out, err := list.Output()
	require.NoError(t, err)
	needed := 0
	for path := range strings.Lines(string(out)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(path), "github.com/rowhook/rowhook/"); ok {
			needed++
			top, _, _ := strings.Cut(path, "/")
			require.True(t, given[top], ".dockerignore keeps %s from the builder", path)
		}
	}
	require.Greater(t, needed, 20)
}

// service is one of a compose file.
type service struct {
	Image       string
	Build       string
	Command     []string
	Environment map[string]string
	Volumes     []string
	Healthcheck struct{ Test []string }
	Grace       string `yaml:"stop_grace_period"`
}

// mounted checks that the command reads each directory that is mounted, and that the environment has
// the variables that the configuration in it refers to.
func mounted(t *testing.T, root string, s service) {
	t.Helper()
	for _, v := range s.Volumes {
		from, to, _ := strings.Cut(v, ":")
		require.Contains(t, s.Command, strings.TrimSuffix(to, ":ro"))
		c, err := config.Load(root+from, nil)
		require.NoError(t, err)
		for _, variable := range referencesOf(c) {
			require.Contains(t, s.Environment, variable)
		}
	}
}

func TestTheStackBesideAnAppUsesWhatTheProgramHas(t *testing.T) {
	t.Parallel()
	const file = "examples/compose/docker-compose.yml"
	services := parse[struct{ Services map[string]service }](t, read(t, file)).Services
	for _, name := range []string{"rowhook", "app"} {
		s := services[name]
		understand(t, s.Command, slices.Collect(maps.Keys(s.Environment))...)
		mounted(t, "../../examples/compose/", s)
	}
	_, port, err := net.SplitHostPort(flagValue(understand(t, services["app"].Command), "listen"))
	require.NoError(t, err)
	require.Equal(t, "http://app:"+port, services["rowhook"].Environment["SHOP_URL"])
	require.GreaterOrEqual(t, len(services["rowhook"].Environment["ROWHOOK_HTTP_TOKEN"]), 16)

	// The quick start shows the service, too.
	text := read(t, file)
	from := strings.Index(text, "  rowhook:\n")
	shown := text[from : from+strings.Index(text[from:], "\n\n")]
	require.Contains(t, read(t, "docs/quickstart.md"), "    "+strings.ReplaceAll(shown, "\n", "\n    ")+"\n")
}

func TestTheComposeStackUsesWhatTheProgramHas(t *testing.T) {
	t.Parallel()
	services := parse[struct{ Services map[string]service }](t, read(t, "docker-compose.yml")).Services
	images, built := map[string]bool{}, 0
	for name, s := range services {
		if s.Build == "" {
			continue
		}
		built++
		require.False(t, images[s.Image], "two services write the image %q", s.Image)
		images[s.Image] = true
		understand(t, s.Command, slices.Collect(maps.Keys(s.Environment))...)
		require.Equal(t, []string{"CMD", "/rowhook"}, s.Healthcheck.Test[:2], name)
		understand(t, s.Healthcheck.Test[2:])
		mounted(t, "../../", s)
	}
	require.Equal(t, 2, built)
	run, sink := services["rowhook"], services["receiver"]
	grace, err := time.ParseDuration(run.Grace)
	require.NoError(t, err)
	require.GreaterOrEqual(t, grace, dispatcher.DefaultGracePeriod+stopping)
	_, port, err := net.SplitHostPort(flagValue(understand(t, sink.Command), "listen"))
	require.NoError(t, err)
	require.Equal(t, "http://receiver:"+port, run.Environment["RECEIVER_URL"])
	require.Contains(t, sink.Healthcheck.Test, "http://localhost:"+port+"/healthz")
}

func TestTheKubernetesManifestUsesWhatTheProgramHas(t *testing.T) {
	t.Parallel()
	type probe struct {
		HTTPGet struct {
			Path string
			Port int
		} `yaml:"httpGet"`
		Timeout int `yaml:"timeoutSeconds"`
	}
	type object struct {
		Kind     string
		Metadata struct{ Name string }
		Data     map[string]string
		Spec     struct {
			Template struct {
				Metadata struct{ Annotations map[string]string }
				Spec     struct {
					Grace      int `yaml:"terminationGracePeriodSeconds"`
					Containers []struct {
						Args    []string
						Env     []struct{ Name, Value string }
						EnvFrom []struct {
							SecretRef struct{ Name string } `yaml:"secretRef"`
						} `yaml:"envFrom"`
						LivenessProbe  probe `yaml:"livenessProbe"`
						ReadinessProbe probe `yaml:"readinessProbe"`
					}
				}
			}
		}
	}
	text := read(t, "docs/deploy/kubernetes.yaml")
	secrets := map[string][]string{}
	for _, m := range regexp.MustCompile(`create secret generic (\S+)((?:.*\\\n)*.*)`).FindAllStringSubmatch(text, -1) {
		for _, key := range regexp.MustCompile(`--from-literal=(\w+)=`).FindAllStringSubmatch(m[2], -1) {
			secrets[m[1]] = append(secrets[m[1]], key[1])
		}
	}
	objects := map[string]object{}
	for document := range strings.SplitSeq(text, "\n---\n") {
		o := parse[object](t, document)
		objects[o.Kind] = o
	}
	variables := map[string][]string{}
	for _, kind := range []string{"Job", "Deployment"} {
		c := objects[kind].Spec.Template.Spec.Containers[0]
		for _, from := range c.EnvFrom {
			require.Contains(t, secrets, from.SecretRef.Name)
			variables[kind] = append(variables[kind], secrets[from.SecretRef.Name]...)
		}
		for _, e := range c.Env {
			variables[kind] = append(variables[kind], e.Name)
		}
		require.Contains(t, variables[kind], databaseURLVariable)
	}
	job, deployment := objects["Job"].Spec.Template.Spec, objects["Deployment"].Spec.Template
	require.Equal(t, "apply", understand(t, job.Containers[0].Args, variables["Job"]...).Name())
	container := deployment.Spec.Containers[0]
	require.Equal(t, "run", understand(t, container.Args, variables["Deployment"]...).Name())
	require.Subset(t, variables["Deployment"], references(t, "rowhook.yaml", objects["ConfigMap"].Data["rowhook.yaml"]))

	require.GreaterOrEqual(t, time.Duration(deployment.Spec.Grace)*time.Second, dispatcher.DefaultGracePeriod+stopping)
	port := ""
	for _, e := range container.Env {
		if e.Name == "ROWHOOK_HTTP" {
			_, port, _ = net.SplitHostPort(e.Value)
		}
	}
	require.Equal(t, port, deployment.Metadata.Annotations["prometheus.io/port"])
	require.Contains(t, variables["Deployment"], httpReadTokenVariable, "an address that others can reach demands a token")
	require.Equal(t, "/healthz", container.LivenessProbe.HTTPGet.Path)
	require.Equal(t, "/readyz", container.ReadinessProbe.HTTPGet.Path)
	for _, p := range []probe{container.LivenessProbe, container.ReadinessProbe} {
		require.Equal(t, port, strconv.Itoa(p.HTTPGet.Port))
		require.Greater(t, p.Timeout, 3, "/readyz may take three seconds where the database does not answer")
	}
}

func TestTheUnitUsesWhatTheProgramHas(t *testing.T) {
	t.Parallel()
	checkUnit(t, "docs/deploy/rowhook.service")
}

func TestTheTemplateUnitTellsItsInstancesApart(t *testing.T) {
	t.Parallel()
	unit := checkUnit(t, "docs/deploy/rowhook@.service")
	for _, key := range []string{"ExecStart", "EnvironmentFile", "Description"} {
		require.Contains(t, unit[key], "%i", key)
	}
	require.Contains(t, read(t, "docs/deploy/rowhook@.service"), "ROWHOOK_HTTP", "two can't have one port")
	require.NotContains(t, checkUnit(t, "docs/deploy/rowhook.service")["ExecStart"], "%i")
}

func checkUnit(t *testing.T, file string) map[string]string {
	t.Helper()
	analyze(t, file)
	unit := map[string]string{}
	for line := range strings.Lines(read(t, file)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(key, "#") {
			unit[key] = value
		}
	}
	words := strings.Fields(unit["ExecStart"])
	// systemd looks in /usr/local/bin and /usr/bin: one unit for packages and for a program that was copied.
	require.Equal(t, "rowhook", words[0])
	cmd := understand(t, words[1:])
	require.Equal(t, "run", cmd.Name())
	require.NotEmpty(t, flagValue(cmd, "file"), "a reload applies the file again")
	require.Contains(t, unit["ExecReload"], "-HUP")
	seconds, err := strconv.Atoi(unit["TimeoutStopSec"])
	require.NoError(t, err)
	require.GreaterOrEqual(t, time.Duration(seconds)*time.Second, dispatcher.DefaultGracePeriod+stopping)
	require.Contains(t, read(t, "packaging/rowhook.sysusers"), "\nu "+unit["User"]+" ", "the packages make another user")
	require.Equal(t, "yes", unit["DynamicUser"], "a copied unit has no user otherwise")
	return unit
}

// analyze has systemd read a unit, where there is systemd: each key is one that it knows, and what the
// unit may do is little.
func analyze(t *testing.T, file string) {
	t.Helper()
	program, err := exec.LookPath("systemd-analyze")
	if err != nil {
		return
	}
	self, err := os.Executable()
	require.NoError(t, err)
	name := strings.Replace(filepath.Base(file), "@", "@name", 1)
	unit := filepath.Join(t.TempDir(), name)
	text := strings.Replace(read(t, file), "ExecStart=rowhook", "ExecStart="+self, 1) // it looks for the program
	require.NoError(t, os.WriteFile(unit, []byte(text), 0o600))
	out, err := exec.Command(program, "verify", "--man=no", unit).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.NotContains(t, string(out), name+":", "%s", out)
	out, err = exec.Command(program, "security", "--offline=yes", "--no-pager", "--threshold=15", unit).CombinedOutput()
	if strings.Contains(string(out), "unrecognized option") { // before systemd 250
		return
	}
	require.NoError(t, err, "%s", out)
}
