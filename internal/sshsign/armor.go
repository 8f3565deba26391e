package sshsign

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
)

const (
	armorHead = "-----BEGIN SSH SIGNATURE-----\n"
	armorFoot = "-----END SSH SIGNATURE-----"
	// armorWidth is OpenSSH's, so that a signature file is the same whichever
	// program made it; encoding/pem has 64.
	armorWidth = 70
	// MaxArmored bounds the bytes of an armoured signature. Ours have about
	// 300; the room is for those of other key types, to name the type.
	MaxArmored = 16 << 10
)

// armor writes a signature as ssh-keygen does.
func armor(blob []byte) []byte {
	text := base64.StdEncoding.EncodeToString(blob)
	var out bytes.Buffer
	out.WriteString(armorHead)
	for len(text) > 0 {
		n := min(armorWidth, len(text))
		out.WriteString(text[:n] + "\n")
		text = text[n:]
	}
	out.WriteString(armorFoot + "\n")
	return out.Bytes()
}

// dearmor wants the head first and the foot last. Lines may have any length
// and end in CR LF, as after a transfer as text.
func dearmor(armored []byte) ([]byte, error) {
	if len(armored) > MaxArmored {
		return nil, &FormatError{fmt.Sprintf("%d bytes; allowed are %d", len(armored), MaxArmored)}
	}
	text := strings.TrimRight(strings.ReplaceAll(string(armored), "\r\n", "\n"), " \t\n")
	text, head := strings.CutPrefix(text, armorHead)
	text, foot := strings.CutSuffix(text, "\n"+armorFoot)
	if !head || !foot {
		return nil, &FormatError{fmt.Sprintf("want one block from %q to %q and nothing else", strings.TrimSpace(armorHead), armorFoot)}
	}
	blob, err := base64.StdEncoding.Strict().DecodeString(text) // it skips line ends
	if err != nil {
		return nil, &FormatError{"its block is damaged: " + err.Error()}
	}
	return blob, nil
}
