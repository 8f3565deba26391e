package nodeconfig

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
)

const (
	// TakeoverFolder is where a takeover's hand-over lies in the initramfs.
	TakeoverFolder = "xnode/takeover"
	// TakeoverSumFile is the list of hashes beside that folder.
	TakeoverSumFile = "xnode/takeover.sha256"
	// MachineID is the one file that only a hand-over has: the identity of the
	// system that was taken over, as in machine-id(5).
	MachineID = "machine-id"
)

// layer is a place in the initramfs where a config lies.
type layer struct{ folder, sums, more string }

// A node config is written by people for one or many nodes, a hand-over by the
// machine for itself: only the latter has a machine id.
var (
	nodeLayer     = layer{Folder, SumFile, ""}
	takeoverLayer = layer{TakeoverFolder, TakeoverSumFile, MachineID}
)

func (l layer) known(name string) bool { return Known(name) || l.more != "" && name == l.more }

// WriteTakeover writes the archive of a hand-over: like WriteCPIO, below
// TakeoverFolder, and with a machine id if there is one.
func (c *Config) WriteTakeover(w io.Writer) error {
	if err := c.validate(takeoverLayer); err != nil {
		return fmt.Errorf("pack hand-over: %w", err)
	}
	return c.pack(w, takeoverLayer)
}

// ReadTakeover reads the hand-over that the kernel has unpacked, as ReadBooted
// does with the node config. Without a takeover the config is empty.
func ReadTakeover(root fs.FS) (*Config, error) { return readBooted(root, takeoverLayer) }

func validateMachineID(data []byte) error {
	id := strings.TrimSuffix(string(data), "\n")
	if len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" || strings.Trim(id, "0") == "" {
		return errors.New("want 32 lower-case hex digits that are not all zero, as in machine-id(5)")
	}
	return nil
}

// CheckTakeover checks every file as WriteTakeover does.
func (c *Config) CheckTakeover() error { return c.validate(takeoverLayer) }
