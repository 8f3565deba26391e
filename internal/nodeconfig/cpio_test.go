package nodeconfig

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/cpio"
)

func pack(tb testing.TB, c *Config) []byte {
	tb.Helper()
	var buf bytes.Buffer
	if err := c.WriteCPIO(&buf); err != nil {
		tb.Fatal(err)
	}
	return buf.Bytes()
}

func TestCPIO(t *testing.T) {
	t.Parallel()
	c := full(t)
	data := pack(t, c)
	if !bytes.Equal(data, pack(t, c)) {
		t.Error("two archives of one config differ")
	}
	behind := bytes.NewReader(append(bytes.Clone(data), "next"...))
	got, err := ReadCPIO(behind)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(c.Files, got.Files); diff != "" {
		t.Errorf("ReadCPIO (-want +got):\n%s", diff)
	}
	if behind.Len() != 4 {
		t.Errorf("ReadCPIO left %d bytes behind the archive; want 4", behind.Len())
	}
	empty, err := ReadCPIO(bytes.NewReader(pack(t, &Config{})))
	if err != nil || !empty.Empty() {
		t.Errorf("an empty config = %v, %v", empty, err)
	}
}

// TestCPIOKeepsSecrets: a private key must not be readable by others in the
// initramfs.
func TestCPIOKeepsSecrets(t *testing.T) {
	t.Parallel()
	in := cpio.NewReader(bytes.NewReader(pack(t, full(t))))
	secrets := 0
	for {
		h, err := in.Next()
		if err != nil {
			break
		}
		if strings.HasSuffix(h.Name, "_key") {
			secrets++
			if h.Mode&0o777 != 0o600 {
				t.Errorf("%s has mode %#o", h.Name, h.Mode)
			}
		}
	}
	if secrets != 3 {
		t.Errorf("%d private keys in the archive; want 3", secrets)
	}
}

func TestReadCPIOFindsEveryChange(t *testing.T) {
	t.Parallel()
	c := &Config{Files: map[string][]byte{"class": []byte("edge\n"), "hostname": []byte("node1\n"), "network": []byte("ip=dhcp\n")}}
	data := pack(t, c)
	for n := range data {
		changed := bytes.Clone(data)
		changed[n] ^= 1
		got, err := ReadCPIO(bytes.NewReader(changed))
		if err == nil {
			t.Errorf("byte %d changed from %q: taken as %v", n, data[n], got)
		}
	}
	for n := range data {
		if _, err := ReadCPIO(bytes.NewReader(data[:n])); err == nil {
			t.Errorf("cut after %d of %d bytes: taken", n, len(data))
		}
	}
}

func TestReadCPIONamesTheFile(t *testing.T) {
	t.Parallel()
	c := full(t)
	data := pack(t, c)
	for name, body := range c.Files {
		n := bytes.Index(data, body) + len(body)/2
		changed := bytes.Clone(data)
		changed[n] ^= 2
		_, err := ReadCPIO(bytes.NewReader(changed))
		var damaged *DamagedError
		if !errors.As(err, &damaged) || damaged.Name != name || !strings.Contains(err.Error(), fmt.Sprintf("%q", name)) {
			t.Errorf("%s changed: %v; want a DamagedError that names it", name, err)
		}
	}
}

func TestReadCPIORefuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, file, want string
	}{
		{"elsewhere", "init", `the archive holds "init"`},
		{"unknown", Folder + "/README", "which no node config has"},
		{"not listed", Folder + "/class", `"xnode/node.sha256" is missing`},
	}
	for _, test := range tests {
		var buf bytes.Buffer
		w := cpio.NewWriter(&buf)
		if err := errors.Join(w.File(test.file, 0o644, 1, strings.NewReader("x")), w.Close()); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadCPIO(&buf); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v; want an error with %q", test.name, err, test.want)
		}
	}
	if err := (&Config{Files: map[string][]byte{"class": []byte("two words")}}).WriteCPIO(&bytes.Buffer{}); err == nil {
		t.Error("WriteCPIO packs what ReadDir would refuse")
	}
}

