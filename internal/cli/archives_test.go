package cli

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/elf"
	"debug/macho"
	"debug/pe"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// packagesToTry returns the directories of ROWHOOK_TEST_PACKAGES, which scripts/release --check sets.
func packagesToTry(t *testing.T) []string {
	t.Helper()
	directories := filepath.SplitList(os.Getenv("ROWHOOK_TEST_PACKAGES"))
	if len(directories) == 0 {
		t.Skip("ROWHOOK_TEST_PACKAGES is not set: scripts/release --check sets it")
	}
	return directories
}

// platforms are those of a release, with the archive of each.
var platforms = map[string]string{
	"linux_amd64": "tar.gz", "linux_arm64": "tar.gz", "darwin_amd64": "tar.gz", "darwin_arm64": "tar.gz", "windows_amd64": "zip", "windows_arm64": "zip",
}

// TestArchivesHoldWhatThePageSays unpacks every archive of a release.
func TestArchivesHoldWhatThePageSays(t *testing.T) {
	t.Parallel()
	copies := map[string]string{ // in every archive, by their place in the tree
		"LICENSE": "LICENSE", "rowhook.yaml": "rowhook.yaml", "docs/deploy/rowhook.service": "systemd/rowhook.service",
	}
	eachArchive(t, "rowhook", copies, []string{
		"README.md", "CHANGELOG.md", "systemd/rowhook@.service", "man/rowhook.1.gz", "man/rowhook-run.1.gz", "man/rowhook.yaml.5.gz",
		"completions/rowhook.bash", "completions/_rowhook", "completions/rowhook.fish",
	}, []string{"github.com/jackc/pgx/v5"})
	eachArchive(t, "rowhook-nats", map[string]string{"LICENSE": "LICENSE", "docs/nats.md": "docs/nats.md"}, nil,
		[]string{"github.com/jackc/pgx/v5", "github.com/nats-io/nats.go"})
}

// eachArchive holds the archives of a program for every platform to what they should have: copies of files
// of this tree, further files, and a program for the platform that is made of these modules.
func eachArchive(t *testing.T, name string, copies map[string]string, further, modules []string) {
	t.Helper()
	for _, dir := range packagesToTry(t) {
		for platform, kind := range platforms {
			t.Run(filepath.Base(dir)+"/"+name+"_"+platform, func(t *testing.T) {
				t.Parallel()
				archive, err := os.ReadFile(filepath.Join(dir, name+"_"+platform+"."+kind))
				require.NoError(t, err)
				files, program := unpack(t, kind, archive), name
				if kind == "zip" {
					program += ".exe"
				}
				for _, name := range append([]string{program}, further...) {
					require.NotEmpty(t, files[name], name)
				}
				for source, name := range copies {
					require.Equal(t, read(t, source), string(files[name]))
				}
				require.Equal(t, platform, platformOf(t, files[program]))
				require.Contains(t, string(files[program]), "v"+versionOf(t, dir))
				parts := componentsOf(t, filepath.Join(dir, name+"_"+platform+".cdx.json"), "v"+versionOf(t, dir))
				require.Subset(t, parts, modules)
			})
		}
	}
}

// unpack returns the files of an archive, and holds their modes and owners to those of a release.
func unpack(t *testing.T, kind string, archive []byte) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	mode := func(name string) fs.FileMode {
		if name == "rowhook" || name == "rowhook-nats" {
			return 0o755
		}
		return 0o644
	}
	if kind == "zip" {
		r, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
		require.NoError(t, err)
		for _, f := range r.File {
			open, err := f.Open()
			require.NoError(t, err)
			files[f.Name], err = io.ReadAll(open)
			require.NoError(t, err)
			require.NoError(t, open.Close())
		}
		return files
	}
	unzipped, err := gzip.NewReader(bytes.NewReader(archive))
	require.NoError(t, err)
	for r := tar.NewReader(unzipped); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		require.NoError(t, err)
		require.Equal(t, "root:root", header.Uname+":"+header.Gname, header.Name)
		require.Equal(t, mode(header.Name), header.FileInfo().Mode(), header.Name)
		files[header.Name], err = io.ReadAll(r)
		require.NoError(t, err)
	}
}

