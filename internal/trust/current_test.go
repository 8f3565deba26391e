package trust

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/sshsign"
	"xnodeos.org/internal/testkit"
)

const nixKey = "cache.example.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="

func seeded(t testing.TB, seed byte) *sshsign.Signer {
	t.Helper()
	s, err := sshsign.Open(t.Context(), sshsign.OpenOptions{Path: testkit.KeyFile(t, seed)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// lines lists root keys and keys for records by their seeds.
func lines(t testing.TB, roots, announce []byte) []string {
	t.Helper()
	var out []string
	for _, seed := range roots {
		out = append(out, Line(seeded(t, seed).PublicKey(), fmt.Sprintf("root-%d", seed), NamespaceTrust))
	}
	for _, seed := range announce {
		out = append(out, Line(seeded(t, seed).PublicKey(), fmt.Sprintf("ops-%d", seed), NamespaceAnnounce))
	}
	return out
}

func signersOf(t testing.TB, roots, announce []byte) *Signers {
	t.Helper()
	s, err := Parse([]byte(strings.Join(lines(t, roots, announce), "\n")))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func bundle(t testing.TB, d Document, seeds ...byte) Bundle {
	t.Helper()
	d.V = DocumentVersion
	data, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	b := Bundle{Document: data}
	for _, seed := range seeds {
		sig, err := seeded(t, seed).Sign(t.Context(), NamespaceTrust, data)
		if err != nil {
			t.Fatal(err)
		}
		b.Signatures = append(b.Signatures, sig)
	}
	return b
}

func apply(t testing.TB, s *State, b Bundle) *State {
	t.Helper()
	next, err := s.Apply(b)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

// TestDocumentFormats holds trust.json of docs/formats.md to what we write and
// to its signatures.
func TestDocumentFormats(t *testing.T) {
	t.Parallel()
	d := Document{
		Version: 3, MinSequence: 1043, RootThreshold: 2, NixKeys: []string{nixKey},
		Signers: []string{
			Line(seeded(t, 11).PublicKey(), "root-1@example.org", NamespaceTrust),
			Line(seeded(t, 12).PublicKey(), "root-2@example.org", NamespaceTrust),
			Line(seeded(t, 13).PublicKey(), "root-3@example.org", NamespaceTrust),
			Line(seeded(t, 2).PublicKey(), "ops@example.org", NamespaceAnnounce, NamespaceManifest),
		},
	}
	b := bundle(t, d, 11, 13)
	if diff := cmp.Diff(testkit.FormatsExample(t, "trust.json"), string(b.Document)); diff != "" {
		t.Errorf("docs/formats.md, trust.json (-page +got):\n%s", diff)
	}
	if diff := cmp.Diff(testkit.FormatsExample(t, SignatureName(seeded(t, 11).PublicKey())), string(b.Signatures[0])); diff != "" {
		t.Errorf("docs/formats.md, signature of trust.json (-page +got):\n%s", diff)
	}
	apply(t, Embedded(signersOf(t, []byte{11, 12, 13}, []byte{1}), nil), b)
}

// TestRecoveryDrill plays the theft of the key that announces releases.
func TestRecoveryDrill(t *testing.T) {
	t.Parallel()
	roots := []byte{11, 12, 13}
	stolen, fresh := seeded(t, 1), seeded(t, 2)
	start := Embedded(signersOf(t, roots, []byte{1}), nil)
	if _, err := start.Signers.Authorize(NamespaceAnnounce, stolen.PublicKey()); err != nil {
		t.Fatal(err)
	}
	repair := Document{Version: 5, MinSequence: 2000, Signers: lines(t, roots, []byte{2}), RootThreshold: 2}
	var few *ThresholdError
	for name, b := range map[string]Bundle{
		"no signature":            bundle(t, repair),
		"one of three":            bundle(t, repair, 12),
		"one of three, twice":     bundle(t, repair, 12, 12),
		"one and the stolen key":  bundle(t, repair, 12, 1),
		"one and its own new key": bundle(t, repair, 12, 2),
		"one and a stranger":      bundle(t, repair, 12, 99),
	} {
		if _, err := start.Apply(b); !errors.As(err, &few) {
			t.Errorf("%s: Apply = %v; want a ThresholdError", name, err)
		}
	}
	repaired := apply(t, start, bundle(t, repair, 99, 11, 1, 13))
	if repaired.Version != 5 || repaired.MinSequence != 2000 || repaired.Threshold != 2 {
		t.Errorf("repaired: version %d, sequences from %d, threshold %d", repaired.Version, repaired.MinSequence, repaired.Threshold)
	}
	var unknown *UnknownKeyError
	if _, err := repaired.Signers.Authorize(NamespaceAnnounce, stolen.PublicKey()); !errors.As(err, &unknown) {
		t.Errorf("the stolen key: %v", err)
	}
	if _, err := repaired.Signers.Authorize(NamespaceAnnounce, fresh.PublicKey()); err != nil {
		t.Errorf("the new key: %v", err)
	}
	// The thief cannot go back, nor put another document in its place.
	back := Document{Version: 4, Signers: lines(t, roots, []byte{1}), RootThreshold: 2}
	var version *VersionError
	for _, v := range []uint32{4, 5} {
		back.Version = v
		if _, err := repaired.Apply(bundle(t, back, 11, 12, 13)); !errors.As(err, &version) {
			t.Errorf("version %d: Apply = %v; want a VersionError", v, err)
		}
	}
	if again, err := repaired.Apply(bundle(t, repair, 99)); err != nil || again != repaired {
		t.Errorf("the same document once more: %v", err)
	}
	// A node that was off meanwhile gets there from what it finds.
	late, errs := Current(start, bundle(t, back, 1), bundle(t, repair, 11, 12))
	if late.Version != 5 || len(errs) != 1 {
		t.Errorf("a late node: version %d, %v", late.Version, errs)
	}
}

func TestRootRotation(t *testing.T) {
	t.Parallel()
	start := Embedded(signersOf(t, []byte{11, 12, 13}, nil), nil)
	rotate := Document{Version: 1, Signers: lines(t, []byte{21, 22, 23}, []byte{1}), RootThreshold: 2}
	var few *ThresholdError
	if _, err := start.Apply(bundle(t, rotate, 21, 22, 23)); !errors.As(err, &few) || few.New {
		t.Errorf("signed by the new keys only: %v", err)
	}
	if _, err := start.Apply(bundle(t, rotate, 11, 12, 21)); !errors.As(err, &few) || !few.New {
		t.Errorf("signed by too few new keys: %v", err)
	}
	rotation := bundle(t, rotate, 11, 12, 21, 23)
	rotated := apply(t, start, rotation)
	later := Document{Version: 2, Signers: lines(t, []byte{21, 22, 23}, []byte{2}), RootThreshold: 2}
	if _, err := rotated.Apply(bundle(t, later, 11, 12, 13)); !errors.As(err, &few) {
		t.Errorf("signed by the old keys: %v", err)
	}
	two := bundle(t, later, 21, 22)
	now := apply(t, rotated, two)
	later.Version = 3
	three := bundle(t, later, 22, 23)
	now = apply(t, now, three)
	if len(now.Chain) != 2 {
		t.Errorf("%d documents are kept; want the rotation and the newest", len(now.Chain))
	}
	// After a boot the chain leads from what is embedded to the same state, in
	// any order; without the rotation it does not.
	reversed := slices.Clone(now.Chain)
	slices.Reverse(reversed)
	again, errs := Current(start, reversed...)
	if len(errs) > 0 || again.Version != 3 || len(again.Roots()) != 3 {
		t.Errorf("from the chain: version %d, %v", again.Version, errs)
	}
	if alone, errs := Current(start, three); alone != start || len(errs) != 1 {
		t.Errorf("without the rotation: version %d, %v", alone.Version, errs)
	}
	// Signed by the first keys as well, it needs no rotation before it.
	later.Version = 4
	whole := apply(t, now, bundle(t, later, 11, 12, 21, 22))
	if len(whole.Chain) != 1 {
		t.Errorf("%d documents are kept; want the newest alone", len(whole.Chain))
	}
	if direct, errs := Current(start, whole.Chain...); len(errs) > 0 || direct.Version != 4 {
		t.Errorf("directly: version %d, %v", direct.Version, errs)
	}
}

func TestThresholdChange(t *testing.T) {
	t.Parallel()
	start := Embedded(signersOf(t, []byte{11, 12, 13, 14, 15}, nil), nil)
	if start.Threshold != 3 {
		t.Errorf("threshold of five keys: %d; want a majority", start.Threshold)
	}
	easier := Document{Version: 1, Signers: lines(t, []byte{11, 12, 13}, nil), RootThreshold: 1}
	if _, err := start.Apply(bundle(t, easier, 11, 12)); err == nil {
		t.Error("a document lowers the threshold for itself")
	}
	next := apply(t, start, bundle(t, easier, 11, 14, 15))
	easier.Version = 2
	apply(t, next, bundle(t, easier, 12))
	for _, s := range []*State{Embedded(nil, nil), Embedded(signersOf(t, nil, []byte{1}), nil)} {
		_, err := s.Apply(bundle(t, easier, 11, 12, 13))
		if err == nil || !strings.Contains(err.Error(), "embed the root keys") {
			t.Errorf("without root keys: %v", err)
		}
	}
}

func TestParseDocument(t *testing.T) {
	t.Parallel()
	good := string(bundle(t, Document{Version: 1, Signers: lines(t, []byte{11}, []byte{1}), RootThreshold: 1, NixKeys: []string{nixKey}}).Document)
	swap := func(old, with string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("%q is not in %s", old, good)
		}
		return strings.Replace(good, old, with, 1)
	}
	for _, tt := range []struct{ name, text, want string }{
		{"as it is", good, ""},
		{"an unknown key", swap(`"version": 1`, `"later": {"x": 1}, "version": 1`), ""},
		{"not JSON", "x", "not a JSON object"},
		{"more behind it", good + "{}", "something follows"},
		{"another v", swap(`"v": 1`, `"v": 2`), "v is 2"},
		{"another v, other types", `{"v":2,"version":"x"}`, "v is 2"},
		{"version 0", swap(`"version": 1`, `"version": 0`), "begin with 1"},
		{"negative version", swap(`"version": 1`, `"version": -1`), "not a JSON object"},
		{"huge version", swap(`"version": 1`, `"version": 4294967296`), "not a JSON object"},
		{"no root key", strings.ReplaceAll(good, NamespaceTrust, NamespaceGit), "never be changed again"},
		{"threshold 0", swap(`"root_threshold": 1`, `"root_threshold": 0`), "root_threshold 0"},
		{"threshold too high", swap(`"root_threshold": 1`, `"root_threshold": 2`), "there are 1"},
		{"two lines in one", swap(" root-11\"", " root-11\\nx\""), "not one line"},
		{"a comment", swap(`"signers": [`, `"signers": ["# x",`), "not one line"},
		{"a bad line", swap("ssh-ed25519", "ssh-rsa"), "signers: line 1"},
		{"a secret Nix key", swap(nixKey, "c:"+strings.Repeat("AAAA", 21)+"AA=="), "is it the secret key?"},
		{"too long", good + strings.Repeat(" ", MaxDocument), "allowed are"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := ParseDocument([]byte(tt.text))
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("ParseDocument = %v; want an error with %q", err, tt.want)
			}
		})
	}
	if _, err := (&Document{V: 1, Version: 1}).Encode(); err == nil {
		t.Error("a document without keys is written")
	}
}

func TestSignatureName(t *testing.T) {
	t.Parallel()
	for seed := range byte(64) {
		key := seeded(t, seed).PublicKey()
		name := SignatureName(key)
		if strings.Contains(name, "/") || len(name) != len("trust.json.sig.12345678") {
			t.Errorf("SignatureName(%s) = %q", key.Fingerprint(), name)
		}
	}
}

func FuzzParseDocument(f *testing.F) {
	b := bundle(f, Document{Version: 1, Signers: lines(f, []byte{11, 12}, []byte{1}), RootThreshold: 2, NixKeys: []string{nixKey}}, 11, 12)
	f.Add(b.Document)
	f.Add([]byte(`{"v":1,"version":1,"signers":[],"root_threshold":1}`))
	start := Embedded(signersOf(f, []byte{11, 12}, nil), nil)
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := ParseDocument(data)
		if err != nil {
			return
		}
		text, err := d.Encode()
		if err != nil {
			t.Fatalf("taken, but not written: %v", err)
		}
		again, err := ParseDocument(text)
		if err != nil {
			t.Fatal(err)
		}
		second, err := again.Encode()
		if err != nil || string(second) != string(text) {
			t.Fatalf("%q is written as %q, then as %q (%v)", data, text, second, err)
		}
		if _, err := start.Apply(Bundle{data, b.Signatures}); err == nil && string(data) != string(b.Document) {
			t.Fatalf("signatures of another document count for %q", data)
		}
	})
}

func TestCollect(t *testing.T) {
	t.Parallel()
	b := bundle(t, Document{Version: 1, Signers: lines(t, []byte{11, 12}, nil), RootThreshold: 2}, 11, 12)
	files := map[string][]byte{
		"trust/trust.json": b.Document, "trust/allowed_signers": []byte("x"), "trust.json": []byte("x"),
		"trust/" + SignatureName(seeded(t, 11).PublicKey()): b.Signatures[0],
		"trust/" + SignatureName(seeded(t, 12).PublicKey()): b.Signatures[1],
	}
	got, ok := Collect(files, "trust/")
	if !ok || len(got.Signatures) != 2 {
		t.Fatalf("Collect = %d signatures, %v", len(got.Signatures), ok)
	}
	apply(t, Embedded(signersOf(t, []byte{11, 12}, nil), nil), got)
	if _, ok := Collect(files, "other/"); ok {
		t.Error("a document is found where there is none")
	}
}
