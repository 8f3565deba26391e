// Package manifest is the description of a live payload: what it is made of,
// which kernel and initrd belong to it, and the hash of each chunk, so that
// it can be checked while it is read or fetched in any order.
//
// There is one canonical encoding; its SHA-256, written "sha256:HEX", is what
// xnode.manifest= on the kernel command line names. The package does not
// fetch, sign or find anything: it is given bytes.
package manifest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"xnodeos.org/internal/verity"
)

const (
	// Version is the only value of Manifest.V that this code reads and writes.
	Version = 1
	// ChunkSize is the length in bytes of the chunks that HashPayload makes.
	ChunkSize = 4 << 20
	// MaxSize bounds an encoded manifest; it allows a payload of 900 GB.
	MaxSize = 16 << 20
	// FileName is the name of a manifest beside its payload.
	FileName = "manifest.json"

	verityAlgorithm = "sha256"
)

// Handover is the way in which the first stage starts the system.
type Handover string

const (
	// HandoverScript means: run the system's init, NixOS's stage-2 script.
	HandoverScript Handover = "script"
	// HandoverPrepareRoot means: run prepare-root in the new root, then init.
	HandoverPrepareRoot Handover = "prepare-root"
)

// Manifest describes one live payload and what boots it. The order of the
// fields is the order of the canonical encoding.
type Manifest struct {
	// V is the version of the format.
	V int `json:"v"`
	// Critical names keys that a reader must understand; all other unknown
	// keys are ignored.
	Critical []string `json:"critical"`
	// Label names the generation to people, as in "pocket-1".
	Label string `json:"label"`
	// Arch is Nix's system name, as in "x86_64-linux".
	Arch string `json:"arch"`
	// System is the store path of the toplevel.
	System string `json:"system"`
	// Closure names the closure list: "sha256-" and standard base64.
	Closure string `json:"closure"`
	// Handover is the shape of the system's start.
	Handover Handover `json:"handover"`
	// Sequence is the release number, 0 where there is no release.
	Sequence uint32 `json:"sequence"`
	// Time is when the build says it was made, in seconds since 1970; the
	// floor of the node's clock.
	Time int64 `json:"time"`
	// Cmdline is the kernel command line without xnode.manifest=.
	Cmdline string `json:"cmdline"`
	// Kernel is the kernel image.
	Kernel File `json:"kernel"`
	// Initrd is the initramfs without node config.
	Initrd File `json:"initrd"`
	// Payload is the squashfs of the closure.
	Payload Payload `json:"payload"`
}

// File is one whole file. Name has no folder part; Size is in bytes; SHA256
// is 64 lower-case hex digits.
type File struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// Payload is a file with the hashes of its chunks. Each chunk is ChunkSize
// bytes long, the last one as long as what is left. An empty file has none.
type Payload struct {
	Name      string   `json:"name"`
	Size      int64    `json:"size"`
	SHA256    string   `json:"sha256"`
	ChunkSize int64    `json:"chunk_size"`
	Chunks    []string `json:"chunks"`
	// Verity is the hash tree at the payload's end; nil where there is none.
	Verity *Verity `json:"verity,omitempty"`
}

// Verity says how the kernel checks the payload block by block (package
// verity). The tree lies in the payload itself, right behind the data.
type Verity struct {
	Algorithm  string `json:"algorithm"`   // "sha256"
	BlockSize  int64  `json:"block_size"`  // bytes, 4096
	DataBlocks int64  `json:"data_blocks"` // from the payload's start
	Root       string `json:"root"`        // 64 hex digits
	Salt       string `json:"salt"`        // 64 hex digits
}

// NewVerity describes a tree.
func NewVerity(t verity.Tree) *Verity {
	return &Verity{
		Algorithm: verityAlgorithm, BlockSize: verity.BlockSize, DataBlocks: t.DataBlocks,
		Root: hex.EncodeToString(t.Root[:]), Salt: hex.EncodeToString(t.Salt[:]),
	}
}

// Tree is the tree that v describes. It is only defined for a valid manifest.
func (v *Verity) Tree() verity.Tree {
	t := verity.Tree{DataBlocks: v.DataBlocks, Offset: v.DataBlocks * verity.BlockSize}
	hex.Decode(t.Root[:], []byte(v.Root)) //nolint:errcheck // validated
	hex.Decode(t.Salt[:], []byte(v.Salt)) //nolint:errcheck // validated
	return t
}

// Encode returns the canonical encoding: json.MarshalIndent with two spaces,
// and one LF at the end. It refuses a manifest that Parse would refuse.
func (m *Manifest) Encode() ([]byte, error) {
	out := *m
	// null and [] would be two encodings of one manifest.
	if out.Critical == nil {
		out.Critical = []string{}
	}
	if out.Payload.Chunks == nil {
		out.Payload.Chunks = []string{}
	}
	if err := out.validate(); err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	data, err := json.MarshalIndent(&out, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	if len(data) >= MaxSize {
		return nil, fmt.Errorf("encode manifest: %d bytes; allowed are %d", len(data), MaxSize-1)
	}
	return append(data, '\n'), nil
}

// Digest returns "sha256:HEX" of the canonical encoding.
func (m *Manifest) Digest() (string, error) {
	data, err := m.Encode()
	if err != nil {
		return "", err
	}
	return DigestOf(data), nil
}

// DigestOf returns "sha256:HEX" of the bytes of a manifest as they were found.
// A manifest from outside is compared by this before it is parsed.
func DigestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Parse reads and checks a manifest. Unknown keys are ignored unless
// "critical" names them: an old node must be able to read the manifest of the
// release that updates it.
func Parse(data []byte) (*Manifest, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("parse manifest: %d bytes; allowed are %d", len(data), MaxSize)
	}
	var head struct {
		V        int      `json:"v"`
		Critical []string `json:"critical"`
	}
	if err := decode(data, &head); err != nil {
		return nil, fmt.Errorf("parse manifest: %w", err)
	}
	if head.V != Version {
		return nil, fmt.Errorf("parse manifest: version %d; this program reads version %d; use a newer xnodeos", head.V, Version)
	}
	for _, key := range head.Critical {
		if !knownKey(key) {
			return nil, fmt.Errorf("parse manifest: it has the critical key %q, which this program does not know; use a newer xnodeos", key)
		}
	}
	var m Manifest
	if err := decode(data, &m); err != nil {
		return nil, fmt.Errorf("parse manifest: %w", err)
	}
	if err := m.validate(); err != nil {
		return nil, fmt.Errorf("parse manifest: %w", err)
	}
	return &m, nil
}

func knownKey(key string) bool {
	switch key {
	case "v", "critical", "label", "arch", "system", "closure", "handover", "sequence", "time", "cmdline",
		"kernel", "initrd", "payload":
		return true
	}
	return false
}

func decode(data []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(into); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("something follows the JSON object at byte %d", dec.InputOffset())
	}
	return nil
}
