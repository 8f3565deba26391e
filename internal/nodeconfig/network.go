package nodeconfig

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Word is one network word: of the file "network" or of the kernel command
// line. Exactly one of IP and Nameserver is set.
type Word struct {
	Text       string
	IP         *Interface
	Nameserver netip.Addr
}

// ErrNotSupported is in the chain of errors about words that are understood
// but that this release cannot carry out.
var ErrNotSupported = errors.New("not yet supported by this release")

// IsNetworkWord says whether a word of the kernel command line is about the
// network: if one is, the file "network" does not count.
func IsNetworkWord(text string) bool {
	key, _, ok := strings.Cut(text, "=")
	switch key {
	case "ip", "nameserver", "vlan", "bond":
		return ok
	}
	return false
}

// ParseWord parses one network word.
func ParseWord(text string) (Word, error) {
	key, value, ok := strings.Cut(text, "=")
	if !ok {
		key = ""
	}
	switch key {
	case "ip":
		ip, err := ParseIP(text)
		if err != nil {
			return Word{}, err
		}
		return Word{Text: text, IP: &ip}, nil
	case "nameserver":
		addr, err := parseAddr(value)
		if err != nil {
			return Word{}, fmt.Errorf("network word %q: %w", text, err)
		}
		return Word{Text: text, Nameserver: addr}, nil
	case "vlan", "bond":
		return Word{}, fmt.Errorf("network word %q: %s= is %w", text, key, ErrNotSupported)
	}
	return Word{}, fmt.Errorf("network word %q; want ip= or nameserver= as in dracut.cmdline(7)", text)
}

// Supported returns nil if this release can carry out the word, else an error
// with ErrNotSupported in its chain.
func (w Word) Supported() error {
	if w.IP != nil && w.IP.Method != MethodStatic && w.IP.Method != MethodDHCP {
		return fmt.Errorf("network word %q: method %s is %w; use dhcp or a static address", w.Text, w.IP.Method, ErrNotSupported)
	}
	return nil
}

// Network returns the words of the file "network", in order; none if there is
// no such file.
func (c *Config) Network() ([]Word, error) {
	if c == nil || c.Files["network"] == nil {
		return nil, nil
	}
	words, err := parseNetwork(c.Files["network"])
	if err != nil {
		return nil, fmt.Errorf("node config: %q: %w", "network", err)
	}
	return words, nil
}

func parseNetwork(data []byte) ([]Word, error) {
	var words []Word
	err := eachLine(data, 0, func(line string) error {
		if strings.HasPrefix(line, "#") {
			return nil
		}
		if strings.ContainsAny(line, " \t") {
			return fmt.Errorf("%q has spaces; want one word a line", line)
		}
		w, err := ParseWord(line)
		if err == nil {
			err = w.Supported()
		}
		words = append(words, w)
		return err
	})
	if err != nil {
		return nil, err
	}
	return words, nil
}
