// Package pdns starts the real PowerDNS authoritative server with one zone, on
// a port of the loopback and with a folder of its own: for tests, measurements
// and trials. The programs are those that scripts/setup unpacked; nothing of the
// machine's own name server, if it has one, is touched.
package pdns

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"xnodeos.org/internal/command"
	"xnodeos.org/internal/dnsupdate"
	"xnodeos.org/internal/testkit"
)

// Options describe a server. The zero value is one for fleet.example.org.
type Options struct {
	// Zone is the zone's name; "" means "fleet.example.org".
	Zone string
	// Records are further lines of the zone: whole names without a dot at the
	// end, as in {"a.example.org", "TXT", `"text"`, 60}.
	Records []Record
	// Root is the folder in which the packages are unpacked; "" means the one
	// of scripts/setup in the project that holds the working folder.
	Root string
	// Settings are further lines of pdns.conf.
	Settings []string
	// Log gets each line that the server prints; nil for none.
	Log func(line string)
}

// Record is one record as the database holds it.
type Record struct {
	Name, Type, Content string
	TTL                 int // seconds
}

// Server is a running server.
type Server struct {
	Addr string // "127.0.0.1:port", UDP and TCP
	API  string // URL of the HTTP API
	Zone string // without a dot at the end

	// The TSIG key that may update the zone, hmac-sha256, and the API's key.
	KeyName string
	Key     dnsupdate.Secret
	APIKey  dnsupdate.Secret

	dir     string
	process *command.Process
	stop    context.CancelFunc
}

// attempts at finding ports that stay free until the server has them.
const attempts = 5

// Start starts a server and returns when it answers. It lives until Close or
// the end of ctx.
func Start(ctx context.Context, opt Options) (*Server, error) {
	if opt.Zone == "" {
		opt.Zone = "fleet.example.org"
	}
	if opt.Root == "" {
		root, err := testkit.Root(".")
		if err != nil {
			return nil, fmt.Errorf("start PowerDNS: %w", err)
		}
		opt.Root = filepath.Join(root, "build", "libexec", "pdns")
	}
	if _, err := os.Stat(filepath.Join(opt.Root, "usr/sbin/pdns_server")); err != nil {
		return nil, fmt.Errorf("start PowerDNS: it is not in %s; run scripts/setup", opt.Root)
	}
	var errs []error
	for range attempts {
		s, err := start(ctx, opt)
		if err == nil {
			return s, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil || !strings.Contains(err.Error(), "Address already in use") {
			break
		}
	}
	return nil, fmt.Errorf("start PowerDNS: %w", errors.Join(errs...))
}

// Run starts a server for one test.
func Run(t testing.TB, opt Options) *Server {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background()) // t.Context ends before the clean-up
	s, err := Start(ctx, opt)
	if err != nil {
		stop()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		stop()
	})
	return s
}

// Pause stops the server where it is: it answers nobody until Continue, as one
// that cannot be reached.
func (s *Server) Pause() error { return s.signal(syscall.SIGSTOP) }

// Continue ends a Pause.
func (s *Server) Continue() error { return s.signal(syscall.SIGCONT) }

func (s *Server) signal(what syscall.Signal) error {
	if err := syscall.Kill(s.process.PID(), what); err != nil {
		return fmt.Errorf("send %v to PowerDNS: %w", what, err)
	}
	return nil
}

