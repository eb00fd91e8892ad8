package importer

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"sync"
)

const (
	// maxLine is the longest line in bytes; a longer one fails alone.
	maxLine = 1 << 20
	// chunkLines and chunkBytes bound what is worked on, and appended, at a time.
	chunkLines = 500
	chunkBytes = 1 << 20
)

// chunk is a stretch of lines on its way through a job.
type chunk struct {
	first, last int64 // line numbers, blank lines included
	data        []byte
	spans       []span
	// bound says that the chunk ends where an earlier call's chunk ended,
	// whose answers are to be given again.
	bound bool
	// again says that the answers are an earlier call's.
	again bool

	rows                              []row
	answers                           []byte // as they are kept
	sent                              []byte // as they are sent, when that differs
	created, updated, skipped, failed int64
	digest                            []byte
	tally                             forecastOf
	err                               error // why the job cannot go on

	registered, done chan struct{}
}

// span is a line within a chunk's data.
type span struct {
	line     int64
	from, to int
	err      error // the line is not looked at: it is refused, or
	control  bool  // it is not a person's
}

// intake reads lines ahead, as far as one chunk, and lets whoever takes chunks
// have what is there: a line that comes alone does not wait for company, and
// when lines come faster than they are taken, chunks are full.
type intake struct {
	in *bufio.Reader
	// bound returns the line that the chunk with this line must not go beyond;
	// 0 for none.
	bound func(line int64) (int64, error)
	// control is told of the lines that are not a person's.
	control func(n int64, line []byte) error
	// line is the number of the last line read.
	line int64

	mu      sync.Mutex // guards what follows
	changed *sync.Cond
	next    *chunk
	sealed  bool // next takes no more lines
	closed  bool // no more lines come
	err     error
	stopped bool // nobody takes chunks any more
}

func newIntake(in io.Reader, before int64) *intake {
	t := &intake{in: bufio.NewReaderSize(in, 64<<10), line: before}
	t.changed = sync.NewCond(&t.mu)
	return t
}

var (
	errLineTooLong = lineError("Line is longer than 1 MiB")
	controlPrefix  = []byte(`{"secrets"`)
)

// run reads until the end of the input, an error, or stop.
func (t *intake) run() {
	err := t.read()
	if errors.Is(err, io.EOF) {
		err = nil
	}
	t.mu.Lock()
	t.closed, t.err = true, err
	t.changed.Broadcast()
	t.mu.Unlock()
}

func (t *intake) read() error {
	long := []byte(nil)
	var bound int64
	for {
		text, err := t.in.ReadSlice('\n')
		tooLong := false
		if errors.Is(err, bufio.ErrBufferFull) {
			long = append(long[:0], text...)
			for errors.Is(err, bufio.ErrBufferFull) {
				text, err = t.in.ReadSlice('\n')
				if len(long)+len(text) <= maxLine+2 {
					long = append(long, text...)
				} else {
					tooLong = true
				}
			}
			text = long
		}
		if err != nil && err != io.EOF {
			return err // the beginning of a line that never came is nobody's
		}
		if err == io.EOF && len(text) == 0 {
			return io.EOF
		}
		text = bytes.TrimSuffix(bytes.TrimSuffix(text, []byte{'\n'}), []byte{'\r'})
		t.line++
		if t.line == 1 {
			text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
		}
		if bound < t.line {
			b, boundErr := t.bound(t.line)
			if boundErr != nil {
				return boundErr
			}
			bound = b
		}
		s := span{line: t.line}
		switch trimmed := bytes.TrimLeft(text, " \t"); {
		case tooLong || len(text) > maxLine:
			text, s.err = nil, errLineTooLong
		case bytes.HasPrefix(trimmed, controlPrefix):
			s.err, s.control = t.control(t.line, text), true
			if s.err != nil && !isLineError(s.err) {
				return s.err
			}
			text = nil
		}
		if !t.add(s, text, t.line == bound) {
			return io.ErrClosedPipe
		}
		if err == io.EOF {
			return io.EOF
		}
	}
}

// add puts a line into the next chunk, waiting for room. It returns false when
// nobody takes chunks any more.
func (t *intake) add(s span, text []byte, last bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for !t.stopped && t.next != nil && (t.sealed || len(t.next.spans) >= chunkLines || len(t.next.data)+len(text) > chunkBytes) {
		t.changed.Wait()
	}
	if t.stopped {
		return false
	}
	if t.next == nil {
		t.next = &chunk{first: s.line, data: make([]byte, 0, 64<<10), spans: make([]span, 0, chunkLines)}
	}
	c := t.next
	c.last, c.bound, t.sealed = s.line, last, last
	if s.err != nil || s.control || len(bytes.TrimSpace(text)) > 0 {
		s.from = len(c.data)
		c.data = append(c.data, text...)
		s.to = len(c.data)
		c.spans = append(c.spans, s)
	}
	// A chunk that has to end at a certain line is taken whole.
	t.changed.Broadcast()
	return true
}

// take returns the next chunk; nil at the end. whole makes it wait until the
// chunk cannot grow any more.
func (t *intake) take(whole func(*chunk) bool) (*chunk, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for !t.stopped {
		if t.next != nil && (t.sealed || t.closed || !whole(t.next)) {
			c := t.next
			t.next, t.sealed = nil, false
			t.changed.Broadcast()
			return c, nil
		}
		if t.closed {
			return nil, t.err
		}
		t.changed.Wait()
	}
	return nil, io.ErrClosedPipe
}

// stop makes run and take end.
func (t *intake) stop() {
	t.mu.Lock()
	t.stopped = true
	t.changed.Broadcast()
	t.mu.Unlock()
}
