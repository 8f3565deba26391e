package site

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"xnodeos.org/agent/follow"
	"xnodeos.org/agent/repo"
	"xnodeos.org/internal/announce"
	"xnodeos.org/internal/testkit"
	"xnodeos.org/internal/trust"
)

// The operator's whole way, with the real servers: what xnodeos release
// announces is found in DNS, in git and in the cache, and counts by the trust
// that nodes get.
func TestReleaseReachesEveryCarrier(t *testing.T) {
	t.Parallel()
	s, err := Start(t.Context(), Options{Dir: t.TempDir(), Xnodeos: testkit.Programs(t), Log: func(line string) { t.Log(line) }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}()
	store := t.TempDir()
	if err := testkit.WriteToyStore(store); err != nil {
		t.Fatal(err)
	}
	first, err := s.release(t.Context(), "--store", store, "--system", "edge="+testkit.ToySystem)
	if err != nil {
		t.Fatal(err)
	}
	record := lookUp(t, s)
	if record.Sequence != 1 || record.Commit != first.Commit || record.Halted {
		t.Errorf("DNS says %s; want release 1 of commit %s", record, first.Commit)
	}
	git, err := repo.Open(repo.Options{Dir: filepath.Join(t.TempDir(), "repo"), Remotes: []string{s.Git.URL("fleet.git")}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := git.Fetch(t.Context(), record.Sequence, record.Commit); err != nil {
		t.Errorf("fetch what the record announces: %v", err)
	}
	if found, err := git.ReadAnnounce(t.Context(), Owner); err != nil || len(found) != 1 || strings.TrimSpace(string(found[0].Record)) != record.Text() {
		t.Errorf("branch announce: %q, %v; want the record of DNS", found, err)
	}
	resp, err := http.Get(strings.Replace(s.CacheURL, Gateway, "127.0.0.1", 1) + "/nix-cache-info")
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("the cache: %v, %v", resp, err)
	} else {
		resp.Body.Close()
	}
	time.Sleep(time.Second) // a later t has to be later by a second
	if _, err := s.Change(t.Context(), "halt"); err != nil {
		t.Fatal(err)
	}
	if halted := lookUp(t, s); !halted.Halted || halted.Published <= record.Published {
		t.Errorf("after a halt DNS says %s", halted.Text())
	}
}

// lookUp asks the zone's server as a node does and verifies with the node
// config's trust.
func lookUp(t *testing.T, s *Site) *announce.Record {
	t.Helper()
	client := follow.Client{Resolvers: []string{s.DNS.Addr}}
	answer, err := client.Lookup(t.Context(), Owner)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(s.Node, "trust/allowed_signers"))
	if err != nil {
		t.Fatal(err)
	}
	signers, err := trust.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	record, _, err := announce.Choose(Owner, answer.Texts, signers)
	if err != nil {
		t.Fatal(err)
	}
	return record
}
