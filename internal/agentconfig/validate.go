package agentconfig

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"
)

var (
	labelPattern = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?$`)
	classPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
)

// check judges every value, in the order of the file.
func (c Config) check() []*Error {
	var wrong []*Error
	add := func(key string, err error) {
		if err != nil {
			wrong = append(wrong, &Error{Key: key, Err: err})
		}
	}
	add("name", checkName(c.Name))
	if c.Class != "" && !classPattern.MatchString(c.Class) {
		add("class", fmt.Errorf("%q is no class; one word of letters, digits, dots, dashes and underscores, at most 64", c.Class))
	}
	for _, r := range c.DNS.Resolvers {
		add("dns.resolvers", checkResolver(r))
	}
	add("dns.floor", within(c.DNS.Floor, time.Second, 24*time.Hour))
	add("dns.backoff", within(c.DNS.Backoff, time.Duration(c.DNS.Floor), 24*time.Hour))
	for _, r := range c.Git.Remotes {
		add("git.remotes", checkURL(r, "https", "http", "ssh", "file"))
	}
	add("git.ssh_key", checkPath(c.Git.SSHKey))
	add("git.known_hosts", checkPath(c.Git.KnownHosts))
	add("git.interval", within(c.Git.Interval, 10*time.Second, 7*24*time.Hour))
	add("git.timeout", within(c.Git.Timeout, time.Second, 24*time.Hour))
	add("git.max_bytes", between(c.Git.MaxBytes, 1<<16, 1<<40))
	add("git.max_objects", between(int64(c.Git.MaxObjects), 16, 1<<30))
	for _, u := range c.Cache.URLs {
		add("cache.urls", checkURL(u, "https", "http", "file"))
	}
	add("cache.parallel", between(int64(c.Cache.Parallel), 1, 64))
	add("activate.switch_timeout", within(c.Activate.SwitchTimeout, 5*time.Second, 24*time.Hour))
	add("activate.probe_timeout", within(c.Activate.ProbeTimeout, time.Second, 24*time.Hour))
	add("activate.settle", within(c.Activate.Settle, 0, time.Duration(c.Activate.ProbeTimeout)))
	add("activate.stable_uptime", within(c.Activate.StableUptime, 0, 24*time.Hour))
	add("status.listen", checkListen(c.Status.Listen))
	return wrong
}

// checkName takes a DNS name (RFC 1035, 2.3.4) of at least two labels.
func checkName(name string) error {
	if name == "" {
		return nil
	}
	labels := strings.Split(strings.TrimSuffix(name, "."), ".")
	if len(labels) < 2 || len(name) > 253 || slices.ContainsFunc(labels, func(l string) bool { return !labelPattern.MatchString(l) }) {
		return fmt.Errorf("%q is no DNS name; write the record's whole name, as in \"stable._xnode.fleet.example.org\"", name)
	}
	return nil
}

func checkResolver(text string) error {
	if _, err := netip.ParseAddr(text); err == nil {
		return nil
	}
	if p, err := netip.ParseAddrPort(text); err == nil && p.Port() != 0 {
		return nil
	}
	return fmt.Errorf("%q is no resolver; write an address, \"192.0.2.1\", \"192.0.2.1:5353\" or \"[2001:db8::1]:53\"", text)
}

func checkURL(text string, schemes ...string) error {
	u, err := url.Parse(text)
	if err != nil || !slices.Contains(schemes, u.Scheme) || (u.Scheme != "file" && u.Host == "") || (u.Scheme == "file" && !path.IsAbs(u.Path)) {
		return fmt.Errorf("%q cannot be used; write a URL with one of %s://", text, strings.Join(schemes, "://, "))
	}
	// A forge's token may stand for the name. ssh has its secret in a key.
	if _, secret := u.User.Password(); secret || u.User != nil && u.Scheme != "ssh" {
		return errors.New("a name, token or password in a URL ends in logs; use an ssh key instead")
	}
	return nil
}

func checkPath(text string) error {
	if text != "" && !path.IsAbs(text) {
		return fmt.Errorf("%q is no absolute path", text)
	}
	return nil
}

// checkListen allows loopback only: the page tells everything about the node.
func checkListen(text string) error {
	if text == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil || port == "" {
		return fmt.Errorf("%q is no address with a port; write \"127.0.0.1:9780\"", text)
	}
	if addr, err := netip.ParseAddr(host); err != nil || !addr.IsLoopback() {
		return fmt.Errorf("%q is not on loopback; the page is for this machine alone, reach it through ssh -L", text)
	}
	return nil
}

func within(d Duration, low, high time.Duration) error {
	if v := time.Duration(d); v < low || v > high {
		return fmt.Errorf("%v is out of range; at least %v, at most %v", v, low, high)
	}
	return nil
}

func between(v, low, high int64) error {
	if v < low || v > high {
		return fmt.Errorf("%d is out of range; at least %d, at most %d", v, low, high)
	}
	return nil
}

// Keys returns every key of the file, dotted, in its order.
func Keys() []string { return keysOf(reflect.TypeFor[Config](), "") }

func keysOf(t reflect.Type, prefix string) []string {
	var keys []string
	for i := range t.NumField() {
		f := t.Field(i)
		name := prefix + f.Tag.Get("toml")
		if f.Type.Kind() == reflect.Struct {
			keys = append(keys, keysOf(f.Type, name+".")...)
			continue
		}
		keys = append(keys, name)
	}
	return keys
}

func knownTable(name string) bool {
	return slices.ContainsFunc(Keys(), func(k string) bool { return strings.HasPrefix(k, name+".") })
}

// suggestion names what may have been meant: the same word elsewhere, or all
// keys of the table.
func suggestion(key string) string {
	last := key[strings.LastIndex(key, ".")+1:]
	table := strings.TrimSuffix(key, last)
	var same, siblings []string
	for _, k := range Keys() {
		if k == last || strings.HasSuffix(k, "."+last) {
			same = append(same, k)
		}
		if strings.HasPrefix(k, table) && !strings.Contains(strings.TrimPrefix(k, table), ".") {
			siblings = append(siblings, k)
		}
	}
	switch {
	case len(same) > 0:
		return "; there is " + strings.Join(same, ", ")
	case table != "" && len(siblings) > 0:
		return "; there are " + strings.Join(siblings, ", ")
	}
	return "; `xnode config` shows all"
}
