package cli

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/config"
)

// packaged is a file of the packages for Linux.
type packaged struct {
	Source   string                     `yaml:"src"`
	To       string                     `yaml:"dst"`
	Type     string                     `yaml:"type"`
	Packager string                     `yaml:"packager"`
	Info     struct{ Mode os.FileMode } `yaml:"file_info"`
}

// release is what the tests look at of .goreleaser.yaml.
type release struct {
	Before   struct{ Hooks []string }
	Snapshot struct {
		Version string `yaml:"version_template"`
	}
	Builds []struct {
		ID           string
		Goos, Goarch []string
		Flags        []string
		LDFlags      []string `yaml:"ldflags"`
	}
	Archives []struct {
		Name  string `yaml:"name_template"`
		Files []struct {
			Source string `yaml:"src"`
		}
	}
	Checksum struct {
		Name string `yaml:"name_template"`
	}
	SBOMs []struct{ Documents []string } `yaml:"sboms"`
	Nfpms []struct {
		Name     string `yaml:"file_name_template"`
		Formats  []string
		License  string
		Bindir   string
		Scripts  map[string]string
		Contents []packaged
		APK      struct{ Scripts map[string]string } `yaml:"apk"`
	}
	Casks []struct {
		Binaries    []string
		Completions map[string]string
	} `yaml:"homebrew_casks"`
	Images []struct {
		IDs        []string `yaml:"ids"`
		Images     []string
		Platforms  []string
		ExtraFiles []string          `yaml:"extra_files"`
		Flags      []string          `yaml:"flags"`
		Args       map[string]string `yaml:"build_args"`
	} `yaml:"dockers_v2"`
}

func releaseOf(t *testing.T) release {
	t.Helper()
	var r release
	require.NoError(t, yaml.Unmarshal([]byte(read(t, ".goreleaser.yaml")), &r))
	return r
}

// madeForRelease are the files that the hooks of .goreleaser.yaml make, under .cache/release.
func madeForRelease(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, WriteManuals(filepath.Join(dir, "manuals"), "v1.2.3", time.Unix(1790000000, 0), []byte("triggers: []\n")))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "ca-certificates.crt"), nil, 0o600))
	return dir
}

func TestAReleaseTakesFilesThatThereAre(t *testing.T) {
	t.Parallel()
	r, made := releaseOf(t), madeForRelease(t)
	exists := func(name string) {
		t.Helper()
		from := "../../" + name
		if rest, ok := strings.CutPrefix(name, ".cache/release/"); ok {
			from = filepath.Join(made, rest)
		}
		files, err := filepath.Glob(from)
		require.NoError(t, err)
		require.NotEmpty(t, files, name)
	}
	for _, archive := range r.Archives {
		for _, file := range archive.Files {
			exists(file.Source)
		}
	}
	for _, file := range r.Nfpms[0].Contents {
		exists(file.Source)
	}
	for _, scripts := range []map[string]string{r.Nfpms[0].Scripts, r.Nfpms[0].APK.Scripts} {
		for _, script := range scripts {
			exists(script)
		}
	}
	for _, file := range r.Images[0].ExtraFiles {
		exists(file)
		require.Contains(t, read(t, "Dockerfile"), "COPY "+file+" ")
	}
	for _, file := range r.Casks[0].Completions {
		exists(".cache/release/manuals/" + file)
	}
	for _, hook := range r.Before.Hooks {
		words := strings.Fields(hook)
		if words[0] == "go" {
			exists(words[2])
		}
	}
	require.Contains(t, r.Before.Hooks[0], " --dir .cache/release/manuals ")
	require.Equal(t, "Apache-2.0", r.Nfpms[0].License)
	require.Contains(t, read(t, "LICENSE"), "Apache License")
}

func TestAReleaseIsForThesePlatforms(t *testing.T) {
	t.Parallel()
	r := releaseOf(t)
	require.Equal(t, []string{"linux", "darwin", "windows"}, r.Builds[0].Goos)
	require.Equal(t, []string{"amd64", "arm64"}, r.Builds[0].Goarch)
	require.Equal(t, []string{"deb", "rpm", "apk"}, r.Nfpms[0].Formats)
	require.Equal(t, []string{"linux/amd64", "linux/arm64"}, r.Images[0].Platforms)
	require.Equal(t, []string{r.Builds[0].ID}, r.Images[0].IDs)
}

// TestReleasesAreBuiltAsTheImageIs compares flags and labels.
func TestReleasesAreBuiltAsTheImageIs(t *testing.T) {
	t.Parallel()
	r, dockerfile := releaseOf(t), read(t, "Dockerfile")
	m := regexp.MustCompile(`(?s)go build (.*?) -o `).FindStringSubmatch(dockerfile)
	require.NotNil(t, m)
	image := strings.Fields(strings.NewReplacer("\\\n", " ", `"`, "", "${VERSION}", "v{{ .Version }}").Replace(m[1]))
	build := append(append(slices.Clone(r.Builds[0].Flags), "-ldflags"), strings.Fields(strings.Join(r.Builds[0].LDFlags, " "))...)
	require.Equal(t, strings.Join(image, " "), strings.Join(build, " "))
	require.Contains(t, strings.Join(build, " "), "-X github.com/rowhook/rowhook/internal/cli.version=v{{ .Version }}")
	require.Equal(t, "v{{ .Version }}", r.Images[0].Args["VERSION"], "the image and its label have another version than the program")
	for name := range r.Images[0].Args {
		require.Regexp(t, `ARG .*`+name+`=""`, dockerfile)
		require.Contains(t, dockerfile, "${"+name+"}")
	}
	for _, flag := range r.Images[0].Flags {
		if target, ok := strings.CutPrefix(flag, "--target="); ok {
			require.Contains(t, dockerfile, " AS "+target+"\n")
		}
	}
}

