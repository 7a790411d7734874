package access_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/access"
)

func TestScopesIncludeOthers(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"status": "status", "payloads": "status,payloads", "steer": "status,steer", "admin": "status,payloads,steer,admin", " Steer , payloads ": "status,payloads,steer",
	} {
		s, err := access.ParseScopes(text)
		require.NoError(t, err)
		require.Equal(t, want, s.String())
	}
	for text, want := range map[string]string{"": "there is no scope", "steer,": "there is no scope", "payload": "did you mean payloads?"} {
		_, err := access.ParseScopes(text)
		require.ErrorContains(t, err, want, text)
	}
}

func TestATokenIsKeptByItsDigestOnly(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "tokens")
	end := time.Date(2099, 1, 31, 23, 59, 59, 0, time.UTC)
	made, secret, err := access.Add(path, "ann@example.com", access.Steer, end)
	require.NoError(t, err)
	require.Regexp(t, `^rwh_[A-Za-z0-9_-]{43}$`, secret)
	_, other, err := access.Add(path, "ops", access.Status, time.Time{})
	require.NoError(t, err)
	require.NotEqual(t, secret, other)

	text := read(t, path)
	require.NotContains(t, text, secret)
	require.NotContains(t, text, secret[len(access.Prefix):])
	tokens, err := access.Read(path)
	require.NoError(t, err)
	require.Equal(t, made, tokens[0], "it is read as it was written")
	require.Equal(t, access.Digest(secret), tokens[0].Digest)
	require.Equal(t, []string{"status,steer", "status"}, []string{tokens[0].Scopes.String(), tokens[1].Scopes.String()})
	require.True(t, tokens[1].Until.IsZero())
	require.False(t, made.Ended(end.Add(-1)))
	require.True(t, made.Ended(end))

	_, _, err = access.Add(path, "ops", access.Status, time.Time{})
	require.ErrorContains(t, err, "there is a token ops already")
	_, _, err = access.Add(path, "two words", access.Status, time.Time{})
	require.ErrorContains(t, err, "can't be the name of a token")
	require.ErrorContains(t, access.Remove(path, "opps"), "did you mean ops?")
	require.Equal(t, text, read(t, path), "what failed has changed nothing")
	require.NoError(t, access.Remove(path, "ann@example.com"))
	tokens, err = access.Read(path)
	require.NoError(t, err)
	require.Len(t, tokens, 1)
	require.Equal(t, "ops", tokens[0].Name)
}

func TestADamagedLineIsNamedWithWhatToDo(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "tokens")
	_, _, err := access.Add(path, "ops", access.Status, time.Time{})
	require.NoError(t, err)
	good := strings.Split(read(t, path), "\n")[1]
	for damaged, want := range map[string]string{
		"ops status": "it has 2 words",
		strings.Replace(good, "status", "all", 1):      `there is no scope "all"`,
		strings.Replace(good, "until=never", "x", 1):   `"x" should be until= and a time`,
		strings.Replace(good, "made=", "made=1", 1):    "should be made= and a time",
		good[:len(good)-1]:                             "64 hexadecimal digits",
		"<" + good:                                     "can't be the name",
		strings.Replace(good, "ops", "other", 1) + "x": "64 hexadecimal digits",
		good:                                     "the name ops stands there twice",
		strings.Replace(good, "ops", "other", 1): "other is the same token as ops",
	} {
		text := "# a comment\n\n" + good + "\n" + damaged + "\n"
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		_, err := access.Read(path)
		require.ErrorContains(t, err, path+", line 4: ")
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, "delete")
		_, _, err = access.Add(path, "new", access.Status, time.Time{})
		require.ErrorContains(t, err, ", line 4: ")
		require.Equal(t, text, read(t, path))
	}
	_, err = access.Read(path + ".none")
	require.ErrorContains(t, err, "rowhook token add NAME")
}

