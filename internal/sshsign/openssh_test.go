package sshsign

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// runTool runs one of OpenSSH's programs and returns its standard output.
func runTool(t testing.TB, stdin, name string, args ...string) string {
	t.Helper()
	out, err := tryTool(t, stdin, nil, name, args...)
	if err != nil {
		t.Fatalf("%s %q: %v", name, args, err)
	}
	return out
}

func tryTool(t testing.TB, stdin string, env []string, name string, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is not installed (package openssh-client); run scripts/setup", name)
	}
	var stdout, stderr strings.Builder
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	cmd.Env = append(os.Environ(), append([]string{"SSH_AUTH_SOCK=", "SSH_ASKPASS_REQUIRE=never", "LC_ALL=C"}, env...)...)
	if err := cmd.Run(); err != nil {
		return stdout.String(), errors.New(err.Error() + ": " + stderr.String())
	}
	return stdout.String(), nil
}

// startAgent starts a real ssh-agent on a socket of its own.
func startAgent(t *testing.T) (socket string) {
	t.Helper()
	path, err := exec.LookPath("ssh-agent")
	if err != nil {
		t.Fatal("ssh-agent is not installed (package openssh-client); run scripts/setup")
	}
	dir, err := os.MkdirTemp("", "agent") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "s")
	ctx, stop := context.WithCancel(context.Background()) // t.Context ends before the clean-up
	cmd := exec.CommandContext(ctx, path, "-D", "-a", socket)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		_ = cmd.Wait() // killed by us
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
			return socket
		}
		if time.Now().After(deadline) {
			t.Fatalf("ssh-agent does not answer: %v", err)
		}
	}
}

