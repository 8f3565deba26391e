package narinfo_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/nix"
	"xnodeos.org/internal/nix/narinfo"
	"xnodeos.org/internal/testkit"
)

const base = "/nix/store/"

// sample is a file as nix copy wrote it, with a key made for it.
const sample = `StorePath: /nix/store/11111111111111111111111111111111-a
URL: nar/1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s.nar.zst
Compression: zstd
FileHash: sha256:1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s
FileSize: 321
NarHash: sha256:0c5b8vw40d1178xlpddw65q9gf1h2186jcc3p4swinwggbllv8mk
NarSize: 504
References: 00000000000000000000000000000000-b 11111111111111111111111111111111-a
Deriver: 22222222222222222222222222222222-a.drv
Sig: test-1:3fG+ljx+ZLPi5wPV/QhLtA2EoQlpHGUTbhHFBLtH32DcBeaQlNUx7Bb2CEJhSkFqkM5OAS5GmtFl1Hkb4WP4CQ==
CA: fixed:r:sha256:0c5b8vw40d1178xlpddw65q9gf1h2186jcc3p4swinwggbllv8mk
`

func TestParseAndEncode(t *testing.T) {
	t.Parallel()
	info, err := narinfo.Parse([]byte(sample))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(info.Encode()); got != sample {
		t.Errorf("read and written (-want +got):\n%s", cmp.Diff(sample, got))
	}
	if info.Path != base+"11111111111111111111111111111111-a" || info.FileSize != 321 || info.NarSize != 504 ||
		len(info.References) != 2 || info.Deriver != "22222222222222222222222222222222-a.drv" || len(info.Sigs) != 1 || info.Sigs[0].Name != "test-1" {
		t.Errorf("Parse = %+v", info)
	}
	want := "1;/nix/store/11111111111111111111111111111111-a;sha256:0c5b8vw40d1178xlpddw65q9gf1h2186jcc3p4swinwggbllv8mk;504;" +
		"/nix/store/00000000000000000000000000000000-b,/nix/store/11111111111111111111111111111111-a"
	if got := string(narinfo.Fingerprint(info.PathInfo())); got != want {
		t.Errorf("Fingerprint = %q; want %q", got, want)
	}
	if name := narinfo.Name(info.Path); name != "11111111111111111111111111111111.narinfo" {
		t.Errorf("Name = %q", name)
	}
	for _, text := range []string{
		strings.Replace(sample, "StorePath", "Future: x\nStorePath", 1),
		strings.Replace(sample, "Deriver: 22222222222222222222222222222222-a.drv", "Deriver: unknown-deriver", 1),
		strings.Replace(sample, "References: 00000000000000000000000000000000-b 11111111111111111111111111111111-a", "References:", 1),
		strings.Replace(sample, ".nar.zst\n", ".nar?hash=11111111111111111111111111111111\n", 1),
	} {
		if _, err := narinfo.Parse([]byte(text)); err != nil {
			t.Errorf("Parse(%q): %v", text, err)
		}
	}
}

func bad() map[string]string {
	change := func(old, new string) string { return strings.Replace(sample, old, new, 1) }
	url := func(u string) string {
		return change("nar/1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s.nar.zst", u)
	}
	return map[string]string{
		"nothing":             "",
		"not ended":           strings.TrimSuffix(sample, "\n"),
		"no key":              change("Compression: ", "Compression= "),
		"twice":               sample + "NarSize: 504\n",
		"no URL":              change("URL:", "Url:"),
		"no references":       change("References:", "Refs:"),
		"CR":                  strings.ReplaceAll(sample, "\n", "\r\n"),
		"NUL":                 change("zstd\n", "zs\x00td\n"),
		"other store":         change("/nix/store/", "/gnu/store/"),
		"dot dot":             url("nar/../../../etc/shadow"),
		"absolute":            url("/etc/shadow"),
		"other host":          url("http://192.0.2.1/nar/x"),
		"double slash":        url("//192.0.2.1/x"),
		"backslash":           url(`nar\x`),
		"percent":             url("nar/%2e%2e/x"),
		"hidden":              url("nar/.x.tmp"),
		"empty URL":           url(""),
		"fragment":            url("nar/x#y"),
		"slash in query":      url("nar/x?y=/../z"),
		"long URL":            url("nar/" + strings.Repeat("x/", 600) + "x"),
		"negative size":       change("NarSize: 504", "NarSize: -504"),
		"huge size":           change("NarSize: 504", "NarSize: 99999999999999999999"),
		"leading zero":        change("NarSize: 504", "NarSize: 0504"),
		"size nothing":        change("NarSize: 504", "NarSize: 0"),
		"hash of another":     change("NarHash: sha256:", "NarHash: sha512:"),
		"reference full":      change("References: 0", "References: /nix/store/0"),
		"reference twice":     change("11111111111111111111111111111111-a\nDeriver", "00000000000000000000000000000000-b\nDeriver"),
		"reference dots":      change("References: 00000000000000000000000000000000-b", "References: ../../x"),
		"signature short":     change("CQ==", ""),
		"signature no name":   change("Sig: test-1:", "Sig: :"),
		"deriver":             change("a.drv", "a/b.drv"),
		"compression":         change("Compression: zstd", "Compression: zstd --rm"),
		"many signatures":     sample + strings.Repeat(sample[strings.Index(sample, "Sig:"):strings.Index(sample, "CA:")], 70),
		"long":                sample + "X: " + strings.Repeat("x", narinfo.MaxSize) + "\n",
		"many keys":           sample + manyKeys(),
		"blank line":          sample + "\n",
		"many references":     change("References: ", "References: "+manyReferences()),
		"control in unknown":  sample + "X: \x1b[2J\n",
		"long CA":             change("CA: ", "CA: "+strings.Repeat("x", 5000)),
		"compression missing": change("Compression: zstd", "Compression: "),
	}
}

