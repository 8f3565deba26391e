package stage1

import (
	"bytes"
	"strings"
)

// Uevent is what the kernel says about a device that came, went or changed.
type Uevent struct {
	Action    string // "add", "remove", "change", "bind", ...
	Subsystem string
	Modalias  string
	DevName   string
}

// ParseUevent reads one message of the kernel's uevent socket: "action@path",
// then KEY=VALUE, each ended by NUL (lib/kobject_uevent.c). A message of udev
// ("libudev") or without an action is not one.
func ParseUevent(msg []byte) (Uevent, bool) {
	head, rest, ok := bytes.Cut(msg, []byte{0})
	if !ok || !bytes.Contains(head, []byte("@")) {
		return Uevent{}, false
	}
	var u Uevent
	for field := range bytes.SplitSeq(rest, []byte{0}) {
		key, value, _ := strings.Cut(string(field), "=")
		switch key {
		case "ACTION":
			u.Action = value
		case "SUBSYSTEM":
			u.Subsystem = value
		case "MODALIAS":
			u.Modalias = value
		case "DEVNAME":
			u.DevName = value
		}
	}
	return u, u.Action != ""
}