func newKey(t *testing.T, args ...string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "key")
	args = append([]string{"-q", "-C", "test@example.org", "-f", path}, args...)
	runTool(t, "", "ssh-keygen", args...)
	return path
}

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t *testing.T, opt OpenOptions) *Signer {
	t.Helper()
	s, err := Open(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestAgreesWithOpenSSH: the same key gives the same bytes whichever program
// signs, and each program takes the other's.
func TestAgreesWithOpenSSH(t *testing.T) {
	t.Parallel()
	path := newKey(t, "-t", "ed25519", "-N", "")
	s := open(t, OpenOptions{Path: path})
	allowed := writeFile(t, "allowed_signers", `me@example.org namespaces="xnode-manifest,git" `+s.PublicKey().String()+"\n")
	for _, namespace := range []string{"xnode-manifest", "git"} {
		for _, message := range []string{"", "hello\n", strings.Repeat("0123456789abcdef", 100_000)} {
			ours := string(sign(t, s, namespace, []byte(message)))
			theirs := runTool(t, message, "ssh-keygen", "-Y", "sign", "-q", "-n", namespace, "-f", path)
			if diff := cmp.Diff(theirs, ours); diff != "" {
				t.Errorf("%s, %d bytes (-ssh-keygen +ours):\n%s", namespace, len(message), diff)
			}
			if key, err := Verify(namespace, []byte(message), []byte(theirs)); err != nil || key != s.PublicKey() {
				t.Errorf("Verify of ssh-keygen's signature = %v, %v", key, err)
			}
			sig := writeFile(t, "m.sig", ours)
			runTool(t, message, "ssh-keygen", "-Y", "check-novalidate", "-n", namespace, "-s", sig)
			runTool(t, message, "ssh-keygen", "-Y", "verify", "-n", namespace, "-f", allowed, "-I", "me@example.org", "-s", sig)
			if _, err := tryTool(t, message+"x", nil, "ssh-keygen", "-Y", "verify", "-n", namespace, "-f", allowed, "-I", "me@example.org", "-s", sig); err == nil {
				t.Error("ssh-keygen takes our signature for another message")
			}
		}
	}
}

func TestGenerateKeyIsOpenSSHs(t *testing.T) {
	t.Parallel()
	pair, err := GenerateKey("ops team")
	if err != nil {
		t.Fatal(err)
	}
	path := writeFile(t, "key", string(pair.PrivateFile()))
	if got := runTool(t, "", "ssh-keygen", "-y", "-f", path); got != string(pair.PublicFile) {
		t.Errorf("ssh-keygen -y = %q; want %q", got, pair.PublicFile)
	}
	if got := open(t, OpenOptions{Path: path}).PublicKey(); got != pair.PublicKey {
		t.Errorf("Open = %v; want %v", got, pair.PublicKey)
	}
	runTool(t, "m", "ssh-keygen", "-Y", "sign", "-q", "-n", "git", "-f", path)
	if _, err := GenerateKey("a\nb"); err == nil {
		t.Error("a comment of two lines is taken")
	}
}

func TestOpenWithAgent(t *testing.T) {
	t.Parallel()
	socket := startAgent(t)
	env := []string{"SSH_AUTH_SOCK=" + socket}
	private := newKey(t, "-t", "ed25519", "-N", "")
	want := open(t, OpenOptions{Path: private}).PublicKey()
	moved := private + ".moved"
	if err := os.Rename(private, moved); err != nil {
		t.Fatal(err)
	}
	var unavailable *UnavailableError
	for name, opt := range map[string]OpenOptions{
		"no agent":                  {Path: private + ".pub"},
		"the agent is empty":        {Path: private + ".pub", AgentSocket: socket},
		"the agent is gone":         {Path: private + ".pub", AgentSocket: socket + "x"},
		"named by the private name": {Path: private, AgentSocket: socket},
	} {
		if _, err := Open(t.Context(), opt); !errors.As(err, &unavailable) || unavailable.Key != want || !strings.Contains(err.Error(), "ssh-add") {
			t.Errorf("%s: %v; want an UnavailableError that names ssh-add", name, err)
		}
	}
	if _, err := tryTool(t, "", env, "ssh-add", "-q", moved); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{private, private + ".pub"} {
		s := open(t, OpenOptions{Path: path, AgentSocket: socket})
		armored := sign(t, s, "xnode-manifest", []byte("m"))
		if key, err := Verify("xnode-manifest", []byte("m"), armored); err != nil || key != want || !strings.Contains(s.String(), "from ssh-agent") {
			t.Errorf("signed by %v: %v, %v; want the agent's %v", s, key, err, want)
		}
		theirs, err := tryTool(t, "m", env, "ssh-keygen", "-Y", "sign", "-q", "-n", "xnode-manifest", "-f", private+".pub")
		if err != nil || theirs != string(armored) {
			t.Errorf("ssh-keygen with the agent: %q, %v; want %q", theirs, err, armored)
		}
	}
	s := open(t, OpenOptions{Path: private, AgentSocket: socket})
	if _, err := tryTool(t, "", env, "ssh-add", "-q", "-D"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Sign(t.Context(), "git", nil); err == nil {
		t.Error("the agent lost the key, and Sign succeeds")
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Sign(cancelled, "git", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Sign when cancelled = %v", err)
	}
}

// TestSilentAgent: an agent that never answers is left when the user is.
func TestSilentAgent(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(writeSocketDir(t), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	path := writeFile(t, "k.pub", fixed(t, 1).PublicKey().String())
	if _, err := Open(ctx, OpenOptions{Path: path, AgentSocket: socket}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Open = %v; want DeadlineExceeded", err)
	}
}

func writeSocketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestOpenWithPassphrase(t *testing.T) {
	t.Parallel()
	path := newKey(t, "-t", "ed25519", "-a", "1", "-N", "correct horse")
	asked := 0
	ask := func(answer string) func(string) ([]byte, error) {
		return func(p string) ([]byte, error) {
			if asked++; p != path {
				t.Errorf("asked for the passphrase of %q; want %q", p, path)
			}
			return []byte(answer), nil
		}
	}
	s := open(t, OpenOptions{Path: path, Passphrase: ask("correct horse")})
	if _, err := Verify("git", nil, sign(t, s, "git", nil)); err != nil || asked != 1 {
		t.Errorf("signed after %d questions: %v", asked, err)
	}
	for name, tt := range map[string]struct {
		ask  func(string) ([]byte, error)
		want string
	}{
		"wrong":   {ask("battery"), "wrong passphrase"},
		"nobody":  {nil, "no terminal to ask on; load it into an ssh-agent with ssh-add"},
		"refused": {func(string) ([]byte, error) { return nil, context.Canceled }, "context canceled"},
	} {
		if _, err := Open(t.Context(), OpenOptions{Path: path, Passphrase: tt.ask}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v; want %q", name, err, tt.want)
		}
	}

	// With the key in an agent nobody is asked.
	socket := startAgent(t)
	plain := writeFile(t, "copy", readFile(t, path))
	runTool(t, "", "ssh-keygen", "-q", "-p", "-P", "correct horse", "-N", "", "-f", plain)
	if _, err := tryTool(t, "", []string{"SSH_AUTH_SOCK=" + socket}, "ssh-add", "-q", plain); err != nil {
		t.Fatal(err)
	}
	if s := open(t, OpenOptions{Path: path, AgentSocket: socket}); !strings.Contains(s.String(), "from ssh-agent") {
		t.Errorf("opened %v; want the agent's key", s)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestOpenByPublicFile(t *testing.T) {
	t.Parallel()
	path := newKey(t, "-t", "ed25519", "-N", "")
	if s := open(t, OpenOptions{Path: path + ".pub"}); s.PublicKey().String()+" test@example.org\n" != readFile(t, path+".pub") {
		t.Errorf("opened %v", s)
	}
	other := newKey(t, "-t", "ed25519", "-N", "")
	if err := os.Rename(other+".pub", path+".pub"); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), OpenOptions{Path: path + ".pub"}); err == nil || !strings.Contains(err.Error(), "holds another key") {
		t.Errorf("a public key that is not beside its own: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "none")
	if _, err := Open(t.Context(), OpenOptions{Path: missing}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	var typ *KeyTypeError
	for _, args := range [][]string{{"-t", "ecdsa", "-N", ""}, {"-t", "rsa", "-N", ""}, {"-t", "ecdsa", "-a", "1", "-N", "secret"}} {
		path := newKey(t, args...)
		for _, p := range []string{path, path + ".pub"} {
			if _, err := Open(t.Context(), OpenOptions{Path: p}); !errors.As(err, &typ) || !strings.Contains(err.Error(), "xnodeos key new") {
				t.Errorf("%v %s: %v; want a KeyTypeError with the remedy", args, filepath.Base(p), err)
			}
		}
	}
	path := newKey(t, "-t", "ed25519", "-N", "")
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), OpenOptions{Path: path}); err == nil || !strings.Contains(err.Error(), "mode 0640") || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that the group can read: %v", err)
	}
	for name, text := range map[string]string{
		"empty":     "",
		"putty":     "PuTTY-User-Key-File-3: ssh-ed25519\n",
		"cut":       readFile(t, path)[:200],
		"a cert":    "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
		"very long": strings.Repeat("x", maxKeyFile+1),
	} {
		_, err := Open(t.Context(), OpenOptions{Path: writeFile(t, "key", text)})
		if err == nil || !strings.Contains(err.Error(), "no ") {
			t.Errorf("%s: %v; want an error", name, err)
		}
		if err != nil && len(text) > 100 && strings.Contains(err.Error(), text[60:100]) {
			t.Errorf("%s: the error shows the file: %v", name, err)
		}
	}
}
