package vm

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// toyVars is a volume with a store of size bytes, empty but for what is in it.
func toyVars(size int, variables ...[]byte) []byte {
	const header = 72
	b := bytes.Repeat([]byte{0xff}, header+size+100)
	clear(b[:header])
	copy(b[volumeSignature:], "_FVH")
	binary.LittleEndian.PutUint16(b[volumeHeaderLen:], header)
	copy(b[header:], authenticatedGUID)
	binary.LittleEndian.PutUint32(b[header+storeSizeAt:], uint32(size))
	b[header+storeFormatAt], b[header+storeFormatAt+1] = storeFormatted, storeHealthy
	copy(b[header+storeHeaderLen:], bytes.Join(variables, nil))
	return b
}

func TestHTTPBoot(t *testing.T) {
	other := variable("Lang", []byte("eng"))
	template := toyVars(1000, other)
	vars := filepath.Join(t.TempDir(), "OVMF_VARS.fd")
	if err := os.WriteFile(vars, template, 0o644); err != nil {
		t.Fatal(err)
	}
	o := OVMF{Code: "c.fd", Vars: vars}
	const url = "http://10.0.2.2:8080/x.efi"
	p, err := o.HTTPBoot(url)
	if err != nil {
		t.Fatal(err)
	}
	if want := int64(72 + storeHeaderLen + len(other)); p.Offset != want || p.Offset%4 != 0 {
		t.Errorf("the change begins at %d; want %d, behind what is there", p.Offset, want)
	}
	to := filepath.Join(t.TempDir(), "vars.fd")
	if err := o.WriteVars(to, p); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(to)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(template) || !bytes.Contains(got, []byte(url)) || !bytes.Contains(got, other) {
		t.Errorf("WriteVars wrote %d bytes; want the template's %d with the URL in them", len(got), len(template))
	}
	// What was written is a store that is walked to its end.
	if _, _, err := freeVariables(got); err == nil || !strings.Contains(err.Error(), "boot entries already") {
		t.Errorf("a second change: %v; want it refused", err)
	}
	if err := o.WriteVars(to, p); err == nil {
		t.Error("WriteVars over a file: nil; want an error")
	}
	if after, err := os.ReadFile(vars); err != nil || !bytes.Equal(after, template) {
		t.Errorf("the template changed (%v)", err)
	}
}

func TestHTTPBootRefuses(t *testing.T) {
	broken := toyVars(1000, variable("Lang", []byte("eng")))
	binary.LittleEndian.PutUint32(broken[72+storeHeaderLen+40:], 1<<31)
	dirty := toyVars(1000)
	dirty[900] = 0
	outside := toyVars(1000)
	binary.LittleEndian.PutUint32(outside[72+storeSizeAt:], 1<<20)
	for _, tt := range []struct {
		name, url, want string
		template        []byte
	}{
		{"empty", "http://x/", "no store", nil},
		{"another file", "http://x/", "no store", make([]byte, 5000)},
		{"lengths", "http://x/", "lies outside the store", broken},
		{"store", "http://x/", "lies outside the file", outside},
		{"small", "http://x/", "72 bytes are free", toyVars(100)},
		{"dirty", "http://x/", "not empty", dirty},
		{"url", "http://x/ y", "without spaces", toyVars(1000)},
		{"long url", "http://" + strings.Repeat("x", 1024), "at most 1024", toyVars(4000)},
	} {
		if _, err := httpBootPatch(tt.template, tt.url); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v; want %q", tt.name, err, tt.want)
		}
	}
	if _, err := (OVMF{Vars: filepath.Join(t.TempDir(), "absent")}).HTTPBoot("http://x/"); err == nil {
		t.Error("HTTPBoot without a template: nil; want an error")
	}
}

func FuzzHTTPBoot(f *testing.F) {
	f.Add(toyVars(1000, variable("Lang", []byte("eng"))), "http://10.0.2.2/x.efi")
	f.Add(toyVars(100), "")
	f.Add([]byte("_FVH"), "x")
	f.Fuzz(func(t *testing.T, template []byte, url string) {
		p, err := httpBootPatch(template, url)
		if err == nil && (p.Offset < 0 || p.Offset+int64(len(p.Data)) > int64(len(template))) {
			t.Errorf("the change of %d bytes at %d lies outside of %d bytes", len(p.Data), p.Offset, len(template))
		}
	})
}
