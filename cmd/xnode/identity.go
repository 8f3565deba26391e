package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"xnodeos.org/agent/journal"
	"xnodeos.org/internal/announce"
	"xnodeos.org/internal/sshsign"
	"xnodeos.org/internal/trust"
)

// booted is what the agent reads of /run/xnode/boot.json, which the first stage
// leaves on a live node.
type booted struct {
	Label    string `json:"label"`
	Sequence uint32 `json:"sequence"`
	Time     int64  `json:"time"`
}

// booted reads boot.json; an installed node has none.
func (l layout) booted() (booted, error) {
	var b booted
	data, err := os.ReadFile(l.run("boot.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &b)
	}
	if err != nil {
		return b, fmt.Errorf("read what was booted: %w", err)
	}
	return b, nil
}

// nodeKey returns the fingerprint of the node key, "" if there is none. It lies
// with the state, or in memory where there is no state.
func (l layout) nodeKey() (string, error) {
	for _, name := range []string{l.state("node-key.pub"), l.run("node-key.pub")} {
		data, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("read the node key: %w", err)
		}
		key, _, err := sshsign.ParsePublicKey(strings.TrimSpace(string(data)))
		if err != nil {
			return "", fmt.Errorf("read the node key: %s: %w", name, err)
		}
		return key.Fingerprint(), nil
	}
	return "", nil
}

// identity is who this node is, to itself.
type identity struct {
	booted booted
	key    string // fingerprint of the node key, "" if there is none
}

// identity reads both of its parts, as far as they can be read.
func (l layout) identity() (identity, error) {
	was, err := l.booted()
	key, keyErr := l.nodeKey()
	return identity{was, key}, errors.Join(err, keyErr)
}

// class is the node config's class, else the settings'.
func (l layout) class(configured string) string {
	if data, err := os.ReadFile(l.node("class")); err == nil {
		if word := strings.TrimSpace(string(data)); word != "" {
			return word
		}
	}
	return configured
}

// embedded reads the trust that the node was started with: the keys of the node
// config, else of the system, and the trust.json that came with them.
func (l layout) embedded() (*trust.State, error) {
	state, bundles, err := readTrust(l.node("trust"))
	if errors.Is(err, fs.ErrNotExist) {
		state, bundles, err = readTrust(l.etc("trust"))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("nobody is trusted: neither %s nor %s exists; a node config brings it",
			l.node("trust/allowed_signers"), l.etc("trust/allowed_signers"))
	}
	if err != nil {
		return nil, fmt.Errorf("read trust: %w", err)
	}
	current, refused := trust.Current(state, bundles...)
	if len(refused) > 0 {
		return nil, fmt.Errorf("trust.json of the node config: %w", errors.Join(refused...))
	}
	return current, nil
}

// trust reads what counts now: the embedded trust, and every trust.json that
// the applier has verified. Where these are damaged, the embedded one counts, as
// for the applier, until a newer one comes: a node that asks nobody heals never.
func (l layout) trust() (*trust.State, error) {
	embedded, err := l.embedded()
	if err != nil {
		return nil, err
	}
	chain, err := journal.OpenMemory(l.state("applier")).Trust()
	if err != nil {
		return embedded, nil //nolint:nilerr // the applier tells of it in its status
	}
	state, _ := trust.Current(embedded, chain...) // what does not count was told when it came
	return state, nil
}

// readTrust reads a folder with allowed_signers and perhaps a trust.json; the
// Nix keys lie one folder above, as in a node config.
func readTrust(folder string) (*trust.State, []trust.Bundle, error) {
	data, err := os.ReadFile(filepath.Join(folder, "allowed_signers"))
	if err != nil {
		return nil, nil, err
	}
	signers, err := trust.Parse(data)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", filepath.Join(folder, "allowed_signers"), err)
	}
	var keys []string
	if data, err := os.ReadFile(filepath.Join(filepath.Dir(folder), "nix-keys")); err == nil {
		for _, line := range strings.Split(string(data), "\n") {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				keys = append(keys, line)
			}
		}
	}
	var bundles []trust.Bundle
	if bundle, err := readBundle(folder); err == nil {
		bundles = append(bundles, bundle)
	}
	return trust.Embedded(signers, keys), bundles, nil
}

func readBundle(folder string) (trust.Bundle, error) {
	var b trust.Bundle
	var err error
	if b.Document, err = os.ReadFile(filepath.Join(folder, trust.DocumentName)); err != nil {
		return b, fmt.Errorf("read trust: %w", err)
	}
	names, err := filepath.Glob(filepath.Join(folder, trust.DocumentName+".sig.*"))
	if err != nil {
		return b, fmt.Errorf("read trust: %w", err)
	}
	for _, name := range names {
		signature, err := os.ReadFile(name)
		if err != nil {
			return b, fmt.Errorf("read trust: %w", err)
		}
		b.Signatures = append(b.Signatures, signature)
	}
	return b, nil
}

// clock is what this machine knows of the time: its own, whether a time server
// set it, and what certainly has passed.
func (l layout) clock() announce.Clock {
	c := announce.Clock{Now: time.Now()}
	var status unix.Timex
	if state, err := unix.Adjtimex(&status); err == nil {
		c.Synchronised = state != unix.TIME_ERROR && status.Status&unix.STA_UNSYNC == 0
	}
	if b, err := l.booted(); err == nil && b.Time > 0 {
		c.Floor = time.Unix(b.Time, 0)
	}
	if data, err := os.ReadFile(l.state("applier/time-floor")); err == nil {
		if n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64); err == nil && time.Unix(n, 0).After(c.Floor) {
			c.Floor = time.Unix(n, 0)
		}
	}
	return c
}
