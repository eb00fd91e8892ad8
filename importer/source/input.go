package source

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"slices"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"

	"github.com/muster-id/muster/importer/jsontext"
)

// headSize is how much of an input is looked at to find out what it is.
const headSize = 64 << 10

// maxWindow bounds what a zstd frame may make us hold, in bytes.
const maxWindow = 64 << 20

// file is an opened input.
type file struct {
	name string
	part Part
	r    *bufio.Reader
}

// openFile undoes compression, a byte order mark and UTF-16.
func openFile(in Input) (*file, error) {
	r := bufio.NewReaderSize(in.R, headSize)
	magic, err := r.Peek(4)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, err
		}
		r = bufio.NewReaderSize(z, headSize)
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
		r = bufio.NewReaderSize(z, headSize)
	}
	switch mark, _ := r.Peek(3); {
	case bytes.HasPrefix(mark, []byte{0xef, 0xbb, 0xbf}):
		_, _ = r.Discard(3)
	case bytes.HasPrefix(mark, []byte{0xff, 0xfe}), bytes.HasPrefix(mark, []byte{0xfe, 0xff}):
		r = bufio.NewReaderSize(transform.NewReader(r, unicode.UTF16(unicode.LittleEndian, unicode.UseBOM).NewDecoder()), headSize)
	}
	return &file{name: in.Name, r: r}, nil
}

// head is the beginning of the content.
func (f *file) head() []byte {
	b, _ := f.r.Peek(headSize)
	return b
}

// open returns the rows of a file.
func (r *reader) open(f *file) rows {
	switch {
	case r.format == ZITADEL:
		return newZITADELRows(f.r, r)
	case r.format == LDIF:
		return &ldifReader{r: f.r}
	case jsonLooking(f.head()):
		if linewise(f.head()) && !r.spec.wraps(f.head()) {
			return &lineRows{r: f.r}
		}
		return &docRows{s: jsonStream{f.r}, r: r}
	default:
		return newCSVRows(f.r, r.spec.csv)
	}
}

func jsonLooking(head []byte) bool {
	head = bytes.TrimLeft(head, " \t\r\n")
	return len(head) > 0 && (head[0] == '{' || head[0] == '[')
}

// linewise says that the first line is a whole JSON object and something else
// follows: NDJSON, in which a bad line harms no other.
func linewise(head []byte) bool {
	head = bytes.TrimLeft(head, " \t\r\n")
	if len(head) == 0 || head[0] != '{' {
		return false
	}
	line, rest, whole := bytes.Cut(head, []byte{'\n'})
	var d doc
	if d.parse(line) != nil {
		// A first line that is broken, but ends like one, in front of another.
		line, rest = bytes.TrimSpace(line), bytes.TrimSpace(rest)
		return whole && bytes.HasSuffix(line, []byte{'}'}) && bytes.HasPrefix(rest, []byte{'{'})
	}
	// One object alone may be a document as well.
	return len(bytes.TrimSpace(rest)) > 0
}

// wraps says that the first object holds a list of rows: a page of several, one
// a line, is still a document.
func (s *spec) wraps(head []byte) bool {
	names, _ := firstNames(head)
	return slices.ContainsFunc(s.wrappers, func(w string) bool { return names[w] })
}

// lineRows reads NDJSON.
type lineRows struct {
	r    *bufio.Reader
	line int64
	buf  []byte
}

func (l *lineRows) next(d *doc) (int64, error) {
	for {
		line, err := l.readLine()
		if err != nil && !errors.Is(err, errTooLong) {
			return l.line, err
		}
		l.line++
		if errors.Is(err, errTooLong) {
			return l.line, &rowError{err}
		}
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		if line[0] != '{' || d.parse(line) != nil {
			return l.line, &rowError{errJSON}
		}
		return l.line, nil
	}
}

func (l *lineRows) readLine() ([]byte, error) {
	line, err := l.r.ReadSlice('\n')
	if err == nil || err == io.EOF && len(line) > 0 {
		return line, nil
	}
	l.buf = l.buf[:0]
	size := 0
	for errors.Is(err, bufio.ErrBufferFull) {
		if size += len(line); size <= maxRecord {
			l.buf = append(l.buf, line...)
		}
		line, err = l.r.ReadSlice('\n')
	}
	if err != nil && err != io.EOF || size+len(line) == 0 {
		return nil, err
	}
	if size += len(line); size > maxRecord {
		return nil, errTooLong
	}
	l.buf = append(l.buf, line...)
	return l.buf, nil
}

// docRows reads JSON documents: objects one after another, lists of objects,
// or objects that hold lists of rows under one of the format's wrappers.
type docRows struct {
	s   jsonStream
	r   *reader
	buf []byte
	n   int64
	// path is where in the document the stream stands, innermost last.
	path []level
	// header has the wrapper's other members, for formats with settings in it.
	header doc
	raw    []byte
}