// unpack does what the kernel does with the archive.
func unpack(t *testing.T, data []byte) string {
	t.Helper()
	dir := t.TempDir()
	in := cpio.NewReader(bytes.NewReader(data))
	for {
		h, err := in.Next()
		if err != nil {
			return dir
		}
		path := filepath.Join(dir, h.Name)
		if h.IsDir() {
			err = os.Mkdir(path, os.FileMode(h.Mode&0o777))
		} else {
			var body bytes.Buffer
			if _, err = body.ReadFrom(in); err == nil {
				err = os.WriteFile(path, body.Bytes(), os.FileMode(h.Mode&0o777))
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestReadBooted(t *testing.T) {
	t.Parallel()
	c := full(t)
	dir := unpack(t, pack(t, c))
	got, err := ReadBooted(os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(c.Files, got.Files); diff != "" {
		t.Errorf("ReadBooted (-want +got):\n%s", diff)
	}
	none, err := ReadBooted(os.DirFS(t.TempDir()))
	if err != nil || !none.Empty() {
		t.Errorf("ReadBooted without a node config = %v, %v", none, err)
	}
	class := filepath.Join(dir, Folder, "class")
	for _, test := range []struct {
		name string
		do   func() error
		want string
	}{
		{"changed", func() error { return os.WriteFile(class, []byte("edgf\n"), 0o600) }, `"class" has not the sha256`},
		{"lost", func() error { return os.Remove(class) }, `"class" is missing`},
		{"added", func() error { return os.WriteFile(filepath.Join(dir, Folder, "README"), nil, 0o600) }, "does not belong there"},
		{"no list", func() error { return os.Remove(filepath.Join(dir, SumFile)) }, `"xnode/node.sha256" is missing`},
	} {
		if err := test.do(); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadBooted(os.DirFS(dir)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v; want an error with %q", test.name, err, test.want)
		}
	}
}

// TestSumFile has sha256sum(1) check the list, as an operator would.
func TestSumFile(t *testing.T) {
	t.Parallel()
	dir := unpack(t, pack(t, full(t)))
	cmd := exec.CommandContext(t.Context(), "sha256sum", "--check", "--strict", "../node.sha256")
	cmd.Dir = filepath.Join(dir, Folder)
	out, err := cmd.CombinedOutput()
	if err != nil || bytes.Count(out, []byte(": OK\n")) != len(full(t).Files) {
		t.Errorf("sha256sum: %v\n%s", err, out)
	}
}

func FuzzReadCPIO(f *testing.F) {
	c := &Config{Files: map[string][]byte{"class": []byte("edge\n"), "network": []byte("ip=dhcp\n"), "trust/trust.json": []byte(someTrust)}}
	f.Add(pack(f, c))
	f.Add(pack(f, &Config{}))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ReadCPIO(bytes.NewReader(data))
		if err != nil {
			return
		}
		if again := pack(t, c); !bytes.HasPrefix(data, again) {
			t.Fatalf("taken, but not canonical: %q", data)
		}
	})
}

func FuzzFromFiles(f *testing.F) {
	for name, data := range full(f).Files {
		f.Add(name, data)
	}
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		c, notes, err := FromFiles(map[string][]byte{name: data, "hostname": []byte("node1")})
		if err != nil {
			return
		}
		if err := c.Validate(); err != nil {
			t.Fatalf("FromFiles let a wrong file through: %v", err)
		}
		if len(c.Files)+len(notes) < 1 || name != "hostname" && len(c.Files)+len(notes) != 2 {
			t.Fatalf("%q is neither taken nor noted: %v, %q", name, c, notes)
		}
		pack(t, c)
	})
}

func FuzzParseIP(f *testing.F) {
	for _, word := range []string{"ip=dhcp", "ip=eth0:dhcp:1500:02:00:00:00:00:01", "ip=52:54:00:12:34:56:dhcp",
		"ip=192.0.2.10:192.0.2.1/24:192.0.2.1:255.255.255.0:n:eth0:none:9.9.9.9:1.1.1.1", "ip=[2001:db8::10]::[2001:db8::1]:64::eth0:none"} {
		f.Add(word)
	}
	f.Fuzz(func(t *testing.T, word string) {
		i, err := ParseIP(word)
		if err != nil {
			return
		}
		if i.Method == MethodStatic && !i.Address.IsValid() {
			t.Fatalf("ParseIP(%q) is static without an address: %+v", word, i)
		}
		if i.Device.Name != "" && i.Device.MAC != nil || i.MTU < 0 || i.Gateway.IsValid() && !i.Address.IsValid() {
			t.Fatalf("ParseIP(%q) contradicts itself: %+v", word, i)
		}
	})
}
