package sshsign

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
)

// fixed is a signer whose key is always the same.
func fixed(t testing.TB, seed byte) *Signer {
	t.Helper()
	s, err := fromPrivate(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize)), "the test")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func sign(t testing.TB, s *Signer, namespace string, message []byte) []byte {
	t.Helper()
	armored, err := s.Sign(t.Context(), namespace, message)
	if err != nil {
		t.Fatal(err)
	}
	return armored
}

func TestVerify(t *testing.T) {
	t.Parallel()
	s := fixed(t, 1)
	for _, message := range [][]byte{nil, []byte("x"), bytes.Repeat([]byte("long "), 1<<20)} {
		armored := sign(t, s, "xnode-manifest", message)
		for name, text := range map[string][]byte{
			"as it is": armored, "without the last line end": bytes.TrimSpace(armored),
			"with CR LF":              bytes.ReplaceAll(armored, []byte("\n"), []byte("\r\n")),
			"followed by empty lines": append(bytes.Clone(armored), "\n\n"...),
		} {
			if key, err := Verify("xnode-manifest", message, text); err != nil || key != s.PublicKey() {
				t.Errorf("Verify of %d bytes, signature %s = %v, %v; want %v", len(message), name, key, err, s.PublicKey())
			}
		}
	}
}

// TestEveryByteCounts: no byte of message or signature can be changed.
func TestEveryByteCounts(t *testing.T) {
	t.Parallel()
	s := fixed(t, 1)
	message := []byte("a message")
	blob, err := dearmor(sign(t, s, "git", message))
	if err != nil {
		t.Fatal(err)
	}
	for i := range message {
		changed := bytes.Clone(message)
		changed[i] ^= 1
		var bad *BadSignatureError
		if _, err := Verify("git", changed, armor(blob)); !errors.As(err, &bad) || bad.Key != s.PublicKey() {
			t.Errorf("byte %d of the message changed: %v; want a BadSignatureError", i, err)
		}
	}
	for i := range blob {
		for _, bit := range []byte{1, 0x80} {
			changed := bytes.Clone(blob)
			changed[i] ^= bit
			if key, err := Verify("git", message, armor(changed)); err == nil {
				t.Errorf("byte %d of the signature changed: accepted for %v", i, key)
			}
		}
	}
	for n := range blob {
		if key, err := Verify("git", message, armor(blob[:n])); err == nil {
			t.Errorf("signature cut to %d bytes: accepted for %v", n, key)
		}
	}
}

// envelope builds a signature from its fields, so that tests can lie.
func envelope(t *testing.T, s *Signer, change func(*fields)) []byte {
	t.Helper()
	f := fields{Magic: [6]byte([]byte("SSHSIG")), Version: 1, Namespace: "git", Hash: "sha512", Key: string(s.key.ssh().Marshal())}
	sum := sha512.Sum512([]byte("m"))
	raw, err := s.sign(t.Context(), append([]byte("SSHSIG"), ssh.Marshal(struct{ Namespace, Reserved, Hash, Sum string }{"git", "", "sha512", string(sum[:])})...))
	if err != nil {
		t.Fatal(err)
	}
	f.Signature = string(ssh.Marshal(raw))
	change(&f)
	return armor(ssh.Marshal(f))
}

type fields struct {
	Magic                                     [6]byte
	Version                                   uint32
	Key, Namespace, Reserved, Hash, Signature string
}

