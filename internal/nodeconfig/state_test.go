package nodeconfig

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseState(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]StateDisk{
		"vda":                                {Name: "vda"},
		" /dev/nvme0n1p3\n":                  {Name: "/dev/nvme0n1p3"},
		"new:vda":                            {Name: "vda", New: true},
		"serial:S6PXNJ0R":                    {Name: "serial:S6PXNJ0R"},
		"new:serial:A_b-1.2":                 {Name: "serial:A_b-1.2", New: true},
		"/dev/disk/by-path/pci-0000:00:04.0": {Name: "/dev/disk/by-path/pci-0000:00:04.0"},
		"/dev/disk/by-id/wwn-0x5000c500a1b2c3d4-part12": {Name: "/dev/disk/by-id/wwn-0x5000c500a1b2c3d4-part12"},
	} {
		got, err := ParseState(text)
		if err != nil || got != want {
			t.Errorf("ParseState(%q) = %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "new:", " ", "vda vdb", "../sda", "/dev/../sda", "a\x00b", "ä", strings.Repeat("a", 300)} {
		if got, err := ParseState(text); err == nil {
			t.Errorf("ParseState(%q) = %+v; want an error", text, got)
		} else if !strings.Contains(err.Error(), "want a disk like vda") {
			t.Errorf("ParseState(%q): %v; it does not say what is allowed", text, err)
		}
	}
}

func TestStateAndPayloadFiles(t *testing.T) {
	t.Parallel()
	c, notes, err := FromFiles(map[string][]byte{
		"state":   []byte("/dev/vda\r\n"),
		"payload": []byte("\ufeff# ours\r\nhttp://192.0.2.1/netboot/\r\n\r\nhttps://[2001:db8::1]:8443/x"),
	})
	if err != nil || len(notes) > 0 {
		t.Fatalf("FromFiles: %q, %v", notes, err)
	}
	if got := c.State(); got != (StateDisk{Name: "/dev/vda"}) {
		t.Errorf("State() = %+v", got)
	}
	if diff := cmp.Diff([]string{"http://192.0.2.1/netboot/", "https://[2001:db8::1]:8443/x"}, c.Payload()); diff != "" {
		t.Errorf("Payload() (-want +got):\n%s", diff)
	}
	for file, texts := range map[string][]string{
		"state":   {"", "two words", "new:", "new:vda"},
		"payload": {"", "# nothing\n", "ftp://192.0.2.1/", "192.0.2.1", "http://me:secret@192.0.2.1/", "http://192.0.2.1/?a", "http:///x", "http://a b/"},
	} {
		for _, text := range texts {
			c, notes, err := FromFiles(map[string][]byte{file: []byte(text)})
			if err != nil || len(notes) != 1 || !c.Empty() {
				t.Errorf("%s %q: %v, %q, %v; want it left out and named", file, text, c, notes, err)
			}
		}
	}
	var none *Config
	if !none.State().IsZero() || none.Payload() != nil {
		t.Error("no node config names a state or a payload")
	}
}
