package repo

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"
)

type kind int

const (
	kindHTTP kind = iota
	kindSSH
	kindFile
)

// remote is one parsed remote.
type remote struct {
	kind kind
	name string   // for people, without password
	url  *url.URL // http, https and ssh
	path string   // ssh: as the server gets it; file: absolute
}

// parseRemote reads one entry of the list of remotes.
func parseRemote(text string) (*remote, error) {
	rem, err := splitRemote(text)
	if err != nil {
		return nil, fmt.Errorf("remote %q: %w; want https://host/path, ssh://user@host/path, user@host:path, file:///path or an absolute path", redact(text), err)
	}
	return rem, nil
}

// redact keeps a password out of an error about a text that may be no URL.
func redact(text string) string {
	if u, err := url.Parse(text); err == nil {
		return u.Redacted()
	}
	if at := strings.LastIndexByte(text, '@'); at >= 0 {
		return "..." + text[at:]
	}
	return text
}

func splitRemote(text string) (*remote, error) {
	if strings.IndexFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) >= 0 {
		return nil, errors.New("a control character")
	}
	if strings.HasPrefix(text, "/") {
		return &remote{kind: kindFile, name: text, path: path.Clean(text)}, nil
	}
	if !strings.Contains(text, "://") {
		who, where, ok := strings.Cut(text, ":")
		if !ok || where == "" || strings.Contains(who, "/") {
			return nil, errors.New("neither a URL nor a path")
		}
		text = "ssh://" + who + "/" // git gives the path to the server as written
		rem, err := splitURL(text)
		if err == nil {
			rem.path, rem.name = where, who+":"+where
		}
		return rem, err
	}
	return splitURL(text)
}

func splitURL(text string) (*remote, error) {
	u, err := url.Parse(text)
	if err != nil {
		var inner *url.Error
		if errors.As(err, &inner) {
			err = inner.Err // its own text repeats the URL with the password
		}
		return nil, err
	}
	if u.RawQuery != "" || u.Fragment != "" || u.Opaque != "" {
		return nil, errors.New("a query or fragment")
	}
	rem := &remote{name: u.Redacted(), url: u, path: u.Path}
	switch u.Scheme {
	case "http", "https":
		u.Path = strings.TrimSuffix(u.Path, "/")
	case "ssh":
		rem.kind = kindSSH
		if _, has := u.User.Password(); has {
			return nil, errors.New("a password; ssh remotes use a key")
		}
		if u.User == nil {
			u.User = url.User("git")
		}
	case "file":
		if u.Host != "" && u.Host != "localhost" {
			return nil, errors.New("a host in a file URL")
		}
		rem.kind, rem.path = kindFile, path.Clean(u.Path)
		if !path.IsAbs(u.Path) {
			return nil, errors.New("no absolute path")
		}
		return rem, nil
	default:
		return nil, fmt.Errorf("scheme %q", u.Scheme)
	}
	if u.Hostname() == "" || u.Hostname()[0] == '-' {
		return nil, errors.New("no host")
	}
	if strings.HasPrefix(rem.path, "-") || strings.Trim(rem.path, "/") == "" && rem.kind == kindSSH && u.Path != "/" {
		return nil, errors.New("no path")
	}
	return rem, nil
}
