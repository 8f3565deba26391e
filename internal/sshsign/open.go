package sshsign

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// maxKeyFile bounds a key file in bytes.
const maxKeyFile = 64 << 10

// OpenOptions say where a private key is.
type OpenOptions struct {
	// Path is a private key file, or a public one whose private half is in
	// the agent or beside it (its name without ".pub").
	Path string
	// AgentSocket is the socket of an ssh-agent (SSH_AUTH_SOCK), "" for none.
	AgentSocket string
	// Passphrase asks for the passphrase of the key file at path; nil if
	// there is nobody to ask. It is called at most once.
	Passphrase func(path string) ([]byte, error)
}

// UnavailableError says that only the public half of a key was found.
type UnavailableError struct {
	Path string // of the public key file
	Key  PublicKey
	Err  error // why not from the agent
}

func (e *UnavailableError) Error() string {
	return fmt.Sprintf("the private half of %q (%s) is not there: %v; load it with ssh-add, or name the private key file",
		e.Path, e.Key.Fingerprint(), e.Err)
}

func (e *UnavailableError) Unwrap() error { return e.Err }

// Open finds a private key as ssh-keygen -Y sign does: in a file without
// passphrase, else in the agent, else in a file with passphrase. With the
// agent it only checks that the key is there; each Sign connects anew.
func Open(ctx context.Context, opt OpenOptions) (*Signer, error) {
	data, err := readKeyFile(opt.Path)
	if errors.Is(err, fs.ErrNotExist) {
		pub := opt.Path + ".pub"
		var pubErr error
		if data, pubErr = readKeyFile(pub); pubErr == nil && !isPrivate(data) {
			opt.Path, err = pub, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open signing key: %w", err)
	}
	var s *Signer
	if isPrivate(data) {
		s, err = openPrivate(ctx, opt, data)
	} else {
		s, err = openPublic(ctx, opt, data)
	}
	if err != nil {
		return nil, fmt.Errorf("open signing key %q: %w", opt.Path, err)
	}
	return s, nil
}

func isPrivate(data []byte) bool { return strings.Contains(string(data), "-----BEGIN ") }

// openPrivate prefers the agent to asking for a passphrase.
func openPrivate(ctx context.Context, opt OpenOptions, data []byte) (*Signer, error) {
	if err := checkMode(opt.Path); err != nil {
		return nil, err
	}
	origin := fmt.Sprintf("%q", opt.Path)
	raw, err := ssh.ParseRawPrivateKey(data)
	var locked *ssh.PassphraseMissingError
	if err == nil {
		return fromPrivate(raw, origin)
	}
	if !errors.As(err, &locked) {
		return nil, errors.New("no private key in OpenSSH's format; make one with: xnodeos key new")
	}
	if locked.PublicKey != nil {
		key, err := fromSSH(locked.PublicKey)
		if err != nil {
			return nil, err
		}
		if s, err := fromAgent(ctx, opt.AgentSocket, key); err == nil {
			return s, nil
		}
	}
	if opt.Passphrase == nil {
		return nil, errors.New("the key has a passphrase and there is no terminal to ask on; load it into an ssh-agent with ssh-add")
	}
	passphrase, err := opt.Passphrase(opt.Path)
	if err != nil {
		return nil, fmt.Errorf("ask for its passphrase: %w", err)
	}
	raw, err = ssh.ParseRawPrivateKeyWithPassphrase(data, passphrase)
	clear(passphrase)
	if errors.Is(err, x509.IncorrectPasswordError) {
		return nil, errors.New("wrong passphrase")
	}
	if err != nil {
		return nil, errors.New("no private key in OpenSSH's format behind the passphrase")
	}
	return fromPrivate(raw, origin)
}

// openPublic looks in the agent first, then for the file beside.
func openPublic(ctx context.Context, opt OpenOptions, data []byte) (*Signer, error) {
	key, _, err := ParsePublicKey(string(data))
	if err != nil {
		return nil, err
	}
	s, agentErr := fromAgent(ctx, opt.AgentSocket, key)
	if agentErr == nil {
		return s, nil
	}
	unavailable := &UnavailableError{Path: opt.Path, Key: key, Err: agentErr}
	path, ok := strings.CutSuffix(opt.Path, ".pub")
	if !ok {
		return nil, unavailable
	}
	private, err := readKeyFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, unavailable
	}
	if err != nil {
		return nil, err
	}
	opt.Path = path
	s, err = openPrivate(ctx, opt, private)
	if err != nil {
		return nil, fmt.Errorf("%q beside it: %w", path, err)
	}
	if s.key != key {
		return nil, fmt.Errorf("%q beside it holds another key, %s; write the public key again with: ssh-keygen -y -f %s", path, s.key.Fingerprint(), path)
	}
	return s, nil
}

func readKeyFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err == nil && len(data) > maxKeyFile {
		err = fmt.Errorf("%q is no key file: it has more than %d bytes", path, maxKeyFile)
	}
	return data, err
}

// checkMode refuses a private key that others can read, as ssh does: only for
// the user's own files, because others' modes are not the user's to change.
func checkMode(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT == unix.S_IFREG && st.Mode&0o077 != 0 && int(st.Uid) == os.Getuid() {
		return fmt.Errorf("others can read or change this private key (mode %04o); take that away with: chmod 600 %s", st.Mode&0o777, path)
	}
	return nil
}
