package nodeconfig

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/BurntSushi/toml"

	"xnodeos.org/internal/trust"
)

// Validate checks every file as ReadDir does. The error names the file, what
// is wrong and what is allowed.
func (c *Config) Validate() error { return c.validate(nodeLayer) }

func (c *Config) validate(l layer) error {
	total := 0
	for _, name := range c.Names() {
		if !l.known(name) {
			return fmt.Errorf("%q does not belong there; %s%s", name, remedyNames, strings.Join(Names(), ", "))
		}
		total += len(c.Files[name])
		if err := validateFile(name, c.Files[name]); err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
	}
	if total > MaxSize {
		return fmt.Errorf("%d bytes in all; allowed are %d", total, MaxSize)
	}
	for _, name := range c.Names() {
		if err := c.validatePair(name); err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
	}
	return nil
}

func validateFile(name string, data []byte) error {
	switch name {
	case "agent.toml":
		return validateTOML(data)
	case "authorized_keys":
		return validateAuthorizedKeys(data)
	case "class":
		return validateClass(data)
	case "hostname":
		return validateHostname(data)
	case MachineID:
		return validateMachineID(data)
	case "network":
		_, err := parseNetwork(data)
		return err
	case "nix-keys":
		return validateNixKeys(data)
	case "payload":
		return validatePayload(data)
	case "state":
		return validateState(data)
	case "trust/allowed_signers":
		return validateAllowedSigners(data)
	case "trust/trust.json":
		return validateTrust(data)
	}
	switch {
	case strings.HasPrefix(name, signaturePrefix):
		return validateSignature(data)
	case Private(name):
		_, err := hostKey(name, data)
		return err
	default:
		_, err := hostPublicKey(name, data)
		return err
	}
}

func validateTOML(data []byte) error {
	if !utf8.Valid(data) {
		return errors.New("not UTF-8")
	}
	var into map[string]any
	if _, err := toml.Decode(string(data), &into); err != nil {
		return err
	}
	return nil
}

// validateTrust wants what the node will read it with. That its signatures are
// enough is only known together with the keys of the trust root.
func validateTrust(data []byte) error {
	_, err := trust.ParseDocument(data)
	return err
}

func validateSignature(data []byte) error {
	block, rest := pem.Decode(data)
	if block == nil || block.Type != "SSH SIGNATURE" || len(bytes.TrimSpace(rest)) > 0 {
		return errors.New("not one armoured SSH signature; make it with ssh-keygen -Y sign -n xnode-trust")
	}
	return nil
}

func validateClass(data []byte) error {
	word := strings.TrimSpace(string(data))
	if len(word) == 0 || len(word) > 63 || !alnumEnds(word) {
		return errClass
	}
	for _, r := range word {
		if !('a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '-' || r == '_') {
			return errClass
		}
	}
	return nil
}

var errClass = errors.New("want one word like edge: lower-case letters, digits, \"-\" and \"_\", up to 63, a letter or digit at both ends")

// validateHostname takes what RFC 1123 section 2.1 takes and Linux can hold.
func validateHostname(data []byte) error {
	return checkHostname(strings.TrimSpace(string(data)))
}

func checkHostname(name string) error {
	const want = "; want dot-separated labels of letters, digits and \"-\", each up to 63 long and with no \"-\" at an end, as RFC 1123 has it"
	if len(name) > 64 {
		return fmt.Errorf("hostname of %d characters; Linux keeps at most 64", len(name))
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || !alnumEnds(label) {
			return fmt.Errorf("hostname %q%s", name, want)
		}
		for _, r := range label {
			if !isAlnum(r) && r != '-' {
				return fmt.Errorf("hostname %q%s", name, want)
			}
		}
	}
	return nil
}

func alnumEnds(s string) bool {
	return isAlnum(rune(s[0])) && isAlnum(rune(s[len(s)-1]))
}

// NixKeys returns the public keys of Nix caches, each as "name:base64".
func (c *Config) NixKeys() []string {
	if c == nil {
		return nil
	}
	return strings.Fields(string(c.Files["nix-keys"]))
}

func validateNixKeys(data []byte) error {
	return eachLine(data, 1, trust.CheckNixKey)
}

// eachLine calls do for every line that is not blank, and wants at least
// so many of them. Errors get the number of the line.
func eachLine(data []byte, least int, do func(line string) error) error {
	if !utf8.Valid(data) || bytes.IndexByte(data, 0) >= 0 {
		return errors.New("not a text file in UTF-8")
	}
	number, found := 0, 0
	for line := range strings.SplitSeq(string(data), "\n") {
		number++
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		found++
		if err := do(line); err != nil {
			return fmt.Errorf("line %d: %w", number, err)
		}
	}
	if found < least {
		return errors.New("it is empty; fill it or remove the file")
	}
	return nil
}
