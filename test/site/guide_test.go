package site

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"xnodeos.org/agent/follow"
	"xnodeos.org/agent/repo"
	"xnodeos.org/internal/announce"
	"xnodeos.org/internal/testkit"
	"xnodeos.org/internal/testkit/gitserver"
	"xnodeos.org/internal/testkit/pdns"
	"xnodeos.org/internal/trust"
)

// guideBlock is a block of docs/fleet.md that is to be run as it stands.
var guideBlock = regexp.MustCompile("(?s)```sh\n(.*?)```")

// guide is docs/fleet.md with the places of this machine in place of those of
// its examples.
func guide(t *testing.T, places ...string) []string {
	t.Helper()
	root, err := testkit.Root(".")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "docs/fleet.md"))
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, m := range guideBlock.FindAllStringSubmatch(string(text), -1) {
		blocks = append(blocks, strings.NewReplacer(places...).Replace(m[1]))
	}
	if len(blocks) < 10 {
		t.Fatalf("docs/fleet.md has %d blocks to run; want the whole way", len(blocks))
	}
	return blocks
}

// TestGuide does what docs/fleet.md says, word for word, against the real
// PowerDNS and git: from nothing to a fleet whose key for releases was replaced.
// A node that was given the first keys must follow to the end.
func TestGuide(t *testing.T) {
	t.Parallel()
	dir, program := t.TempDir(), testkit.Programs(t)
	dns, err := pdns.Start(t.Context(), pdns.Options{Zone: Zone})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dns.Close(); err != nil {
			t.Error(err)
		}
	})
	served := filepath.Join(dir, "srv")
	bare := filepath.Join(served, "fleet.git")
	if _, err := gitserver.Git(t.Context(), dir, "init", "--quiet", "--bare", "--initial-branch=main", bare); err != nil {
		t.Fatal(err)
	}
	git, err := gitserver.StartHTTP(t.Context(), gitserver.Options{Root: served})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { git.Close() })
	store := filepath.Join(dir, "store")
	if err := testkit.WriteToyStore(store); err != nil {
		t.Fatal(err)
	}

	blocks := guide(t, "https://git.example.org/fleet.git", git.URL("fleet.git"), "/srv/git/fleet.git", bare, "192.0.2.53:53", dns.Addr,
		"edge=./result", "edge="+testkit.ToySystem+" --store "+store)
	var first *trust.State // what a node of the first image trusts
	for i, block := range blocks {
		if i > 0 && first == nil {
			first = embedded(t, filepath.Join(dir, "fleet-keys/node"))
		}
		// A changed record is younger by a whole second at least.
		cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", "xnodeos() { sleep 1; command xnodeos \"$@\"; }\n"+block)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(program)+":"+os.Getenv("PATH"), "TSIG_NAME="+dns.KeyName, "TSIG_SECRET="+string(dns.Key))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("docs/fleet.md, block %d: %v\n%s\n%s", i+1, err, block, out)
		}
	}

	answer, err := (&follow.Client{Resolvers: []string{dns.Addr}}).Lookup(t.Context(), Owner)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := announce.Choose(Owner, answer.Texts, first.Signers); err == nil {
		t.Error("a node with the first keys alone takes the record of the new key")
	}
	r, err := repo.Open(repo.Options{Dir: filepath.Join(t.TempDir(), "repo"), Remotes: []string{git.URL("fleet.git")}})
	if err != nil {
		t.Fatal(err)
	}
	found, err := r.ReadAnnounce(t.Context(), Owner)
	if err != nil || len(found) != 1 {
		t.Fatalf("branch announce: %v, %v", found, err)
	}
	bundle := trust.Bundle{Document: found[0].Trust}
	for _, signature := range found[0].Signatures {
		bundle.Signatures = append(bundle.Signatures, signature)
	}
	now, refused := trust.Current(first, bundle)
	if len(refused) > 0 || now.Version != 1 {
		t.Fatalf("trust.json of branch announce: version %d, %v", now.Version, refused)
	}
	if _, _, err := announce.Choose(Owner, answer.Texts, now.Signers); err != nil {
		t.Errorf("a node that took trust.json: %v", err)
	}
	// An image that is built now needs no trust.json.
	if _, _, err := announce.Choose(Owner, answer.Texts, embedded(t, filepath.Join(dir, "fleet-keys/node")).Signers); err != nil {
		t.Errorf("the node config that the guide leaves: %v", err)
	}
}

// embedded is the trust of a node config.
func embedded(t *testing.T, config string) *trust.State {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(config, "trust/allowed_signers"))
	if err != nil {
		t.Fatal(err)
	}
	signers, err := trust.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return trust.Embedded(signers, nil)
}
