package nix

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"xnodeos.org/internal/command"
)

const (
	stateDir = "/nix/var/nix"
	// batch bounds the length of a nix-store command line.
	batch = 500
)

// Database asks the Nix database of a store through nix-store. Reading the
// SQLite file ourselves would need its locks and follow every change of its schema.
type Database struct {
	Store   Store
	Program string   // nix-store if empty
	Env     []string // added to the environment, such as NIX_CONF_DIR=...
}

// Closure returns the registered closure of the roots. It fits
// ClosureOptions.Database. ErrNoDatabase means that there is none for this
// user: no database file, no nix-store, no right to open it.
func (d Database) Closure(ctx context.Context, roots []StorePath) ([]PathInfo, error) {
	store, err := d.where()
	if err != nil {
		return nil, err
	}
	args := append(store, "--query", "--requisites", "--")
	for _, root := range roots {
		args = append(args, string(root))
	}
	out, err := d.run(ctx, args)
	var missing *command.MissingError
	if errors.As(err, &missing) {
		return nil, fmt.Errorf("%w: %w", ErrNoDatabase, err)
	}
	if err != nil {
		return nil, fmt.Errorf("ask Nix for the closure of %s: %w; if it is not registered there, bring it with: nix-store%s --realise %s",
			roots[0], err, d.Store.option(), roots[0])
	}
	paths := strings.Fields(string(out))
	slices.Sort(paths)
	paths = slices.Compact(paths)
	infos := make([]PathInfo, 0, len(paths))
	for part := range slices.Chunk(paths, batch) {
		out, err := d.run(ctx, slices.Concat(store, []string{"--dump-db", "--"}, part))
		if err != nil {
			return nil, fmt.Errorf("ask Nix for hashes and references: %w", err)
		}
		more, err := ReadRegistration(bytes.NewReader(out))
		if err != nil {
			return nil, fmt.Errorf("read what nix-store --dump-db said: %w", err)
		}
		infos = append(infos, more...)
	}
	return infos, nil
}

func (d Database) run(ctx context.Context, args []string) ([]byte, error) {
	c := command.Cmd{Name: d.Program, Args: args, AddEnv: d.Env, Package: "nix-bin"}
	if c.Name == "" {
		c.Name = "nix-store"
	}
	return command.Output(ctx, c)
}

// where returns nix-store's options for the store. It decides by itself
// between file and daemon: nix-store would silently turn to another store
// (below the home folder) for a user who may not write this one.
func (d Database) where() ([]string, error) {
	db := d.Store.Physical(stateDir + "/db/db.sqlite")
	if _, err := os.Stat(db); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoDatabase, err)
	}
	writable := unix.Access(d.Store.Physical(stateDir), unix.W_OK) == nil && unix.Access(filepath.Dir(db), unix.W_OK) == nil
	if d.Store.Dir == "" {
		if writable {
			return []string{"--store", "local"}, nil
		}
		if _, err := os.Stat(stateDir + "/daemon-socket/socket"); err == nil {
			return []string{"--store", "daemon"}, nil
		}
	} else if writable {
		dir, err := filepath.Abs(d.Store.Dir)
		if err != nil {
			return nil, fmt.Errorf("find store: %w", err)
		}
		return []string{"--store", dir}, nil
	}
	return nil, fmt.Errorf("%w: %q can only be opened by its owner, and no daemon runs", ErrNoDatabase, db)
}

// option is how an operator tells nix-store of this store.
func (s Store) option() string {
	if s.Dir == "" {
		return ""
	}
	return " --store " + strconv.Quote(s.Dir)
}

// WriteRegistration writes what nix-store --load-db reads, and what NixOS media
// carry as /nix/store/nix-path-registration. The deriver is left empty: a node
// has none of them.
func WriteRegistration(w io.Writer, infos []PathInfo) error {
	bw := bufio.NewWriter(w)
	for _, info := range infos {
		fmt.Fprintf(bw, "%s\n%s\n%d\n\n%d\n", info.Path, info.NarHash.Hex(), info.NarSize, len(info.References))
		for _, ref := range info.References {
			fmt.Fprintln(bw, ref)
		}
	}
	return bw.Flush()
}

// ReadRegistration is the inverse of WriteRegistration. Derivers are dropped;
// references come sorted.
func ReadRegistration(r io.Reader) ([]PathInfo, error) {
	lines := bufio.NewScanner(r)
	next := func() string {
		lines.Scan()
		return lines.Text()
	}
	var infos []PathInfo
	for lines.Scan() {
		info, count, err := registered(lines.Text(), next(), next(), next(), next())
		if err != nil {
			return nil, err
		}
		for range count {
			ref, err := ParseStorePath(next())
			if err != nil {
				return nil, fmt.Errorf("references of %s: %w", info.Path, err)
			}
			info.References = append(info.References, string(ref))
		}
		slices.Sort(info.References)
		infos = append(infos, info)
	}
	return infos, lines.Err()
}

func registered(path, hash, size, deriver, count string) (info PathInfo, references int, err error) {
	p, err := ParseStorePath(path)
	if err != nil {
		return info, 0, err
	}
	info = PathInfo{Path: string(p), References: []string{}}
	raw, err := hex.DecodeString(hash)
	if err != nil || len(raw) != len(info.NarHash) {
		return info, 0, fmt.Errorf("%s: %q is no SHA-256 in hex", p, cut(hash))
	}
	info.NarHash = Hash(raw)
	if info.NarSize, err = strconv.ParseInt(size, 10, 64); err != nil || info.NarSize < 0 {
		return info, 0, fmt.Errorf("%s: %q is no size", p, cut(size))
	}
	if deriver != "" {
		if _, err := ParseStorePath(deriver); err != nil {
			return info, 0, fmt.Errorf("%s: deriver: %w", p, err)
		}
	}
	if references, err = strconv.Atoi(count); err != nil || references < 0 || references > maxPaths {
		return info, 0, fmt.Errorf("%s: %q is no number of references", p, cut(count))
	}
	return info, references, nil
}