func TestVerifyRefuses(t *testing.T) {
	t.Parallel()
	s := fixed(t, 1)
	good := envelope(t, s, func(*fields) {})
	if _, err := Verify("git", []byte("m"), good); err != nil {
		t.Fatalf("the unchanged envelope: %v", err)
	}
	made := func(change func(*fields)) string { return string(envelope(t, s, change)) }
	for _, tt := range []struct {
		name, armored, want string
		as                  any
	}{
		{"empty", "", "want one block", new(*FormatError)},
		{"too long", strings.Repeat("x", MaxArmored+1), "allowed are 16384", new(*FormatError)},
		{"text before", "x\n" + string(good), "nothing else", new(*FormatError)},
		{"text behind", string(good) + "x\n", "nothing else", new(*FormatError)},
		{"two blocks", string(good) + string(good), "damaged", new(*FormatError)},
		{"a PEM header", strings.Replace(string(good), "\n", "\nA: b\n\n", 1), "damaged", new(*FormatError)},
		{"another block", "-----BEGIN SSH PRIVATE KEY-----\n-----END SSH PRIVATE KEY-----\n", "want one block", new(*FormatError)},
		{"no content", armorHead + "\n" + armorFoot, "not an SSH signature", new(*FormatError)},
		{"a space in the middle", strings.Replace(string(good), "U1NI", "U1 NI", 1), "damaged", new(*FormatError)},
		{"magic", made(func(f *fields) { f.Magic[0] = 's' }), "magic preamble", new(*FormatError)},
		{"version", made(func(f *fields) { f.Version = 2 }), "version", new(*FormatError)},
		{"namespace", made(func(f *fields) { f.Namespace = "file" }), `for the namespace "file", not "git"`, new(*NamespaceError)},
		{"no namespace", made(func(f *fields) { f.Namespace = "" }), `for the namespace ""`, new(*NamespaceError)},
		{"reserved", made(func(f *fields) { f.Reserved = "x" }), "more bytes", new(*FormatError)},
		{"hash sha256", made(func(f *fields) { f.Hash = "sha256" }), `only "sha512" is allowed`, new(*FormatError)},
		{"hash md5", made(func(f *fields) { f.Hash = "md5" }), "unsupported hash", new(*FormatError)},
		{"bytes behind the signature", made(func(f *fields) { f.Signature += "x" }), "more bytes", new(*FormatError)},
		{"short signature", made(func(f *fields) {
			f.Signature = string(ssh.Marshal(ssh.Signature{Format: KeyType, Blob: make([]byte, 63)}))
		}), "63 bytes does not fit", new(*FormatError)},
		{"signature of another type", made(func(f *fields) {
			f.Signature = string(ssh.Marshal(ssh.Signature{Format: "ssh-rsa", Blob: make([]byte, 64)}))
		}), `type "ssh-rsa"`, new(*FormatError)},
		{"another key", made(func(f *fields) { f.Key = string(fixed(t, 2).key.ssh().Marshal()) }), "does not fit", new(*BadSignatureError)},
		{"zero key", made(func(f *fields) { f.Key = string(PublicKey{}.ssh().Marshal()) }), "does not fit", new(*BadSignatureError)},
		{"bytes behind all", string(armor(append(ssh.Marshal(fields{}), 0))), "not an SSH signature", new(*FormatError)},
	} {
		key, err := Verify("git", []byte("m"), []byte(tt.armored))
		if err == nil || !errors.As(err, tt.as) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, %v; want %T with %q", tt.name, key, err, tt.as, tt.want)
		}
	}
}

func TestVerifyRefusesKeyTypes(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"rsa", "ecdsa"} {
		path := filepath.Join(t.TempDir(), "key")
		runTool(t, "", "ssh-keygen", "-q", "-t", kind, "-N", "", "-f", path)
		armored := runTool(t, "m", "ssh-keygen", "-Y", "sign", "-q", "-n", "git", "-f", path)
		var typ *KeyTypeError
		if _, err := Verify("git", []byte("m"), []byte(armored)); !errors.As(err, &typ) || !strings.Contains(err.Error(), `only "ssh-ed25519" is allowed`) {
			t.Errorf("signature by %s: %v; want a KeyTypeError", kind, err)
		}
	}
}

// TestRaw: the short form is Ed25519 over PROTOCOL.sshsig's signed data, which
// is written out here byte by byte.
func TestRaw(t *testing.T) {
	t.Parallel()
	s := fixed(t, 1)
	message := []byte("stable._xnode.fleet.example.org\nv=xnode1; s=1042")
	raw, err := s.SignRaw(t.Context(), "xnode-announce", message)
	if err != nil {
		t.Fatal(err)
	}
	var signed bytes.Buffer
	signed.WriteString("SSHSIG")
	sum := sha512.Sum512(message)
	for _, field := range []string{"xnode-announce", "", "sha512", string(sum[:])} {
		if err := binary.Write(&signed, binary.BigEndian, uint32(len(field))); err != nil {
			t.Fatal(err)
		}
		signed.WriteString(field)
	}
	key := s.PublicKey()
	if !ed25519.Verify(key[:], signed.Bytes(), raw) {
		t.Error("the signature is not over the signed data of PROTOCOL.sshsig")
	}
	if err := VerifyRaw(key, "xnode-announce", message, raw); err != nil {
		t.Error(err)
	}
	var bad *BadSignatureError
	if err := VerifyRaw(key, "xnode-manifest", message, raw); !errors.As(err, &bad) {
		t.Errorf("another namespace: %v; want a BadSignatureError", err)
	}
	if err := VerifyRaw(fixed(t, 2).PublicKey(), "xnode-announce", message, raw); !errors.As(err, &bad) {
		t.Errorf("another key: %v; want a BadSignatureError", err)
	}
	var format *FormatError
	if err := VerifyRaw(key, "xnode-announce", message, raw[:63]); !errors.As(err, &format) {
		t.Errorf("63 bytes: %v; want a FormatError", err)
	}
}

func TestSignRefusesNamespaces(t *testing.T) {
	t.Parallel()
	for _, namespace := range []string{"", "a b", "a\n", "ä", strings.Repeat("x", 65)} {
		if _, err := fixed(t, 1).Sign(t.Context(), namespace, nil); err == nil {
			t.Errorf("Sign for namespace %q succeeds", namespace)
		}
	}
}

