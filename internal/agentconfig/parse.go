package agentconfig

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/BurntSushi/toml"
)

// Source is one agent.toml: its name for messages and its bytes.
type Source struct {
	Name string
	Data []byte
}

// An Error is one wrong place in a file.
type Error struct {
	File string // as in Source.Name; empty for a value that no file named
	Line int    // from 1; 0 if unknown
	Key  string // dotted, as in "dns.floor"; empty if the file is no TOML
	Err  error
}

func (e *Error) Error() string {
	where := e.File
	if e.Line > 0 {
		where = fmt.Sprintf("%s:%d", e.File, e.Line)
	}
	for _, part := range []string{e.Key, e.Err.Error()} {
		if part != "" && where != "" {
			where += ": "
		}
		where += part
	}
	return where
}

func (e *Error) Unwrap() error { return e.Err }

// Parse reads agent.toml from several sources over the defaults; of two that
// have the same key the later one wins. All that is wrong is reported at once,
// each as an *Error in the chain.
func Parse(sources ...Source) (Config, error) {
	c := Default()
	where := map[string]place{}
	var wrong []error
	for _, s := range sources {
		wrong = append(wrong, decode(&c, s, where)...)
	}
	if len(wrong) == 0 {
		for _, e := range c.check() {
			p := where[e.Key]
			e.File, e.Line = p.file, p.line
			wrong = append(wrong, e)
		}
	}
	return c, errors.Join(wrong...)
}

// Validate checks the values of a config that was made by hand.
func (c Config) Validate() error {
	var wrong []error
	for _, e := range c.check() {
		wrong = append(wrong, e)
	}
	return errors.Join(wrong...)
}

// place is where a key was set last.
type place struct {
	file string
	line int
}

// decode lays one file over c and notes where each key was set.
func decode(c *Config, s Source, where map[string]place) []error {
	if len(s.Data) > MaxSize {
		return []error{&Error{File: s.Name, Err: fmt.Errorf("%d bytes; an agent.toml has at most %d", len(s.Data), MaxSize)}}
	}
	lines := keyLines(s.Data)
	meta, err := toml.NewDecoder(bytes.NewReader(s.Data)).Decode(c)
	if err != nil {
		return []error{decodeError(s, err, lines)}
	}
	for _, key := range meta.Keys() {
		where[key.String()] = place{s.Name, lines[key.String()]}
	}
	var wrong []error
	for _, key := range meta.Undecoded() {
		name := key.String()
		if len(key) > 1 && !knownTable(key[0]) && meta.IsDefined(key[0]) {
			continue // its table is named already
		}
		wrong = append(wrong, &Error{File: s.Name, Line: lines[name], Key: name, Err: errors.New("there is no such key" + suggestion(name))})
	}
	return wrong
}

// decodeError gives the TOML library's error its place.
func decodeError(s Source, err error, lines map[string]int) error {
	var parse toml.ParseError
	if errors.As(err, &parse) {
		key := parse.LastKey
		line := parse.Position.Line
		if l := lines[key]; l > 0 && parse.Position.Line == 0 {
			line = l
		}
		message := parse.Message
		if message == "" {
			message = strings.TrimPrefix(parse.Error(), "toml: ")
		}
		return &Error{File: s.Name, Line: line, Key: key, Err: errors.New(message)}
	}
	text := strings.TrimPrefix(err.Error(), "toml: ")
	for key, line := range lines { // a wrong type is told with its key only
		if strings.Contains(text, `"`+key+`"`) {
			if _, rest, ok := strings.Cut(text, "): "); ok {
				text = rest
			}
			return &Error{File: s.Name, Line: line, Key: key, Err: errors.New(text)}
		}
	}
	return &Error{File: s.Name, Err: errors.New(text)}
}

// keyLines finds the line of each key. It needs no whole parser: a file that is
// no TOML has its line from the library.
func keyLines(data []byte) map[string]int {
	lines := map[string]int{}
	table := ""
	for i, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			if end := strings.LastIndex(line, "]"); end > 0 {
				table = strings.Trim(line[:end], "[] \t")
				lines[table] = i + 1
			}
			continue
		}
		key, _, ok := strings.Cut(line, "=")
		key = strings.Trim(strings.TrimSpace(key), `"'`)
		if !ok || key == "" || strings.HasPrefix(key, "#") {
			continue
		}
		if table != "" {
			key = table + "." + key
		}
		if lines[key] == 0 {
			lines[key] = i + 1
		}
	}
	return lines
}
