package takeover

import "fmt"

// Method is a system call that loads a kernel.
type Method string

// FileLoad is kexec_file_load: the running kernel reads and, where it wants to,
// checks the new one, and hands UEFI over by itself. SegmentLoad is kexec_load:
// everything is laid out here; it needs half of the memory, and is
// refused under lockdown.
const (
	FileLoad    Method = "kexec_file_load"
	SegmentLoad Method = "kexec_load"
)

// Memory says what a takeover takes, in bytes. Image is kernel and initrd as
// they are loaded, with hand-over and embedded payload.
type Memory struct {
	Image     int64 `json:"image"`
	Available int64 `json:"available"`
	FileLoad  int64 `json:"kexec_file_load"` // at its peak, on the old system
	Segments  int64 `json:"kexec_load"`      // likewise
	Total     int64 `json:"total"`
	NewSystem int64 `json:"new_system"` // at its peak, at the start of the new system
}

const (
	// slack is left to the old system: what the kernel cannot get it takes from
	// others, and that would be a change.
	slack = 48 << 20
	// systemFloor is what the new system takes beside what the initrd holds, until
	// it is up: the kernel, its own memory map, the first stage, systemd.
	systemFloor = 160 << 20
)

// measure knows the peaks from the sizes; kernel is the memory that the new
// kernel takes to unpack itself, which is set aside in either case.
//
// kexec_file_load: first the files in memory (memfd) and the kernel's copy of
// them, then that copy and the segments made of it. Where the files cannot be
// emptied in between, all three at once. kexec_load: the segments alone; the
// files are pages of the takeover file, which the kernel can drop.
func measure(f Facts, image, kernel, unpacked int64) Memory {
	copies := int64(3)
	if f.CountsReads {
		copies = 2
	}
	return Memory{
		Image: image, Available: f.MemAvailable, Total: f.MemTotal,
		FileLoad: copies*image + kernel + slack, Segments: image + kernel + slack,
		NewSystem: image + unpacked + systemFloor,
	}
}

func (m Memory) needs(method Method) int64 {
	if method == FileLoad {
		return m.FileLoad
	}
	return m.Segments
}

func (m Memory) check() Check {
	if m.Total < m.NewSystem {
		return bad("memory", Fail, fmt.Sprintf("the machine has %d MiB of memory, the new system needs %d MiB to start", mib(m.Total), mib(m.NewSystem)),
			"use a takeover file without embedded payload, or a smaller system")
	}
	return good("memory", "%d MiB in all, the new system needs %d MiB to start; %d MiB are free, loading takes %d MiB (%s) or %d MiB (%s)",
		mib(m.Total), mib(m.NewSystem), mib(m.Available), mib(m.FileLoad), FileLoad, mib(m.Segments), SegmentLoad)
}

func mib(n int64) int64 { return (n + 1<<20 - 1) >> 20 }

// choose takes the first method that memory and kernel allow. try asks the
// kernel; it is nil where asking would change something.
func choose(m Memory, methods []Method, try func(Method) error) (Method, Check) {
	var tried []string
	for _, method := range methods {
		if need := m.needs(method); need > m.Available {
			tried = append(tried, fmt.Sprintf("%s: needs %d MiB, %d MiB are free", method, mib(need), mib(m.Available)))
			continue
		}
		text := string(method) + ": not tried, because a trial would count as a load or drop the kernel that is loaded"
		if try != nil {
			if err := try(method); err != nil {
				tried = append(tried, fmt.Sprintf("%s: %v", method, err))
				continue
			}
			text = string(method) + ": a trial was accepted and taken back"
		}
		for _, t := range tried {
			text += "; not " + t
		}
		return method, good("load", "%s", text)
	}
	text := "no way to load the new kernel"
	for _, t := range tried {
		text += "; " + t
	}
	return "", bad("load", Fail, text, "free memory, switch off what refuses it, or boot the ISO")
}
