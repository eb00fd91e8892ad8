package domain

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// ErrUnknownEvent is wrapped by Decode's error for a type or schema that this
// program does not know, written by a later one.
var ErrUnknownEvent = errors.New("unknown event")

// Encode returns an event's payload in two parts: data may be stored in the
// open, personal must be sealed. Each is a message in protobuf's wire format,
// documented in events.proto, or nil when empty. It
// panics on an Event that is not of this package.
func Encode(e Event) (data, personal []byte) {
	k, ok := kinds[e.Type()]
	if !ok {
		panic("domain: Encode of a foreign event " + e.Type())
	}
	return k.encode(e)
}

// Decode reads what Encode wrote. With personal nil (still sealed, or erased)
// the personal fields are zero. Unknown fields are skipped, so that an older
// program can read a newer one's events. The result's strings and bytes do not
// refer to the arguments.
func Decode(typ string, schema int16, data, personal []byte) (Event, error) {
	k, ok := kinds[typ]
	if !ok {
		return nil, fmt.Errorf("%w: type %q", ErrUnknownEvent, typ)
	}
	if schema != 1 {
		return nil, fmt.Errorf("%w: schema %d of type %q", ErrUnknownEvent, schema, typ)
	}
	e, err := k.decode(data, personal)
	if err != nil {
		return nil, fmt.Errorf("decoding %s: %w", typ, err)
	}
	return e, nil
}

// EventTypes returns the types of all events, in no particular order.
func EventTypes() []string {
	types := make([]string, 0, len(kinds))
	for t := range kinds {
		types = append(types, t)
	}
	return types
}

// payload is how an event says which fields it has, for both directions: the
// coder either writes or reads them. An event without fields has no methods.
type payload interface {
	open(c *coder)
	sealed(c *coder)
}

// kind reads and writes the events of one type.
type kind struct {
	encode func(Event) (data, personal []byte)
	decode func(data, personal []byte) (Event, error)
}

// coders are kept because a rebuild takes one for each event of the log.
var coders = sync.Pool{New: func() any { return new(coder) }}

// fielded is the kind of an event with fields.
func fielded[E Event, P interface {
	*E
	payload
}]() kind {
	return kind{
		encode: func(ev Event) (data, personal []byte) {
			e := ev.(E)                //nolint:errcheck // kinds are looked up by the event's own type
			c := coders.Get().(*coder) //nolint:errcheck // nothing else is put there
			c.reading = false
			P(&e).open(c)
			data = c.written()
			P(&e).sealed(c)
			personal = c.written()
			coders.Put(c)
			return data, personal
		},
		decode: func(data, personal []byte) (Event, error) {
			var e E
			c := coders.Get().(*coder) //nolint:errcheck // nothing else is put there
			c.reading, c.err = true, nil
			if len(data) > 0 {
				c.scan(data)
				P(&e).open(c)
			}
			if len(personal) > 0 {
				c.scan(personal)
				P(&e).sealed(c)
			}
			err := c.err
			c.text = ""
			coders.Put(c)
			return e, err
		},
	}
}

// bare is the kind of an event that says everything by its name.
func bare[E Event]() kind {
	return kind{
		encode: func(Event) ([]byte, []byte) { return nil, nil },
		decode: func(data, personal []byte) (Event, error) {
			var e E
			c := coder{reading: true}
			c.scan(data)
			c.scan(personal)
			return e, c.err
		},
	}
}

// maxField is the highest field number that any payload uses.
const maxField = 15

// coder writes or reads one message. When it reads, scan finds all fields in
// one pass, and the field methods then pick theirs.
type coder struct {
	reading bool
	out     []byte
	// text is the message as a string: its fields are substrings, so that a
	// message costs one allocation however many it has.
	text string
	// forms and values hold the last occurrence of each field.
	forms  [maxField + 1]form
	values [maxField + 1]uint64
	err    error
}

// form is how a field occurs in a message.
type form uint8

const (
	absent form = iota
	// varint: the value is the number.
	varint
	// delimited: the value is where the bytes are, see span.
	delimited
)

// span returns where in the message a delimited field's bytes begin and end.
func span(value uint64) (from, to uint32) { return uint32(value >> 32), uint32(value) } // #nosec G115 -- both halves

// written returns what has been written since the last call, nil for nothing.
// Secrets do not stay behind in a coder that is kept.
func (c *coder) written() []byte {
	if len(c.out) == 0 {
		return nil
	}
	b := bytes.Clone(c.out)
	if clear(c.out); cap(c.out) > 1<<12 {
		c.out = nil
	}
	c.out = c.out[:0]
	return b
}

// scan takes up a message to read.
func (c *coder) scan(b []byte) {
	c.text = string(b)
	c.forms = [maxField + 1]form{}
	c.each(b, func(n protowire.Number, f form, value uint64) {
		if n <= maxField {
			c.forms[n], c.values[n] = f, value
		}
	})
}

