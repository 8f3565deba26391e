package takeover

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// readAll reads a file by one system call, as kexec_file_load does inside.
func readAll(t *testing.T, f *lockedFile, size int) {
	t.Helper()
	if n, err := unix.Pread(f.fd, make([]byte, size), 0); n != size || err != nil {
		t.Fatalf("read %d bytes, %v; want %d", n, err, size)
	}
}

func sizeOf(t *testing.T, f *lockedFile) int64 {
	t.Helper()
	var info unix.Stat_t
	if err := unix.Fstat(f.fd, &info); err != nil {
		t.Fatal(err)
	}
	return info.Size
}

// TestFilesAreEmptied: the files go as soon as all of them is read, and not
// before.
func TestFilesAreEmptied(t *testing.T) {
	t.Parallel()
	const size = 100_000
	first, err := memfd("first", size, []piece{{0, make([]byte, size)}})
	if err != nil {
		t.Fatal(err)
	}
	defer first.release()
	second, err := memfd("second", size, []piece{{4096, []byte("x")}})
	if err != nil {
		t.Fatal(err)
	}
	defer second.release()
	emptied := make(chan struct{})
	stop := whenRead(2*size, func() { first.empty(); second.empty(); close(emptied) })
	defer stop()
	readAll(t, first, size)
	select {
	case <-emptied:
		t.Fatal("emptied when half of it was read")
	case <-time.After(20 * time.Millisecond):
	}
	readAll(t, second, size)
	select {
	case <-emptied:
	case <-time.After(time.Minute):
		t.Fatal("not emptied when all of it was read")
	}
	if a, b := sizeOf(t, first), sizeOf(t, second); a != 0 || b != 0 {
		t.Errorf("the files have %d and %d bytes; want none", a, b)
	}
}

func TestReadBytes(t *testing.T) {
	t.Parallel()
	if n, ok := readBytes("/proc/self/io"); !ok || n < 0 {
		t.Errorf("readBytes of this process = %d, %t", n, ok)
	}
	for _, name := range []string{"/proc/self/status", "/nonexistent"} {
		if n, ok := readBytes(name); ok {
			t.Errorf("readBytes(%s) = %d; want nothing", name, n)
		}
	}
}
