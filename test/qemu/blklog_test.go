package qemu

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"xnodeos.org/internal/vm"
)

// A log of QEMU's block driver blklogwrites: everything that a guest has
// written to a disk, in the order in which it was done, with the flushes
// between. The format is that of Linux's dm-log-writes
// (Documentation/admin-guide/device-mapper/log-writes.rst): a sector with a
// header, then for each write a sector that describes it and its data.
const (
	logMagic  = 0x6a736677736872
	logSector = 512

	logFlush   = 1
	logFUA     = 2
	logDiscard = 4
)

// logEntry is one write or flush. Numbers are in sectors but for at, the place
// of the data in the log in bytes.
type logEntry struct {
	sector, count, flags uint64
	at                   int64
}

func (e logEntry) durable() bool { return e.flags&(logFlush|logFUA) != 0 }

// recorder is a machine's disk whose writes go to log as well.
func recorder(disk, log string) func(*vm.Machine) {
	return func(m *vm.Machine) {
		m.Extra = append(m.Extra,
			"-blockdev", "driver=file,node-name=state-file,filename="+disk,
			"-blockdev", "driver=file,node-name=state-log,filename="+log,
			"-blockdev", fmt.Sprintf("driver=blklogwrites,node-name=state,file=state-file,log=state-log,log-sector-size=%d", logSector),
			"-device", "virtio-blk-pci,drive=state")
	}
}

// readLog reads all entries up to the last flush.
func readLog(log io.ReaderAt) ([]logEntry, error) {
	var head struct {
		Magic, Version, Entries uint64
		Sector                  uint32
	}
	if err := binary.Read(io.NewSectionReader(log, 0, logSector), binary.LittleEndian, &head); err != nil {
		return nil, fmt.Errorf("read the log of writes: %w", err)
	}
	if head.Magic != logMagic || head.Version != 1 || head.Sector != logSector {
		return nil, fmt.Errorf("read the log of writes: header %+v", head)
	}
	var entries []logEntry
	at := int64(logSector)
	for range head.Entries {
		var e struct{ Sector, Count, Flags, Length uint64 }
		if err := binary.Read(io.NewSectionReader(log, at, logSector), binary.LittleEndian, &e); err != nil {
			return nil, fmt.Errorf("read the log of writes: %w", err)
		}
		at += logSector
		entries = append(entries, logEntry{e.Sector, e.Count, e.Flags, at})
		if e.Flags&logDiscard == 0 {
			at += int64(e.Count) * logSector
		}
	}
	return entries, nil
}

// replay is a disk that the log's writes are done to once more.
type replay struct {
	log     *os.File
	disk    *os.File
	entries []logEntry
	done    int
}

// to does all that was done before entry n.
func (r *replay) to(n int) error {
	for ; r.done < n; r.done++ {
		if err := r.write(r.disk, r.entries[r.done]); err != nil {
			return err
		}
	}
	return nil
}

func (r *replay) write(disk io.WriterAt, e logEntry) error {
	if e.count == 0 {
		return nil
	}
	data := make([]byte, e.count*logSector) // a discard reads as zeroes here
	if e.flags&logDiscard == 0 {
		if _, err := r.log.ReadAt(data, e.at); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read the log of writes: %w", err)
		}
	}
	if _, err := disk.WriteAt(data, int64(e.sector)*logSector); err != nil {
		return fmt.Errorf("replay: %w", err)
	}
	return nil
}

// cut returns a copy of the disk as a power cut leaves it: all that was flushed,
// and of what came after it some writes, if any are chosen.
func (r *replay) cut(t *testing.T, also *rand.Rand) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "cut.img")
	copyFile(t, r.disk.Name(), name)
	if also == nil {
		return name
	}
	disk, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range r.entries[r.done:] {
		if e.durable() {
			break
		}
		if also.IntN(2) == 0 {
			continue
		}
		if err := r.write(disk, e); err != nil {
			t.Fatal(err)
		}
	}
	if err := disk.Close(); err != nil {
		t.Fatal(err)
	}
	return name
}

// flushAt is the first entry from n on that makes what came before it durable;
// all entries if there is none.
func (r *replay) flushAt(n int) int {
	for i := n; i < len(r.entries); i++ {
		if r.entries[i].flags&logFlush != 0 {
			return i + 1
		}
	}
	return len(r.entries)
}

// find returns the entries whose data begins, at a sector of theirs, with mark,
// and what follows the mark there.
func (r *replay) find(mark string, show func(entry int, found []byte)) error {
	for i, e := range r.entries {
		if e.count == 0 || e.flags&logDiscard != 0 {
			continue
		}
		data := make([]byte, e.count*logSector)
		if _, err := r.log.ReadAt(data, e.at); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read the log of writes: %w", err)
		}
		for at := 0; at < len(data); at += logSector {
			if bytes.HasPrefix(data[at:], []byte(mark)) {
				show(i, data[at:])
			}
		}
	}
	return nil
}

// copyFile copies and leaves holes where there are zeroes.
func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	buf, zero := make([]byte, 1<<20), make([]byte, 1<<20)
	var at int64
	for {
		n, err := io.ReadFull(in, buf)
		if n > 0 && !bytes.Equal(buf[:n], zero[:n]) {
			if _, err := out.WriteAt(buf[:n], at); err != nil {
				t.Fatal(err)
			}
		}
		at += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(out.Truncate(at), out.Close()); err != nil {
		t.Fatal(err)
	}
}