func TestThePackagesHoldTheServiceAndTheFilesOfTheUser(t *testing.T) {
	t.Parallel()
	files := map[string]packaged{}
	for _, file := range releaseOf(t).Nfpms[0].Contents {
		files[file.To] = file
	}
	for _, name := range []string{
		"/usr/lib/systemd/system/rowhook.service", "/usr/lib/systemd/system/rowhook@.service", "/usr/lib/sysusers.d/rowhook.conf",
		"/usr/share/man/man1", "/usr/share/man/man5", "/usr/share/bash-completion/completions/rowhook", "/usr/share/fish/vendor_completions.d/rowhook.fish",
	} {
		require.Contains(t, files, name)
	}
	// What the unit reads is there, belongs to the user, and is closed to others if it may hold a secret.
	unit := checkUnit(t, "docs/deploy/rowhook.service")
	environment := files[unit["EnvironmentFile"]]
	require.Equal(t, "config|noreplace", environment.Type)
	require.Equal(t, os.FileMode(0o600), environment.Info.Mode)
	triggers := files[flagValue(understand(t, strings.Fields(unit["ExecStart"])[1:]), "file")]
	require.Equal(t, "config|noreplace", triggers.Type)
	require.Equal(t, os.FileMode(0o644), triggers.Info.Mode)
	require.Equal(t, "apk", files["/etc/init.d/rowhook"].Packager)
}

func TestTheConfigurationOfThePackagesIsValid(t *testing.T) {
	t.Parallel()
	text := read(t, "packaging/rowhook.yaml")
	c, err := config.Parse("rowhook.yaml", []byte(text))
	require.NoError(t, err)
	require.Empty(t, c.Triggers)
	_, example, ok := strings.Cut(text, "# For example:\n")
	require.True(t, ok)
	variables := references(t, "rowhook.yaml", regexp.MustCompile(`(?m)^#`).ReplaceAllString(example, ""))

	var set []string
	for _, m := range regexp.MustCompile(`(?m)^#(\w+)='`).FindAllStringSubmatch(read(t, "packaging/environment"), -1) {
		set = append(set, m[1])
	}
	require.Contains(t, set, databaseURLVariable)
	require.Subset(t, set, variables)
	understand(t, []string{"run"}, set...)
}

func TestTheServiceOfOpenRCUsesWhatTheProgramHas(t *testing.T) {
	t.Parallel()
	service := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^(\w+)="?([^"\n]*)"?$`).FindAllStringSubmatch(read(t, "packaging/rowhook.initd"), -1) {
		service[m[1]] = m[2]
	}
	unit := checkUnit(t, "docs/deploy/rowhook.service")
	require.Equal(t, unit["ExecStart"], "rowhook "+service["command_args"])
	require.Equal(t, releaseOf(t).Nfpms[0].Bindir+"/rowhook", service["command"])
	require.Equal(t, unit["User"]+":"+unit["User"], service["command_user"])
	require.Contains(t, read(t, "packaging/rowhook.initd"), "\n\t. "+unit["EnvironmentFile"]+"\n")
	seconds, err := strconv.Atoi(strings.Split(service["retry"], "/")[1])
	require.NoError(t, err)
	require.GreaterOrEqual(t, time.Duration(seconds)*time.Second, dispatcher.DefaultGracePeriod+stopping)
}

// TestTheInstallPageNamesWhatThereIs holds docs/install.md to the program, and to the files of a release. Its commands
// run in packaging/try.
func TestTheInstallPageNamesWhatThereIs(t *testing.T) {
	t.Parallel()
	r := releaseOf(t)
	made := map[string]bool{r.Checksum.Name: true}
	for _, os := range r.Builds[0].Goos {
		for _, arch := range r.Builds[0].Goarch {
			name := strings.NewReplacer("{{ .Os }}", os, "{{ .Arch }}", arch)
			made[name.Replace(r.Archives[0].Name)+".tar.gz"] = true
			made[name.Replace(r.SBOMs[0].Documents[0])] = true
			for _, format := range r.Nfpms[0].Formats {
				made[name.Replace(r.Nfpms[0].Name)+"."+format] = os == "linux"
			}
		}
	}
	page := read(t, "docs/install.md")
	downloads := regexp.MustCompile(`releases/latest/download/(\S+)|(rowhook_linux\w*\.[\w.]*\w)`).FindAllStringSubmatch(page, -1)
	require.NotEmpty(t, downloads)
	for _, m := range downloads {
		require.True(t, made[m[1]+m[2]], "a release has no %s", m[1]+m[2])
	}
	commands := 0
	for _, text := range []string{page, read(t, "packaging/rowhook.yaml"), read(t, "packaging/environment"), read(t, "packaging/postinstall.sh")} {
		for _, m := range regexp.MustCompile(`(?m)(?:^ {4}|; |"|^# {3}|ghcr.io/rowhook/)(rowhook (?:\w[^'"\n]*)?)`).FindAllStringSubmatch(text, -1) {
			args, _, _ := strings.Cut(m[1], "   ") // what follows is prose
			understand(t, strings.Fields(args)[1:])
			commands++
		}
		for _, m := range regexp.MustCompile(`man (rowhook(?:-[\w-]+)?)[\x60\n ]`).FindAllStringSubmatch(text, -1) {
			require.FileExists(t, filepath.Join(madeForRelease(t), "manuals/man", m[1]+".1.gz"))
		}
	}
	require.GreaterOrEqual(t, commands, 7)
	require.Contains(t, page, "docker run --read-only --cap-drop ALL")
	for _, image := range r.Images[0].Images {
		require.Contains(t, page, image+" run ")
	}
}