// Close ends the server and removes its folder.
func (s *Server) Close() error {
	s.stop()
	err := s.process.Wait()
	if errors.Is(err, context.Canceled) {
		err = nil // by us
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

// Update returns what publishes in the zone by RFC 2136.
func (s *Server) Update() *dnsupdate.Update {
	return &dnsupdate.Update{Server: s.Addr, Zone: s.Zone, KeyName: s.KeyName, Key: s.Key, Now: time.Now}
}

// PowerDNS returns what publishes by the HTTP API.
func (s *Server) PowerDNS() *dnsupdate.API {
	return &dnsupdate.API{URL: s.API, Key: s.APIKey, Zone: s.Zone}
}

func start(ctx context.Context, opt Options) (s *Server, err error) {
	dir, err := os.MkdirTemp("", "pdns")
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	defer func() {
		if err != nil {
			stop()
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	web, err := freePort()
	if err != nil {
		return nil, err
	}
	s = &Server{
		Addr: fmt.Sprintf("127.0.0.1:%d", port), API: fmt.Sprintf("http://127.0.0.1:%d", web), Zone: opt.Zone,
		KeyName: "xnode-update", Key: dnsupdate.Secret(secret()), APIKey: dnsupdate.Secret(secret()), dir: dir, stop: stop,
	}
	if err := s.database(ctx, opt); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "pdns.conf"), []byte(s.config(opt, port, web)), 0o600); err != nil {
		return nil, err
	}
	s.process, err = launch(ctx, command.Cmd{
		Name: filepath.Join(opt.Root, "usr/sbin/pdns_server"), Args: []string{"--config-dir=" + dir},
		AddEnv: libraries(opt.Root), StdoutLine: opt.Log, StderrLine: opt.Log, Grace: 5 * time.Second, DieWithUs: true,
	})
	if err != nil {
		return nil, err
	}
	if err := s.ready(ctx); err != nil {
		stop()
		return nil, errors.Join(err, s.process.Wait())
	}
	return s, nil
}

// launch starts a program that dies with us, also where a test is killed: for
// that the thread that started it has to live as long as it does.
func launch(ctx context.Context, c command.Cmd) (*command.Process, error) {
	type started struct {
		process *command.Process
		err     error
	}
	result := make(chan started, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		p, err := command.Start(ctx, c)
		result <- started{p, err}
		if err == nil {
			_ = p.Wait() // Close returns the same error
		}
	}()
	r := <-result
	return r.process, r.err
}

func secret() string {
	raw := make([]byte, 32)
	rand.Read(raw) // documented never to fail
	return base64.StdEncoding.EncodeToString(raw)
}

func libraries(root string) []string {
	return []string{"LD_LIBRARY_PATH=" + filepath.Join(root, "usr/lib/x86_64-linux-gnu") + ":" + filepath.Join(root, "lib/x86_64-linux-gnu"), "LC_ALL=C"}
}

// freePort finds a port that is free for UDP and TCP. Another program may take
// it before the server does; then Start tries another one.
func freePort() (int, error) {
	var err error
	for range 50 {
		var l net.Listener
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return 0, err
		}
		port := l.Addr().(*net.TCPAddr).Port
		var u net.PacketConn
		u, err = net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", port))
		l.Close()
		if err == nil {
			u.Close()
			return port, nil
		}
	}
	return 0, fmt.Errorf("find a free port: %w", err)
}

func (s *Server) config(opt Options, port, web int) string {
	lines := []string{
		"launch=gsqlite3",
		"gsqlite3-database=" + filepath.Join(s.dir, "pdns.db"),
		"gsqlite3-pragma-synchronous=0",
		"module-dir=" + filepath.Join(opt.Root, "usr/lib/x86_64-linux-gnu/pdns"),
		"socket-dir=" + s.dir,
		"local-address=127.0.0.1",
		fmt.Sprintf("local-port=%d", port),
		"daemon=no", "guardian=no", "security-poll-suffix=",
		"dnsupdate=yes", "allow-dnsupdate-from=127.0.0.0/8",
		"webserver=yes", "webserver-address=127.0.0.1", "webserver-allow-from=127.0.0.0/8",
		fmt.Sprintf("webserver-port=%d", web),
		"api=yes", "api-key=" + string(s.APIKey),
	}
	return strings.Join(append(lines, opt.Settings...), "\n") + "\n"
}

// database makes the zone with the schema of the package.
func (s *Server) database(ctx context.Context, opt Options) error {
	schema, err := os.ReadFile(filepath.Join(opt.Root, "usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql"))
	if err != nil {
		return fmt.Errorf("%w; run scripts/setup --refresh", err)
	}
	var sql strings.Builder
	sql.Write(schema)
	zone := quote(opt.Zone)
	fmt.Fprintf(&sql, "\nPRAGMA journal_mode=WAL;\nINSERT INTO domains (id, name, type) VALUES (1, %s, 'NATIVE');\n", zone)
	fmt.Fprintf(&sql, "INSERT INTO tsigkeys (name, algorithm, secret) VALUES (%s, 'hmac-sha256', %s);\n", quote(s.KeyName), quote(string(s.Key)))
	fmt.Fprintf(&sql, "INSERT INTO domainmetadata (domain_id, kind, content) VALUES (1, 'TSIG-ALLOW-DNSUPDATE', %s);\n", quote(s.KeyName))
	records := append([]Record{
		{opt.Zone, "SOA", "ns." + opt.Zone + " hostmaster." + opt.Zone + " 1 3600 600 86400 5", 60},
		{opt.Zone, "NS", "ns." + opt.Zone, 60},
		{"ns." + opt.Zone, "A", "127.0.0.1", 60},
	}, opt.Records...)
	for _, r := range records {
		fmt.Fprintf(&sql, "INSERT INTO records (domain_id, name, type, content, ttl, auth) VALUES (1, %s, %s, %s, %d, 1);\n",
			quote(r.Name), quote(r.Type), quote(r.Content), r.TTL)
	}
	return command.Run(ctx, command.Cmd{
		Name: filepath.Join(opt.Root, "usr/bin/sqlite3"), Args: []string{"-bail", filepath.Join(s.dir, "pdns.db")},
		AddEnv: libraries(opt.Root), Stdin: strings.NewReader(sql.String()),
	})
}

func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

// ready waits for DNS and API.
func (s *Server) ready(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- s.process.Wait() }()
	for {
		err := s.answers(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ended:
			return errors.New("it ended at once")
		case <-ctx.Done():
			return fmt.Errorf("it does not answer: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *Server) answers(ctx context.Context) error {
	reply, _, err := (&dns.Client{Timeout: time.Second}).ExchangeContext(ctx, new(dns.Msg).SetQuestion(dns.Fqdn(s.Zone), dns.TypeSOA), s.Addr)
	if err != nil {
		return err
	}
	if reply.Rcode != dns.RcodeSuccess || len(reply.Answer) == 0 {
		return fmt.Errorf("its zone answers %s", dns.RcodeToString[reply.Rcode])
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.API+"/api/v1/servers/localhost", nil)
	if err != nil {
		return err
	}
	request.Header.Set("X-API-Key", string(s.APIKey))
	got, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	got.Body.Close()
	if got.StatusCode != http.StatusOK {
		return fmt.Errorf("its API answers %s", got.Status)
	}
	return nil
}
