package releasing

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"xnodeos.org/internal/announce"
	"xnodeos.org/internal/gitcommit"
	"xnodeos.org/internal/release"
)

// commitRelease makes the commit and the tag of the next release and returns
// its release.json. A release that says what the last one says is the last one.
func (r *run) commitRelease(ctx context.Context, next *release.Release, newest *announce.Record) (commit string, data []byte, err error) {
	last, commit, data, err := r.lastRelease(ctx)
	if err != nil {
		return "", nil, err
	}
	nodes, err := r.config.NodesFile().Encode()
	if err != nil {
		return "", nil, err
	}
	next.Nodes = release.DigestText(nodes)
	next.Seq = 1
	if last != nil {
		next.Seq = last.Seq + 1
	}
	if newest != nil && newest.Sequence >= next.Seq && (last == nil || newest.Sequence != last.Seq) {
		return "", nil, fmt.Errorf("release %d is announced and not in this branch; get it first with: git pull", newest.Sequence)
	}
	if r.DryRun {
		r.result.Sequence = next.Seq
		r.step("commit", "done", "release %d on %s, unless it says what release %d says", next.Seq, strings.TrimPrefix(r.branch, "refs/heads/"), next.Seq-1)
		r.step("push", "done", "%s and xnode/%d to %s", strings.TrimPrefix(r.branch, "refs/heads/"), next.Seq, r.shownRemotes())
		return "", nil, nil
	}
	if last != nil && commit != "" && sameRelease(last, next) {
		r.take(last.Seq, commit)
		r.step("commit", "kept", "release %d is %s", last.Seq, commit)
		return commit, data, nil
	}
	next.Published = r.Now().Unix()
	if data, err = next.Encode(); err != nil {
		return "", nil, err
	}
	commit, err = r.write(ctx, next, map[string][]byte{release.FileName: data, release.NodesName: nodes})
	return commit, data, err
}

func (r *run) shownRemotes() string {
	var out []string
	for _, remote := range r.Settings.Remotes {
		out = append(out, shown(remote))
	}
	return strings.Join(out, ", ")
}

func (r *run) take(seq uint32, commit string) {
	r.result.Sequence, r.result.Commit, r.result.Tag = seq, commit, fmt.Sprintf("xnode/%d", seq)
}

// lastRelease reads the release in HEAD. Its commit is what its tag names; ""
// if there is no such tag or the tag holds another release.json.
func (r *run) lastRelease(ctx context.Context) (last *release.Release, commit string, data []byte, err error) {
	data, err = r.file(ctx, r.head, release.FileName)
	if err != nil || data == nil {
		return nil, "", nil, err
	}
	if last, err = release.Parse(data); err != nil {
		return nil, "", nil, fmt.Errorf("read %s of HEAD: %w", release.FileName, err)
	}
	if commit, err = r.resolve(ctx, fmt.Sprintf("refs/tags/xnode/%d", last.Seq)); err != nil || commit == "" {
		return last, "", data, err
	}
	tagged, err := r.file(ctx, commit, release.FileName)
	if err != nil || !bytes.Equal(tagged, data) {
		return last, "", data, err
	}
	return last, commit, data, nil
}

// sameRelease compares all but number and time.
func sameRelease(a, b *release.Release) bool {
	x, y := *a, *b
	x.Seq, y.Seq, x.Published, y.Published = 1, 1, 0, 0
	one, err1 := x.Encode()
	two, err2 := y.Encode()
	return err1 == nil && err2 == nil && bytes.Equal(one, two)
}

// write makes the commit, moves branch and tag in one transaction, and brings
// the work tree along.
func (r *run) write(ctx context.Context, next *release.Release, files map[string][]byte) (string, error) {
	var text strings.Builder
	fmt.Fprintf(&text, "release %d\n\n", next.Seq)
	for _, class := range slices.Sorted(maps.Keys(next.Classes)) {
		for _, arch := range slices.Sorted(maps.Keys(next.Classes[class])) {
			fmt.Fprintf(&text, "%s/%s %s\n", class, arch, next.Classes[class][arch].System)
		}
	}
	var signer gitcommit.Signer
	if r.Git != nil {
		signer = r.Git
	}
	commit, err := r.makeCommit(ctx, commitSpec{
		base: r.head, parents: []string{r.head}, files: files, message: text.String(), when: r.Now(),
	}, signer)
	if err != nil {
		return "", err
	}
	moves := fmt.Sprintf("start\ncreate refs/tags/xnode/%d %s\nupdate %s %s %s\nprepare\ncommit\n", next.Seq, commit, r.branch, commit, r.head)
	if _, err := r.git(ctx, []byte(moves), "update-ref", "-m", fmt.Sprintf("xnodeos release %d", next.Seq), "--stdin"); err != nil {
		return "", fmt.Errorf("make the tag xnode/%d: %w; if it is of a release that was given up and never pushed, delete it with: git tag -d xnode/%d", next.Seq, err, next.Seq)
	}
	if _, err := r.git(ctx, nil, "read-tree", "-m", "-u", r.head, commit); err != nil {
		return "", fmt.Errorf("bring the work tree to the release: %w", err)
	}
	r.head = commit
	r.take(next.Seq, commit)
	state := "signed"
	if r.Git == nil {
		state = "not signed"
	}
	r.step("commit", "done", "release %d is %s (%s)", next.Seq, commit, state)
	return commit, nil
}

// push brings branch and tag to every remote.
func (r *run) push(ctx context.Context, commit string) error {
	tag := "refs/tags/" + r.result.Tag
	for _, remote := range r.Settings.Remotes {
		have, err := r.remoteRef(ctx, remote, tag)
		if err != nil {
			return fmt.Errorf("look at remote %q: %w", shown(remote), err)
		}
		switch have {
		case commit:
			r.step("push", "kept", "%s is on %s", r.result.Tag, shown(remote))
			continue
		case "":
		default:
			return fmt.Errorf("remote %q has another commit under %s, %s; a tag that was announced is never moved: make a new release from that remote's branch", shown(remote), r.result.Tag, have)
		}
		if _, err := r.git(ctx, nil, "push", "-q", "--atomic", "--", remote, r.branch, tag); err != nil {
			return fmt.Errorf("push release to %q: %w; run the same command again when it can be reached", shown(remote), err)
		}
		r.step("push", "done", "%s and %s to %s", strings.TrimPrefix(r.branch, "refs/heads/"), r.result.Tag, shown(remote))
	}
	return nil
}
