package trust

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/sshsign"
)

// newSigner makes a key and opens it.
func newSigner(t testing.TB) *sshsign.Signer {
	t.Helper()
	s, _ := newSignerFile(t)
	return s
}

func newSignerFile(t testing.TB) (*sshsign.Signer, string) {
	t.Helper()
	pair, err := sshsign.GenerateKey("test")
	if err != nil {
		t.Fatal(err)
	}
	path := writeFile(t, "key", string(pair.PrivateFile()))
	s, err := sshsign.Open(context.Background(), sshsign.OpenOptions{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	return s, path
}

func writeFile(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func sign(t *testing.T, s *sshsign.Signer, namespace, message string) []byte {
	t.Helper()
	armored, err := s.Sign(t.Context(), namespace, []byte(message))
	if err != nil {
		t.Fatal(err)
	}
	return armored
}

func parse(t *testing.T, format string, args ...any) *Signers {
	t.Helper()
	s, err := Parse(fmt.Appendf(nil, format, args...))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestParse(t *testing.T) {
	t.Parallel()
	a, b := newSigner(t).PublicKey(), newSigner(t).PublicKey()
	text := "\n# the operators\n" +
		"ops@example.org,*@example.net namespaces=\"xnode-announce,xnode-manifest\" " + a.String() + " Ops  Team \r\n" +
		"\t\"two words\"\tNameSpaces=\"git\",valid-after=\"20260102\",Valid-Before=\"20270102030405Z\"\t" + strings.ReplaceAll(b.String(), " ", "\t") + "\n"
	got := parse(t, "%s", text)
	want := &Signers{List: []Signer{
		{Key: a, Principals: "ops@example.org,*@example.net", Comment: "Ops  Team", Namespaces: []string{"xnode-announce", "xnode-manifest"}, Line: 3},
		{Key: b, Principals: "two words", Namespaces: []string{"git"}, Line: 4,
			ValidAfter: time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC), ValidBefore: time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Parse (-want +got):\n%s", diff)
	}
	s := got.List[1]
	for at, want := range map[time.Time]bool{
		s.ValidAfter: true, s.ValidBefore: true, s.ValidAfter.Add(-1): false, s.ValidBefore.Add(1): false,
	} {
		if s.ValidAt(at) != want {
			t.Errorf("ValidAt(%v) = %t; want %t", at, !want, want)
		}
	}
	if !got.List[0].ValidAt(time.Unix(0, 0)) {
		t.Error("a key without dates is not always valid")
	}
	if !got.Has("git") || got.Has("xnode-trust") || (*Signers)(nil).Has("git") {
		t.Error("Has does not tell who has a role")
	}
}

// refusals are lines that a node must not take, and what the error must say.
func refusals(key string) map[string]string {
	role := `namespaces="git" `
	return map[string]string{
		"me":                                "want principals [options] ssh-ed25519",
		"me ":                               "want principals",
		"me " + key:                         "the key has no role",
		key:                                 "no ssh public key after the principals",
		key + " me":                         "no ssh public key after the principals",
		`"me ` + role + key:                 "want principals",
		`"me"` + role + key:                 "want principals",
		`"" ` + role + key:                  "want principals",
		`m"e ` + role + key:                 "want principals",
		"me " + role:                        "no ssh public key after the principals",
		"me " + role + "ssh-ed25519":        "no ssh public key",
		"me " + role + "ssh-ed25519 AAAA":   "no ssh public key",
		"me " + role + key[12:]:             "no ssh public key",
		"me " + role + "ssh-rsa" + key[11:]: `only "ssh-ed25519" is allowed`,
		"me cert-authority " + key:          "cert-authority is refused",
		"me Cert-Authority," + role + key:   "cert-authority is refused",
		"me " + role[:16] + ",cert-authority " + key:                      "cert-authority is refused",
		"me namespaces " + key:                                            `option "namespaces" has no value in double quotes`,
		"me namespaces= " + key:                                           `option "namespaces" has no value`,
		"me namespaces=git " + key:                                        `option "namespaces" has no value in double quotes`,
		`me namespaces="" ` + key:                                         `option "namespaces" has no value`,
		`me namespaces="git ` + key:                                       "want principals",
		`me namespaces="git"x ` + key:                                     `after option "namespaces"`,
		`me namespaces="git", ` + key:                                     `after option "namespaces"`,
		`me namespaces="git",namespaces="x" ` + key:                       `option "namespaces" is there twice`,
		`me namespaces="*" ` + key:                                        `namespace "*"; want plain names`,
		`me namespaces="xnode-?" ` + key:                                  `namespace "xnode-?"`,
		`me namespaces="!git,x" ` + key:                                   `namespace "!git"`,
		`me namespaces="git,,x" ` + key:                                   `namespace ""`,
		`me namespaces="a b" ` + key:                                      `namespace "a b"`,
		`me namespaces="a\"b" ` + key:                                     "namespace",
		`me verify-required,namespaces="git" ` + key:                      `unknown option "verify-required"`,
		`me command="x" ` + key:                                           `unknown option "command"`,
		`me valid-after="x",` + role + key:                                `valid-after "x" is no date`,
		`me valid-after="20261301",` + role + key:                         "is no date",
		`me valid-after="2026010112",` + role + key:                       "is no date",
		`me valid-before="20260101",valid-after="20260101",` + role + key: "never be valid",
		"me\x00 " + role + key:                                            "not a text file",
		"m\xffe " + role + key:                                            "not a text file",
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	key := newSigner(t).PublicKey().String()
	for line, want := range refusals(key) {
		good := `me namespaces="git" ` + key + "\n"
		if _, err := Parse([]byte(good + line + "\n" + good)); err == nil || !strings.Contains(err.Error(), want) ||
			!strings.Contains(err.Error(), "line 2: ") && !strings.Contains(want, "text file") {
			t.Errorf("%q: %v; want an error of line 2 with %q", line, err, want)
		}
	}
	for text, want := range map[string]string{"": "it has no key", "# none\n": "it has no key", strings.Repeat("#\n", MaxSize/2+1): "allowed are 1048576"} {
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("a file of %d bytes: %v; want %q", len(text), err, want)
		}
	}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	ops, dev, other := newSigner(t), newSigner(t), newSigner(t)
	signers := parse(t, "ops@example.org namespaces=\"xnode-announce\" %[1]s\ndev namespaces=\"git\" %[2]s\n"+
		"ops namespaces=\"xnode-manifest\",valid-before=\"19700102Z\" %[1]s\n", ops.PublicKey(), dev.PublicKey())
	for namespace, want := range map[string]struct {
		by   *sshsign.Signer
		line int
	}{"xnode-announce": {ops, 1}, "xnode-manifest": {ops, 3}, "git": {dev, 2}} {
		got, err := signers.Verify(namespace, []byte("m"), sign(t, want.by, namespace, "m"))
		if err != nil || got.Line != want.line || got.Key != want.by.PublicKey() {
			t.Errorf("Verify for %s = %v, %v; want the key of line %d", namespace, got, err, want.line)
		}
	}

	var unknown *UnknownKeyError
	_, err := signers.Verify("xnode-manifest", []byte("m"), sign(t, other, "xnode-manifest", "m"))
	if !errors.As(err, &unknown) || unknown.Key != other.PublicKey() || !strings.Contains(err.Error(), other.PublicKey().Fingerprint()) || !strings.Contains(err.Error(), "does not list") {
		t.Errorf("unknown key: %v", err)
	}
	if strings.Contains(err.Error(), other.PublicKey().String()) {
		t.Errorf("the error hands out the line that would trust a stranger: %v", err)
	}
	for _, nobody := range []*Signers{nil, {}} {
		if _, err := nobody.Verify("git", []byte("m"), sign(t, dev, "git", "m")); !errors.As(err, &unknown) {
			t.Errorf("nobody is trusted: %v; want an UnknownKeyError", err)
		}
	}
	var role *RoleError
	_, err = signers.Verify("xnode-trust", []byte("m"), sign(t, ops, "xnode-trust", "m"))
	if !errors.As(err, &role) || role.Signer.Line != 1 || !strings.Contains(err.Error(), `"ops@example.org", line 1), which allowed_signers lists for xnode-announce, xnode-manifest and not for xnode-trust`) {
		t.Errorf("key without the role: %v", err)
	}
}

// TestBadSignatures: a signature that proves nothing is told apart from one of
// a wrong key, whoever is named in it.
func TestBadSignatures(t *testing.T) {
	t.Parallel()
	ops, other := newSigner(t), newSigner(t)
	signers := parse(t, "ops namespaces=\"xnode-manifest\" %s", ops.PublicKey())
	for name, armored := range map[string][]byte{
		"none":                        nil,
		"over another message":        sign(t, ops, "xnode-manifest", "x"),
		"for another namespace":       sign(t, ops, "git", "m"),
		"of a stranger, over another": sign(t, other, "xnode-manifest", "x"),
		"cut":                         sign(t, ops, "xnode-manifest", "m")[:100],
	} {
		var bad *BadSignatureError
		signer, err := signers.Verify("xnode-manifest", []byte("m"), armored)
		if !errors.As(err, &bad) || signer != nil {
			t.Errorf("signature %s: %v, %v; want a BadSignatureError", name, signer, err)
		}
	}
	var namespace *sshsign.NamespaceError
	if _, err := signers.Verify("xnode-manifest", []byte("m"), sign(t, ops, "git", "m")); !errors.As(err, &namespace) {
		t.Errorf("a signature for git: %v; want it to unwrap to a NamespaceError", err)
	}
}

// openSSHTakes asks ssh-keygen whether an allowed_signers file lets a
// signature for git count.
func openSSHTakes(t *testing.T, allowed, identity string, armored []byte) bool {
	t.Helper()
	path, err := exec.LookPath("ssh-keygen")
	if err != nil {
		t.Fatal("ssh-keygen is not installed (package openssh-client); run scripts/setup")
	}
	cmd := exec.CommandContext(t.Context(), path, "-Y", "verify", "-n", "git", "-I", identity,
		"-f", writeFile(t, "allowed_signers", allowed), "-s", writeFile(t, "m.sig", string(armored)))
	cmd.Stdin = strings.NewReader("m")
	cmd.Env = append(os.Environ(), "TZ=UTC", "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	return err == nil
}

// TestAgreesWithOpenSSH: a line that we take lets OpenSSH take the same
// signature; a line that OpenSSH does not understand is none that we take.
func TestAgreesWithOpenSSH(t *testing.T) {
	t.Parallel()
	me, other := newSigner(t), newSigner(t)
	key := me.PublicKey().String()
	mine, others := sign(t, me, "git", "m"), sign(t, other, "git", "m")
	for _, tt := range []struct {
		line       string
		ours, ssh  bool // whether the line lets my signature count
		difference string
	}{
		{`me namespaces="git" ` + key, true, true, ""},
		{`me,you namespaces="git" ` + key + " comment", true, true, ""},
		{`"me" namespaces="git" ` + key, true, true, ""},
		{"\tme\tNAMESPACES=\"git\"\t" + key, true, true, ""},
		{`me namespaces="xnode-manifest,git" ` + key, true, true, ""},
		{`me valid-after="20200101",namespaces="git",valid-before="20990101123456Z" ` + key, true, true, ""},
		{"# me\n\n" + `me namespaces="git" ` + key, true, true, ""},
		{`me namespaces="xnode-manifest" ` + key, false, false, ""},
		{`me namespaces="gi" ` + key, false, false, ""},
		{`me namespaces=git ` + key, false, false, ""},
		{`me namespaces="git"x ` + key, false, false, ""},
		{`me namespaces="git",namespaces="git" ` + key, false, false, ""},
		{`me valid-after="20260101",valid-before="20250101",namespaces="git" ` + key, false, false, ""},
		{`me valid-after="tomorrow",namespaces="git" ` + key, false, false, ""},
		{`me nonsense,namespaces="git" ` + key, false, false, ""},
		{`me namespaces="git ` + key, false, false, ""},
		{`me cert-authority,namespaces="git" ` + key, false, false, ""},
		{key, false, false, ""},
		{`me ` + key, false, true, "a key without namespaces= has no role"},
		{`me namespaces="*" ` + key, false, true, "no patterns"},
		{`me namespaces="g?t" ` + key, false, true, "no patterns"},
		{`you namespaces="git" ` + key, true, false, "principals are ignored"},
		{`me valid-before="20200101",namespaces="git" ` + key, true, false, "dates are ignored"},
	} {
		signers, err := Parse([]byte(tt.line))
		var signer *Signer
		if err == nil {
			signer, err = signers.Verify("git", []byte("m"), mine)
		}
		if got := signer != nil; got != tt.ours {
			t.Errorf("%q: we take it: %t (%v); want %t", tt.line, got, err, tt.ours)
		}
		if got := openSSHTakes(t, tt.line+"\n", "me", mine); got != tt.ssh {
			t.Errorf("%q: ssh-keygen takes it: %t; want %t (%s)", tt.line, got, tt.ssh, tt.difference)
		}
		if openSSHTakes(t, tt.line+"\n", "me", others) {
			t.Errorf("%q: ssh-keygen takes the signature of a stranger", tt.line)
		}
	}
}

// TestLine: what `xnodeos key new` prints is a line of the file.
func TestLine(t *testing.T) {
	t.Parallel()
	key := newSigner(t).PublicKey()
	for comment, principals := range map[string]string{"ops@example.org": "ops@example.org", "": "*", "two words": "*", "a,b": "*", "!x": "*", `q"q`: "*", "ssh-key": "*", "#x": "*"} {
		line := Line(key, comment, NamespaceManifest, NamespaceGit)
		got := parse(t, "%s\n", line).List[0]
		want := Signer{Key: key, Principals: principals, Comment: comment, Namespaces: []string{"xnode-manifest", "git"}, Line: 1}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", line, diff)
		}
	}
}

func FuzzParse(f *testing.F) {
	key := newSigner(f).PublicKey().String()
	f.Add([]byte(`me namespaces="git" ` + key))
	f.Add([]byte("# x\n\"a b\" valid-after=\"20260101\",namespaces=\"git,x\" " + key + " c\r\n"))
	for line := range refusals(key) {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		signers, err := Parse(data)
		if err != nil {
			return
		}
		if len(signers.List) == 0 {
			t.Fatal("a file without keys is taken")
		}
		for _, s := range signers.List {
			if s.Principals == "" || len(s.Namespaces) == 0 || s.Line < 1 {
				t.Fatalf("%q: %+v", data, s)
			}
			again, err := Parse([]byte(Line(s.Key, s.Comment, s.Namespaces...)))
			if err != nil || cmp.Diff(again.List[0].Namespaces, s.Namespaces) != "" || again.List[0].Key != s.Key {
				t.Fatalf("%+v, written again: %+v, %v", s, again, err)
			}
		}
	})
}
