package stage1

import (
	"fmt"
	"strconv"
	"strings"
)

// MemoryNeeded is what must be free, in bytes, when the system is about to
// start: systemd, activation and a first service, with the payload read page by
// page from where it is. A payload that came inside the initrd is in memory
// already and is not counted again.
const MemoryNeeded = 128 << 20

// Memory is what the kernel says of the machine's RAM, in bytes.
type Memory struct {
	Total, Available int64
}

// ParseMeminfo reads /proc/meminfo.
func ParseMeminfo(text string) (Memory, error) {
	var m Memory
	for line := range strings.Lines(text) {
		key, rest, _ := strings.Cut(line, ":")
		var field *int64
		switch key {
		case "MemTotal":
			field = &m.Total
		case "MemAvailable":
			field = &m.Available
		default:
			continue
		}
		number, ok := strings.CutSuffix(strings.TrimSpace(rest), " kB")
		kb, err := strconv.ParseInt(number, 10, 64)
		if !ok || err != nil || kb < 0 || kb > 1<<50 {
			return Memory{}, fmt.Errorf("parse meminfo: %q is not a size in kB", strings.TrimSpace(line))
		}
		*field = kb << 10
	}
	if m.Total == 0 || m.Available == 0 {
		return Memory{}, fmt.Errorf("parse meminfo: MemTotal or MemAvailable is missing")
	}
	return m, nil
}

// Check refuses a machine that the system would only thrash on.
func (m Memory) Check(needed int64) error {
	if m.Available >= needed {
		return nil
	}
	return &StepError{
		Step:   "check memory",
		Cause:  fmt.Errorf("%d MB are free of %d MB, %d MB are needed", m.Available>>20, m.Total>>20, needed>>20),
		Remedy: fmt.Sprintf("give the machine at least %d MB more memory", (needed-m.Available+1<<20-1)>>20),
	}
}
