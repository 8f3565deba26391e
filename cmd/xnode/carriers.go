package main

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"

	"xnodeos.org/agent"
	"xnodeos.org/agent/follow"
	"xnodeos.org/agent/follower"
	"xnodeos.org/agent/repo"
	"xnodeos.org/internal/agentconfig"
	"xnodeos.org/internal/announce"
	"xnodeos.org/internal/release"
)

// asker asks DNS. Where no resolver is set, those of resolv.conf are read
// before each question: the network may have changed.
type asker struct {
	settings   agentconfig.DNS
	resolvConf string
}

func (a asker) Lookup(ctx context.Context, name string, good func(follower.Answer) error) (follower.Answer, error) {
	client := follow.Client{Resolvers: withPort(a.settings.Resolvers), Authoritative: a.settings.Authoritative}
	if len(client.Resolvers) == 0 {
		conf, err := os.Open(a.resolvConf)
		if err == nil {
			client.Resolvers, err = follow.Resolvers(conf)
			err = errors.Join(err, conf.Close())
		}
		if err != nil {
			return follower.Answer{}, err
		}
	}
	plain := func(got *follow.Answer) follower.Answer {
		return follower.Answer{Texts: got.Texts, TTL: got.TTL, From: got.From}
	}
	got, err := client.LookupGood(ctx, name, func(got *follow.Answer) error { return good(plain(got)) })
	if err != nil {
		return follower.Answer{}, err
	}
	return plain(got), nil
}

// withPort gives addresses of resolvers DNS's port where they have none.
func withPort(resolvers []string) []string {
	var out []string
	for _, r := range resolvers {
		if addr, err := netip.ParseAddr(r); err == nil {
			r = net.JoinHostPort(addr.String(), "53")
		}
		out = append(out, r)
	}
	return out
}

// repository reads the config repository.
type repository struct{ *repo.Repo }

func (r repository) Fetch(ctx context.Context, record *announce.Record) (follower.Files, error) {
	snapshot, err := r.Repo.Fetch(ctx, record.Sequence, record.Commit)
	if err != nil {
		return follower.Files{}, err
	}
	files := follower.Files{From: snapshot.Remote}
	if files.Release, err = snapshot.ReadFile(release.FileName, release.MaxSize); err != nil {
		return files, err
	}
	files.Nodes, err = snapshot.ReadFile(release.NodesName, release.MaxNodes)
	if errors.Is(err, fs.ErrNotExist) {
		return files, nil // the release says whether it binds one
	}
	return files, err
}

func (r repository) Announced(ctx context.Context, owner string) ([]follower.Announced, error) {
	found, err := r.Repo.ReadAnnounce(ctx, owner)
	var out []follower.Announced
	for _, one := range found {
		a := follower.Announced{Record: string(one.Record), From: one.Remote}
		if len(one.Trust) > 0 {
			a.Trust = &agent.TrustFile{Document: one.Trust, Signatures: maps.Clone(one.Signatures)}
		}
		out = append(out, a)
	}
	return slices.Clip(out), err
}
