package gitcommit_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/command"
	"xnodeos.org/internal/gitcommit"
	"xnodeos.org/internal/sshsign"
	"xnodeos.org/internal/testkit/gitserver"
	"xnodeos.org/internal/trust"
)

// signerKey is a key with its file and its line for allowed_signers.
type signerKey struct {
	path   string
	key    sshsign.PublicKey
	signer *sshsign.Signer
}

func newKey(t *testing.T) *signerKey {
	t.Helper()
	pair, err := sshsign.GenerateKey("ops@example.org")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key")
	for name, data := range map[string][]byte{path: pair.PrivateFile(), path + ".pub": pair.PublicFile} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	signer, err := sshsign.Open(t.Context(), sshsign.OpenOptions{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	return &signerKey{path, pair.PublicKey, signer}
}

func signers(t *testing.T, lines ...string) *trust.Signers {
	t.Helper()
	s, err := trust.Parse([]byte(strings.Join(lines, "\n") + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// raw reads a commit object as git keeps it.
func raw(t *testing.T, dir, id string) []byte {
	t.Helper()
	out, err := command.Output(t.Context(), command.Cmd{Name: "git", Args: []string{"cat-file", "commit", id}, Dir: dir, Package: "git"})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// verifyCommit asks git itself, with the same allowed_signers.
func verifyCommit(t *testing.T, dir, id, allowed string) error {
	t.Helper()
	path := filepath.Join(t.TempDir(), "allowed_signers")
	if err := os.WriteFile(path, []byte(allowed+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := gitserver.Git(t.Context(), dir, "-c", "gpg.format=ssh", "-c", "gpg.ssh.allowedSignersFile="+path, "verify-commit", id)
	return err
}

// TestAgainstGit lets git make and judge commits, beside us.
func TestAgainstGit(t *testing.T) {
	t.Parallel()
	good, other := newKey(t), newKey(t)
	git, err := gitserver.NewRepository(t.Context(), t.TempDir(), "r")
	if err != nil {
		t.Fatal(err)
	}
	signed, err := git.Commit(t.Context(), map[string]string{"a": "1"}, good.path)
	if err != nil {
		t.Fatal(err)
	}
	child, err := git.Commit(t.Context(), map[string]string{"a": "2"}, good.path)
	if err != nil {
		t.Fatal(err)
	}
	unsigned, err := git.Commit(t.Context(), map[string]string{"a": "3"}, "")
	if err != nil {
		t.Fatal(err)
	}
	line := func(k *signerKey, more string) string {
		return `ops@example.org namespaces="git"` + more + " " + k.key.String()
	}
	for _, tt := range []struct {
		name    string
		id      string
		allowed string
		ok      bool
	}{
		{"first commit", signed, line(good, ""), true},
		{"with parent", child, line(good, ""), true},
		{"second of two keys", child, line(other, "") + "\n" + line(good, ""), true},
		{"unsigned", unsigned, line(good, ""), false},
		{"removed key", signed, line(other, ""), false},
		{"wrong role", signed, trust.Line(good.key, "ops@example.org", trust.NamespaceAnnounce), false},
		{"key of later", signed, line(good, `,valid-after="20300101"`), false},
		{"key of before", signed, line(good, `,valid-before="20200101"`), false},
		{"key of the time", signed, line(good, `,valid-after="20200101",valid-before="20300101"`), true},
	} {
		_, err := gitcommit.Verify(raw(t, git.Work, tt.id), signers(t, strings.Split(tt.allowed, "\n")...))
		if (err == nil) != tt.ok {
			t.Errorf("%s: Verify = %v; want ok %t", tt.name, err, tt.ok)
		}
		if gits := verifyCommit(t, git.Work, tt.id, tt.allowed); (gits == nil) != tt.ok {
			t.Errorf("%s: git verify-commit = %v; want ok %t", tt.name, gits, tt.ok)
		}
	}
	if _, err := gitcommit.Verify(raw(t, git.Work, unsigned), signers(t, line(good, ""))); !errors.Is(err, gitcommit.ErrUnsigned) {
		t.Errorf("Verify of an unsigned commit = %v; want ErrUnsigned", err)
	}
	c, err := gitcommit.Parse(raw(t, git.Work, child))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{signed, "A U Thor", "author@example.org", "C O Mitter", "2026-11-20T14:50:01+01:30", "release\n"}
	got := []string{strings.Join(c.Parents, ","), c.Author.Name, c.Author.Email, c.Committer.Name, c.Committer.When.Format(time.RFC3339), c.Message}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Parse (-want +got):\n%s", diff)
	}
}

// TestEncode writes the very bytes that git writes.
func TestEncode(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	git, err := gitserver.NewRepository(t.Context(), t.TempDir(), "r")
	if err != nil {
		t.Fatal(err)
	}
	for i, sign := range []string{"", key.path, key.path} {
		id, err := git.Commit(t.Context(), map[string]string{"a": fmt.Sprint(i)}, sign)
		if err != nil {
			t.Fatal(err)
		}
		want := raw(t, git.Work, id)
		c, err := gitcommit.Parse(want)
		if err != nil {
			t.Fatal(err)
		}
		var signer gitcommit.Signer
		if sign != "" {
			signer = key.signer
		}
		got, err := gitcommit.Encode(t.Context(), *c, signer)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("Encode (-git +ours):\n%s", diff)
		}
		if gitcommit.ID(got) != id {
			t.Errorf("ID = %s; git says %s", gitcommit.ID(got), id)
		}
	}
	for _, name := range []string{"", " ", "a<b", "a\nb"} {
		p := gitcommit.Person{Name: name, Email: "e", When: time.Unix(1, 0)}
		if _, err := gitcommit.Encode(t.Context(), gitcommit.Commit{Tree: strings.Repeat("a", 40), Author: p, Committer: p}, nil); err == nil {
			t.Errorf("Encode took the name %q", name)
		}
	}
}

const (
	tree      = "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n"
	parent    = "parent 1111111111111111111111111111111111111111\n"
	author    = "author A <a@b> 1795180800 +0000\n"
	committer = "committer C <c@d> 1795180800 -0130\n"
	sig       = "gpgsig -----BEGIN SSH SIGNATURE-----\n U1NI\n -----END SSH SIGNATURE-----\n"
)

// TestParseRefuses: what two readers could read in two ways.
func TestParseRefuses(t *testing.T) {
	t.Parallel()
	good := tree + parent + author + committer + sig + "\nmessage\n"
	c, err := gitcommit.Parse([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	if want := tree + parent + author + committer + "\nmessage\n"; string(c.Payload()) != want {
		t.Errorf("Payload = %q; want %q", c.Payload(), want)
	}
	for name, text := range map[string]string{
		"empty":                "",
		"no empty line":        tree + author + committer,
		"two trees":            tree + tree + author + committer + "\n",
		"tree later again":     tree + author + committer + tree + "\n",
		"no tree":              author + committer + "\n",
		"tree second":          parent + tree + author + committer + "\n",
		"parent twice":         tree + parent + parent + author + committer + "\n",
		"parent behind author": tree + author + parent + committer + "\n",
		"two authors":          tree + author + author + committer + "\n",
		"two committers":       tree + author + committer + committer + "\n",
		"no committer":         tree + author + "\n",
		"two signatures":       tree + author + committer + sig + sig + "\n",
		"sha256 signature":     tree + author + committer + strings.Replace(sig, "gpgsig", "gpgsig-sha256", 1) + "\n",
		"two encodings":        tree + author + committer + "encoding a\nencoding b\n" + "\n",
		"NUL in headers":       tree + author + committer + "x a\x00b\n\n",
		"header without value": tree + author + committer + "x\n\n",
		"strange header":       tree + author + committer + "x\ty z\n\n",
		"continued first":      " x\n" + tree + author + committer + "\n",
		"continued tree":       "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n x\n" + author + committer + "\n",
		"continued author":     tree + "author A <a@b> 1795180800 +0000\n x\n" + committer + "\n",
		"upper-case tree":      strings.ToUpper(tree[:12]) + tree[12:] + author + committer + "\n",
		"short tree":           "tree 4b\n" + author + committer + "\n",
		"zero parent":          tree + "parent " + strings.Repeat("0", 40) + "\n" + author + committer + "\n",
		"no zone":              tree + "author A <a@b> 1795180800\n" + committer + "\n",
		"no time":              tree + "author A <a@b>\n" + committer + "\n",
		"too big":              tree + author + committer + "\n" + strings.Repeat("a", gitcommit.MaxSize),
	} {
		var format *gitcommit.FormatError
		if _, err := gitcommit.Parse([]byte(text)); !errors.As(err, &format) {
			t.Errorf("%s: Parse = %v; want a *FormatError", name, err)
		}
	}
}

// FuzzParse: what is taken is either signed by nobody or bound whole, and a
// payload with its signature put back is what came in.
func FuzzParse(f *testing.F) {
	f.Add([]byte(tree + parent + author + committer + sig + "\nmessage\n"))
	f.Add([]byte(tree + author + committer + "\n"))
	f.Add([]byte(tree + author + committer + sig + "encoding x\n\n\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := gitcommit.Parse(data)
		if err != nil {
			return
		}
		if c.Signature == "" {
			if string(c.Payload()) != string(data) {
				t.Error("an unsigned commit's payload is another text")
			}
			return
		}
		inner, err := gitcommit.Parse(c.Payload())
		if err != nil || inner.Signature != "" || inner.Tree != c.Tree || inner.Message != c.Message {
			t.Errorf("the payload says something else: %v", err)
		}
		if _, err := gitcommit.Verify(data, &trust.Signers{}); err == nil {
			t.Error("Verify trusts nobody and took it")
		}
	})
}
