package releasing

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"xnodeos.org/internal/announce"
)

// SettingsName is the operator's own file beside the keys. It is not in the
// repository: it names keys and folders of one machine.
const SettingsName = "publish.toml"

const maxSettings = 1 << 20

// Settings say with what and where one operator publishes. Paths are absolute
// once they are loaded.
type Settings struct {
	// Cache is the folder of the binary cache that a release fills.
	Cache string `toml:"cache"`
	// Remotes are pushed to, all of them; names or URLs of git.
	Remotes []string `toml:"remotes"`
	// Validity is how long a record counts, as in "168h"; at most 30 days.
	Validity string `toml:"validity"`
	Keys     Keys   `toml:"keys"`
	DNS      DNS    `toml:"dns"`
}

// Keys are files. A public key file means that the private half is in the
// ssh-agent.
type Keys struct {
	Announce string `toml:"announce"`
	Git      string `toml:"git"`
	Cache    string `toml:"cache"`
}

// DNS says how the record gets into DNS: by an update with a TSIG key, or by
// the HTTP API of PowerDNS. With neither, it goes to branch announce only.
type DNS struct {
	Server  string   `toml:"server"`  // primary name server, address:port
	Zone    string   `toml:"zone"`    // "" asks the server
	TSIG    string   `toml:"tsig"`    // file with one line: KEY-NAME BASE64 (hmac-sha256)
	API     string   `toml:"api"`     // URL of the PowerDNS web server
	APIKey  string   `toml:"api_key"` // file with its key
	TTL     string   `toml:"ttl"`     // as in "60s"
	Watch   []string `toml:"watch"`   // servers that must show the record; default: server
	Timeout string   `toml:"timeout"` // how long to wait for that, as in "2m"
}

// LoadSettings reads the file strictly: an unknown key is an error.
func LoadSettings(path string) (*Settings, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("settings %q are not there; xnodeos init writes them, or name another file with --settings: %w", path, err)
	}
	if err == nil && info.Size() > maxSettings {
		err = fmt.Errorf("more than %d bytes", maxSettings)
	}
	if err != nil {
		return nil, fmt.Errorf("read settings %q: %w", path, err)
	}
	s := &Settings{}
	meta, err := toml.DecodeFile(path, s)
	if err != nil {
		return nil, fmt.Errorf("read settings %q: %s", path, strings.TrimPrefix(err.Error(), "toml: "))
	}
	if extra := meta.Undecoded(); len(extra) > 0 {
		return nil, fmt.Errorf("read settings %q: there is no key %s; correct or remove it", path, extra[0])
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	for _, p := range []*string{&s.Cache, &s.Keys.Announce, &s.Keys.Git, &s.Keys.Cache, &s.DNS.TSIG, &s.DNS.APIKey} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("read settings %q: %w", path, err)
	}
	return s, nil
}

func (s *Settings) check() error {
	if v, err := s.validity(); err != nil || v < time.Hour || v > announce.MaxValidity {
		return fmt.Errorf("validity %q; want a time from 1h to %s, as in \"168h\"", s.Validity, announce.MaxValidity)
	}
	if _, err := s.DNS.ttl(); err != nil {
		return fmt.Errorf("dns.ttl %q; want whole seconds from 1s to 24h, as in \"60s\"", s.DNS.TTL)
	}
	if _, err := s.DNS.timeout(); err != nil {
		return fmt.Errorf("dns.timeout %q; want a time, as in \"2m\"", s.DNS.Timeout)
	}
	if s.DNS.Server != "" && s.DNS.API != "" {
		return errors.New("dns.server and dns.api are both set; choose one way")
	}
	if s.DNS.Server != "" && s.DNS.TSIG == "" {
		return errors.New("dns.server is set and dns.tsig is not; name the file with the TSIG key")
	}
	if s.DNS.API != "" && (s.DNS.APIKey == "" || s.DNS.Zone == "") {
		return errors.New("dns.api needs dns.api_key and dns.zone")
	}
	for _, r := range s.Remotes {
		if r == "" || strings.HasPrefix(r, "-") {
			return fmt.Errorf("remotes: %q is neither a name nor a URL", r)
		}
	}
	return nil
}

func (s *Settings) validity() (time.Duration, error) { return duration(s.Validity, 7*24*time.Hour) }
func (d DNS) timeout() (time.Duration, error)        { return duration(d.Timeout, 2*time.Minute) }

func (d DNS) ttl() (time.Duration, error) {
	ttl, err := duration(d.TTL, time.Minute)
	if err == nil && (ttl%time.Second != 0 || ttl < time.Second || ttl > 24*time.Hour) {
		err = errors.New("out of range")
	}
	return ttl, err
}

func duration(text string, byDefault time.Duration) (time.Duration, error) {
	if text == "" {
		return byDefault, nil
	}
	return time.ParseDuration(text)
}