func TestSignerShowsNoSecret(t *testing.T) {
	t.Parallel()
	s := fixed(t, 1)
	for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%s", "%d"} {
		if got := fmt.Sprintf(verb, s); got != s.String() {
			t.Errorf("%s of a signer = %q; want %q", verb, got, s.String())
		}
	}
	pair, err := GenerateKey("me")
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%+v %#v", pair, pair); strings.Contains(got, "PRIVATE") || !strings.Contains(got, "SHA256:") {
		t.Errorf("a key pair prints as %q", got)
	}
}

func TestParsePublicKey(t *testing.T) {
	t.Parallel()
	want := fixed(t, 1).PublicKey()
	for line, comment := range map[string]string{
		want.String():                                        "",
		want.String() + "\n":                                 "",
		"  " + want.String() + " me @ home \n":               "me @ home",
		strings.ReplaceAll(want.String(), " ", "\t") + "\tx": "x",
	} {
		if got, c, err := ParsePublicKey(line); err != nil || got != want || c != comment {
			t.Errorf("ParsePublicKey(%q) = %v, %q, %v; want %v, %q", line, got, c, err, want, comment)
		}
	}
	digits := strings.Fields(want.String())[1]
	long, err := base64.StdEncoding.DecodeString(digits)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"", "ssh-ed25519", "ssh-ed25519 AAAA", digits, want.String() + "\n" + want.String(), "ssh-ed25519 " + digits[:40], "ssh-ed25519 " + digits + "=",
		"ssh-ed25519 " + base64.StdEncoding.EncodeToString(append(long, 0)), "namespaces=\"git\" " + want.String(), "-----BEGIN OPENSSH PRIVATE KEY-----",
	} {
		if got, _, err := ParsePublicKey(line); err == nil || !strings.Contains(err.Error(), "no ssh public key") {
			t.Errorf("ParsePublicKey(%q) = %v, %v; want an error", line, got, err)
		}
	}
	var typ *KeyTypeError
	for _, kind := range []string{"ssh-rsa", "sk-ssh-ed25519@openssh.com", "ssh-ed25519-cert-v01@openssh.com", "ecdsa-sha2-nistp256"} {
		if _, _, err := ParsePublicKey(kind + " " + digits); !errors.As(err, &typ) {
			t.Errorf("a key of type %s: %v; want a KeyTypeError", kind, err)
		}
	}
}

func TestFingerprintAgreesWithOpenSSH(t *testing.T) {
	t.Parallel()
	key := fixed(t, 3).PublicKey()
	path := filepath.Join(t.TempDir(), "k.pub")
	if err := os.WriteFile(path, []byte(key.String()+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	out := strings.Fields(runTool(t, "", "ssh-keygen", "-l", "-f", path))
	if out[1] != key.Fingerprint() || !strings.HasPrefix(out[1], "SHA256:"+key.ID()) || len(key.ID()) != 8 {
		t.Errorf("fingerprint %s, id %s; ssh-keygen says %s", key.Fingerprint(), key.ID(), out[1])
	}
}

func FuzzVerify(f *testing.F) {
	s := fixed(f, 1)
	message := []byte("message")
	good := sign(f, s, "git", message)
	f.Add(good, message)
	f.Add([]byte(armorHead+armorFoot), message)
	blob, err := dearmor(good)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(blob, message)
	for i := 0; i < len(blob); i += 5 {
		changed := bytes.Clone(blob)
		changed[i] ^= 0x20
		f.Add(armor(changed), message)
	}
	f.Fuzz(func(t *testing.T, armored, m []byte) {
		for _, text := range [][]byte{armored, armor(armored)} { // the second gets past the armour
			key, err := Verify("git", m, text)
			if err != nil {
				continue
			}
			if key == s.PublicKey() && !bytes.Equal(m, message) {
				t.Fatalf("forged: %q for %q", text, m)
			}
			blob, err := dearmor(text)
			if err != nil {
				t.Fatal(err)
			}
			sig, err := sshsig.ParseSignature(blob)
			if err != nil || !bytes.Equal(sig.Marshal(), blob) {
				t.Fatalf("a second encoding of one signature: %q", text)
			}
		}
	})
}

func FuzzParsePublicKey(f *testing.F) {
	f.Add(fixed(f, 1).PublicKey().String() + " comment")
	f.Add("ssh-rsa AAAA")
	f.Add("ssh-ed25519\tAAAAC3NzaC1lZDI1NTE5AAAAIA==")
	f.Fuzz(func(t *testing.T, line string) {
		key, comment, err := ParsePublicKey(line)
		if err != nil {
			return
		}
		again, c, err := ParsePublicKey(key.String() + " " + comment)
		if err != nil || again != key || c != comment {
			t.Fatalf("%q reads as %v %q, written again as %v %q, %v", line, key, comment, again, c, err)
		}
	})
}
