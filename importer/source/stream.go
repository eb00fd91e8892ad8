package source

import (
	"bufio"
	"errors"
	"io"
)

// maxRecord is the longest record, in bytes, that is looked at. A longer one
// fails alone.
const maxRecord = 1 << 20

var errTooLong = errors.New("the record is longer than 1 MiB")

// jsonStream walks a JSON text of any size, holding one value at a time.
type jsonStream struct{ r *bufio.Reader }

// peek returns the first byte of the next token, or io.EOF at the end.
func (s jsonStream) peek() (byte, error) {
	for {
		c, err := s.r.ReadByte()
		if err != nil {
			return 0, err
		}
		switch c {
		case ' ', '\t', '\n', '\r':
		default:
			return c, s.r.UnreadByte()
		}
	}
}

// expect takes one byte of punctuation.
func (s jsonStream) expect(want byte) error {
	c, err := s.peek()
	if err != nil {
		return noEOF(err)
	}
	if c != want {
		return errJSON
	}
	_, err = s.r.Discard(1)
	return err
}

// more stands before the first or the next element of a list or object whose
// closing byte is shut: it takes a comma, or the end. begun says whether an
// element has been there.
func (s jsonStream) more(begun bool, shut byte) (bool, error) {
	c, err := s.peek()
	switch {
	case err != nil:
		return false, noEOF(err)
	case c == shut:
		_, err = s.r.Discard(1)
		return false, err
	case !begun:
		return true, nil
	case c != ',':
		return false, errJSON
	}
	_, err = s.r.Discard(1)
	return true, err
}

// key takes a member's name and the colon. A name over 200 bytes is cut: none
// that anybody looks for is that long.
func (s jsonStream) key() (string, error) {
	c, err := s.peek()
	if err != nil {
		return "", noEOF(err)
	}
	if c != '"' {
		return "", errJSON
	}
	raw, err := s.raw(nil, 200)
	if errors.Is(err, errTooLong) {
		raw, err = []byte(`"…"`), nil
	}
	if err != nil {
		return "", err
	}
	var d doc
	if err := d.parse(raw); err != nil {
		return "", err
	}
	return d.root().str(), s.expect(':')
}

// raw appends the next value's bytes to dst. It balances brackets and quotes
// and leaves the rest of the syntax to doc.parse. A value longer than limit is
// passed over to its end; the error is then errTooLong.
func (s jsonStream) raw(dst []byte, limit int) ([]byte, error) {
	if _, err := s.peek(); err != nil {
		return dst, noEOF(err)
	}
	var e extent
	size := 0
	for {
		if _, err := s.r.Peek(1); err != nil {
			if err != io.EOF || size == 0 || e.depth > 0 || e.quoted {
				return dst, noEOF(err)
			}
			e.ended = true // a number at the very end
		}
		chunk, _ := s.r.Peek(s.r.Buffered())
		n := e.scan(chunk)
		if size += n; size <= limit {
			dst = append(dst, chunk[:n]...)
		}
		if _, err := s.r.Discard(n); err != nil {
			return dst, err
		}
		switch {
		case !e.ended:
		case size == 0:
			return dst, errJSON
		case size > limit:
			return dst, errTooLong
		default:
			return dst, nil
		}
	}
}

// extent finds the end of a JSON value that comes in chunks.
type extent struct {
	depth           int
	quoted, escaped bool
	ended           bool
}

// scan returns how many bytes of chunk belong to the value.
func (e *extent) scan(chunk []byte) int {
	for n := 0; n < len(chunk) && !e.ended; n++ {
		c := chunk[n]
		if e.quoted {
			switch {
			case e.escaped:
				e.escaped = false
			case c == '\\':
				e.escaped = true
			case c == '"':
				e.quoted = false
				if e.depth == 0 {
					e.ended = true
					return n + 1
				}
			}
			continue
		}
		switch c {
		case '"':
			e.quoted = true
		case '{', '[':
			e.depth++
		case '}', ']':
			if e.depth--; e.depth <= 0 {
				e.ended = true
				return n + 1 + e.depth // a stray closing byte is not ours
			}
		case ',', ':', ' ', '\n', '\r', '\t':
			if e.depth == 0 {
				e.ended = true
				return n
			}
		}
	}
	if e.ended {
		return 0
	}
	return len(chunk)
}

// skip passes over the next value.
func (s jsonStream) skip() error {
	_, err := s.raw(nil, 0)
	if errors.Is(err, errTooLong) {
		return nil
	}
	return err
}

// noEOF makes the end of the input within a value an error of its own.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
