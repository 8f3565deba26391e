package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func TestCreateNew(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	f, err := CreateNew(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("first")); err != nil {
		t.Fatal(err)
	}
	if err := f.Commit(); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode() != 0o600 {
		t.Errorf("%v, %v; want mode 0600", st, err)
	}
	if _, err := CreateNew(path, 0o600); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), "refusing to replace it") {
		t.Errorf("a name that is taken: %v; want fs.ErrExist", err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink("nowhere", link); err != nil {
		t.Fatal(err)
	}
	if _, err := CreateNew(link, 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a symlink to nowhere: %v; want fs.ErrExist", err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "first" {
		t.Errorf("the first file is now %q, %v", data, err)
	}
}

// TestCreateNewRace: of many that began while the name was free, one wins, and
// nothing of the others is left.
func TestCreateNewRace(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	var wins, refused atomic.Int32
	var begun, ended sync.WaitGroup
	for range 20 {
		begun.Add(1)
		ended.Go(func() {
			var s Set
			f, err := s.CreateNew(path, 0o600)
			begun.Done()
			if err != nil {
				t.Error(err)
				return
			}
			begun.Wait()
			if _, err := f.Write([]byte(f.TempPath())); err != nil {
				t.Error(err)
			}
			switch err := s.Commit(); {
			case err == nil:
				wins.Add(1)
			case errors.Is(err, fs.ErrExist):
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	ended.Wait()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if wins.Load() != 1 || refused.Load() != 19 || len(entries) != 1 {
		t.Errorf("%d won, %d were refused, %d files are left; want 1, 19, 1", wins.Load(), refused.Load(), len(entries))
	}
}
