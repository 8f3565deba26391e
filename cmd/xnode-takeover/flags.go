package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"

	"xnodeos.org/netboot/takeover"
)

const help = `Usage: xnodeos-takeover-... [--dry-run] [--json] [--yes] [--node-config DIR]
       [--payload-url URL]... [--append WORD]... [--syscall auto|file|load]

Replaces the Linux that runs on this machine by the system in this file, without
touching a disk: a power cycle brings the old system back. The new system keeps
the ssh host keys, hostname, machine id and network addresses of the old one, and
the keys that may log in as root (and as the user behind sudo).

  --dry-run          say whether it would work, change nothing
  --json             print the verdict as JSON
  --yes              do not ask
  --node-config DIR  files of a node config; they win over what is taken along
  --payload-url URL  folder to fetch the payload from; may be repeated
  --append WORD      word for the new kernel's command line; may be repeated
  --syscall CALL     load by kexec_file_load (file), by kexec_load (load), or by
                     the first of them that works (auto, the default)

Exit codes: 0 the verdict is good, or the machine is about to start the new
system; 1 refused or failed, nothing was changed; 2 wrong usage; 130 cancelled.
`

// words are the flags as they were given.
type words struct {
	dryRun, json, yes, help bool
	nodeConfig              string
	urls, append            list
	methods                 []takeover.Method
}

type list []string

func (l *list) String() string     { return strings.Join(*l, " ") }
func (l *list) Set(w string) error { *l = append(*l, w); return nil }

func parse(args []string) (words, error) {
	var w words
	fl := flag.NewFlagSet("xnodeos-takeover", flag.ContinueOnError)
	fl.SetOutput(io.Discard)
	fl.BoolVar(&w.dryRun, "dry-run", false, "")
	fl.BoolVar(&w.json, "json", false, "")
	fl.BoolVar(&w.yes, "yes", false, "")
	fl.StringVar(&w.nodeConfig, "node-config", "", "")
	fl.Var(&w.urls, "payload-url", "")
	fl.Var(&w.append, "append", "")
	call := fl.String("syscall", "auto", "")
	if err := fl.Parse(args); errors.Is(err, flag.ErrHelp) {
		w.help = true
		return w, nil
	} else if err != nil {
		return w, &usageError{err.Error()}
	}
	if fl.NArg() > 0 {
		return w, &usageError{fmt.Sprintf("unexpected argument %q", fl.Arg(0))}
	}
	switch *call {
	case "auto":
		w.methods = []takeover.Method{takeover.FileLoad, takeover.SegmentLoad}
	case "file":
		w.methods = []takeover.Method{takeover.FileLoad}
	case "load":
		w.methods = []takeover.Method{takeover.SegmentLoad}
	default:
		return w, &usageError{fmt.Sprintf("--syscall is %q; want auto, file or load", *call)}
	}
	return w, w.check()
}

func (w words) check() error {
	for _, text := range w.urls {
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.ContainsAny(text, " \t\r\n\"") {
			return &usageError{fmt.Sprintf("--payload-url is %q; want http://HOST/FOLDER or https://HOST/FOLDER", text)}
		}
	}
	if i := slices.IndexFunc(w.append, func(word string) bool { return word == "" || strings.ContainsAny(word, " \t\r\n\x00\"") }); i >= 0 {
		return &usageError{fmt.Sprintf("--append is %q; want one word without spaces and quotes", w.append[i])}
	}
	return nil
}
