package imagebuild

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"xnodeos.org/imagebuild/squashfs"
	"xnodeos.org/internal/atomicfile"
	"xnodeos.org/internal/manifest"
	"xnodeos.org/internal/nix"
	"xnodeos.org/internal/verity"
)

// Names in the payload's root: the content of /nix/store, and beside it what
// the booted system feeds to nix-store --load-db. Inside the store it would be
// garbage to every nix-store --gc.
const (
	payloadStore        = "store"
	payloadRegistration = "nix-path-registration"
)

// cachedPayload returns the closure as a squashfs file in the cache, made now
// if it is not there or no longer whole, and its hashes.
func (p *Plan) cachedPayload(ctx context.Context, cache string, progress Progress) (string, manifest.Payload, error) {
	dir := filepath.Join(cache, "payload", p.PayloadKey)
	file, meta := filepath.Join(dir, manifestPayloadName), filepath.Join(dir, "hashes")
	if payload, err := readCachedPayload(ctx, file, meta, progress); err == nil {
		return file, payload, nil
	} else if ctx.Err() != nil {
		return "", manifest.Payload{}, ctx.Err()
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return "", manifest.Payload{}, fmt.Errorf("cache: %w", err)
	}
	tree, err := p.writePayload(ctx, file, progress)
	if err != nil {
		return "", manifest.Payload{}, fmt.Errorf("payload: %w", err)
	}
	payload, err := hashPayload(file, progress)
	if err != nil {
		return "", manifest.Payload{}, fmt.Errorf("payload: %w", err)
	}
	if tree.DataBlocks > 0 {
		payload.Verity = manifest.NewVerity(tree)
	}
	data, err := json.Marshal(payload)
	if err != nil {
		return "", manifest.Payload{}, err
	}
	return file, payload, writeSealed(meta, data)
}

// readCachedPayload trusts nothing: what is copied into an artifact is checked
// against the hashes that its manifest will carry.
func readCachedPayload(ctx context.Context, file, meta string, progress Progress) (manifest.Payload, error) {
	var payload manifest.Payload
	data, ok := readSealed(meta)
	if !ok {
		return payload, fs.ErrNotExist
	}
	if err := json.Unmarshal(data, &payload); err != nil {
		return payload, err
	}
	f, err := os.Open(file)
	if err != nil {
		return payload, err
	}
	defer f.Close()
	stage := progress.Start("check cached payload", payload.Size)
	err = payload.Verify(ctx, f, stage.Set)
	stage.End(err)
	return payload, err
}

// writePayload writes the squashfs, and behind it the hash tree over it.
func (p *Plan) writePayload(ctx context.Context, file string, progress Progress) (verity.Tree, error) {
	var none verity.Tree
	var registration bytes.Buffer
	if err := nix.WriteRegistration(&registration, p.in.Closure); err != nil {
		return none, err
	}
	store := squashfs.Source{}
	for _, info := range p.in.Closure {
		store = append(store, squashfs.Entry{Name: filepath.Base(info.Path), Path: p.in.Store.Physical(info.Path)})
	}
	src := squashfs.Source{
		{Name: payloadStore, Folder: store},
		{Name: payloadRegistration, Data: registration.Bytes()},
	}
	out, err := atomicfile.Create(file, 0o666)
	if err != nil {
		return none, err
	}
	defer out.Abort() // after Commit it does nothing
	stage := progress.Start("squashfs", p.Closure.NarSize)
	stats, err := squashfs.Write(ctx, out, src, squashfs.Options{Progress: func(done, _ int64) { stage.Set(done) }})
	stage.End(err)
	if err != nil {
		return none, err
	}
	if stats.Size <= verity.BlockSize {
		return none, out.Commit() // one block has no tree
	}
	// The salt only has to differ between payloads.
	tree, hashes, err := verity.Build(ctx, out, stats.Size, sha256.Sum256([]byte("xnodeos verity "+p.Closure.Digest)))
	if err != nil {
		return none, err
	}
	if _, err := out.WriteAt(hashes, tree.Offset); err != nil {
		return none, err
	}
	return tree, out.Commit()
}

func hashPayload(file string, progress Progress) (manifest.Payload, error) {
	f, err := os.Open(file)
	if err != nil {
		return manifest.Payload{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return manifest.Payload{}, err
	}
	stage := progress.Start("hash payload", info.Size())
	payload, err := manifest.HashPayload(manifestPayloadName, f)
	stage.End(err)
	return payload, err
}

// cachedInitrd returns the initramfs without node config.
func (p *Plan) cachedInitrd(ctx context.Context, cache string, progress Progress) ([]byte, error) {
	file := filepath.Join(cache, "initrd", p.InitrdKey)
	if content, ok := readSealed(file); ok {
		return content, nil
	}
	stage := progress.Start("initrd", 0)
	content, err := writeInitrd(ctx, p.in)
	stage.Set(int64(len(content)))
	stage.End(err)
	if err != nil {
		return nil, fmt.Errorf("initrd: %w", err)
	}
	return content, writeSealed(file, content)
}
