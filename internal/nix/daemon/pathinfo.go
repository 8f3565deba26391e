package daemon

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"xnodeos.org/internal/nix"
)

// PathInfo returns what the store knows of a path, or ErrInvalid.
func (c *Conn) PathInfo(ctx context.Context, p nix.StorePath) (nix.PathInfo, error) {
	var info nix.PathInfo
	var valid bool
	request := appendText(appendNumber(nil, opQueryPathInfo), string(p))
	what := "ask about " + string(p)
	err := c.do(ctx, what, request, func(r *reader) {
		if valid = r.flag(); valid {
			info = readInfo(r, p)
		}
	})
	var said *Error
	switch {
	case errors.As(err, &said) && strings.Contains(said.Message, "is not valid"):
		return info, fmt.Errorf("%s: %w", what, ErrInvalid)
	case err == nil && !valid:
		return info, fmt.Errorf("%s: %w", what, ErrInvalid)
	}
	return info, err
}

// readInfo reads Nix's ValidPathInfo without its path.
func readInfo(r *reader, p nix.StorePath) nix.PathInfo {
	info := nix.PathInfo{Path: string(p)}
	r.text() // deriver
	hash := r.text()
	raw, err := hex.DecodeString(strings.TrimPrefix(hash, "sha256:"))
	if r.err == nil && (err != nil || len(raw) != len(info.NarHash)) {
		r.fail(protocolError("%s has the NAR hash %.100q", p, hash))
	}
	copy(info.NarHash[:], raw)
	info.References = r.texts()
	for _, ref := range info.References {
		if _, err := nix.ParseStorePath(ref); err != nil {
			r.fail(protocolError("references of %s: %v", p, err)) // the sentinel is ErrProtocol
		}
	}
	slices.Sort(info.References)
	r.number() // time of registration
	size := r.number()
	if size > 1<<62 {
		r.fail(protocolError("%s has a NAR of %d bytes", p, size))
	}
	info.NarSize = int64(size)
	r.flag()  // built here
	r.texts() // signatures
	r.text()  // how it is addressed by content
	return info
}
