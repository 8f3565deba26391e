package fetch

import (
	"errors"
	"fmt"

	"xnodeos.org/internal/manifest"
	"xnodeos.org/internal/trust"
)

// Check says which manifest is the right one, wherever it comes from.
type Check struct {
	// Digest is "sha256:HEX" of the manifest. Where it is set, nothing else
	// counts: a signed manifest of another release is still another one.
	Digest string
	// Signers are asked where there is no digest; the role is xnode-manifest.
	Signers *trust.Signers
	// Floor is the lowest sequence that is taken.
	Floor uint32
	// Arch is Nix's name of this machine's kind; "" takes any.
	Arch string
}

// NeedsSignature says whether Accept looks at the signature.
func (c Check) NeedsSignature() bool { return c.Digest == "" }

// Validate says whether any manifest can be accepted at all.
func (c Check) Validate() error {
	if c.Digest == "" && !c.Signers.Has(trust.NamespaceManifest) {
		return errors.New("no manifest can be trusted: no hash is named, and no key is listed for " + trust.NamespaceManifest)
	}
	return nil
}

// Accept returns the manifest if it is a right one. signature is the armoured
// signature over data; it may be nil where it is not needed.
func (c Check) Accept(data, signature []byte) (*manifest.Manifest, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if len(data) > manifest.MaxSize {
		return nil, fmt.Errorf("%s is longer than the allowed %d bytes", ManifestName, manifest.MaxSize)
	}
	// Nothing of it is read before it is known to be right.
	if c.NeedsSignature() {
		if len(signature) == 0 {
			return nil, fmt.Errorf("%s is not signed: there is no %s, and no hash of it is named", ManifestName, SignatureName)
		}
		if _, err := c.Signers.Verify(trust.NamespaceManifest, data, signature); err != nil {
			return nil, fmt.Errorf("%s: %w", ManifestName, err)
		}
	} else if got := manifest.DigestOf(data); got != c.Digest {
		return nil, fmt.Errorf("%s is %s, the command line names %s: it belongs to another kernel and initrd, or was changed",
			ManifestName, got, c.Digest)
	}
	m, err := manifest.Parse(data)
	switch {
	case err != nil:
		return nil, fmt.Errorf("read manifest: %w", err)
	case m.Sequence < c.Floor:
		return nil, fmt.Errorf("%s has sequence %d, older than the %d that this node has seen; write the artifact again with a higher --sequence",
			ManifestName, m.Sequence, c.Floor)
	case c.Arch != "" && m.Arch != c.Arch:
		return nil, fmt.Errorf("%s is for %s, this machine is %s", ManifestName, m.Arch, c.Arch)
	}
	return m, nil
}
