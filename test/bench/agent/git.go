package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"

	"xnodeos.org/agent/repo"
	"xnodeos.org/internal/command"
	"xnodeos.org/internal/testkit/gitserver"
	"xnodeos.org/test/bench/rows"
)

const goGit = "go-git, clone of depth 1"

// gitCase is a repository of about 10 MB.
type gitCase struct {
	name  string
	files map[string]string
}

// gitResult is what a child says of one fetch.
type gitResult struct {
	Seconds, PeakMiB float64
}

// measureGit fetches the announced commit of 10 MB repositories over HTTP from
// real git, each in a new process, with agent/repo and with go-git alone.
func measureGit(ctx context.Context, o options) ([]rows.Row, error) {
	root, err := os.MkdirTemp("", "bench-git-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(root)
	server, err := gitserver.StartHTTP(ctx, gitserver.Options{Root: root})
	if err != nil {
		return nil, err
	}
	defer server.Close()
	var table []rows.Row
	for i, c := range gitCases() {
		name := fmt.Sprint("case", i)
		r, err := gitserver.NewRepository(ctx, root, name)
		if err != nil {
			return nil, err
		}
		commit, err := r.Release(ctx, 1, c.files, "")
		if err != nil {
			return nil, err
		}
		if _, err := gitserver.Git(ctx, r.Bare, "repack", "-q", "-adf"); err != nil {
			return nil, err
		}
		times, peaks := map[string][]float64{}, map[string]float64{}
		for range o.pairs {
			for _, how := range []string{"ours", "go-git"} {
				got, err := o.gitFetch(ctx, how, server.URL(name+".git"), commit)
				if err != nil {
					return nil, err
				}
				times[how] = append(times[how], got.Seconds)
				peaks[how] = max(peaks[how], got.PeakMiB)
			}
		}
		what := "git fetch, 10 MB of " + c.name
		table = append(table,
			rows.New(what, rows.Median(times["ours"]), "s").Beside(goGit, rows.Median(times["go-git"])),
			rows.New(what+", peak RSS", peaks["ours"], "MiB").Beside(goGit, peaks["go-git"]).AtMost(60))
	}
	return table, nil
}

func (o options) gitFetch(ctx context.Context, how, url, commit string) (*gitResult, error) {
	dir, err := os.MkdirTemp("", "bench-git-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out, err := command.Output(ctx, command.Cmd{Name: o.self, Args: []string{"-child", "git", how, filepath.Join(dir, "repo"), url, commit}, Stderr: o.stderr})
	if err != nil {
		return nil, err
	}
	got := &gitResult{}
	return got, json.Unmarshal(out, got)
}

// gitChild is the client: how, folder, URL, commit.
func gitChild(ctx context.Context, args []string, stdout io.Writer) error {
	if len(args) != 4 {
		return errors.New("want ours or go-git, folder, URL and commit")
	}
	begun := time.Now()
	if args[0] == "ours" {
		r, err := repo.Open(repo.Options{Dir: args[1], Remotes: []string{args[2]}})
		if err != nil {
			return err
		}
		if _, err := r.Fetch(ctx, 1, args[3]); err != nil {
			return err
		}
	} else {
		_, err := git.PlainCloneContext(ctx, args[1], true, &git.CloneOptions{
			URL: args[2], Depth: 1, SingleBranch: true, Tags: git.NoTags, ReferenceName: plumbing.NewTagReferenceName("xnode/1"),
		})
		if err != nil {
			return err
		}
	}
	seconds := time.Since(begun).Seconds()
	peak, err := peakRSS()
	if err != nil {
		return err
	}
	return json.NewEncoder(stdout).Encode(gitResult{seconds, peak})
}

// gitCases are what a config repository may hold at its worst: many files, one
// that does not compress, and variants of one big file, of which git makes
// deltas.
func gitCases() []gitCase {
	random := rand.NewChaCha8([32]byte{'g', 'i', 't'})
	words := rand.New(random)
	text := func(size int) string {
		var b strings.Builder
		for b.Len() < size {
			fmt.Fprintf(&b, "services.%x.enable = %x;\n", words.Uint32N(5000), words.Uint32N(5000))
		}
		return b.String()
	}
	many := map[string]string{}
	for i := range 1800 {
		many[fmt.Sprintf("pkgs/%d/%d.nix", i%50, i)] = text(5600)
	}
	noise := make([]byte, 10<<20)
	random.Read(noise) // documented never to fail
	big := text(3_400_000)
	return []gitCase{
		{"small files", many},
		{"one file", map[string]string{"blob": string(noise)}},
		{"variants of a file", map[string]string{"a": big, "b": big + "b", "c": "c" + big}},
	}
}
