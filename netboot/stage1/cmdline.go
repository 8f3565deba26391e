package stage1

import (
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"xnodeos.org/internal/nodeconfig"
	"xnodeos.org/netboot/stage1/fetch"
)

// Word is one word of the kernel command line. HasValue tells "a=" from "a".
type Word struct {
	Key, Value string
	HasValue   bool
}

// String returns the word without quotes, as dracut's words are written.
func (w Word) String() string {
	if !w.HasValue {
		return w.Key
	}
	return w.Key + "=" + w.Value
}

// ParseCmdline splits a command line by the rules of the kernel's next_arg
// (lib/cmdline.c): white space separates unless a double quote is open, one pair
// of quotes around a whole word or a whole value is removed, all other quotes
// stay. What follows a lone "--" belongs to init and is left out.
func ParseCmdline(line string) []Word {
	var words []Word
	for {
		// Byte by byte: strings.TrimLeft takes \xa0 for any broken UTF-8.
		for line != "" && strings.IndexByte(kernelSpace, line[0]) >= 0 {
			line = line[1:]
		}
		if line == "" {
			return words
		}
		var raw string
		raw, line = nextWord(line)
		if raw == "--" {
			return words
		}
		words = append(words, splitWord(raw))
	}
}

// kernelSpace is what the kernel's isspace calls white space; NUL ends the line
// there and cannot come in through /proc/cmdline.
const kernelSpace = " \t\n\v\f\r\xa0"

func nextWord(line string) (word, rest string) {
	quoted := false
	for i := 0; i < len(line); i++ {
		switch {
		case line[i] == '"':
			quoted = !quoted
		case !quoted && strings.IndexByte(kernelSpace, line[i]) >= 0:
			return line[:i], line[i:]
		}
	}
	return line, ""
}

func splitWord(raw string) Word {
	whole := strings.HasPrefix(raw, `"`)
	raw = strings.TrimPrefix(raw, `"`)
	// The kernel looks for the first "=" after the first byte: a word that
	// begins with "=" is a key.
	eq := -1
	if len(raw) > 1 {
		if i := strings.IndexByte(raw[1:], '='); i >= 0 {
			eq = i + 1
		}
	}
	if eq < 0 {
		if whole {
			raw = strings.TrimSuffix(raw, `"`)
		}
		return Word{Key: raw}
	}
	key, value := raw[:eq], raw[eq+1:]
	if whole || strings.HasPrefix(value, `"`) {
		value = strings.TrimSuffix(strings.TrimPrefix(value, `"`), `"`)
	}
	return Word{Key: key, Value: value, HasValue: true}
}

// Secret is a word that must not reach a console, a log or a journal.
type Secret string

// String hides the secret from fmt.
func (Secret) String() string { return "redacted" }

// GoString hides the secret from %#v.
func (Secret) GoString() string { return "redacted" }

// LogValue hides the secret from slog.
func (Secret) LogValue() slog.Value { return slog.StringValue("redacted") }

// Upstream is what Xnode's own provisioning puts on the command line.
type Upstream struct {
	UUID         string
	AccessToken  Secret
	ConfigRemote string
}

// Options is what the command line asks of the first stage.
type Options struct {
	// Manifest is the value of xnode.manifest=, unchecked; "" if it is missing.
	Manifest string
	// Panic is how long a failure stays on the console before the reboot.
	Panic time.Duration
	// Debug asks for more lines, and for a dump of the state instead of a reboot.
	Debug bool
	// Whole asks for all of the payload to be checked before it is used, even
	// where the kernel could check each block as it is read.
	Whole bool
	// State is the disk of XNODE-STATE; zero if the line names none.
	State nodeconfig.StateDisk
	// Payload are the mirrors of xnode.payload=, in their order.
	Payload []fetch.Mirror
	// Network holds dracut's words as they were written: ip=, nameserver=, ...
	Network  []string
	Upstream Upstream
}

// DefaultPanic is the time between a failure and the reboot where xnode.panic=
// does not say otherwise.
const DefaultPanic = 30 * time.Second

// maxPanic bounds xnode.panic=: a failed first stage never waits for ever.
const maxPanic = 24 * time.Hour

// ParseOptions picks the words of the first stage out of the command line. A
// word that is wrong or not understood does not stop a boot: it comes back as a
// note for the console.
func ParseOptions(words []Word) (Options, []string) {
	o := Options{Panic: DefaultPanic}
	var notes, payload []string
	for _, w := range words {
		if w.Key == "xnode.payload" {
			payload = append(payload, w.Value)
			continue
		}
		if note := o.take(w); note != "" {
			notes = append(notes, note)
		}
	}
	mirrors, more := parsePayloadWords(payload)
	o.Payload = mirrors
	return o, append(notes, more...)
}

func (o *Options) take(w Word) string {
	if nodeconfig.IsNetworkWord(w.String()) {
		o.Network = append(o.Network, w.String())
		return ""
	}
	switch w.Key {
	case "xnode.manifest":
		o.Manifest = w.Value
	case "xnode.panic":
		seconds, err := strconv.ParseUint(w.Value, 10, 32)
		if err != nil || time.Duration(seconds)*time.Second > maxPanic {
			return fmt.Sprintf("xnode.panic=%q ignored: allowed are 0 to %d seconds", w.Value, maxPanic/time.Second)
		}
		o.Panic = time.Duration(seconds) * time.Second
	case "xnode.debug":
		o.Debug = !w.HasValue || w.Value != "0"
	case "xnode.verify":
		if w.Value != "whole" && w.Value != "blocks" {
			return fmt.Sprintf("xnode.verify=%q ignored: allowed are whole and blocks", w.Value)
		}
		o.Whole = w.Value == "whole"
	case "xnode.state":
		disk, err := nodeconfig.ParseState(w.Value)
		if err != nil {
			return fmt.Sprintf("xnode.state= ignored: %v", err)
		}
		o.State = disk
	case "xnode.record", "xnode.install":
		return fmt.Sprintf("%s= ignored: this first stage does not know it yet", w.Key)
	case "XNODE_UUID":
		o.Upstream.UUID = w.Value
	case "XNODE_ACCESS_TOKEN":
		o.Upstream.AccessToken = Secret(w.Value)
	case "XNODE_CONFIG_REMOTE":
		o.Upstream.ConfigRemote = w.Value
	default:
		if strings.HasPrefix(w.Key, "xnode.") {
			return fmt.Sprintf("%q ignored: no such word", w.Key)
		}
	}
	return ""
}
