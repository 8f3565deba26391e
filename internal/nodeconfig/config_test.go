package nodeconfig

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"
)

// newKey makes a host key and returns both of its files.
func newKey(tb testing.TB, kind string) (private, public []byte) {
	tb.Helper()
	var key crypto.Signer
	var err error
	switch kind {
	case "ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case "rsa":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "ecdsa":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		tb.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "root@node")
	if err != nil {
		tb.Fatal(err)
	}
	pub, err := ssh.NewPublicKey(key.Public())
	if err != nil {
		tb.Fatal(err)
	}
	return pem.EncodeToMemory(block), ssh.MarshalAuthorizedKey(pub)
}

const (
	someKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGfNPSmQEWMGMVvEpYEJnXbPNBkCDDHmKZFwF2Y0pbXN"
	nixKey  = "cache.example.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="
)

const (
	someTrust = `{"v":1,"version":1,"min_sequence":0,"signers":["root namespaces=\"xnode-trust\" ` +
		`ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGfNPSmQEWMGMVvEpYEJnXbPNBkCDDHmKZFwF2Y0pbXN"],"nix_keys":[],"root_threshold":1}`
	someSignature  = "-----BEGIN SSH SIGNATURE-----\nU1NIU0lHAAAAAQ==\n-----END SSH SIGNATURE-----\n"
	otherSignature = "-----BEGIN SSH SIGNATURE-----\nU1NIU0lHAAAAAg==\n-----END SSH SIGNATURE-----\n"
)

// full returns a config that has every file.
func full(tb testing.TB) *Config {
	tb.Helper()
	c := &Config{Files: map[string][]byte{
		"agent.toml":                    []byte("[agent]\npoll = \"30s\"\n"),
		"authorized_keys":               []byte("# operators\n" + someKey + " alice\nno-pty,command=\"true\" " + someKey + " bob\n"),
		"class":                         []byte("edge\n"),
		"hostname":                      []byte("node1.example.org\n"),
		"network":                       []byte("ip=192.0.2.10::192.0.2.1:24::52:54:00:12:34:56:none\nnameserver=9.9.9.9\n"),
		"nix-keys":                      []byte(nixKey + "\n"),
		"trust/allowed_signers":         []byte("ops@example.org namespaces=\"xnode-announce,xnode-manifest\" " + someKey + "\n"),
		"trust/trust.json":              []byte(someTrust),
		"trust/trust.json.sig.Ab3dEf9h": []byte(someSignature),
		"trust/trust.json.sig.A+cd_f-h": []byte(otherSignature),
	}}
	for _, kind := range []string{"ed25519", "ecdsa", "rsa"} {
		name := "ssh_host_" + kind + "_key"
		c.Files[name], c.Files[name+".pub"] = newKey(tb, kind)
	}
	return c
}

// folder writes c's files below a new folder.
func folder(tb testing.TB, c *Config) string {
	tb.Helper()
	dir := tb.TempDir()
	for name, data := range c.Files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			tb.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	return dir
}

func TestReadDir(t *testing.T) {
	t.Parallel()
	want := full(t)
	got, err := ReadDir(folder(t, want))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.Files, got.Files); diff != "" {
		t.Errorf("ReadDir (-want +got):\n%s", diff)
	}
	if got.Hostname() != "node1.example.org" || got.Class() != "edge" || !got.HasTrust() || got.Empty() {
		t.Errorf("hostname %q, class %q, trust %v, empty %v", got.Hostname(), got.Class(), got.HasTrust(), got.Empty())
	}
	if diff := cmp.Diff([]string{nixKey}, got.NixKeys()); diff != "" {
		t.Errorf("NixKeys (-want +got):\n%s", diff)
	}
	words, err := got.Network()
	if err != nil || len(words) != 2 || words[0].IP == nil || words[1].Nameserver.String() != "9.9.9.9" {
		t.Errorf("Network() = %+v, %v", words, err)
	}
	empty, err := ReadDir(t.TempDir())
	if err != nil || !empty.Empty() || empty.HasTrust() {
		t.Errorf("ReadDir of an empty folder = %v, %v", empty, err)
	}
}

func TestReadDirNormalisesText(t *testing.T) {
	t.Parallel()
	c := &Config{Files: map[string][]byte{
		"hostname":   []byte("\xef\xbb\xbfnode1"),
		"class":      []byte("edge\r\n"),
		"network":    []byte("ip=dhcp\r\n# comment\r\n"),
		"agent.toml": []byte("a = 1\r\n"),
	}}
	got, err := ReadDir(folder(t, c))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]byte{"hostname": []byte("node1\n"), "class": []byte("edge\n"), "network": []byte("ip=dhcp\n# comment\n"), "agent.toml": []byte("a = 1\r\n")}
	if diff := cmp.Diff(want, got.Files); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// refusals are single files that are wrong, and what the error must say.
