package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/idxfile"

	"xnodeos.org/internal/gitcommit"
)

const tempSuffix = ".tmp"

// fetchFrom makes one attempt at one remote. What it leaves is a whole bare
// repository under its final name, or nothing.
func (r *Repo) fetchFrom(ctx context.Context, rem *remote, seq uint32, commit string) error {
	final := r.path(seq, commit)
	tag := fmt.Sprintf("refs/tags/xnode/%d", seq)
	temp, err := r.download(ctx, rem, r.opt.Limits, tag, commit)
	if temp != "" {
		defer os.RemoveAll(temp)
	}
	if err != nil {
		return err
	}
	if err := os.Rename(temp, final); err != nil {
		return fmt.Errorf("keep the fetched commit: %w", err)
	}
	return syncDir(r.opt.Dir)
}

// download fetches the commit that a ref names into a new folder, which the
// caller removes or renames. The commit must be the wanted one, if one is.
func (r *Repo) download(ctx context.Context, rem *remote, limits Limits, ref, want string) (temp string, err error) {
	ctx, m, stop := newMeter(ctx, limits)
	defer stop()
	defer func() {
		// What a cut connection says is a consequence; the limit is the cause.
		var limit *LimitError
		if err != nil && errors.As(context.Cause(ctx), &limit) {
			err = limit
		}
	}()
	src, err := r.connect(ctx, m, rem)
	if err != nil {
		return "", err
	}
	defer src.Close() //nolint:errcheck // what was received is checked by itself
	commit, err := src.ref(ctx, ref)
	if err != nil {
		return "", err
	}
	if want != "" && commit != want {
		return "", &RefError{Ref: ref, Want: want, Got: commit}
	}
	temp, err = os.MkdirTemp(r.opt.Dir, "fetch-*"+tempSuffix)
	if err != nil {
		return "", fmt.Errorf("make a folder for the fetch: %w", err)
	}
	packed, err := src.pack(ctx, commit)
	if err != nil {
		return temp, err
	}
	b := &bare{dir: temp, ref: ref, commit: commit}
	if err := b.layout(); err != nil {
		return temp, err
	}
	file, err := os.Create(filepath.Join(b.packs(), "incoming"))
	if err != nil {
		return temp, err
	}
	defer file.Close()
	p, err := receivePack(packed, file, limits)
	if err != nil {
		return temp, err
	}
	m.allReceived()
	if err := p.resolve(file, limits, func() error { return context.Cause(ctx) }); err != nil {
		return temp, err
	}
	return temp, b.finish(file, p)
}

func (r *Repo) connect(ctx context.Context, m *meter, rem *remote) (source, error) {
	switch rem.kind {
	case kindSSH:
		return newSSH(ctx, m, r.opt, rem)
	case kindFile:
		return newFolder(m, rem.path)
	default:
		return newHTTP(ctx, m, r.opt, rem), nil
	}
}

// bare is a bare repository with one pack and one ref, as git reads it too.
type bare struct{ dir, ref, commit string }

func (b *bare) packs() string { return filepath.Join(b.dir, "objects", "pack") }

func (b *bare) layout() error {
	for _, dir := range []string{b.packs(), filepath.Join(b.dir, "refs", "heads"), filepath.Join(b.dir, filepath.Dir(b.ref))} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	return nil
}

// finish names the pack, writes its index and the rest of the repository, and
// makes it durable.
func (b *bare) finish(file *os.File, p *pack) error {
	name := filepath.Join(b.packs(), "pack-"+p.checksum.String())
	if err := file.Sync(); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), name+".pack"); err != nil {
		return err
	}
	if err := writeIndex(name+".idx", p); err != nil {
		return fmt.Errorf("write the pack's index: %w", err)
	}
	store := openStorage(b.dir)
	defer store.Close() //nolint:errcheck // it was only read
	raw, err := readObject(store, plumbing.CommitObject, b.commit, gitcommit.MaxSize)
	if err != nil {
		return err
	}
	c, err := gitcommit.Parse(raw)
	if err != nil {
		return err
	}
	if _, err := readObject(store, plumbing.TreeObject, c.Tree, maxTree); err != nil {
		return err
	}
	files := map[string]string{
		"HEAD":   b.commit + "\n",
		"config": "[core]\n\trepositoryformatversion = 0\n\tbare = true\n",
		b.ref:    b.commit + "\n",
	}
	if len(c.Parents) > 0 {
		files["shallow"] = b.commit + "\n"
	}
	for name, text := range files {
		if err := writeSynced(filepath.Join(b.dir, name), []byte(text)); err != nil {
			return err
		}
	}
	return filepath.WalkDir(b.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = syncDir(path)
		}
		return err
	})
}

func writeIndex(path string, p *pack) error {
	var w idxfile.Writer
	if err := w.OnHeader(uint32(len(p.objects))); err != nil {
		return err
	}
	for _, o := range p.objects {
		w.Add(o.hash, uint64(o.offset), o.crc)
	}
	if err := w.OnFooter(p.checksum); err != nil {
		return err
	}
	index, err := w.Index()
	if err != nil {
		return err
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := idxfile.NewEncoder(file).Encode(index); err != nil {
		return err
	}
	return file.Sync()
}

func writeSynced(path string, data []byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Sync()
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