func manyKeys() string {
	var b strings.Builder
	for i := range 100 {
		fmt.Fprintf(&b, "K%d: x\n", i)
	}
	return b.String()
}

func manyReferences() string {
	var b strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&b, "%s-%d ", strings.Repeat("3", 32), i)
	}
	return b.String()
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for name, text := range bad() {
		if text == sample {
			t.Errorf("%s: the text is not changed", name)
		}
		if info, err := narinfo.Parse([]byte(text)); !errors.Is(err, narinfo.ErrFormat) {
			t.Errorf("%s: Parse = %+v, %v; want ErrFormat", name, info, err)
		} else if len(err.Error()) > 1000 {
			t.Errorf("%s: an error of %d bytes", name, len(err.Error()))
		}
	}
}

func TestSignAndVerify(t *testing.T) {
	t.Parallel()
	info, err := narinfo.Parse([]byte(sample))
	if err != nil {
		t.Fatal(err)
	}
	keys := make([]*nix.CacheKey, 3)
	for i, name := range []string{"a-1", "b-1", "a-1"} { // the third has the name of the first
		if keys[i], err = nix.GenerateCacheKey(name); err != nil {
			t.Fatal(err)
		}
	}
	a, b, imposter := keys[0], keys[1], keys[2]
	path := info.PathInfo()
	sigs := []narinfo.Signature{narinfo.Sign(path, imposter), narinfo.Sign(path, b)}
	if name, err := narinfo.Verify(path, sigs, []nix.PublicKey{a.PublicKey(), b.PublicKey()}); name != "b-1" || err != nil {
		t.Errorf("Verify = %q, %v; want b-1", name, err)
	}
	if name, err := narinfo.Verify(path, sigs, []nix.PublicKey{a.PublicKey()}); err == nil {
		t.Errorf("Verify took %q, signed by another key of that name", name)
	}
	for name, change := range map[string]func(*nix.PathInfo){
		"path":       func(p *nix.PathInfo) { p.Path += "x" },
		"hash":       func(p *nix.PathInfo) { p.NarHash[0]++ },
		"size":       func(p *nix.PathInfo) { p.NarSize++ },
		"references": func(p *nix.PathInfo) { p.References = p.References[:1] },
	} {
		other := path
		change(&other)
		if _, err := narinfo.Verify(other, sigs, []nix.PublicKey{b.PublicKey()}); err == nil {
			t.Errorf("the signature still holds with another %s", name)
		}
		if err := info.Matches(other); err == nil {
			t.Errorf("Matches does not see another %s", name)
		}
	}
	if err := info.Matches(path); err != nil {
		t.Errorf("Matches = %v", err)
	}
}

// TestFormatsPage: the example that people read is one that Parse takes and
// Encode writes, its signature holds, and the closure list names that path.
func TestFormatsPage(t *testing.T) {
	t.Parallel()
	text := testkit.FormatsExample(t, "narinfo")
	info, err := narinfo.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(info.Encode()); got != text {
		t.Errorf("read and written (-want +got):\n%s", cmp.Diff(text, got))
	}
	key, err := nix.ParsePublicKey(strings.TrimSpace(testkit.FormatsExample(t, "cache key")))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := narinfo.Verify(info.PathInfo(), info.Sigs, []nix.PublicKey{key}); err != nil {
		t.Error(err)
	}
	list, err := nix.ParseClosureList([]byte(testkit.FormatsExample(t, "closure list")))
	if err != nil {
		t.Fatal(err)
	}
	if err := info.Matches(list.Paths[0]); err != nil {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(sample))
	for _, text := range bad() {
		if len(text) < 5000 {
			f.Add([]byte(text))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		info, err := narinfo.Parse(data)
		if err != nil {
			if !errors.Is(err, narinfo.ErrFormat) {
				t.Fatalf("error %v is not ErrFormat", err)
			}
			return
		}
		again, err := narinfo.Parse(info.Encode())
		if err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		if diff := cmp.Diff(info, again); diff != "" {
			t.Fatalf("read, written and read again (-first +second):\n%s", diff)
		}
		if strings.Contains("/"+info.URL, "/.") {
			t.Fatalf("URL %q", info.URL)
		}
	})
}
