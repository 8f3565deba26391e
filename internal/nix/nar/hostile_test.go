package nar_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"xnodeos.org/internal/nix/nar"
)

// words writes a NAR by hand: each word with length and padding.
func words(all ...string) []byte {
	var out []byte
	for _, w := range all {
		out = binary.LittleEndian.AppendUint64(out, uint64(len(w)))
		out = append(out, w...)
		for len(out)%8 != 0 {
			out = append(out, 0)
		}
	}
	return out
}

// in wraps entries into an archive of one folder.
func in(entries ...string) []byte {
	all := append([]string{"nix-archive-1", "(", "type", "directory"}, entries...)
	return words(append(all, ")")...)
}

func entry(name string, node ...string) []string {
	return append(append([]string{"entry", "(", "name", name, "node", "("}, node...), ")", ")")
}

func link(target string) []string { return []string{"type", "symlink", "target", target} }

func concat(parts ...[]string) []string {
	var all []string
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func deep(n int) []byte {
	all := []string{"nix-archive-1", "(", "type", "directory"}
	for range n - 1 {
		all = append(all, "entry", "(", "name", "d", "node", "(", "type", "directory")
	}
	for range n - 1 {
		all = append(all, ")", ")")
	}
	return words(append(all, ")")...)
}

func hostile() map[string][]byte {
	file := words("nix-archive-1", "(", "type", "regular", "contents", "abc", ")")
	dirty := bytes.Clone(file)
	dirty[bytes.Index(dirty, []byte("abc"))+3] = 1
	huge := bytes.Clone(file)
	binary.LittleEndian.PutUint64(huge[bytes.Index(huge, []byte("abc"))-8:], 1<<63)
	longWord := bytes.Clone(file)
	binary.LittleEndian.PutUint64(longWord, 1<<40)
	return map[string][]byte{
		"wrong magic":        words("nix-archive-2", "(", "type", "regular", "contents", "", ")"),
		"unknown type":       words("nix-archive-1", "(", "type", "device", ")"),
		"no contents":        words("nix-archive-1", "(", "type", "regular", ")"),
		"executable no":      words("nix-archive-1", "(", "type", "regular", "executable", "no", "contents", "", ")"),
		"two contents":       words("nix-archive-1", "(", "type", "regular", "contents", "a", "contents", "b", ")"),
		"dirty padding":      dirty,
		"huge file":          huge,
		"huge word":          longWord,
		"trailing":           append(bytes.Clone(file), file...),
		"unsorted":           in(concat(entry("b", link("x")...), entry("a", link("x")...))...),
		"duplicate":          in(concat(entry("a", link("x")...), entry("a", link("x")...))...),
		"link, then through": in(concat(entry("a", link("/etc")...), entry("a", "type", "directory"))...),
		"dot":                in(entry(".", link("x")...)...),
		"dot dot":            in(entry("..", link("x")...)...),
		"empty name":         in(entry("", link("x")...)...),
		"slash":              in(entry("a/b", link("x")...)...),
		"NUL":                in(entry("a\x00", link("x")...)...),
		"long name":          in(entry(strings.Repeat("n", 256), link("x")...)...),
		"empty target":       in(entry("a", link("")...)...),
		"NUL in target":      in(entry("a", link("a\x00b")...)...),
		"long target":        in(entry("a", link(strings.Repeat("t", 4096))...)...),
		"too deep":           deep(257),
		"stray word":         in("node"),
		"entry without name": in("entry", "(", "node"),
	}
}

func walk(archive []byte) error {
	r := nar.NewReader(bytes.NewReader(archive))
	for {
		if _, err := r.Next(); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

func TestHostileArchives(t *testing.T) {
	t.Parallel()
	for name, archive := range hostile() {
		if err := walk(archive); !errors.Is(err, nar.ErrFormat) {
			t.Errorf("%s: %v; want ErrFormat", name, err)
		}
	}
	if err := walk(deep(256)); err != nil {
		t.Errorf("256 folders deep: %v", err)
	}
}

// FuzzRead: whatever is accepted can be unpacked, and archiving the result
// gives the same bytes.
func FuzzRead(f *testing.F) {
	for _, archive := range hostile() {
		f.Add(archive)
	}
	f.Add(in(concat(entry("a", link("x")...), entry("b", "type", "directory"),
		entry("c", "type", "regular", "executable", "", "contents", "#!"), entry("d", "type", "regular", "contents", ""))...))
	f.Fuzz(func(t *testing.T, archive []byte) {
		accepted := walk(archive)
		if accepted != nil && !errors.Is(accepted, nar.ErrFormat) {
			t.Fatalf("an error of another kind: %v", accepted)
		}
		path := filepath.Join(t.TempDir(), "dest")
		defer nar.RemoveTree(path)
		err := nar.Unpack(bytes.NewReader(archive), path)
		if accepted != nil {
			if err == nil {
				t.Fatalf("unpacked what the reader refuses: %v", accepted)
			}
			if _, err := os.Lstat(path); err == nil {
				t.Fatal("something is left")
			}
			return
		}
		if err != nil {
			t.Fatalf("Unpack of an accepted archive: %v", err)
		}
		var again bytes.Buffer
		if err := nar.Write(&again, path); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again.Bytes(), archive) {
			t.Fatal("the tree has another archive")
		}
	})
}
