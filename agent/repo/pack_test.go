package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"

	"xnodeos.org/internal/command"
	"xnodeos.org/internal/testkit/gitserver"
)

// gitPack has real git pack a repository with long delta chains. Without
// offsets its deltas name their base by hash.
func gitPack(t *testing.T, versions int, args ...string) []byte {
	t.Helper()
	r, err := gitserver.NewRepository(t.Context(), t.TempDir(), "r")
	if err != nil {
		t.Fatal(err)
	}
	for i := range versions {
		text := strings.Repeat("what stays the same in every version\n", 300) + strings.Repeat(fmt.Sprintln("version", i), i+1)
		if _, err := r.Commit(t.Context(), map[string]string{"a": text, fmt.Sprint("dir/", i): text + "x"}, ""); err != nil {
			t.Fatal(err)
		}
	}
	out, err := command.Output(t.Context(), command.Cmd{
		Name: "git", Dir: r.Work, Package: "git", Stdin: strings.NewReader("HEAD\n"),
		Args: append([]string{"pack-objects", "--quiet", "--revs", "--stdout", "--depth=40"}, args...),
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func receive(t testing.TB, data []byte, limits Limits) (*pack, error) {
	file, err := os.Create(filepath.Join(t.TempDir(), "pack"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	p, err := receivePack(bytes.NewReader(data), file, limits)
	if err != nil {
		return nil, err
	}
	return p, p.resolve(file, limits, func() error { return nil })
}

// TestPack finds the same objects as git, with both kinds of deltas.
func TestPack(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--delta-base-offset"}, nil} {
		data := gitPack(t, 12, args...)
		p, err := receive(t, data, DefaultLimits())
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		name := filepath.Join(dir, "x.pack")
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := gitserver.Git(t.Context(), dir, "index-pack", name); err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(filepath.Join(dir, "x.idx"))
		if err != nil {
			t.Fatal(err)
		}
		if err := writeIndex(filepath.Join(dir, "ours.idx"), p); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(dir, "ours.idx"))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%v: our index differs from git's (%d and %d bytes)", args, len(got), len(want))
		}
		deltas := 0
		for _, o := range p.objects {
			if o.kind.IsDelta() {
				deltas++
			}
		}
		if deltas < 12 {
			t.Errorf("%v: only %d deltas; the test tests nothing", args, deltas)
		}
	}
}

// TestPackRefuses: damaged packs, and each limit.
func TestPackRefuses(t *testing.T) {
	t.Parallel()
	data := gitPack(t, 8, "--delta-base-offset")
	for _, tt := range []struct {
		name  string
		limit string
		set   func(*Limits)
	}{
		{"objects", "objects", func(l *Limits) { l.Objects = 10 }},
		{"object size", "object size", func(l *Limits) { l.Object = 1000 }},
		{"inflated", "inflated bytes", func(l *Limits) { l.Inflated = 50_000 }},
		{"memory", "memory", func(l *Limits) { l.Memory = 12_000 }},
	} {
		limits := DefaultLimits()
		tt.set(&limits)
		_, err := receive(t, data, limits)
		var limit *LimitError
		if !errors.As(err, &limit) || limit.Limit != tt.limit {
			t.Errorf("%s: %v; want the limit %q", tt.name, err, tt.limit)
		}
	}
	for name, bad := range map[string][]byte{
		"empty":        {},
		"cut":          data[:len(data)/2],
		"no end":       data[:len(data)-20],
		"bytes behind": append(bytes.Clone(data), "x"...),
		"changed":      append(append(bytes.Clone(data[:200]), data[200]^1), data[201:]...),
		"version 3":    append([]byte("PACK\x00\x00\x00\x03"), data[8:]...),
		"no pack":      []byte("<html>"),
	} {
		if _, err := receive(t, bad, DefaultLimits()); err == nil {
			t.Errorf("%s: it was taken", name)
		}
	}
	cause := errors.New("over")
	file, err := os.Create(filepath.Join(t.TempDir(), "pack"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	p, err := receivePack(bytes.NewReader(data), file, DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if err := p.resolve(file, DefaultLimits(), func() error { return context.Cause(ctx) }); !errors.Is(err, cause) {
		t.Errorf("resolve after the end = %v; want the cause", err)
	}
}

func FuzzPack(f *testing.F) {
	f.Add([]byte("PACK\x00\x00\x00\x02\x00\x00\x00\x00"))
	for _, name := range []string{"offset.pack", "ref.pack"} {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	limits := Limits{Objects: 100, Inflated: 1 << 20, Object: 1 << 18, Memory: 1 << 19}.orDefault()
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := receive(t, data, limits)
		if err != nil {
			return
		}
		for _, o := range p.objects {
			if !o.resolved || o.hash == plumbing.ZeroHash {
				t.Error("a pack was taken with an object that has no hash")
			}
		}
	})
}

func FuzzAdvertisement(f *testing.F) {
	id := strings.Repeat("12", 20)
	line := func(text string) string { return fmt.Sprintf("%04x%s", len(text)+4, text) }
	f.Add(line(id+" refs/tags/xnode/1\x00shallow side-band-64k\n") + line(id+" refs/x\n") + "0000")
	f.Add(line(strings.Repeat("0", 40)+" capabilities^{}\x00shallow\n") + "0000")
	f.Add(line("ERR no"))
	f.Fuzz(func(t *testing.T, text string) {
		ad, err := readAdvertisement(strings.NewReader(text), "refs/tags/xnode/1")
		if err == nil && ad.id != "" && len(ad.id) != 40 {
			t.Errorf("id %q", ad.id)
		}
	})
}

func FuzzTree(f *testing.F) {
	id := strings.Repeat("x", 20)
	f.Add([]byte("100644 a\x00" + id + "40000 b\x00" + id))
	f.Add([]byte("100644 ../a\x00" + id))
	f.Fuzz(func(t *testing.T, raw []byte) {
		entries, err := parseTree(raw)
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for _, e := range entries {
			if seen[e.name] || strings.ContainsAny(e.name, "/\x00") || e.name == ".." {
				t.Errorf("name %q", e.name)
			}
			seen[e.name] = true
		}
	})
}

func FuzzRemote(f *testing.F) {
	for _, text := range []string{"https://u:p@h/x", "git@h:x/y.git", "ssh://h:22/x", "/x", "file:///x", "-x:y"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		rem, err := parseRemote(text)
		if err == nil && (strings.HasPrefix(rem.path, "-") || rem.kind != kindFile && strings.HasPrefix(rem.url.Hostname(), "-")) {
			t.Errorf("parseRemote(%q) = %+v", text, rem)
		}
	})
}

func TestDelta(t *testing.T) {
	t.Parallel()
	base := []byte("0123456789")
	for _, tt := range []struct{ name, delta, want string }{
		{"copy", "\x0a\x03\x91\x02\x03", "234"},
		{"insert", "\x0a\x02\x02ab", "ab"},
		{"both", "\x0a\x05\x02ab\x91\x07\x03", "ab789"},
		{"offset zero left out", "\x0a\x02\x90\x02", "01"},
	} {
		var got bytes.Buffer
		if err := applyDelta(&got, base, []byte(tt.delta)); err != nil || got.String() != tt.want {
			t.Errorf("%s: %q, %v; want %q", tt.name, got.String(), err, tt.want)
		}
	}
	for name, delta := range map[string]string{
		"empty":             "",
		"no target":         "\x0a",
		"endless size":      "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
		"another base":      "\x0b\x01\x01a",
		"too short":         "\x0a\x03\x01a",
		"too long":          "\x0a\x01\x02ab",
		"copy behind base":  "\x0a\x03\x91\x09\x03",
		"copy 64 KiB":       "\x0a\x03\x81\x00",
		"copy cut off":      "\x0a\x03\x91\x02",
		"insert cut off":    "\x0a\x03\x03a",
		"reserved":          "\x0a\x01\x00",
		"offset of 4 bytes": "\x0a\x03\x9f\xff\xff\xff\xff\x03",
	} {
		if err := applyDelta(io.Discard, base, []byte(delta)); err == nil {
			t.Errorf("%s: it was taken", name)
		}
	}
}

func FuzzDelta(f *testing.F) {
	f.Add([]byte("0123456789"), []byte("\x0a\x05\x02ab\x91\x07\x03"))
	f.Fuzz(func(t *testing.T, base, delta []byte) {
		var got bytes.Buffer
		if err := applyDelta(&got, base, delta); err != nil {
			return
		}
		if size, err := deltaTarget(delta); err != nil || size != int64(got.Len()) {
			t.Errorf("%d bytes were made; announced are %d (%v)", got.Len(), size, err)
		}
		// go-git refuses an empty base or result, which are no deltas that git makes.
		if want, err := packfile.PatchDelta(base, delta); err == nil && !bytes.Equal(want, got.Bytes()) {
			t.Errorf("%q; go-git makes %q", got.Bytes(), want)
		}
	})
}
