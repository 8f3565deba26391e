package qemu

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"

	"xnodeos.org/internal/manifest"
	"xnodeos.org/internal/testkit"
)

// built is what the scenarios share, each made at most once.
var built struct {
	dir     string
	once    sync.Once
	program string
	err     error
	images  map[string]*image
}

// xnodeos builds the programs from the sources as they are now, and returns
// the path of the operator's.
func xnodeos(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		var root string
		if root, built.err = testkit.Root("."); built.err == nil {
			built.program, built.err = testkit.BuildPrograms(t.Context(), root, built.dir)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.program
}

// recipe says what an image is made of.
type recipe struct {
	system  string // "pocket" or "pocket:key=value,..."
	network string // the node config's network file; empty for none
}

// image is the outcome of one run of `xnodeos image build`.
type image struct {
	recipe
	iso      string
	uki      string
	raw      string
	netboot  string
	manifest *manifest.Manifest
	digest   string // as on the command line
	config   *nodeConfig
}

// nodeConfig is what went into the node config folder.
type nodeConfig struct {
	hostname string
	login    ssh.Signer    // root's key
	host     ssh.PublicKey // of the ssh host key
}

// buildImage runs the real command, as README tells it.
func buildImage(t *testing.T, r recipe) *image {
	t.Helper()
	key := r.system + "\n" + r.network
	if img := built.images[key]; img != nil {
		return img
	}
	program := xnodeos(t)
	dir, err := os.MkdirTemp(built.dir, "image-")
	if err != nil {
		t.Fatal(err)
	}
	config, node := writeNodeConfig(t, filepath.Join(dir, "node"), r.network)
	out := filepath.Join(dir, "out")
	cmd := exec.CommandContext(t.Context(), program, "image", "build",
		"--system", r.system, "--out", out, "--format", "iso,netboot,uki,raw", "--embed-payload",
		"--node-config", node, "--json")
	text, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v; is the machine set up? run scripts/setup\n%s", strings.Join(cmd.Args, " "), err, text)
	}
	img := &image{recipe: r, netboot: filepath.Join(out, "netboot"), config: config}
	for ending, file := range map[string]*string{".iso": &img.iso, ".efi": &img.uki, ".img": &img.raw} {
		found, err := filepath.Glob(filepath.Join(out, "*"+ending))
		if err != nil || len(found) != 1 {
			t.Fatalf("%s files in %s: %q, %v; want one", ending, out, found, err)
		}
		*file = found[0]
	}
	data, err := os.ReadFile(filepath.Join(img.netboot, manifest.FileName))
	if err != nil {
		t.Fatal(err)
	}
	if img.manifest, err = manifest.Parse(data); err != nil {
		t.Fatal(err)
	}
	img.digest = manifest.DigestOf(data)
	if built.images == nil {
		built.images = map[string]*image{}
	}
	built.images[key] = img
	return img
}

func writeNodeConfig(t *testing.T, dir, network string) (*nodeConfig, string) {
	t.Helper()
	login, _ := newKey(t)
	host, hostPEM := newKey(t)
	c := &nodeConfig{hostname: "qemu-node", login: login, host: host.PublicKey()}
	files := map[string]string{
		"hostname":             c.hostname + "\n",
		"authorized_keys":      string(ssh.MarshalAuthorizedKey(login.PublicKey())),
		"ssh_host_ed25519_key": hostPEM,
		"class":                "edge\n",
	}
	if network != "" {
		files["network"] = network
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return c, dir
}

func newKey(t *testing.T) (signer ssh.Signer, private string) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if signer, err = ssh.NewSignerFromKey(key); err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	return signer, string(pem.EncodeToMemory(block))
}

// joinInitrd makes the one initrd that QEMU takes: initrd, padding, payload.
func (img *image) joinInitrd(t *testing.T) string {
	t.Helper()
	initrd, err := os.ReadFile(filepath.Join(img.netboot, "initrd"))
	if err != nil {
		t.Fatal(err)
	}
	payload, err := os.ReadFile(filepath.Join(img.netboot, "payload.cpio"))
	if err != nil {
		t.Fatal(err)
	}
	initrd = append(initrd, make([]byte, -len(initrd)&3)...)
	to := filepath.Join(t.TempDir(), "initrd")
	if err := os.WriteFile(to, append(initrd, payload...), 0o644); err != nil {
		t.Fatal(err)
	}
	return to
}

// bootRecord is /run/xnode/boot.json, as docs/formats.md has it.
type bootRecord struct {
	Manifest string `json:"manifest"`
	System   string `json:"system"`
	Label    string `json:"label"`
	Medium   string `json:"medium"`
	Network  []struct {
		MAC     string `json:"mac"`
		Address string `json:"address"`
		From    string `json:"from"`
	} `json:"network"`
	Notes []string `json:"notes"`
}

func parseBootRecord(t *testing.T, text string) bootRecord {
	t.Helper()
	var r bootRecord
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		t.Fatalf("/run/xnode/boot.json: %v\n%s", err, text)
	}
	return r
}
