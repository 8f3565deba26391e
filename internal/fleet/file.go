package fleet

import (
	"errors"
	"fmt"
	"strings"

	"github.com/BurntSushi/toml"
)

// Error is one wrong place in a file of the repository.
type Error struct {
	File string // path in the repository
	Line int    // from 1; 0 if unknown
	Key  string // dotted; "" if the file is no TOML or the whole is wrong
	Err  error
}

func (e *Error) Error() string {
	where := e.File
	if e.Line > 0 {
		where = fmt.Sprintf("%s:%d", e.File, e.Line)
	}
	if e.Key != "" {
		where += ": " + e.Key
	}
	return where + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// file is one file while it is read.
type file struct {
	name  string
	data  []byte
	wrong []error
}

func (f *file) add(line int, key string, err error) {
	f.wrong = append(f.wrong, &Error{File: f.name, Line: line, Key: key, Err: err})
}

func (f *file) wrongIf(err error, key string) {
	if err != nil {
		f.add(f.line(key), key, err)
	}
}

func (f *file) bad(ok bool, key, text string) {
	if !ok {
		f.add(f.line(key), key, errors.New(text))
	}
}

// decode is strict: a key that is not known is an error.
func (f *file) decode(into any) {
	meta, err := toml.Decode(string(f.data), into)
	if err != nil {
		var parse toml.ParseError
		if errors.As(err, &parse) {
			message := parse.Message
			if message == "" {
				message = strings.TrimPrefix(parse.Error(), "toml: ")
			}
			f.add(parse.Position.Line, parse.LastKey, errors.New(message))
			return
		}
		f.add(0, "", errors.New(strings.TrimPrefix(err.Error(), "toml: ")))
		return
	}
	for _, key := range meta.Undecoded() {
		f.add(f.line(key.String()), key.String(), errors.New("there is no such key; correct or remove it"))
	}
}

// line finds the line of a dotted key, or of the table that it is in.
func (f *file) line(key string) int {
	table, found := "", 0
	for i, line := range strings.Split(string(f.data), "\n") {
		line = strings.TrimSpace(line)
		name := ""
		if strings.HasPrefix(line, "[") {
			table = strings.Trim(line, "[] \t")
			name = table
		} else if word, _, ok := strings.Cut(line, "="); ok {
			name = strings.TrimPrefix(table+"."+strings.Trim(strings.TrimSpace(word), `"'`), ".")
		}
		if name == key && name != "" {
			return i + 1
		}
		if name != "" && strings.HasPrefix(key, name+".") {
			found = i + 1
		}
	}
	return found
}
