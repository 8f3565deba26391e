package nodeconfig_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/cpio"
	"xnodeos.org/internal/nodeconfig"
)

const machineID = "0123456789abcdef0123456789abcdef\n"

// unpack does what the kernel does with an archive.
func unpack(t *testing.T, data []byte) fstest.MapFS {
	t.Helper()
	root := fstest.MapFS{}
	r := cpio.NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return root
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if !h.IsDir() {
			root[h.Name] = &fstest.MapFile{Data: body, Mode: fs.FileMode(h.Mode & 0o777)}
		}
	}
}

func TestTakeoverRoundTrip(t *testing.T) {
	t.Parallel()
	want := &nodeconfig.Config{Files: map[string][]byte{
		"hostname": []byte("old\n"), "network": []byte("ip=52:54:00:12:34:56:dhcp\n"), nodeconfig.MachineID: []byte(machineID),
	}}
	var packed bytes.Buffer
	if err := want.WriteTakeover(&packed); err != nil {
		t.Fatal(err)
	}
	root := unpack(t, packed.Bytes())
	got, err := nodeconfig.ReadTakeover(root)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.Files, got.Files); diff != "" {
		t.Errorf("ReadTakeover (-want +got):\n%s", diff)
	}
	if node, err := nodeconfig.ReadBooted(root); err != nil || !node.Empty() {
		t.Errorf("ReadBooted of a hand-over = %v, %v; want an empty node config", node, err)
	}
	root[nodeconfig.TakeoverFolder+"/hostname"].Data = []byte("other\n")
	var damaged *nodeconfig.DamagedError
	if _, err := nodeconfig.ReadTakeover(root); !errors.As(err, &damaged) {
		t.Errorf("ReadTakeover of a changed file: %v; want *DamagedError", err)
	}
	if got, err := nodeconfig.ReadTakeover(fstest.MapFS{}); err != nil || !got.Empty() {
		t.Errorf("ReadTakeover of nothing = %v, %v; want an empty one", got, err)
	}
}

func TestMachineIDOnlyInTakeover(t *testing.T) {
	t.Parallel()
	c := &nodeconfig.Config{Files: map[string][]byte{nodeconfig.MachineID: []byte(machineID)}}
	if err := c.WriteCPIO(io.Discard); err == nil || !strings.Contains(err.Error(), "does not belong there") {
		t.Errorf("WriteCPIO of a machine id: %v; want a refusal", err)
	}
	for _, bad := range []string{"", "uninitialized\n", strings.Repeat("0", 32), strings.Repeat("A", 32), machineID + "\n"} {
		c.Files[nodeconfig.MachineID] = []byte(bad)
		if err := c.WriteTakeover(io.Discard); err == nil {
			t.Errorf("WriteTakeover took the machine id %q", bad)
		}
	}
}
