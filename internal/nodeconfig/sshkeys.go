package nodeconfig

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"

	"xnodeos.org/internal/trust"
)

func validateAuthorizedKeys(data []byte) error {
	keys := 0
	err := eachLine(data, 0, func(line string) error {
		if strings.HasPrefix(line, "#") {
			return nil
		}
		keys++
		_, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil || len(rest) > 0 {
			return fmt.Errorf("no ssh public key: want [options] type base64 [comment], as in ~/.ssh/id_ed25519.pub")
		}
		return nil
	})
	if err == nil && keys == 0 {
		err = errors.New("it has no key; add one or remove the file")
	}
	return err
}

// validateAllowedSigners wants what the node will read it with.
func validateAllowedSigners(data []byte) error {
	_, err := trust.Parse(data)
	return err
}

// hostKey parses a private host key. No error shows a byte of it.
func hostKey(name string, data []byte) (ssh.PublicKey, error) {
	signer, err := ssh.ParsePrivateKey(data)
	var locked *ssh.PassphraseMissingError
	switch {
	case errors.As(err, &locked):
		return nil, errors.New("the key has a passphrase, which nobody can type on a node; remove it with ssh-keygen -p")
	case err != nil:
		return nil, fmt.Errorf("no ssh private key; make one with ssh-keygen -t %s -N '' -f %s", keyKind(name), name)
	}
	return signer.PublicKey(), checkKind(name, signer.PublicKey())
}

func hostPublicKey(name string, data []byte) (ssh.PublicKey, error) {
	key, _, _, rest, err := ssh.ParseAuthorizedKey(data)
	if err != nil || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("not one ssh public key; write it with ssh-keygen -y -f " + strings.TrimSuffix(name, ".pub"))
	}
	return key, checkKind(name, key)
}

func keyKind(name string) string {
	kind, _, _ := strings.Cut(strings.TrimPrefix(name, "ssh_host_"), "_")
	return kind
}

func checkKind(name string, key ssh.PublicKey) error {
	prefix := map[string]string{"ed25519": ssh.KeyAlgoED25519, "rsa": ssh.KeyAlgoRSA, "ecdsa": "ecdsa-sha2-nistp"}[keyKind(name)]
	if prefix == "" || !strings.HasPrefix(key.Type(), prefix) {
		return fmt.Errorf("holds a key of type %q; the name promises %s", key.Type(), keyKind(name))
	}
	return nil
}

// validatePair checks what two files say together: a public host key is that
// of its private key, a signature lies beside what it signs.
func (c *Config) validatePair(name string) error {
	if strings.HasPrefix(name, signaturePrefix) {
		if _, ok := c.Files["trust/trust.json"]; !ok {
			return errors.New("there is no trust/trust.json that it could sign")
		}
		return nil
	}
	private, isPublic := strings.CutSuffix(name, ".pub")
	if !isPublic {
		return nil
	}
	secret, ok := c.Files[private]
	if !ok {
		return fmt.Errorf("there is no %s to it; add it or remove the public key", private)
	}
	want, err := hostKey(private, secret)
	if err != nil {
		return err
	}
	got, err := hostPublicKey(name, c.Files[name])
	if err != nil {
		return err
	}
	if !bytes.Equal(want.Marshal(), got.Marshal()) {
		return fmt.Errorf("is not the public key of %s; write it with ssh-keygen -y -f %s", private, private)
	}
	return nil
}
