package stage1

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"
)

// fail says what went wrong and starts the machine again.
func (s *stage) fail(ctx context.Context, err error) error {
	s.con.Sayf("error: %v", err)
	if s.options.Debug {
		s.dump()
		s.con.Sayf("xnode.debug: staying here; reset the machine to go on")
		for {
			time.Sleep(time.Hour)
		}
	}
	s.con.Sayf("the machine starts again in %.0f s (xnode.panic= changes that, xnode.debug shows more)", s.options.Panic.Seconds())
	pause(ctx, nil, s.options.Panic)
	s.con.Flush(flushWait)
	return fmt.Errorf("start the machine again: %w", reboot(ctx))
}

// dump shows the state of the machine: there is no shell to look at it with.
func (s *stage) dump() {
	if s.modules != nil {
		s.con.Sayf("modules: %s", strings.Join(s.modules.Loaded(), " "))
	}
	if s.volumes != nil {
		s.con.Sayf("disks: %s", strings.Join(s.volumes.Report(), "; "))
	}
	if links, err := (kernelNet{}).Links(); err == nil {
		s.con.Sayf("network cards: %v", links)
	}
	if memory, err := readMemory(); err == nil {
		s.con.Sayf("memory: %d MB free of %d MB", memory.Available>>20, memory.Total>>20)
	}
	for _, name := range []string{"/proc/mounts", "/proc/partitions"} {
		data, err := os.ReadFile(name)
		if err != nil {
			s.con.Sayf("%v", err)
			continue
		}
		s.con.Sayf("%s:\n%s", name, data)
	}
}
