package manifest

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/verity"
)

var update = flag.Bool("update", false, "write golden files anew")

// example is the manifest of testdata/manifest.json and of docs/formats.md.
func example(tb testing.TB) *Manifest {
	tb.Helper()
	payload, err := HashPayload("system.squashfs", bytes.NewReader(make([]byte, ChunkSize+4096)))
	if err != nil {
		tb.Fatal(err)
	}
	file := func(name string) File {
		f, err := HashFile(name, strings.NewReader("the bytes of "+name))
		if err != nil {
			tb.Fatal(err)
		}
		return f
	}
	return &Manifest{
		V:        1,
		Label:    "pocket-1",
		Arch:     "x86_64-linux",
		System:   "/nix/store/z5k8yz3aq3l2i7v4i3p4v8f0d2p1wzsx-xnodeos-pocket-1",
		Closure:  "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
		Handover: HandoverScript,
		Time:     1,
		Cmdline:  "loglevel=4 console=tty0 console=ttyS0,115200 panic=10",
		Kernel:   file("vmlinuz"),
		Initrd:   file("initrd"),
		Payload:  payload,
	}
}

func TestGolden(t *testing.T) {
	t.Parallel()
	golden := filepath.Join("testdata", "manifest.json")
	got, err := example(t).Encode()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("Encode (-golden +got):\n%s", diff)
	}
	parsed, err := Parse(want)
	if err != nil {
		t.Fatal(err)
	}
	again, err := parsed.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again, want) {
		t.Error("Parse and Encode do not give the golden file back")
	}
	digest, err := parsed.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if want := DigestOf(got); digest != want {
		t.Errorf("Digest() = %q; want %q", digest, want)
	}
}

// changed returns the example with the value at a path of keys replaced.
func changed(t *testing.T, value any, keys ...string) []byte {
	t.Helper()
	data, err := example(t).Encode()
	if err != nil {
		t.Fatal(err)
	}
	var tree map[string]any
	if err := json.Unmarshal(data, &tree); err != nil {
		t.Fatal(err)
	}
	at := tree
	for _, key := range keys[:len(keys)-1] {
		at = at[key].(map[string]any)
	}
	if value == nil {
		delete(at, keys[len(keys)-1])
	} else {
		at[keys[len(keys)-1]] = value
	}
	if data, err = json.Marshal(tree); err != nil {
		t.Fatal(err)
	}
	return data
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	hash := strings.Repeat("a", 64)
	tests := []struct {
		name string
		data []byte
		want string
	}{
		{"nothing", nil, "EOF"},
		{"no JSON", []byte("squashfs"), "invalid character"},
		{"list", []byte("[]"), "cannot unmarshal"},
		{"something behind", append(changed(t, 1, "time"), "{}"...), "follows the JSON object"},
		{"too large", make([]byte, MaxSize+1), "allowed are 16777216"},
		{"version", changed(t, 2, "v"), "version 2; this program reads version 1"},
		{"no version", changed(t, nil, "v"), "version 0"},
		{"critical", changed(t, []string{"label", "future"}, "critical"), `critical key "future"`},
		{"label", changed(t, "a b", "label"), `label "a b"`},
		{"no label", changed(t, nil, "label"), `label ""`},
		{"arch", changed(t, "x86_64-darwin", "arch"), "x86_64-linux"},
		{"system elsewhere", changed(t, "/nix/store/../x", "system"), "is not a store path"},
		{"system below", changed(t, "/nix/store/z5k8yz3aq3l2i7v4i3p4v8f0d2p1wzsx-a/b", "system"), "is not a store path"},
		{"system with e", changed(t, "/nix/store/e5k8yz3aq3l2i7v4i3p4v8f0d2p1wzsx-a", "system"), "is not a store path"},
		{"closure in hex", changed(t, "sha256:"+hash, "closure"), `"sha256-" and 44 characters`},
		{"closure short", changed(t, "sha256-YWJj", "closure"), `"sha256-" and 44 characters`},
		{"closure loose", changed(t, "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFV=", "closure"), `"sha256-" and 44 characters`},
		{"handover", changed(t, "kexec", "handover"), `allowed are "script" and "prepare-root"`},
		{"sequence negative", changed(t, -1, "sequence"), "cannot unmarshal"},
		{"sequence large", changed(t, 1<<32, "sequence"), "cannot unmarshal"},
		{"time", changed(t, -1, "time"), "negative"},
		{"time fraction", changed(t, 1.5, "time"), "cannot unmarshal"},
		{"cmdline lines", changed(t, "a\nb", "cmdline"), "control character"},
		{"cmdline long", changed(t, strings.Repeat("x", 2000), "cmdline"), "room for 1960"},
		{"cmdline names itself", changed(t, "quiet xnode.manifest=sha256:00", "cmdline"), "cannot know of itself"},
		{"kernel path", changed(t, "../vmlinuz", "kernel", "name"), "allowed are printable"},
		{"kernel dots", changed(t, "..", "kernel", "name"), "not a file name"},
		{"kernel size", changed(t, -1, "kernel", "size"), "negative"},
		{"no kernel", changed(t, nil, "kernel"), "kernel: name \"\""},
		{"initrd hash", changed(t, strings.ToUpper(hash), "initrd", "sha256"), "64 lower-case hex digits"},
		{"same name", changed(t, "vmlinuz", "initrd", "name"), `two files are named "vmlinuz"`},
		{"chunk size 0", changed(t, 0, "payload", "chunk_size"), "multiples of 4096"},
		{"chunk size odd", changed(t, 4097, "payload", "chunk_size"), "multiples of 4096"},
		{"chunk size huge", changed(t, 1<<40, "payload", "chunk_size"), "multiples of 4096"},
		{"chunks few", changed(t, []string{hash}, "payload", "chunks"), "1 chunk hashes; 4198400 bytes in chunks of 4194304 need 2"},
		{"chunks many", changed(t, []string{hash, hash, hash}, "payload", "chunks"), "3 chunk hashes"},
		{"chunk hash", changed(t, []string{hash, "x"}, "payload", "chunks"), `hash "x" of chunk 1`},
		{"payload size", changed(t, 1<<62, "payload", "size"), "chunk hashes"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m, err := Parse(test.data)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Parse = %v, %v; want an error with %q", m, err, test.want)
			}
		})
	}
}

