package nodeconfig

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// StateDisk says where a live node keeps what has to outlast a boot.
type StateDisk struct {
	// Name is a disk or partition as a person names it: "vda", "/dev/vda1",
	// "serial:SERIAL", "/dev/disk/by-id/NAME", "/dev/disk/by-path/pci-ADDRESS".
	Name string
	// New asks to discard what an earlier boot has left there.
	New bool
}

// IsZero says that no disk is named.
func (s StateDisk) IsZero() bool { return s.Name == "" }

// ParseState reads the value of xnode.state=, a disk, or "new:" and a disk. The
// file state of a node config may only name the disk.
func ParseState(text string) (StateDisk, error) {
	const want = "want a disk like vda, serial:SERIAL or /dev/disk/by-id/NAME, with new: in front to discard an old state"
	name, discard := strings.CutPrefix(strings.TrimSpace(text), "new:")
	if name == "" || len(name) > 255 {
		return StateDisk{}, fmt.Errorf("state %q names no disk; %s", text, want)
	}
	for _, r := range name {
		if !isAlnum(r) && !strings.ContainsRune("/-_.:+", r) {
			return StateDisk{}, fmt.Errorf("state %q: no disk has such a name; %s", text, want)
		}
	}
	if strings.Contains(name, "..") {
		return StateDisk{}, fmt.Errorf("state %q: no disk has such a name; %s", text, want)
	}
	return StateDisk{Name: name, New: discard}, nil
}

// State returns the disk that the file state names; it is zero without one.
func (c *Config) State() StateDisk {
	s, err := ParseState(c.word("state"))
	if err != nil {
		return StateDisk{} // there is none: a broken one was refused or left out
	}
	return s
}

// validateState refuses new: in a file, which is read at every boot.
func validateState(data []byte) error {
	s, err := ParseState(string(data))
	if err == nil && s.New {
		err = errors.New("new: in a file would discard the state at each boot; put xnode.state=new:DISK on the kernel command line of one boot")
	}
	return err
}

// Payload returns the URLs of the file payload, in its order.
func (c *Config) Payload() []string {
	if c == nil {
		return nil
	}
	var urls []string
	for line := range strings.Lines(string(c.Files["payload"])) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			urls = append(urls, line)
		}
	}
	return urls
}

func validatePayload(data []byte) error {
	found := 0
	err := eachLine(data, 0, func(line string) error {
		if strings.HasPrefix(line, "#") {
			return nil
		}
		found++
		u, err := url.Parse(line)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || strings.ContainsAny(line, "?# \t") {
			return errors.New("no URL of a folder; want one like http://192.0.2.1/netboot/, without user, password, ? and #")
		}
		return nil
	})
	if err == nil && found == 0 {
		err = errors.New("it names no URL; add one or remove the file")
	}
	return err
}