func refusals(t *testing.T) []struct{ name, data, want string } {
	t.Helper()
	secret, public := newKey(t, "ed25519")
	other, _ := newKey(t, "ecdsa")
	block, err := ssh.MarshalPrivateKeyWithPassphrase(ed25519.NewKeyFromSeed(make([]byte, 32)), "", []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	return []struct{ name, data, want string }{
		{"agent.toml", "a = \n", "agent.toml"},
		{"agent.toml", "a = \"\xff\"\n", "not UTF-8"},
		{"authorized_keys", "ssh-ed25519 AAAA\n", "line 1: no ssh public key"},
		{"authorized_keys", someKey + "\n" + strings.Repeat("x", 100) + "\n", "line 2: no ssh public key"},
		{"authorized_keys", "# nobody\n\n", "it has no key"},
		{"authorized_keys", string(secret), "no ssh public key"},
		{"class", "", "want one word like edge"},
		{"class", "two words", "want one word like edge"},
		{"class", "Edge", "lower-case"},
		{"class", "-edge", "want one word"},
		{"class", strings.Repeat("x", 64), "up to 63"},
		{"hostname", "", `hostname ""`},
		{"hostname", "node_1", `hostname "node_1"; want dot-separated labels`},
		{"hostname", "node1.", `hostname "node1."`},
		{"hostname", "-node", `hostname "-node"`},
		{"hostname", "a b", `hostname "a b"`},
		{"hostname", "nöde", "RFC 1123"},
		{"hostname", strings.Repeat("x", 64) + ".example", "at most 64"},
		{"hostname", strings.Repeat("a.", 20) + strings.Repeat("x", 64), "at most 64"},
		{"network", "ip=dhpc\n", "line 1"},
		{"network", "ip=dhcp nameserver=9.9.9.9\n", "one word a line"},
		{"network", "ip=dhcp\nvlan=eth0.5:eth0\n", "not yet supported by this release"},
		{"network", "ip=auto6\n", "not yet supported by this release"},
		{"network", "quiet\n", "want ip= or nameserver="},
		{"nix-keys", "", "it is empty"},
		{"nix-keys", "cache\n", "want name:base64"},
		{"nix-keys", "cache:AAAA\n", "has 3 bytes; a Nix public key has 32"},
		{"nix-keys", nixKey + " " + nixKey + "\n", "one a line"},
		{"nix-keys", "# comment\n" + nixKey + "\n", "no comments"},
		{"ssh_host_ed25519_key", "x", "no ssh private key; make one with ssh-keygen -t ed25519"},
		{"ssh_host_ed25519_key", string(other), `holds a key of type "ecdsa-sha2-nistp256"; the name promises ed25519`},
		{"ssh_host_rsa_key", string(secret), "the name promises rsa"},
		{"ssh_host_ed25519_key", string(pem.EncodeToMemory(block)), "passphrase"},
		{"ssh_host_ed25519_key.pub", string(public), "there is no ssh_host_ed25519_key to it"},
		{"ssh_host_ed25519_key.pub", "x", "not one ssh public key"},
		{"trust/allowed_signers", "ops@example.org\n", "want principals [options] ssh-ed25519"},
		{"trust/allowed_signers", someKey + "\n", "no ssh public key after the principals"},
		{"trust/allowed_signers", "* cert-authority " + someKey + "\n", "cert-authority is refused"},
		{"trust/allowed_signers", "* CERT-AUTHORITY,namespaces=\"git\" " + someKey + "\n", "cert-authority is refused"},
		{"trust/allowed_signers", "* namespaces= " + someKey + "\n", "has no value"},
		{"trust/allowed_signers", "* command=\"x\" " + someKey + "\n", "unknown option"},
		{"trust/allowed_signers", "* " + ecdsaLine(t) + "\n", `only "ssh-ed25519" is allowed`},
		{"trust/allowed_signers", "# none\n", "it has no key"},
		{"trust/trust.json", "[]", "not a JSON object"},
		{"trust/trust.json", "{", "not a JSON object"},
		{"trust/trust.json", `{"v":1,"version":1}`, "it has no key"},
		{"trust/trust.json.sig.1", someSignature, "no trust/trust.json that it could sign"},
		{"trust/trust.json.sig.1", "x", "not one armoured SSH signature"},
		{"trust/trust.json.sig.a.b", someSignature, "does not belong there"},
		{"trust/other", "x", "does not belong there; a node config has only these files: agent.toml, authorized_keys"},
		{"README", "x", `"README" does not belong there`},
		{"ssh_host_dsa_key", "x", "does not belong there"},
		{"trust.json", "{}", "does not belong there"},
		{"hostname/x", "x", "not an ordinary file"},
		{"agent.toml", "a=\"" + strings.Repeat("x", MaxSize) + "\"", "more than the allowed 1048576 bytes"},
	}
}

func ecdsaLine(t *testing.T) string {
	t.Helper()
	_, public := newKey(t, "ecdsa")
	return strings.TrimSpace(string(public))
}

func TestReadDirRefuses(t *testing.T) {
	t.Parallel()
	for n, test := range refusals(t) {
		t.Run(fmt.Sprintf("%d %s", n, test.name), func(t *testing.T) {
			t.Parallel()
			dir := folder(t, &Config{Files: map[string][]byte{test.name: []byte(test.data)}})
			got, err := ReadDir(dir)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("ReadDir = %v, %v; want an error with %q", got, err, test.want)
			}
			if name, _, _ := strings.Cut(test.name, "/x"); !strings.Contains(err.Error(), name) {
				t.Errorf("error %v does not name %q", err, name)
			}
			if strings.Contains(err.Error(), "BEGIN OPENSSH") {
				t.Errorf("error shows a key: %v", err)
			}
		})
	}
}