// platformOf returns for which platform a program was made.
func platformOf(t *testing.T, program []byte) string {
	t.Helper()
	r := bytes.NewReader(program)
	if f, err := elf.NewFile(r); err == nil {
		require.Nil(t, f.Section(".interp"), "it is static")
		return "linux_" + map[elf.Machine]string{elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64"}[f.Machine]
	}
	if f, err := macho.NewFile(r); err == nil {
		return "darwin_" + map[macho.Cpu]string{macho.CpuAmd64: "amd64", macho.CpuArm64: "arm64"}[f.Cpu]
	}
	f, err := pe.NewFile(r)
	require.NoError(t, err)
	return "windows_" + map[uint16]string{pe.IMAGE_FILE_MACHINE_AMD64: "amd64", pe.IMAGE_FILE_MACHINE_ARM64: "arm64"}[f.Machine]
}

func versionOf(t *testing.T, dir string) string {
	t.Helper()
	var about struct{ Version string }
	text, err := os.ReadFile(filepath.Join(dir, "metadata.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &about))
	require.NotEmpty(t, about.Version)
	return about.Version
}

// componentsOf returns what a bill of materials says that a program of this version is made of.
func componentsOf(t *testing.T, file, version string) (names []string) {
	t.Helper()
	var bill struct {
		BOMFormat string `json:"bomFormat"`
		Metadata  struct {
			Component struct{ Name, Version string }
		}
		Components []struct{ Name, Version string }
	}
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &bill))
	require.Equal(t, "CycloneDX", bill.BOMFormat)
	require.Equal(t, "github.com/rowhook/rowhook", bill.Metadata.Component.Name)
	require.Equal(t, version, bill.Metadata.Component.Version)
	for _, c := range bill.Components {
		require.NotEmpty(t, c.Version, c.Name)
		names = append(names, c.Name)
	}
	return names
}

// TestHomebrewAndScoopNameWhatThereIs compares addresses and checksums with the archives.
func TestHomebrewAndScoopNameWhatThereIs(t *testing.T) {
	t.Parallel()
	for _, dir := range packagesToTry(t) {
		version := versionOf(t, dir)
		address := "https://github.com/rowhook/rowhook/releases/download/v" + version + "/"
		sums := map[string]string{}
		for platform, kind := range platforms {
			archive, err := os.ReadFile(filepath.Join(dir, "rowhook_"+platform+"."+kind))
			require.NoError(t, err)
			sums["rowhook_"+platform+"."+kind] = fmt.Sprintf("%x", sha256.Sum256(archive))
		}

		text, err := os.ReadFile(filepath.Join(dir, "homebrew/Casks/rowhook.rb"))
		require.NoError(t, err)
		cask := strings.ReplaceAll(string(text), "#{version}", version)
		require.Contains(t, cask, `version "`+version+`"`)
		found := regexp.MustCompile(`sha256 "([0-9a-f]{64})"\s+url "([^"]+)"`).FindAllStringSubmatch(cask, -1)
		named := map[string]string{}
		for _, m := range found {
			named[strings.TrimPrefix(m[2], address)] = m[1]
		}
		for platform, kind := range platforms {
			if name := "rowhook_" + platform + "." + kind; kind == "tar.gz" { // Homebrew is for Linux, too
				require.Equal(t, sums[name], named[name], "%s\n%s", name, cask)
			}
		}
		for _, m := range regexp.MustCompile(`"(man|completions)/([^"]+)"`).FindAllStringSubmatch(cask, -1) {
			archive, err := os.ReadFile(filepath.Join(dir, "rowhook_darwin_arm64.tar.gz"))
			require.NoError(t, err)
			require.Contains(t, unpack(t, "tar.gz", archive), m[1]+"/"+m[2])
		}

		var scoop struct {
			Version      string
			Architecture map[string]struct {
				URL, Hash string
				Bin       []string
			}
			License string
		}
		text, err = os.ReadFile(filepath.Join(dir, "scoop/bucket/rowhook.json"))
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(text, &scoop))
		require.Equal(t, version, scoop.Version)
		require.Equal(t, "Apache-2.0", scoop.License)
		require.Len(t, scoop.Architecture, 2)
		for name, arch := range map[string]string{"64bit": "amd64", "arm64": "arm64"} {
			file := "rowhook_windows_" + arch + ".zip"
			of := scoop.Architecture[name]
			require.Equal(t, address+file, of.URL)
			require.Equal(t, sums[file], of.Hash)
			require.True(t, slices.Contains(of.Bin, "rowhook.exe"), of.Bin)
		}
	}
}
