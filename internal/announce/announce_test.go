package announce

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/sshsign"
	"xnodeos.org/internal/testkit"
	"xnodeos.org/internal/trust"
)

const owner = "stable._xnode.fleet.example.org"

func signer(t testing.TB, seed byte) *sshsign.Signer {
	t.Helper()
	s, err := sshsign.Open(t.Context(), sshsign.OpenOptions{Path: testkit.KeyFile(t, seed)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// example is the record of docs/formats.md before it is signed.
func example() Record {
	return Record{
		Sequence: 1042, Commit: strings.Repeat("0123456789", 4), Digest: sha256.Sum256([]byte("{}\n")),
		Published: 1795180800, Expires: 1795785600,
	}
}

func signed(t testing.TB, r Record, seed byte) *Record {
	t.Helper()
	out, err := Sign(t.Context(), owner, r, signer(t, seed))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// signers trusts the keys of two seeds for records, and a third for images.
func signers(t testing.TB) *trust.Signers {
	t.Helper()
	s, err := trust.Parse([]byte(trust.Line(signer(t, 1).PublicKey(), "ops", trust.NamespaceManifest, trust.NamespaceAnnounce) + "\n" +
		trust.Line(signer(t, 2).PublicKey(), "deputy", trust.NamespaceAnnounce) + "\n" +
		trust.Line(signer(t, 3).PublicKey(), "images", trust.NamespaceManifest) + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestFormats(t *testing.T) {
	t.Parallel()
	text := strings.TrimSuffix(testkit.FormatsExample(t, "record"), "\n")
	r := example()
	r.Digest = sha256.Sum256([]byte(testkit.FormatsExample(t, "release.json")))
	got := signed(t, r, 1)
	if diff := cmp.Diff(text, got.Text()); diff != "" {
		t.Errorf("docs/formats.md, record (-page +got):\n%s", diff)
	}
	allowed, err := trust.Parse([]byte(testkit.FormatsExample(t, "allowed_signers")))
	if err != nil {
		t.Fatal(err)
	}
	found, by, err := Choose(owner, []string{text}, allowed)
	if err != nil || by.Principals != "ops@example.org" || found.Sequence != 1042 {
		t.Errorf("docs/formats.md, record: chosen %v by %v, %v", found, by, err)
	}
}

// TestLongestFits: the largest value of everything fits one string.
func TestLongestFits(t *testing.T) {
	t.Parallel()
	r := example()
	r.Sequence, r.Halted = math.MaxUint32, true
	got := signed(t, r, 1)
	if len(got.Text()) != 250 {
		t.Errorf("%d bytes: %s", len(got.Text()), got.Text())
	}
	again, err := Parse(got.Text())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(*got, *again, cmp.AllowUnexported(Record{})); diff != "" {
		t.Errorf("Parse (-signed +parsed):\n%s", diff)
	}
	if again.Payload()+"; sig="+base64.RawURLEncoding.EncodeToString(again.Signature[:]) != again.Text() || !again.Halted || again.Tag() != "xnode/4294967295" {
		t.Errorf("payload %q, tag %q", again.Payload(), again.Tag())
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	good := signed(t, example(), 1).Text()
	swap := func(old, with string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("%q is not in the record", old)
		}
		return strings.Replace(good, old, with, 1)
	}
	for _, tt := range []struct{ name, text, want string }{
		{"as it is", good, ""},
		{"unknown tag", swap("; k=", "; zz9=a=b/c; k="), ""},
		{"halted", swap("; k=", "; p=0; k="), ""},
		{"other order", "v=xnode1; x=1795785600" + strings.Replace(strings.TrimPrefix(good, "v=xnode1"), "; x=1795785600", "", 1), ""},
		{"repeated tag", swap("; k=", "; s=1042; k="), "tag s is there twice"},
		{"repeated unknown tag", swap("; k=", "; z=1; z=1; k="), "tag z is there twice"},
		{"v twice", swap("; k=", "; v=xnode1; k="), "tag v is there twice"},
		{"too long", swap("; k=", "; z="+strings.Repeat("z", 20)+"; k="), "allowed are 255"},
		{"cut", good[:len(good)-10], "64 bytes in base64url"},
		{"cut before the signature", good[:strings.Index(good, "; sig")], "tag sig must be there"},
		{"a tag behind the signature", good + "; p=0", "must be there and be the last"},
		{"no space", strings.ReplaceAll(good, "; ", ";"), "want tag=value"},
		{"two spaces", swap("; t=", ";  t="), "want tag=value"},
		{"empty value", swap("s=1042", "s="), "want tag=value"},
		{"no value", swap("s=1042", "s"), "want tag=value"},
		{"line end", good + "\n", "printable"},
		{"not ASCII", swap("s=1042", "s=١"), "printable"},
		{"no sequence", swap("; s=1042", ""), "no tag s"},
		{"no hint", good[:strings.Index(good, "; k=")] + good[strings.Index(good, "; sig="):], "no tag k"},
		{"sequence 0", swap("s=1042", "s=0"), "begin with 1"},
		{"sequence with a zero", swap("s=1042", "s=01042"), "tag s"},
		{"sequence with a sign", swap("s=1042", "s=+1042"), "tag s"},
		{"sequence too large", swap("s=1042", "s=4294967296"), "tag s"},
		{"short commit", swap("c=0123", "c="), "40 lower-case"},
		{"upper-case commit", swap("c=01234567890", "c=A1234567890"), "40 lower-case"},
		{"padded digest", swap("; t=", "=; t="), "32 bytes in base64url"},
		{"eleven digits", swap("x=1795785600", "x=17957856000"), "ten digits"},
		{"nine digits", swap("t=1795180800", "t=0795180800"), "ten digits"},
		{"expires first", swap("x=1795785600", "x=1795180800"), "before it is published"},
		{"31 days", swap("x=1795785600", "x=1797859200"), "allowed are 30 days"},
		{"30 days", swap("x=1795785600", "x=1797772800"), ""},
		{"p=1", swap("; k=", "; p=1; k="), "only p=0"},
		{"short hint", swap("; k=", "; k=x"), "8 characters"},
		{"upper-case tag", swap("; s=", "; S="), "want tag=value"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := Parse(tt.text)
			var format *FormatError
			if tt.want == "" && err != nil || tt.want != "" && (!errors.As(err, &format) || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("Parse(%q) = %v; want an error with %q", tt.text, err, tt.want)
			}
		})
	}
	for _, text := range []string{"", "v=spf1 -all", " " + good, "v=xnode2; s=1", "v=xnode10; s=1", "V=xnode1; s=1", "s=1042; v=xnode1"} {
		var other *OtherError
		if _, err := Parse(text); !errors.As(err, &other) {
			t.Errorf("Parse(%q) = %v; want an OtherError", text, err)
		}
	}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	good := signed(t, example(), 1)
	all := signers(t)
	for _, name := range []string{owner, owner + ".", "Stable._xnode.FLEET.example.org"} {
		if by, err := good.Verify(name, all); err != nil || by.Principals != "ops" {
			t.Errorf("Verify(%q) = %v, %v", name, by, err)
		}
	}
	parse := func(text string) *Record {
		r, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	var bad *SignatureError
	for name, r := range map[string]*Record{
		"changed":       parse(strings.Replace(good.Text(), "s=1042", "s=1043", 1)),
		"one tag more":  parse(strings.Replace(good.Text(), "; k=", "; p=0; k=", 1)),
		"another's sig": parse(good.Payload() + "; sig=" + base64.RawURLEncoding.EncodeToString(make([]byte, 64))),
	} {
		if _, err := r.Verify(owner, all); !errors.As(err, &bad) {
			t.Errorf("%s: Verify = %v; want a SignatureError", name, err)
		}
	}
	if _, err := good.Verify("other._xnode.fleet.example.org", all); !errors.As(err, &bad) {
		t.Errorf("another owner: %v; want a SignatureError", err)
	}
	var unknown *UnknownKeyError
	if _, err := signed(t, example(), 9).Verify(owner, all); !errors.As(err, &unknown) || unknown.Hint != signer(t, 9).PublicKey().ID() {
		t.Errorf("unknown key: %v", err)
	}
	if _, err := good.Verify(owner, nil); !errors.As(err, &unknown) {
		t.Errorf("no keys: %v", err)
	}
	var role *trust.RoleError
	if _, err := signed(t, example(), 3).Verify(owner, all); !errors.As(err, &role) {
		t.Errorf("wrong role: %v", err)
	}
	if _, err := good.Verify("a b", all); err == nil {
		t.Error("a name with a space is taken")
	}
}

func TestSignRefuses(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Record){
		"sequence": func(r *Record) { r.Sequence = 0 },
		"commit":   func(r *Record) { r.Commit = "x" },
		"dates":    func(r *Record) { r.Expires = r.Published },
		"no time":  func(r *Record) { r.Published = 0 },
	} {
		r := example()
		change(&r)
		if _, err := Sign(t.Context(), owner, r, signer(t, 1)); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
	for _, name := range []string{"", ".", "a..b", "a b", strings.Repeat("a.", 127) + "a", strings.Repeat("a", 64), "ä.org", "a/b"} {
		if _, err := Sign(t.Context(), name, example(), signer(t, 1)); err == nil {
			t.Errorf("signed for the name %q", name)
		}
	}
}

func TestChoose(t *testing.T) {
	t.Parallel()
	all := signers(t)
	one := signed(t, example(), 1).Text()
	next := example()
	next.Sequence++
	two := signed(t, next, 2).Text()
	forged := signed(t, next, 9).Text()
	role := signed(t, next, 3).Text()
	for _, tt := range []struct {
		name    string
		texts   []string
		want    string
		refused int
		valid   int
	}{
		{"alone", []string{one}, one, 0, 0},
		{"among others", []string{"v=spf1 -all", one, "hello", "v=xnode2; s=1"}, one, 0, 0},
		{"twice the same", []string{one, one}, one, 0, 0},
		{"beside a forged one", []string{forged, one}, one, 0, 0},
		{"beside a broken one", []string{one, one[:200]}, one, 0, 0},
		{"beside one of another role", []string{role, one}, one, 0, 0},
		{"two valid ones", []string{one, two}, "", 0, 2},
		{"none", nil, "", 0, 0},
		{"only others", []string{"v=spf1 -all"}, "", 0, 0},
		{"only bad ones", []string{forged, role, one[:200]}, "", 3, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r, by, err := Choose(owner, tt.texts, all)
			var none *NoneError
			switch {
			case tt.want != "":
				if err != nil || r.Text() != tt.want || by == nil {
					t.Errorf("Choose = %v, %v, %v", r, by, err)
				}
			case !errors.As(err, &none):
				t.Errorf("Choose = %v, %v; want a NoneError", r, err)
			case len(none.Refused) != tt.refused || len(none.Valid) != tt.valid || err.Error() == "":
				t.Errorf("Choose: %d refused, %d valid: %v", len(none.Refused), len(none.Valid), err)
			}
		})
	}
}

func TestCompareAndAdmit(t *testing.T) {
	t.Parallel()
	make := func(change func(*Record)) *Record {
		r := example()
		change(&r)
		return signed(t, r, 1)
	}
	have := make(func(*Record) {})
	numbers := &Record{Sequence: have.Sequence, Published: have.Published}
	for _, tt := range []struct {
		name string
		have *Record
		got  *Record
		want Order
	}{
		{"first", nil, have, Newer},
		{"the same", have, have, Same},
		{"next", have, make(func(r *Record) { r.Sequence++ }), Newer},
		{"next, published before", have, make(func(r *Record) { r.Sequence++; r.Published-- }), Newer},
		{"refreshed", have, make(func(r *Record) { r.Published++; r.Expires++ }), Newer},
		{"halted", have, make(func(r *Record) { r.Published++; r.Halted = true }), Newer},
		{"lower sequence, later", have, make(func(r *Record) { r.Sequence--; r.Published++ }), Replay},
		{"published earlier", have, make(func(r *Record) { r.Published-- }), Replay},
		{"other commit", have, make(func(r *Record) { r.Published++; r.Commit = strings.Repeat("a", 40) }), Equivocation},
		{"other digest, earlier", have, make(func(r *Record) { r.Published--; r.Digest[0]++ }), Equivocation},
		{"other expiry, same time", have, make(func(r *Record) { r.Expires++ }), Equivocation},
		{"halted, same time", have, make(func(r *Record) { r.Halted = true }), Equivocation},
		{"other key, same time", have, signed(t, example(), 2), Equivocation},
		{"as far as it may", have, make(func(r *Record) { r.Sequence += MaxJump }), Newer},
		{"too far", have, make(func(r *Record) { r.Sequence += MaxJump + 1 }), Jump},
		{"numbers only, the same", numbers, have, Same},
		{"numbers only, refreshed", numbers, make(func(r *Record) { r.Published++ }), Newer},
		{"numbers only, older", numbers, make(func(r *Record) { r.Published-- }), Replay},
	} {
		if got := Compare(tt.have, tt.got); got != tt.want {
			t.Errorf("%s: Compare = %v; want %v", tt.name, got, tt.want)
		}
		order, err := Admit(tt.have, 0, tt.got)
		var refused *OrderError
		if ok := tt.want == Newer || tt.want == Same; ok != (err == nil) || order != tt.want || !ok && !errors.As(err, &refused) {
			t.Errorf("%s: Admit = %v, %v", tt.name, order, err)
		}
	}
	var below *BelowError
	if _, err := Admit(nil, 1043, have); !errors.As(err, &below) {
		t.Errorf("Admit below the least: %v", err)
	}
	if _, err := Admit(nil, 1042, have); err != nil {
		t.Errorf("Admit at the least: %v", err)
	}
}

func TestFresh(t *testing.T) {
	t.Parallel()
	r := signed(t, example(), 1)
	at := func(seconds int64) time.Time { return time.Unix(seconds, 0) }
	day := int64(24 * 3600)
	var expired *ExpiredError
	var future *FutureError
	for _, tt := range []struct {
		name  string
		clock Clock
		want  any
		floor int64 // that is kept after it
	}{
		{"inside, synchronised", Clock{Now: at(r.Published + 5), Synchronised: true}, nil, r.Published},
		{"inside, not synchronised", Clock{Now: at(r.Published + 5)}, nil, 0},
		{"at the last second", Clock{Now: at(r.Expires)}, nil, 0},
		{"expired", Clock{Now: at(r.Expires + 1)}, &expired, 0},
		{"expired by the floor", Clock{Now: at(r.Published), Floor: at(r.Expires + 1)}, &expired, r.Expires + 1},
		{"clock of 1970", Clock{Now: at(7)}, nil, 0},
		{"clock of 1970 called right", Clock{Now: at(7), Synchronised: true}, &future, 0},
		{"clock of 1970, good floor", Clock{Now: at(7), Floor: at(r.Published - 5)}, nil, r.Published - 5},
		{"a day early", Clock{Now: at(r.Published - day), Synchronised: true}, nil, r.Published},
		{"more than a day early", Clock{Now: at(r.Published - day - 1), Synchronised: true}, &future, 0},
		{"clock a year ahead", Clock{Now: at(r.Published + 365*day)}, &expired, 0},
		{"the floor never goes back", Clock{Now: at(r.Published + 9), Floor: at(r.Published + 5), Synchronised: true}, nil, r.Published + 5},
	} {
		err := r.Fresh(nil, tt.clock)
		if tt.want == nil && err != nil || tt.want != nil && !errors.As(err, tt.want) {
			t.Errorf("%s: Fresh = %v", tt.name, err)
		}
		want := time.Unix(tt.floor, 0)
		if tt.floor == 0 {
			want = tt.clock.Floor
		}
		if got := r.Floor(tt.clock); !got.Equal(want) {
			t.Errorf("%s: Floor = %v; want %v", tt.name, got, want)
		}
	}
	var dates *KeyDateError
	key := &trust.Signer{Key: signer(t, 1).PublicKey(), ValidBefore: at(r.Published)}
	if err := r.Fresh(key, Clock{Now: at(r.Published + 1)}); !errors.As(err, &dates) {
		t.Errorf("a key past its date: %v", err)
	}
	if err := r.Fresh(key, Clock{Now: at(r.Published)}); err != nil {
		t.Errorf("a key at its date: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	good := signed(f, example(), 1).Text()
	f.Add(good)
	f.Add(strings.Replace(good, "; k=", "; p=0; zz=1; k=", 1))
	f.Add("v=xnode1; s=1; s=1; sig=x")
	f.Add("v=spf1 -all")
	all := signers(f)
	f.Fuzz(func(t *testing.T, text string) {
		r, err := Parse(text)
		if err != nil {
			return
		}
		if r.Text() != text || len(text) > MaxSize || r.Sequence == 0 || r.Expires <= r.Published {
			t.Fatalf("taken, but against the rules: %q", text)
		}
		if again, err := Parse(r.Text()); err != nil || Compare(r, again) != Same {
			t.Fatalf("%q is not the same as itself: %v", text, err)
		}
		if by, err := r.Verify(owner, all); err == nil && text != good {
			t.Fatalf("%q counts as signed by %v", text, by)
		}
	})
}
