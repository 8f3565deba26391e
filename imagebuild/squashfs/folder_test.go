package squashfs_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/imagebuild/squashfs"
)

// TestFolderInMemory puts host trees and files into folders that only the
// source knows, two deep and one of them empty.
func TestFolderInMemory(t *testing.T) {
	dir := sample(t)
	image, _ := write(t, squashfs.Source{
		{Name: "store", Folder: squashfs.Source{
			{Name: "tree", Path: dir},
			{Name: "more", Folder: squashfs.Source{{Name: "note", Data: []byte("deep")}}},
		}},
		{Name: "empty", Folder: squashfs.Source{}},
		{Name: "beside", Data: []byte("flat")},
	}, squashfs.Options{})
	got := extract(t, image)
	if diff := cmp.Diff(withTime(t, dir, 1), snapshot(t, filepath.Join(got, "store", "tree"))); diff != "" {
		t.Errorf("tree in a folder in memory differs (-host +image):\n%s", diff)
	}
	for name, want := range map[string]string{"store/more/note": "deep", "beside": "flat"} {
		if data, err := os.ReadFile(filepath.Join(got, name)); err != nil || string(data) != want {
			t.Errorf("image has %q in %s (%v); want %q", data, name, err, want)
		}
	}
	if names, err := os.ReadDir(filepath.Join(got, "empty")); err != nil || len(names) != 0 {
		t.Errorf("empty folder holds %v (%v)", names, err)
	}
	check(t, writeError(t, squashfs.Source{{Name: "a", Folder: squashfs.Source{{Name: "b"}, {Name: "b"}}}}), `"b"`)
}

// writeError returns why src cannot become an image.
func writeError(t *testing.T, src squashfs.Source) error {
	t.Helper()
	_, err := squashfs.Write(t.Context(), &memory{}, src, squashfs.Options{})
	return err
}
