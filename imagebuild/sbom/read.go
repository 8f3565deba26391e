package sbom

import (
	"bytes"
	"errors"
	"fmt"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// MaxSize bounds a bill in bytes; a desktop system's has about 3 MB.
const MaxSize = 64 << 20

// Summary is what a bill says about itself.
type Summary struct {
	Serial     string `json:"serial"`     // "urn:uuid:..."
	System     string `json:"system"`     // store path
	Manifest   string `json:"manifest"`   // "sha256:HEX" of the manifest that it belongs to
	Components int    `json:"components"` // the system not counted
}

// Read checks a bill that Build made: that it is whole, by its own serial
// number, and that it is in the one form that Build writes. It does not say
// whose image it describes; the caller compares Manifest.
func Read(data []byte) (*Summary, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("read SBOM: %d bytes; allowed are %d", len(data), MaxSize)
	}
	var bom cdx.BOM
	if err := cdx.NewBOMDecoder(bytes.NewReader(data), cdx.BOMFileFormatJSON).Decode(&bom); err != nil {
		return nil, fmt.Errorf("read SBOM: %w", err)
	}
	meta := bom.Metadata
	if bom.SpecVersion != cdx.SpecVersion1_6 || meta == nil || meta.Component == nil || meta.Properties == nil || bom.Components == nil {
		return nil, errors.New("read SBOM: not the bill of an image: want CycloneDX 1.6 with a system, properties and components")
	}
	s := &Summary{Serial: bom.SerialNumber, System: meta.Component.BOMRef, Components: len(*bom.Components)}
	for _, p := range *meta.Properties {
		if p.Name == propManifest {
			s.Manifest = p.Value
		}
	}
	again, err := encode(&bom)
	if err != nil {
		return nil, fmt.Errorf("read SBOM: %w", err)
	}
	if !bytes.Equal(again, data) {
		return nil, errors.New("read SBOM: it was changed after it was written: its serial number does not fit its content; build the image again")
	}
	return s, nil
}