// level is a list or an object that has been entered.
type level struct {
	shut  byte
	begun bool
	// rows says that the elements of the list are rows.
	rows bool
	// whole is the object's text so far, in case that it turns out to be a row
	// and no wrapper; wrapper says that it was one. long are the members that
	// were too long for whole.
	whole   []byte
	wrapper bool
	long    []string
}

func (j *docRows) enter(shut byte, rows bool) error {
	if _, err := j.s.r.Discard(1); err != nil {
		return err
	}
	l := level{shut: shut, rows: rows}
	if shut == '}' {
		l.whole = append(l.whole, '{')
	}
	j.path = append(j.path, l)
	return nil
}

func (j *docRows) next(d *doc) (int64, error) {
	for {
		c, err := j.s.peek()
		if err != nil && (!errors.Is(err, io.EOF) || len(j.path) > 0) {
			return j.n, noEOF(err)
		}
		if err != nil {
			return j.n, io.EOF
		}
		if len(j.path) == 0 {
			if done, err := j.begin(c, d); done || err != nil {
				return j.n, err
			}
			continue
		}
		top := &j.path[len(j.path)-1]
		more, err := j.s.more(top.begun, top.shut)
		if err != nil {
			return j.n, err
		}
		if !more {
			l := *top
			j.path = j.path[:len(j.path)-1]
			if l.wrapper {
				j.lose(&l)
			} else if l.shut == '}' {
				j.n++
				if len(l.long) > 0 {
					return j.n, &rowError{errTooLong}
				}
				if err := d.parse(append(l.whole, '}')); err != nil {
					return j.n, &rowError{err}
				}
				return j.n, nil
			}
			continue
		}
		top.begun = true
		if top.shut == ']' {
			if c, err = j.s.peek(); err != nil {
				return j.n, noEOF(err)
			}
			if c == '{' && !top.rows && len(j.r.spec.wrappers) > 0 {
				if err := j.enter('}', false); err != nil {
					return j.n, err
				}
				continue
			}
			return j.row(d)
		}
		if err := j.member(top); err != nil {
			return j.n, err
		}
	}
}

// begin takes what stands at the top of the document.
func (j *docRows) begin(c byte, d *doc) (row bool, err error) {
	switch {
	case c == '[':
		return false, j.enter(']', len(j.r.spec.wrappers) == 0)
	case c == '{' && len(j.r.spec.wrappers) > 0:
		return false, j.enter('}', false)
	case c == '{':
		_, err = j.row(d)
		return true, err
	}
	return false, errJSON
}

func (j *docRows) row(d *doc) (int64, error) {
	j.n++
	var err error
	if j.buf, err = j.s.raw(j.buf[:0], maxRecord); errors.Is(err, errTooLong) {
		return j.n, &rowError{err}
	} else if err != nil {
		return j.n, err
	}
	if len(j.buf) == 0 || j.buf[0] != '{' || d.parse(j.buf) != nil {
		return j.n, &rowError{errJSON}
	}
	return j.n, nil
}

// member takes a member of an object that may be a wrapper.
func (j *docRows) member(top *level) error {
	key, err := j.s.key()
	if err != nil {
		return err
	}
	c, err := j.s.peek()
	if err != nil {
		return noEOF(err)
	}
	if c == '[' && slices.Contains(j.r.spec.wrappers, key) {
		top.wrapper = true
		j.settings(top)
		return j.enter(']', true)
	}
	raw, err := j.s.raw(j.raw[:0], maxRecord)
	j.raw = raw
	if err != nil && !errors.Is(err, errTooLong) {
		return err
	}
	if err != nil || len(top.whole)+len(raw) > maxRecord {
		if len(top.long) < maxPaths {
			top.long = append(top.long, key)
		}
		return nil
	}
	if len(top.whole) > 1 {
		top.whole = append(top.whole, ',')
	}
	top.whole = append(append(jsontext.AppendString(top.whole, key), ':'), raw...)
	if top.wrapper {
		j.settings(top)
	}
	return nil
}

// settings makes what is known of the wrapper's other members readable.
func (j *docRows) settings(top *level) {
	if j.header.parse(append(slices.Clone(top.whole), '}')) != nil {
		j.header.reset()
	}
}

// lose counts the members of a wrapper that are neither rows nor settings.
func (j *docRows) lose(l *level) {
	j.settings(l)
	for _, key := range l.long {
		j.r.losses.add(key)
	}
	if len(j.header.nodes) == 0 {
		return
	}
	for m := range j.header.root().elements() {
		if !m.empty() && !slices.Contains(j.r.spec.settings, m.key()) {
			j.r.losses.add(m.key())
		}
	}
}

// setting is a member of the wrapper that stands in front of the rows.
func (j *docRows) setting(key string) value {
	if len(j.header.nodes) == 0 {
		return value{}
	}
	return j.header.root().get(key)
}