func TestReadDirRefusesPairs(t *testing.T) {
	t.Parallel()
	c := full(t)
	_, c.Files["ssh_host_ed25519_key.pub"] = newKey(t, "ed25519")
	if _, err := ReadDir(folder(t, c)); err == nil || !strings.Contains(err.Error(), "is not the public key of ssh_host_ed25519_key") {
		t.Errorf("another public key: %v", err)
	}
}

func TestReadDirWantsOrdinaryFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "class"), []byte("edge"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("class", filepath.Join(dir, "hostname")); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadDir(dir); err == nil || !strings.Contains(err.Error(), `"hostname" is not an ordinary file; put a copy`) {
		t.Errorf("symlink: %v", err)
	}
	if _, err := ReadDir(filepath.Join(dir, "class")); err == nil || !strings.Contains(err.Error(), "not a folder") {
		t.Errorf("file for a folder: %v", err)
	}
	if _, err := ReadDir(filepath.Join(dir, "nowhere")); err == nil {
		t.Error("a folder that is not there is taken")
	}
	trust := folder(t, &Config{Files: map[string][]byte{"trust": []byte("x")}})
	if _, err := ReadDir(trust); err == nil || !strings.Contains(err.Error(), `"trust" is not a folder`) {
		t.Errorf("trust as a file: %v", err)
	}
}

func TestFromFilesIsLenient(t *testing.T) {
	t.Parallel()
	for n, test := range refusals(t) {
		if len(test.data) > MaxSize {
			_, _, err := FromFiles(map[string][]byte{test.name: []byte(test.data)})
			if err == nil {
				t.Errorf("%d %s: too many bytes are taken", n, test.name)
			}
			continue
		}
		got, notes, err := FromFiles(map[string][]byte{test.name: []byte(test.data), "class": []byte("other")})
		if test.name == "class" {
			continue
		}
		if err != nil || len(notes) != 1 || !strings.Contains(notes[0], test.name) || len(got.Files) != 1 || got.Class() != "other" {
			t.Errorf("%d %s: FromFiles = %v, notes %q, %v; want only the class and one note", n, test.name, got, notes, err)
		}
	}
	c := full(t)
	got, notes, err := FromFiles(c.Files)
	if err != nil || len(notes) > 0 {
		t.Fatalf("FromFiles of a good config: notes %q, %v", notes, err)
	}
	if diff := cmp.Diff(c.Files, got.Files); diff != "" {
		t.Errorf("FromFiles (-want +got):\n%s", diff)
	}
}

func TestReadVolume(t *testing.T) {
	t.Parallel()
	dir := folder(t, &Config{Files: map[string][]byte{
		"hostname": []byte("node1\r\n"), "System Volume Information/x": []byte("x"), "class": []byte("?"), "trust/trust.json": []byte(someTrust),
	}})
	got, notes, err := ReadVolume(os.DirFS(dir))
	if err != nil || len(notes) != 2 || !strings.Contains(notes[0], "System Volume Information") || !strings.Contains(notes[1], `"class" is ignored`) {
		t.Errorf("ReadVolume = %v, notes %q, %v", got, notes, err)
	}
	if diff := cmp.Diff(map[string][]byte{"hostname": []byte("node1\n"), "trust/trust.json": []byte(someTrust)}, got.Files); diff != "" {
		t.Errorf("ReadVolume (-want +got):\n%s", diff)
	}
}

func TestConfigShowsNoSecret(t *testing.T) {
	t.Parallel()
	c := full(t)
	secret := string(c.Files["ssh_host_ed25519_key"][60:100])
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "config", c, "value", *c)
	data, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	texts := []string{log.String(), string(data), c.String()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		texts = append(texts, fmt.Sprintf(verb, c), fmt.Sprintf(verb, *c), fmt.Sprintf(verb, struct{ C *Config }{c}), fmt.Sprintf(verb, []Config{*c}))
	}
	decimal := strings.Trim(fmt.Sprintf("%d", c.Files["ssh_host_ed25519_key"][60:68]), "[]")
	for _, text := range texts {
		if strings.Contains(text, secret) || strings.Contains(text, fmt.Sprintf("%x", secret)) || strings.Contains(text, decimal) {
			t.Errorf("a private key is shown: %.200s", text)
		}
	}
	if want := "ssh_host_ed25519_key "; !strings.Contains(c.String(), want) {
		t.Errorf("String() = %q; want it to name %q", c, want)
	}
	for _, info := range c.Info() {
		if want := strings.HasSuffix(info.Name, "_key"); info.Private != want || info.Size != len(c.Files[info.Name]) {
			t.Errorf("Info has %+v; want Private %v", info, want)
		}
	}
}
