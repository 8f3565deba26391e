package state

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"xnodeos.org/internal/atomicfile"
	"xnodeos.org/internal/nodeconfig"
	"xnodeos.org/internal/sshsign"
)

// The files of an identity, and the namespace of the marker's signature.
const (
	KeyName       = "node-key"
	PublicKeyName = "node-key.pub"
	MarkerName    = "marker.json"
	SignatureName = "marker.json.sig"
	Namespace     = "xnode-state"
)

// maxFile bounds what is read of a small file.
const maxFile = 64 << 10

// Marker says on which machine, which disk and under whose trust a state was
// made. It guards against mix-ups, not against an attacker, who can copy it.
type Marker struct {
	V int `json:"v"`
	// Trust is "sha256:HEX" of the embedded trust, "" without any.
	Trust string `json:"trust"`
	// SMBIOS is the machine's UUID in lower case, Disk the serial number of the
	// disk; "" where there is none.
	SMBIOS string `json:"smbios"`
	Disk   string `json:"disk"`
}

// TrustHash is the hash of the trust files of a node config: the SHA-256 of what
// sha256sum(1) prints for them, by name.
func TrustHash(c *nodeconfig.Config) string {
	if !c.HasTrust() {
		return ""
	}
	list := sha256.New()
	for _, name := range c.Names() {
		if strings.HasPrefix(name, "trust/") {
			fmt.Fprintf(list, "%x  %s\n", sha256.Sum256(c.Files[name]), name)
		}
	}
	return "sha256:" + hex.EncodeToString(list.Sum(nil))
}

// Encode gives the bytes of marker.json.
func (m Marker) Encode() ([]byte, error) {
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode marker: %w", err)
	}
	return append(data, '\n'), nil
}

// MismatchError says in what a marker differs from the machine.
type MismatchError struct{ Differences []string }

func (e *MismatchError) Error() string {
	return "it was made elsewhere: " + strings.Join(e.Differences, "; ") +
		"; attach the disk that belongs here, or begin anew once with xnode.state=new:DISK"
}

// compare says in what the marker that was found differs from the wanted one.
func (m Marker) compare(want Marker) error {
	if m.V != want.V {
		return fmt.Errorf("%s has version %d; this first stage knows %d", MarkerName, m.V, want.V)
	}
	var differences []string
	for _, f := range []struct{ what, found, want string }{
		{"trust in the image", m.Trust, want.Trust}, {"SMBIOS UUID", m.SMBIOS, want.SMBIOS}, {"serial number of the disk", m.Disk, want.Disk},
	} {
		if f.found != f.want {
			differences = append(differences, fmt.Sprintf("%s is %q there and %q here", f.what, f.found, f.want))
		}
	}
	if len(differences) > 0 {
		return &MismatchError{differences}
	}
	return nil
}

// Identity is a node key: the two files of ssh-keygen.
type Identity struct {
	Fingerprint string // "SHA256:..."
	// Made says that the key is new.
	Made bool
}

// keyComment is the comment of a node key.
const keyComment = "xnode"

// NewKey writes a fresh node key into a folder, with nothing to tell whose it
// is: for a node that forgets.
func NewKey(dir string) (Identity, error) {
	pair, err := sshsign.GenerateKey(keyComment)
	if err == nil {
		err = writeKey(dir, pair)
	}
	if err != nil {
		return Identity{}, fmt.Errorf("make node key: %w", err)
	}
	return Identity{Fingerprint: pair.PublicKey.Fingerprint(), Made: true}, nil
}

// writeKey writes the private half last: where it is, everything is.
func writeKey(dir string, pair *sshsign.KeyPair) error {
	return errorsFirst(
		atomicfile.WriteBytes(filepath.Join(dir, PublicKeyName), 0o644, pair.PublicFile),
		atomicfile.WriteBytes(filepath.Join(dir, KeyName), 0o600, pair.PrivateFile()))
}