// each calls f with every varint and delimited field of b.
func (c *coder) each(b []byte, f func(protowire.Number, form, uint64)) {
	for at := 0; at < len(b); {
		n, typ, size := protowire.ConsumeTag(b[at:])
		if size < 0 {
			c.fail(protowire.ParseError(size))
			return
		}
		at += size
		var value uint64
		is := absent
		switch typ {
		case protowire.VarintType:
			is = varint
			value, size = protowire.ConsumeVarint(b[at:])
		case protowire.BytesType:
			is = delimited
			var v []byte
			v, size = protowire.ConsumeBytes(b[at:])
			value = uint64(at+size-len(v))<<32 | uint64(at+size) // #nosec G115 -- payloads are far below 2 GiB
		default:
			size = protowire.ConsumeFieldValue(n, typ, b[at:])
		}
		if size < 0 {
			c.fail(protowire.ParseError(size))
			return
		}
		at += size
		if is != absent {
			f(n, is, value)
		}
	}
}

func (c *coder) fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

// find returns the bytes of a field, or false when it is not there in that
// form; a field of another wire type counts as unknown, as in protobuf.
func (c *coder) find(n protowire.Number) (string, bool) {
	if c.forms[n] != delimited {
		return "", false
	}
	from, to := span(c.values[n])
	return c.text[from:to], true
}

// str is a string field.
func (c *coder) str(n protowire.Number, p *string) {
	if c.reading {
		if v, ok := c.find(n); ok {
			if !utf8.ValidString(v) {
				c.fail(errors.New("invalid UTF-8"))
				return
			}
			*p = v
		}
		return
	}
	if *p != "" {
		c.out = protowire.AppendTag(c.out, n, protowire.BytesType)
		c.out = protowire.AppendString(c.out, *p)
	}
}

// bytes is a bytes field.
func (c *coder) bytes(n protowire.Number, p *[]byte) {
	if c.reading {
		if v, ok := c.find(n); ok && v != "" {
			*p = []byte(v)
		}
		return
	}
	if len(*p) > 0 {
		c.out = protowire.AppendTag(c.out, n, protowire.BytesType)
		c.out = protowire.AppendBytes(c.out, *p)
	}
}

// uint is a varint field.
func (c *coder) uint(n protowire.Number, v uint64) uint64 {
	if c.reading {
		if c.forms[n] == varint {
			return c.values[n]
		}
		return v
	}
	if v != 0 {
		c.out = protowire.AppendTag(c.out, n, protowire.VarintType)
		c.out = protowire.AppendVarint(c.out, v)
	}
	return v
}

// flag is a bool field.
func (c *coder) flag(n protowire.Number, p *bool) {
	var v uint64
	if *p {
		v = 1
	}
	*p = c.uint(n, v) != 0
}

// uint32 is a uint32 field.
func (c *coder) uint32(n protowire.Number, p *uint32) {
	*p = uint32(c.uint(n, uint64(*p))) // #nosec G115 -- as protobuf cuts it
}

// int is an int64 field.
func (c *coder) int(n protowire.Number, p *int64) {
	*p = int64(c.uint(n, uint64(*p))) // #nosec G115 -- two's complement is the format
}

// duration is an int64 field of nanoseconds.
func (c *coder) duration(n protowire.Number, p *time.Duration) { c.int(n, (*int64)(p)) }

// time is an int64 field of microseconds since 1970, zero for the zero time.
func (c *coder) time(n protowire.Number, p *time.Time) {
	var v int64
	if !c.reading && !p.IsZero() {
		v = p.UnixMicro()
	}
	c.int(n, &v)
	if c.reading && v != 0 {
		*p = time.UnixMicro(v).UTC()
	}
}

// profile is the fields n to n+5.
func (c *coder) profile(n protowire.Number, p *Profile) {
	c.str(n, &p.FirstName)
	c.str(n+1, &p.LastName)
	c.str(n+2, &p.NickName)
	c.str(n+3, &p.DisplayName)
	c.str(n+4, &p.PreferredLanguage)
	p.Gender = Gender(c.uint(n+5, uint64(uint32(p.Gender)))) // #nosec G115 -- an enumeration
}

// strs is a repeated string field.
func (c *coder) strs(n protowire.Number, p *[]string) {
	if !c.reading {
		for _, v := range *p {
			c.out = protowire.AppendTag(c.out, n, protowire.BytesType)
			c.out = protowire.AppendString(c.out, v)
		}
		return
	}
	text := c.text
	c.each([]byte(text), func(m protowire.Number, f form, value uint64) {
		if m == n && f == delimited {
			from, to := span(value)
			v := text[from:to]
			if !utf8.ValidString(v) {
				c.fail(errors.New("invalid UTF-8"))
			}
			*p = append(*p, v)
		}
	})
}

// entries is a repeated field of messages with a key (1) and a value (2).
func (c *coder) entries(n protowire.Number, p *[]Metadata) {
	if !c.reading {
		for i := range *p {
			var entry coder
			entry.str(1, &(*p)[i].Key)
			entry.bytes(2, &(*p)[i].Value)
			c.out = protowire.AppendTag(c.out, n, protowire.BytesType)
			c.out = protowire.AppendBytes(c.out, entry.out)
		}
		return
	}
	b := []byte(c.text)
	c.each(b, func(m protowire.Number, f form, value uint64) {
		if m == n && f == delimited {
			from, to := span(value)
			var entry Metadata
			inner := coder{reading: true}
			inner.scan(b[from:to])
			inner.str(1, &entry.Key)
			inner.bytes(2, &entry.Value)
			if inner.err != nil {
				c.fail(inner.err)
			}
			*p = append(*p, entry)
		}
	})
}
