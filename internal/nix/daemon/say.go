package daemon

import (
	"strings"
)

// drain reads what the daemon reports while it works, up to the end of the
// operation. The error is an *Error or one of the connection.
func (c *Conn) drain() error { return c.read(c.patience) }

// drainSlowly is drain for an operation during which the daemon waits for us.
func (c *Conn) drainSlowly() error { return c.read(func() func() { return func() {} }) }

func (c *Conn) read(patience func() func()) error {
	stop := patience()
	defer func() { stop() }()
	for c.in.err == nil {
		word := c.in.number()
		if c.in.err != nil {
			break
		}
		switch word {
		case sayLast:
			return nil
		case sayError:
			text := c.in.text()
			c.in.number() // exit status
			if c.in.err != nil {
				return c.in.err
			}
			return &Error{Message: clean(text)}
		case sayNext:
			if line := clean(c.in.text()); c.in.err == nil && line != "" {
				c.o.Note(line)
			}
		case sayStartActivity:
			c.in.number() // id
			c.in.number() // level
			c.in.number() // type
			c.in.text()
			c.fields()
			c.in.number() // parent
		case sayStopActivity:
			c.in.number()
		case sayResult:
			c.in.number() // id
			c.in.number() // type
			c.fields()
		case sayRead, sayWrite:
			c.in.fail(protocolError("it wants data outside of the frames"))
		default:
			c.in.fail(protocolError("it says %#x, which is no word of version 1.23", word))
		}
		stop() // it lives
		stop = patience()
	}
	return c.in.err
}

func (c *Conn) fields() {
	count := c.in.number()
	if count > maxFields {
		c.in.fail(protocolError("%d fields of an activity; %d are allowed", count, maxFields))
	}
	for range count {
		if c.in.err != nil {
			return
		}
		switch kind := c.in.number(); kind {
		case 0:
			c.in.number()
		case 1:
			c.in.text()
		default:
			c.in.fail(protocolError("a field of type %d", kind))
		}
	}
}

const maxMessage = 4 << 10

// clean makes one printable line of what the daemon says: without colours and
// control characters, and bounded.
func clean(text string) string {
	if len(text) > 2*maxMessage {
		text = text[:2*maxMessage]
	}
	var b strings.Builder
	for len(text) > 0 && b.Len() < maxMessage {
		if rest, ok := strings.CutPrefix(text, "\x1b["); ok {
			end := strings.IndexFunc(rest, func(r rune) bool { return r >= '@' && r <= '~' })
			text = rest[end+1:]
			continue
		}
		if c := text[0]; c < ' ' || c == 0x7f {
			b.WriteByte(' ')
		} else {
			b.WriteByte(c)
		}
		text = text[1:]
	}
	line := strings.Join(strings.Fields(strings.ToValidUTF8(b.String(), "?")), " ")
	return strings.TrimPrefix(line, "error: ")
}
