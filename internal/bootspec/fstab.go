package bootspec

import (
	"fmt"
	"slices"
	"strings"
)

const maxFstab = 1 << 20

// Mount is a line of etc/fstab (fstab(5)) that is not a comment.
type Mount struct {
	Line    int // from 1
	Text    string
	Source  string
	Point   string
	Type    string
	Options []string
}

// ParseFstab reads an fstab as the mount program would. Octal escapes are undone.
func ParseFstab(data []byte) ([]Mount, error) {
	if len(data) > maxFstab {
		return nil, fmt.Errorf("fstab: longer than %d bytes", maxFstab)
	}
	var mounts []Mount
	number := 0
	for line := range strings.Lines(string(data)) {
		number++
		text := strings.TrimSpace(line)
		if text == "" || text[0] == '#' {
			continue
		}
		words := strings.Fields(text)
		if len(words) < 3 || strings.Contains(text, "\x00") {
			return nil, fmt.Errorf("fstab: line %d: %q: want source, mount point and type", number, cut(text))
		}
		m := Mount{Line: number, Text: text, Source: unescape(words[0]), Point: unescape(words[1]), Type: words[2]}
		if len(words) > 3 {
			m.Options = strings.Split(words[3], ",")
		}
		mounts = append(mounts, m)
	}
	return mounts, nil
}

// unescape undoes \040 and its like (getmntent(3)).
func unescape(word string) string {
	if !strings.Contains(word, `\`) {
		return word
	}
	var out strings.Builder
	for i := 0; i < len(word); i++ {
		if word[i] == '\\' && i+3 < len(word) && octal(word[i+1:i+4]) {
			out.WriteByte((word[i+1]-'0')<<6 | (word[i+2]-'0')<<3 | (word[i+3] - '0'))
			i += 3
			continue
		}
		out.WriteByte(word[i])
	}
	return out.String()
}

func octal(digits string) bool {
	return digits[0] >= '0' && digits[0] <= '3' && digits[1] >= '0' && digits[1] <= '7' && digits[2] >= '0' && digits[2] <= '7'
}

// memoryTypes are file systems that need nothing outside the machine's memory.
var memoryTypes = []string{
	"tmpfs", "ramfs", "overlay", "none", "proc", "sysfs", "devtmpfs", "devpts", "cgroup2", "securityfs",
	"debugfs", "tracefs", "configfs", "efivarfs", "bpf", "pstore", "hugetlbfs", "mqueue", "binfmt_misc", "fusectl",
}

// Foreign says whether a machine that has only its memory could not boot with
// this mount: it would wait for a disk and end in emergency mode.
func (m Mount) Foreign() bool {
	if slices.Contains(m.Options, "nofail") || slices.Contains(m.Options, "noauto") {
		return false
	}
	return !slices.Contains(memoryTypes, m.Type) || m.Type == "none" && !m.bind()
}

// bind: type "none" means nothing without bind; a bind mount needs only files.
func (m Mount) bind() bool {
	return slices.ContainsFunc(m.Options, func(option string) bool { return option == "bind" || option == "rbind" }) &&
		!strings.HasPrefix(m.Source, "/dev/") && strings.HasPrefix(m.Source, "/")
}