// OpenIdentity reads the node key and the marker in the folder of a state, or
// makes them where there is no key. An error means that the state must not be
// used; what is in the folder is then as it was.
func OpenIdentity(ctx context.Context, dir string, want Marker) (Identity, error) {
	key := filepath.Join(dir, KeyName)
	if _, err := os.Lstat(key); errors.Is(err, fs.ErrNotExist) {
		id, err := makeIdentity(ctx, dir, want)
		if err != nil {
			return Identity{}, fmt.Errorf("make node key and marker: %w", err)
		}
		return id, nil
	}
	signer, err := readKey(key)
	if err != nil {
		return Identity{}, fmt.Errorf("%w; begin anew with xnode.state=new:DISK", err)
	}
	marker, err := readMarker(dir, signer.PublicKey())
	if err != nil {
		return Identity{}, fmt.Errorf("%w; begin anew with xnode.state=new:DISK", err)
	}
	if err := marker.compare(want); err != nil {
		return Identity{}, err
	}
	if err := restorePublic(dir, signer.PublicKey()); err != nil {
		return Identity{}, err
	}
	return Identity{Fingerprint: signer.PublicKey().Fingerprint()}, nil
}

func readKey(name string) (*sshsign.Signer, error) {
	info, err := os.Lstat(name)
	if err != nil {
		return nil, fmt.Errorf("read node key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s has mode %04o, others may read it", KeyName, info.Mode().Perm())
	}
	data, err := readSmall(name)
	if err != nil {
		return nil, fmt.Errorf("read node key: %w", err)
	}
	return sshsign.ParsePrivate(data, KeyName)
}

func makeIdentity(ctx context.Context, dir string, marker Marker) (Identity, error) {
	data, err := marker.Encode()
	if err != nil {
		return Identity{}, err
	}
	pair, err := sshsign.GenerateKey(keyComment)
	if err != nil {
		return Identity{}, err
	}
	signature, err := pair.Sign(ctx, Namespace, data)
	if err != nil {
		return Identity{}, err
	}
	err = errorsFirst(
		atomicfile.WriteBytes(filepath.Join(dir, MarkerName), 0o644, data),
		atomicfile.WriteBytes(filepath.Join(dir, SignatureName), 0o644, signature),
		writeKey(dir, pair))
	return Identity{Fingerprint: pair.PublicKey.Fingerprint(), Made: true}, err
}

func readMarker(dir string, key sshsign.PublicKey) (Marker, error) {
	data, err := readSmall(filepath.Join(dir, MarkerName))
	if err != nil {
		return Marker{}, fmt.Errorf("read marker: %w", err)
	}
	signature, err := readSmall(filepath.Join(dir, SignatureName))
	if err != nil {
		return Marker{}, fmt.Errorf("read marker: %w", err)
	}
	signed, err := sshsign.Verify(Namespace, data, signature)
	if err != nil {
		return Marker{}, fmt.Errorf("%s: %w", MarkerName, err)
	}
	if signed.String() != key.String() {
		return Marker{}, fmt.Errorf("%s is signed by %s, the node key is %s", MarkerName, signed.Fingerprint(), key.Fingerprint())
	}
	var m Marker
	if err := json.Unmarshal(data, &m); err != nil {
		return Marker{}, fmt.Errorf("%s: %w", MarkerName, err)
	}
	return m, nil
}

// restorePublic writes the public half again where it is not that of the key.
func restorePublic(dir string, key sshsign.PublicKey) error {
	name := filepath.Join(dir, PublicKeyName)
	if data, err := readSmall(name); err == nil {
		if found, _, err := sshsign.ParsePublicKey(string(data)); err == nil && found.String() == key.String() {
			return nil
		}
	}
	if err := atomicfile.WriteBytes(name, 0o644, []byte(key.String()+" "+keyComment+"\n")); err != nil {
		return fmt.Errorf("write public node key: %w", err)
	}
	return nil
}

// readSmall reads an ordinary file and follows no link: the folder came from a
// disk.
func readSmall(name string) ([]byte, error) {
	info, err := os.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, fmt.Errorf("%s: not an ordinary file of at most %d bytes", filepath.Base(name), maxFile)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile))
}
