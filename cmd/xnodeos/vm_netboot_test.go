package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"xnodeos.org/internal/vm"
)

// ask fetches from a server of this host.
func ask(t *testing.T, port uint16, path string) (code int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", port, path), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

func TestHTTPBootServesImageAndPayload(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{"a b.efi": "MZ", "secret": "x", "netboot/manifest.json": "{}"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ovmf, err := vm.FindOVMF("/usr/share", "")
	if err != nil {
		t.Fatalf("%v; run scripts/setup", err)
	}
	port, err := vm.FreePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m := vm.Machine{Firmware: vm.UEFI, OVMF: ovmf, Nets: []vm.Net{{Kind: vm.UserNet}}}
	a := newHTTPBoot(filepath.Join(dir, "a b.efi"))
	if err := a.attach(&m, vmFlags{httpPort: port}); err != nil {
		t.Fatal(err)
	}
	m, stop, err := a.prepare(m)
	if err != nil {
		t.Fatal(err)
	}
	vars, err := os.ReadFile(m.OVMF.Vars)
	if want := fmt.Sprintf("http://10.0.2.2:%d/a%%20b.efi", port); err != nil || !bytes.Contains(vars, []byte(want)) {
		t.Errorf("the firmware's variables do not name %s (%v)", want, err)
	}
	for path, want := range map[string]string{"/a%20b.efi": "200 MZ", "/netboot/manifest.json": "200 {}", "/secret": "404 ", "/": "404 "} {
		if code, body := ask(t, port, path); !strings.HasPrefix(fmt.Sprintf("%d %s", code, body), want) {
			t.Errorf("GET %s: %d %q; want %q", path, code, body, want)
		}
	}
	// A second server finds the port taken, and leaves nothing.
	if _, _, err := a.prepare(m); err == nil || !strings.Contains(err.Error(), "choose another with --http-port") {
		t.Errorf("prepare with the port taken: %v; want another port proposed", err)
	}
	stop()
	if _, err := os.Stat(m.OVMF.Vars); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after the end the variables are still there: %v", err)
	}
	if code, body := ask(t, port, "/a%20b.efi"); code != 0 {
		t.Errorf("after the end the server still answers: %d %q", code, body)
	}
}
