package repo

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"

	"xnodeos.org/internal/gitcommit"
)

// source is one remote during one attempt. ref comes before pack.
type source interface {
	// ref returns the id that the remote names by a full ref name. The error
	// is a *RefError if there is no such ref.
	ref(ctx context.Context, name string) (string, error)
	// pack asks for a commit and its tree, without history.
	pack(ctx context.Context, commit string) (io.Reader, error)
	Close() error
}

// session is a connection that speaks git's upload-pack, version 0
// (gitprotocol-pack(5)).
type session interface {
	// advertisement is what the server says first.
	advertisement(ctx context.Context) (io.Reader, error)
	// request sends the client's one message and returns the answer.
	request(ctx context.Context, body []byte) (io.Reader, error)
	Close() error
}

// wire is a source over a session.
type wire struct {
	session
	capabilities *capability.List
}

func (w *wire) ref(ctx context.Context, name string) (string, error) {
	r, err := w.advertisement(ctx)
	if err != nil {
		return "", err
	}
	ad, err := readAdvertisement(bufio.NewReader(r), name)
	if err != nil {
		return "", err
	}
	w.capabilities = ad.capabilities
	switch {
	case ad.capabilities.Supports("object-format") && !strings.EqualFold(strings.Join(ad.capabilities.Get("object-format"), ","), "sha1"):
		return "", errors.New("it holds SHA-256 objects; want a repository with git's default object format")
	case ad.id == "":
		return "", &RefError{Ref: name}
	case ad.peeled:
		return "", fmt.Errorf("its %s is an annotated tag; want the lightweight one that xnodeos release makes", name)
	case !ad.capabilities.Supports(capability.Shallow):
		return "", errors.New("the server cannot send a commit without its history (capability shallow)")
	}
	return ad.id, nil
}

// advertisement is what is kept of the server's list of refs.
type advertisement struct {
	id           string // of the wanted ref
	peeled       bool   // the wanted ref is an annotated tag
	capabilities *capability.List
}

// readAdvertisement reads the list of refs and keeps the wanted one only: a
// server may have a million.
func readAdvertisement(r io.Reader, want string) (*advertisement, error) {
	ad := &advertisement{capabilities: capability.NewList()}
	lines := pktline.NewScanner(r)
	first := true
	for lines.Scan() {
		line := bytes.TrimSuffix(lines.Bytes(), []byte("\n"))
		if len(line) == 0 { // a flush ends the list
			return ad, nil // an empty repository of an old server has nothing before it
		}
		if first {
			text, capabilities, ok := bytes.Cut(line, []byte{0})
			if !ok {
				return nil, fmt.Errorf("the server's list of refs begins with %.60q; is this a git repository?", line)
			}
			if err := ad.capabilities.Decode(capabilities); err != nil {
				return nil, fmt.Errorf("the server's capabilities: %w", err)
			}
			line, first = text, false
		}
		id, name, ok := strings.Cut(string(line), " ")
		switch {
		case !ok:
			return nil, fmt.Errorf("the server's list of refs has the line %.60q", line)
		case name == want && ad.id != "":
			return nil, fmt.Errorf("the server lists %s twice", name)
		case name == want && !gitcommit.IsID(id):
			return nil, fmt.Errorf("the server's %s is %.60q, no object id", name, id)
		case name == want:
			ad.id = id
		case name == want+"^{}":
			ad.peeled = true
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the server's list of refs: %w", err)
	}
	return nil, fmt.Errorf("read the server's list of refs: %w", io.ErrUnexpectedEOF)
}

func (w *wire) pack(ctx context.Context, commit string) (io.Reader, error) {
	req := packp.NewUploadRequest()
	req.Wants = []plumbing.Hash{plumbing.NewHash(commit)}
	req.Depth = packp.DepthCommits(1)
	// multi_ack_detailed changes nothing without commits of our own, but some
	// servers refuse clients that do not ask for it.
	wanted := []capability.Capability{capability.Shallow, capability.OFSDelta, capability.MultiACKDetailed}
	band, banded := sideband.Sideband64k, true
	switch {
	case w.capabilities.Supports(capability.Sideband64k):
		wanted = append(wanted, capability.Sideband64k)
	case w.capabilities.Supports(capability.Sideband):
		band, wanted = sideband.Sideband, append(wanted, capability.Sideband)
	default:
		banded = false
	}
	for _, c := range wanted {
		if !w.capabilities.Supports(c) {
			continue
		}
		if err := req.Capabilities.Set(c); err != nil {
			return nil, err
		}
	}
	var body bytes.Buffer
	if err := req.Encode(&body); err != nil {
		return nil, fmt.Errorf("write the request: %w", err)
	}
	body.WriteString("0009done\n")
	answer, err := w.request(ctx, body.Bytes())
	if err != nil {
		return nil, err
	}
	buffered := bufio.NewReader(answer)
	if err := readPreamble(buffered, commit); err != nil {
		return nil, err
	}
	if !banded {
		return buffered, nil
	}
	return sideband.NewDemuxer(band, buffered), nil
}

// readPreamble reads what comes before the pack: where history was cut, and
// the end of the negotiation.
func readPreamble(r *bufio.Reader, commit string) error {
	lines := pktline.NewScanner(r)
	for lines.Scan() {
		line := strings.TrimSuffix(string(lines.Bytes()), "\n")
		switch line {
		case "", "shallow " + commit:
		case "NAK":
			return nil
		default:
			return fmt.Errorf("the server answered %.80q; want the commit alone, without history", line)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read the server's answer: %w", err)
	}
	return fmt.Errorf("read the server's answer: %w", io.ErrUnexpectedEOF)
}
