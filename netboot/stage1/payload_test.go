package stage1

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"xnodeos.org/internal/manifest"
	"xnodeos.org/netboot/stage1/fetch"
)

// lockedFS is a tree that changes while it is read.
type lockedFS struct {
	fsys fstest.MapFS
	mu   *sync.Mutex
}

func (l lockedFS) Open(name string) (fs.File, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fsys.Open(name)
}

// writePayload writes manifest and payload into dir and returns the word that
// the command line has for them.
func writePayload(t *testing.T, dir string, size int) wantedManifest {
	t.Helper()
	data := []byte(strings.Repeat("payload ", size/8))
	payload, err := manifest.HashPayload("system.squashfs", strings.NewReader(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(nil)
	file := manifest.File{Name: "vmlinuz", Size: 1, SHA256: hex.EncodeToString(sum[:])}
	initrd := file
	initrd.Name = "initrd"
	m := &manifest.Manifest{V: manifest.Version, Label: "toy-1", Arch: "x86_64-linux",
		System:  "/nix/store/00000000000000000000000000000000-toy",
		Closure: "sha256-RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o=", Handover: manifest.HandoverScript,
		Time: 1, Cmdline: "quiet", Kernel: file, Initrd: initrd, Payload: payload}
	encoded, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{manifest.FileName: encoded, payload.Name: data} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return wantedManifest{fetch.Check{Digest: manifest.DigestOf(encoded)}}
}

// shelf is a source that offers candidates one after another.
type shelf struct {
	offers  []*Candidate
	err     error // after the last; nil: wait for ever
	said    []string
	reports []string
}

func (s *shelf) Next(ctx context.Context, reject func(string, error)) (*Candidate, error) {
	for _, text := range s.said {
		reject("cd /dev/sr9", errors.New(text))
	}
	s.said = nil
	if len(s.offers) > 0 {
		c := s.offers[0]
		s.offers = s.offers[1:]
		return c, nil
	}
	if s.err != nil {
		return nil, s.err
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

func (s *shelf) Report() []string { return s.reports }

// newSearch says what it says to out, or to nobody if that is nil.
func newSearch(out *buffer, sources ...payloadSource) *search {
	con := NewConsole(fixedClock)
	if out != nil {
		con.Attach(out)
	}
	return &search{sources: sources, watch: NewStopwatch(fixedClock), con: con, limit: searchLimit}
}

// candidate reads the payload in dir; released counts what was given back.
func candidate(t *testing.T, dir string, want wantedManifest, medium string, released *int) *Candidate {
	t.Helper()
	m, _, err := want.read(dir)
	if err != nil {
		t.Fatal(err)
	}
	return &Candidate{Manifest: m, Medium: medium, Path: filepath.Join(dir, m.Payload.Name), Release: func() { *released++ }}
}

func damage(t *testing.T, file string, offset int64) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{'X'}, offset); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// A damaged medium is named with file and chunk, and the next one is taken.
func TestSearchSkipsDamaged(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	bad, good := filepath.Join(root, "bad"), filepath.Join(root, "good")
	want := writePayload(t, bad, manifest.ChunkSize+1000)
	writePayload(t, good, manifest.ChunkSize+1000)
	damage(t, filepath.Join(bad, "system.squashfs"), manifest.ChunkSize+10)
	released := 0
	var out buffer
	s := newSearch(&out, &shelf{said: []string{"another manifest"}, offers: []*Candidate{
		candidate(t, bad, want, "cd /dev/sr0", &released), candidate(t, good, want, "usb /dev/sda", &released)}})
	got, err := s.run(t.Context())
	if err != nil || got.Medium != "usb /dev/sda" {
		t.Fatalf("run = %+v, %v; want the good stick", got, err)
	}
	if released != 1 {
		t.Errorf("%d candidates released; want the damaged one", released)
	}
	s.con.Flush(time.Minute)
	for _, part := range []string{"skipped cd /dev/sr9: another manifest", "skipped cd /dev/sr0", "system.squashfs", "chunk 1"} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("console got %q; want it to say %q", out.String(), part)
		}
	}
}

func TestSearchFailures(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	want := writePayload(t, filepath.Join(root, "short"), 1<<20)
	if err := os.Truncate(filepath.Join(root, "short", "system.squashfs"), 1000); err != nil {
		t.Fatal(err)
	}
	released := 0
	tests := []struct {
		name    string
		sources []payloadSource
		want    []string
	}{
		{"nothing there", []payloadSource{&shelf{err: errNoMore}}, []string{"no disk, stick or CD", "insert the medium"}},
		{"only another manifest", []payloadSource{&shelf{err: errNoMore, said: []string{"wrong one"}}}, []string{"cd /dev/sr9: wrong one"}},
		{"broken source", []payloadSource{&shelf{err: errDrive}}, []string{errDrive.Error()}},
		{"report", []payloadSource{&shelf{err: errNoMore, reports: []string{"/dev/vda: no volume"}}}, []string{"/dev/vda: no volume"}},
		{"cut off", []payloadSource{&shelf{err: errNoMore, offers: []*Candidate{candidate(t, filepath.Join(root, "short"), want, "the initrd", &released)}}},
			[]string{"1000 of 1048576 bytes", "too little memory"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := newSearch(nil, tt.sources...).run(t.Context())
			var step *StepError
			if !errors.As(err, &step) || step.Remedy == "" {
				t.Fatalf("run = %v; want a *StepError with a remedy", err)
			}
			for _, part := range tt.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("run = %q; want it to say %q", err, part)
				}
			}
		})
	}
}

func TestSearchLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		_, err := newSearch(nil, &shelf{}, &shelf{err: errNoMore}).run(t.Context())
		if took := time.Since(start); err == nil || took != searchLimit {
			t.Errorf("run gave up after %v with %v; want %v and an error", took, err, searchLimit)
		}
	})
}

// A drive that cannot be read is tried again; the payload may come at last.
func TestVerifyTriesAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		want := writePayload(t, dir, 4096)
		released := 0
		c := candidate(t, dir, want, "cd /dev/sr0", &released)
		hidden := c.Path + ".hidden"
		if err := os.Rename(c.Path, hidden); err != nil {
			t.Fatal(err)
		}
		go func() {
			time.Sleep(retryPause * 3 / 2)
			if err := os.Rename(hidden, c.Path); err != nil {
				t.Error(err)
			}
		}()
		s := newSearch(nil)
		if err := s.verify(t.Context(), c); err != nil {
			t.Errorf("verify = %v; want the third try to work", err)
		}
		if err := os.Remove(c.Path); err != nil {
			t.Fatal(err)
		}
		if err := s.verify(t.Context(), c); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("verify of a missing file = %v; want %v in the end", err, fs.ErrNotExist)
		}
	})
}

func TestEmbeddedSource(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	want := writePayload(t, filepath.Join(root, embeddedPayloadDir), 4096)
	source := &embeddedSource{root: root, want: want}
	c, err := source.Next(t.Context(), nil)
	if err != nil || c.Path != filepath.Join(root, embeddedPayloadDir, "system.squashfs") {
		t.Fatalf("Next = %+v, %v; want the payload", c, err)
	}
	if _, err := source.Next(t.Context(), nil); !errors.Is(err, errNoMore) {
		t.Errorf("second Next = %v; want %v", err, errNoMore)
	}
	other := &embeddedSource{root: root, want: wantedManifest{fetch.Check{Digest: "sha256:" + strings.Repeat("0", 64)}}}
	if _, err := other.Next(t.Context(), nil); err == nil || !strings.Contains(err.Error(), want.Digest) {
		t.Errorf("Next with another manifest = %v; want an error that names both hashes", err)
	}
	if _, err := (&embeddedSource{root: t.TempDir(), want: want}).Next(t.Context(), nil); !errors.Is(err, errNoMore) {
		t.Errorf("Next without a payload = %v; want %v", err, errNoMore)
	}
}

// folders is a mediumMounter whose volumes are folders that are there already.
type folders struct {
	root     string
	released []string
}

func (f *folders) Mount(v Volume) (string, error) {
	dir := filepath.Join(f.root, filepath.Base(v.Device))
	_, err := os.Stat(dir)
	return dir, err
}

func (f *folders) Unmount(dir string) { f.released = append(f.released, filepath.Base(dir)) }

func (f *folders) Keep(dir string) (string, error) {
	kept := filepath.Join(f.root, "kept")
	return kept, os.Rename(dir, kept)
}

func TestLocalSource(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	writePayload(t, filepath.Join(root, "sda", mediumPayloadDir), 8192)
	want := writePayload(t, filepath.Join(root, "sr0", mediumPayloadDir), 4096)
	volumes := NewVolumes(tree(nil), nil, fixedClock, NewConsole(fixedClock))
	for _, device := range []string{"/dev/sr0", "/dev/sda", "/dev/nvme0n1"} {
		volumes.found = append(volumes.found, Volume{device, VolumeISO, MediumLabel})
	}
	mounter := &folders{root: root}
	source := &localSource{volumes: volumes, mounter: mounter, want: want, tried: map[string]bool{},
		kind: func(string) string { return "disk" }}
	said := map[string]string{}
	c, err := source.Next(t.Context(), func(place string, err error) { said[place] = err.Error() })
	if err != nil || c.Medium != "disk /dev/sr0" {
		t.Fatalf("Next = %+v, %v; want the medium with the wanted manifest", c, err)
	}
	if !strings.Contains(said["disk /dev/sda"], "another kernel and initrd") || said["disk /dev/nvme0n1"] == "" || len(said) != 2 {
		t.Errorf("rejected %v; want the other manifest and the volume that cannot be mounted", said)
	}
	if len(mounter.released) != 1 || mounter.released[0] != "sda" {
		t.Errorf("unmounted %v; want the other medium", mounter.released)
	}
	path, err := c.Keep()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the payload is not where Keep says: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := source.Next(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Next after the end = %v; want %v", err, context.Canceled)
	}
}