func TestManyWritersLoseNothing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "tokens")
	const writers, each = 8, 10
	var wg sync.WaitGroup
	errs := make(chan error, writers*each*2)
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				name := fmt.Sprintf("t%d-%d", w, i)
				_, _, err := access.Add(path, name, access.Status, time.Time{})
				errs <- err
				if i%2 == 1 {
					errs <- access.Remove(path, name)
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	tokens, err := access.Read(path)
	require.NoError(t, err)
	require.Len(t, tokens, writers*each/2)
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, entries, 1, "no temporary file stays")
}

func TestTheModeOfTheFileStaysAndALooseOneIsTold(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "tokens")
	_, _, err := access.Add(path, "a", access.Status, time.Time{})
	require.NoError(t, err)
	mode := func(path string) os.FileMode {
		info, err := os.Lstat(path)
		require.NoError(t, err)
		return info.Mode()
	}
	require.Equal(t, os.FileMode(0o600), mode(path))
	require.Empty(t, access.Loose(path))
	for m, want := range map[os.FileMode]string{0o640: "", 0o644: "everybody may read", 0o660: "others may write", 0o602: "others may write"} {
		require.NoError(t, os.Chmod(path, m))
		_, _, err := access.Add(path, fmt.Sprintf("m%o", m), access.Status, time.Time{})
		require.NoError(t, err)
		require.Equal(t, m, mode(path))
		if loose := access.Loose(path); want == "" {
			require.Empty(t, loose)
		} else {
			require.Contains(t, loose, want)
		}
	}
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(path, link))
	require.NoError(t, access.Remove(link, "a"))
	require.NotZero(t, mode(link)&os.ModeSymlink, "a link stays one")
	require.NotContains(t, read(t, path), "\na ")
}

func TestAKeyringFollowsItsFileAndKeepsTheLastGoodOne(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "tokens")
	var log strings.Builder
	logger := slog.New(slog.NewTextHandler(&log, nil))
	_, err := access.OpenKeyring(path, logger)
	require.ErrorContains(t, err, "there is no file of tokens")
	_, first, err := access.Add(path, "first", access.Status, time.Time{})
	require.NoError(t, err)
	k, err := access.OpenKeyring(path, logger)
	require.NoError(t, err)
	knows := func(secret string) bool { _, ok := k.Find(access.Digest(secret)); return ok }
	require.True(t, knows(first))
	require.False(t, knows(first+"x"))

	_, second, err := access.Add(path, "second", access.Steer, time.Time{})
	require.NoError(t, err)
	require.True(t, knows(second))
	require.NoError(t, access.Remove(path, "first"))
	require.False(t, knows(first))

	whole := read(t, path)
	require.NoError(t, os.WriteFile(path, []byte(whole+"damaged\n"), 0o600))
	require.True(t, knows(second))
	require.True(t, knows(second))
	require.Equal(t, 1, strings.Count(log.String(), "level=ERROR"), "once: "+log.String())
	require.Contains(t, log.String(), "line 3")
	require.NoError(t, os.Remove(path))
	require.True(t, knows(second), "gone is no order to let nobody in")
	require.NoError(t, os.WriteFile(path, []byte(whole), 0o600))
	require.True(t, knows(second))
	require.Contains(t, log.String(), "whole again")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.False(t, knows(second), "an empty file is")
}

func TestWhatIsNoFileOfTokensLetsNobodyWait(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "tokens")
	_, secret, err := access.Add(path, "ops", access.Status, time.Time{})
	require.NoError(t, err)
	k, err := access.OpenKeyring(path, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	for _, other := range []string{os.DevNull, "/dev/zero", t.TempDir()} {
		require.NoError(t, os.Remove(path))
		require.NoError(t, os.Symlink(other, path))
		_, ok := k.Find(access.Digest(secret))
		require.True(t, ok, "the tokens of before stay in force")
		_, err = access.Read(path)
		require.ErrorContains(t, err, "is no regular file")
	}
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.NoError(t, os.Truncate(path, 1<<40))
	_, err = access.Read(path)
	require.ErrorContains(t, err, "has more than")
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(text)
}