func TestParseIgnoresUnknownKeys(t *testing.T) {
	t.Parallel()
	for _, keys := range [][]string{{"verity"}, {"payload", "future"}, {"kernel", "signer"}} {
		m, err := Parse(changed(t, map[string]any{"root": "00"}, keys...))
		if err != nil {
			t.Errorf("unknown key %q: %v", keys, err)
			continue
		}
		want, got := example(t), m
		want.Critical = []string{}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("unknown key %q (-want +got):\n%s", keys, diff)
		}
	}
	if _, err := Parse(changed(t, []string{"payload", "cmdline"}, "critical")); err != nil {
		t.Errorf("critical keys that are known: %v", err)
	}
}

func TestEncodeRefuses(t *testing.T) {
	t.Parallel()
	m := example(t)
	m.Payload.Chunks = m.Payload.Chunks[:1]
	if data, err := m.Encode(); err == nil {
		t.Errorf("Encode of a manifest with a chunk too few = %d bytes", len(data))
	}
	m = example(t)
	m.Cmdline = "\xff"
	if _, err := m.Digest(); err == nil {
		t.Error("Digest of a command line that JSON cannot hold = nil")
	}
}

func FuzzParse(f *testing.F) {
	golden, err := os.ReadFile(filepath.Join("testdata", "manifest.json"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(golden)
	f.Add([]byte(`{"v":1,"critical":["x"]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Parse(data)
		if err != nil {
			return
		}
		first, err := m.Encode()
		if err != nil {
			t.Fatalf("Encode refuses what Parse took: %v", err)
		}
		again, err := Parse(first)
		if err != nil {
			t.Fatalf("Parse refuses what Encode wrote: %v", err)
		}
		if second, err := again.Encode(); err != nil || !bytes.Equal(first, second) {
			t.Fatalf("two encodings of one manifest: %v\n%s\n%s", err, first, second)
		}
	})
}

// TestVerity takes a manifest with a hash tree through the encoding and
// refuses each number that does not fit.
func TestVerity(t *testing.T) {
	tree := verity.Tree{Root: [32]byte{1}, Salt: [32]byte{2}, DataBlocks: 300}
	tree.Offset = tree.DataBlocks * verity.BlockSize
	fresh := func() *Manifest {
		m := example(t)
		m.Payload.Size = tree.Offset + verity.Size(tree.DataBlocks)
		m.Payload.Chunks = m.Payload.Chunks[:1]
		m.Payload.Verity = NewVerity(tree)
		return m
	}
	data, err := fresh().Encode()
	if err != nil {
		t.Fatal(err)
	}
	m, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	if got := m.Payload.Verity.Tree(); got != tree {
		t.Errorf("tree = %+v; want %+v", got, tree)
	}
	for name, change := range map[string]func(*Verity){
		"algorithm":    func(v *Verity) { v.Algorithm = "md5" },
		"block size":   func(v *Verity) { v.BlockSize = 512 },
		"root":         func(v *Verity) { v.Root = v.Root[1:] },
		"salt":         func(v *Verity) { v.Salt = "x" + v.Salt[1:] },
		"few blocks":   func(v *Verity) { v.DataBlocks = 1 },
		"many blocks":  func(v *Verity) { v.DataBlocks = 301 },
		"other blocks": func(v *Verity) { v.DataBlocks = 1 << 62 },
	} {
		m := fresh()
		change(m.Payload.Verity)
		if _, err := m.Encode(); err == nil {
			t.Errorf("a wrong %s was taken", name)
		}
	}
}
