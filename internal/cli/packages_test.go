package cli

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha1" // apk uses it for checksums of files
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// apkVersion is what apk takes for a version. It refuses others, such as 1.2.0_dev.
var apkVersion = regexp.MustCompile(`^[0-9]+(\.[0-9]+)*[a-z]?(_(alpha|beta|pre|rc|cvs|svn|git|hg|p)[0-9]*)*(-r[0-9]+)?$`)

func TestVersionsOfSnapshotsSuitEveryPackager(t *testing.T) {
	t.Parallel()
	template := releaseOf(t).Snapshot.Version
	m := regexp.MustCompile(`\{\{ incpatch \.Version \}\}(.*?)\{\{ end \}\}`).FindStringSubmatch(template)
	require.NotNil(t, m, template)
	suffix := strings.Replace(m[1], "{{ .CommitTimestamp }}", "1700000000", 1)
	require.NotContains(t, suffix, "{{")
	// A package has an underscore for the dash of a prerelease.
	require.Regexp(t, apkVersion, "0.0.1"+strings.Replace(suffix, "-", "_", 1))
	for bad, version := range map[string]string{"a word that apk does not know": "1.2.0_dev", "a dot in it": "1.2.0_rc.1", "a commit": "1.2.0_pre1_g12ab"} {
		require.NotRegexp(t, apkVersion, version, bad)
	}
	// A release that is published is held to the same.
	pattern := regexp.MustCompile(`(?m)^tag_pattern='(.*)'$`).FindStringSubmatch(read(t, "scripts/release"))
	require.NotNil(t, pattern)
	for tag, good := range map[string]bool{"v1.2.0": true, "v1.2.0-rc1": true, "v1.2.0-beta2": true, "v1.2.0-rc.1": false, "v1.2.0-dev": false, "v1.2": false, "1.2.0": false} {
		require.Equal(t, good, regexp.MustCompile(pattern[1]).MatchString(tag), tag)
		if version := strings.Replace(strings.TrimPrefix(tag, "v"), "-", "_", 1); good {
			require.Regexp(t, apkVersion, version)
		}
	}
}

// TestPackagesForAlpineAreAsApkReadsThem reads the packages of a release. A package for apk is two or three tar files, each compressed by itself: a signature if
// there is one, the control file with the scripts, and the files.
func TestPackagesForAlpineAreAsApkReadsThem(t *testing.T) {
	t.Parallel()
	for _, dir := range packagesToTry(t) {
		for file, arch := range map[string]string{"rowhook_linux_amd64.apk": "x86_64", "rowhook_linux_arm64.apk": "aarch64"} {
			t.Run(filepath.Base(dir)+"/"+file, func(t *testing.T) {
				t.Parallel()
				parts := partsOfAPK(t, filepath.Join(dir, file))
				if len(parts) == 3 {
					require.Len(t, parts[0].files, 1)
					require.Contains(t, parts[0].files, ".SIGN.RSA.rowhook.rsa.pub")
					parts = parts[1:]
				}
				require.Len(t, parts, 2)
				control, data := parts[0], parts[1]

				fields := map[string][]string{}
				for line := range strings.Lines(string(control.files[".PKGINFO"].content)) {
					if key, value, ok := strings.Cut(strings.TrimSpace(line), " = "); ok {
						fields[key] = append(fields[key], value)
					}
				}
				require.Equal(t, []string{"rowhook"}, fields["pkgname"])
				require.Len(t, fields["pkgver"], 1)
				require.Regexp(t, apkVersion, fields["pkgver"][0])
				require.Equal(t, []string{arch}, fields["arch"])
				require.Equal(t, []string{"Apache-2.0"}, fields["license"])
				require.Equal(t, []string{"ca-certificates-bundle"}, fields["depend"])
				require.Equal(t, []string{data.sum}, fields["datahash"])
				for script, source := range map[string]string{
					".post-install": "packaging/postinstall.sh", ".post-upgrade": "packaging/postinstall.sh",
					".pre-deinstall": "packaging/preremove.sh", ".post-deinstall": "packaging/postremove.sh",
				} {
					require.Contains(t, control.files, script)
					require.Equal(t, read(t, source), string(control.files[script].content))
					require.Equal(t, int64(0o755), control.files[script].header.Mode&0o777)
				}
				require.Len(t, control.files, 5)

				for name, f := range data.files {
					require.False(t, path.IsAbs(name) || strings.HasPrefix(name, "."), "apk reads %q as a path below the root", name)
					require.Equal(t, "root:root", f.header.Uname+":"+f.header.Gname, name)
					if f.header.Typeflag == tar.TypeReg {
						require.Equal(t, fmt.Sprintf("%x", sha1.Sum(f.content)), f.header.PAXRecords["APK-TOOLS.checksum.SHA1"], name)
					}
				}
				for name, mode := range map[string]int64{
					"usr/bin/rowhook": 0o755, "etc/init.d/rowhook": 0o755, "etc/rowhook/rowhook.yaml": 0o644, "etc/rowhook/environment": 0o600,
				} {
					require.Contains(t, data.files, name)
					require.Equal(t, mode, data.files[name].header.Mode&0o777, name)
				}
				require.Equal(t, read(t, "packaging/rowhook.initd"), string(data.files["etc/init.d/rowhook"].content))
			})
		}
	}
}

type partOfAPK struct {
	sum   string // SHA-256 of the compressed bytes
	files map[string]fileOfAPK
}

type fileOfAPK struct {
	header  *tar.Header
	content []byte
}

func partsOfAPK(t *testing.T, file string) (parts []partOfAPK) {
	t.Helper()
	all, err := os.ReadFile(file)
	require.NoError(t, err)
	left := bytes.NewReader(all)
	for left.Len() > 0 {
		begin := len(all) - left.Len()
		unzipped, err := gzip.NewReader(left)
		require.NoError(t, err)
		unzipped.Multistream(false)
		content, err := io.ReadAll(unzipped)
		require.NoError(t, err)
		part := partOfAPK{fmt.Sprintf("%x", sha256.Sum256(all[begin:len(all)-left.Len()])), map[string]fileOfAPK{}}
		for r := tar.NewReader(bytes.NewReader(content)); ; {
			header, err := r.Next()
			if errors.Is(err, io.EOF) { // all but the last part have no mark of their end
				break
			}
			require.NoError(t, err)
			content, err := io.ReadAll(r)
			require.NoError(t, err)
			part.files[header.Name] = fileOfAPK{header, content}
		}
		parts = append(parts, part)
	}
	return parts
}
