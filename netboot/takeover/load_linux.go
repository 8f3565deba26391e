package takeover

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// linux is the running kernel.
type linux struct{ root fs.FS }

// Flags of kexec_file_load, include/uapi/linux/kexec.h.
const (
	fileUnload      = 1
	fileNoInitramfs = 4
)

// Try loads the kernel alone, where it is the kernel that judges it, and takes
// it back. kexec_load without a segment loads nothing and asks for permission.
func (l linux) Try(m Method, image []byte, cmdline string) error {
	if m == SegmentLoad {
		if _, err := readMachineMap(l.root); err != nil {
			return err
		}
		return explain(kexecLoad(0, nil))
	}
	kernel, err := memfd("kernel", int64(len(image)), []piece{{0, image}})
	if err != nil {
		return err
	}
	defer kernel.release()
	if err := unix.KexecFileLoad(kernel.fd, 0, cmdline, fileNoInitramfs); err != nil {
		return explain(err)
	}
	return l.Unload()
}

// Load loads kernel and initrd.
func (l linux) Load(m Method, image []byte, initrd *ramdisk, cmdline string) error {
	if m == SegmentLoad {
		machine, err := readMachineMap(l.root)
		if err != nil {
			return err
		}
		segments, entry, err := layOut(image, initrd, cmdline, machine)
		if err != nil {
			return err
		}
		return explain(kexecLoad(entry, segments))
	}
	kernel, err := memfd("kernel", int64(len(image)), []piece{{0, image}})
	if err != nil {
		return err
	}
	defer kernel.release()
	disk, err := memfd("initrd", initrd.size, initrd.pieces)
	if err != nil {
		return err
	}
	defer disk.release()
	stop := whenRead(int64(len(image))+initrd.size, func() { kernel.empty(); disk.empty() })
	defer stop()
	return explain(unix.KexecFileLoad(kernel.fd, disk.fd, cmdline, 0))
}

// whenRead calls then as soon as the kernel has read size bytes on behalf of
// this thread, which stays the caller's until stop. The kernel reads the whole
// of both files before it makes the segments: emptying the files in between
// takes one copy of the image off the peak. A kernel that does not count what
// it reads (Facts.CountsReads) keeps them until the end.
func whenRead(size int64, then func()) (stop func()) {
	runtime.LockOSThread()
	name := fmt.Sprintf("/proc/self/task/%d/io", unix.Gettid())
	began, done, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		before, ok := readBytes(name)
		close(began)
		if !ok {
			return
		}
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				if now, ok := readBytes(name); ok && now-before >= size {
					then()
					return
				}
			}
		}
	}()
	<-began
	return func() { close(done); <-ended; runtime.UnlockOSThread() }
}

// readBytes is the line "rchar: N" of proc_pid_io(5).
func readBytes(name string) (int64, bool) {
	data, err := os.ReadFile(name)
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(data)) {
		if text, ok := strings.CutPrefix(line, "rchar: "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}

// Unload takes a loaded kernel back.
func (linux) Unload() error {
	err := unix.KexecFileLoad(-1, -1, "", fileUnload)
	if errors.Is(err, unix.ENOSYS) {
		err = kexecLoad(0, nil)
	}
	if err != nil {
		return fmt.Errorf("take the loaded kernel back: %w", err)
	}
	return nil
}

// lockedFile is a file that is never on a disk, not even as swap.
type lockedFile struct {
	fd     int
	mapped []byte
}

// memfd makes one of pieces. It is locked as long as it is mapped.
func memfd(name string, size int64, pieces []piece) (*lockedFile, error) {
	fd, err := unix.MemfdCreate("xnode-"+name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make %s in memory: %w", name, err)
	}
	f := &lockedFile{fd: fd}
	err = unix.Ftruncate(fd, size)
	if err == nil {
		f.mapped, err = unix.Mmap(fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}
	if err == nil {
		err = unix.Mlock(f.mapped)
	}
	if err != nil {
		f.release()
		return nil, fmt.Errorf("make %s of %d MiB in locked memory: %w", name, mib(size), err)
	}
	for _, p := range pieces {
		copy(f.mapped[p.at:], p.data)
	}
	return f, nil
}

// empty gives the memory back. What cannot be given back now goes with the
// process, which ends soon.
func (f *lockedFile) empty() {
	if f.mapped != nil {
		_ = unix.Munmap(f.mapped) // see above
		f.mapped = nil
	}
	_ = unix.Ftruncate(f.fd, 0) // see above
}

func (f *lockedFile) release() {
	f.empty()
	_ = unix.Close(f.fd) // memory that goes away
}

// lockedMemory returns memory that is never swapped out.
func lockedMemory(size int) ([]byte, error) {
	data, err := unix.Mmap(-1, 0, int(pageUp(int64(size))), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("get memory for the hand-over: %w", err)
	}
	if err := unix.Mlock(data); err != nil {
		return nil, fmt.Errorf("lock the memory of the hand-over: %w", errors.Join(err, unix.Munmap(data)))
	}
	return data, nil
}

// lockProcess keeps every page that this process will touch out of the swap:
// files with secrets are read into its heap. Mapped pages of the takeover file
// are let go again; they are no secret and may be large.
func lockProcess(open ...[]byte) error {
	const onFault = 4 // MCL_ONFAULT
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | onFault); err != nil {
		return fmt.Errorf("lock the memory of this process: %w", err)
	}
	for _, mapped := range open {
		if err := unix.Munlock(mapped); err != nil {
			return fmt.Errorf("unlock the takeover file: %w", err)
		}
	}
	return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
}

// kexecSegment is struct kexec_segment.
type kexecSegment struct {
	buf   unsafe.Pointer
	bufsz uintptr
	mem   uintptr
	memsz uintptr
}

func kexecLoad(entry uint64, segments []segment) error {
	list := make([]kexecSegment, len(segments)+1) // never empty: its address is taken
	var pin runtime.Pinner
	defer pin.Unpin()
	for i, s := range segments {
		pin.Pin(&s.data[0])
		list[i] = kexecSegment{unsafe.Pointer(&s.data[0]), uintptr(len(s.data)), uintptr(s.address), uintptr(s.size)}
	}
	_, _, errno := syscall.Syscall6(unix.SYS_KEXEC_LOAD, uintptr(entry), uintptr(len(segments)), uintptr(unsafe.Pointer(&list[0])), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// explain adds what an error of the two calls means.
func explain(err error) error {
	for _, e := range []struct {
		errno error
		text  string
	}{
		{unix.ENOSYS, "the running kernel does not have this call"},
		{unix.EKEYREJECTED, "the running kernel does not trust the signature of the new one"},
		{unix.ENOKEY, "the running kernel does not have the key of the new one's signature"},
		{unix.EBADMSG, "the running kernel wants a signed kernel, and this one is not"},
		{unix.ENODATA, "the running kernel wants a signed kernel, and this one is not"},
		{unix.EPERM, "forbidden: by lockdown, by the sysctl kernel.kexec_load_disabled, or for lack of CAP_SYS_BOOT"},
		{unix.EBUSY, "another program is loading a kernel"},
		{unix.ENOMEM, "not enough memory"},
		{unix.ENOEXEC, "the running kernel does not take this kernel format"},
	} {
		if errors.Is(err, e.errno) {
			return fmt.Errorf("%s: %w", e.text, err)
		}
	}
	return err
}
