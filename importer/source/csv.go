package source

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

var errCSV = errors.New("the CSV record is malformed")

// csvReader splits CSV into records: RFC 4180 (quotes doubled, line breaks
// within quotes), with LF or CR LF, empty lines passed over and records of any
// number of cells. A record's cells are good until the next call.
type csvReader struct {
	r     *bufio.Reader
	comma byte
	// backslash takes "\," and "\\" for a comma and a backslash, as Cognito
	// writes them; quotes then mean nothing.
	backslash bool
	// line is the line, from 1, on which the last record began.
	line  int64
	lines int64
	buf   []byte
	cells []cell
	out   [][]byte
}

// cell is a part of buf.
type cell struct {
	from, to int
	quoted   bool
}

// next returns the cells of the next record, or io.EOF. errCSV and errTooLong
// are about one record; reading can go on behind it.
func (c *csvReader) next() ([][]byte, error) {
	for {
		c.buf, c.cells = c.buf[:0], c.cells[:0]
		c.line = c.lines + 1
		err := c.record()
		if err != nil && !errors.Is(err, errCSV) && !errors.Is(err, errTooLong) {
			return nil, err
		}
		if err == nil && len(c.cells) == 1 && c.cells[0].from == c.cells[0].to && !c.cells[0].quoted {
			continue // an empty line
		}
		c.out = c.out[:0]
		for _, x := range c.cells {
			c.out = append(c.out, c.buf[x.from:x.to:x.to])
		}
		return c.out, err
	}
}

// quoted says whether a cell of the last record stood in quotes: only one that
// did not can be a database's NULL.
func (c *csvReader) quoted(i int) bool { return c.cells[i].quoted }

func (c *csvReader) record() error {
	var bad error
	from, size := 0, 0
	inQuotes, wasQuoted := false, false
	put := func(b byte) {
		if size++; size > maxRecord {
			bad = errTooLong
			return
		}
		c.buf = append(c.buf, b)
	}
	end := func() {
		if bad == nil {
			c.cells = append(c.cells, cell{from, len(c.buf), wasQuoted})
		}
		from, wasQuoted = len(c.buf), false
	}
	for first := true; ; first = false {
		b, err := c.r.ReadByte()
		if err == io.EOF {
			switch {
			case first:
				return io.EOF
			case inQuotes:
				return io.ErrUnexpectedEOF
			}
			end()
			return bad
		}
		if err != nil {
			return err
		}
		if b == '\n' {
			c.lines++
		}
		switch {
		case inQuotes && b == '"':
			switch c.peek() {
			case '"':
				put('"')
				_, _ = c.r.Discard(1)
			case c.comma, '\n', '\r', 0:
				inQuotes = false
			default:
				// A quote in the middle of a quoted cell that nobody doubled:
				// what follows can't be told apart any more.
				inQuotes = false
				if bad == nil {
					bad = errCSV
				}
			}
		case inQuotes:
			put(b)
		case b == c.comma:
			end()
		case b == '\n':
			end()
			return bad
		case b == '\r':
			if next := c.peek(); next != '\n' && next != 0 {
				put(b)
			}
		case b == '"' && !c.backslash && len(c.buf) == from && !wasQuoted:
			inQuotes, wasQuoted = true, true
		case b == '\\' && c.backslash:
			if next := c.peek(); next == c.comma || next == '\\' {
				_, _ = c.r.Discard(1)
				b = next
			}
			put(b)
		default:
			put(b)
		}
	}
}

// peek returns the next byte, 0 for none.
func (c *csvReader) peek() byte {
	if p, _ := c.r.Peek(1); len(p) == 1 {
		return p[0]
	}
	return 0
}

// separator guesses what parts the cells of a header line.
func separator(header []byte) byte {
	if i := bytes.IndexByte(header, '\n'); i >= 0 {
		header = header[:i]
	}
	best, most := byte(','), bytes.Count(header, []byte{','})
	for _, b := range []byte{';', '\t'} {
		if n := bytes.Count(header, []byte{b}); n > most {
			best, most = b, n
		}
	}
	return best
}

// dialect says how a source's CSV differs from RFC 4180 with a header line.
type dialect struct {
	// positional names the columns of a file without a header.
	positional []string
	// backslash: see csvReader.
	backslash bool
	// nulls takes \N and NULL, where they stand without quotes, for a
	// database's NULL.
	nulls bool
}

// csvRows makes flat records of CSV.
type csvRows struct {
	c       csvReader
	dialect dialect
	header  [][]byte
}

func newCSVRows(r *bufio.Reader, d dialect) *csvRows {
	c := &csvRows{c: csvReader{r: r, comma: ',', backslash: d.backslash}, dialect: d}
	for _, name := range d.positional {
		c.header = append(c.header, []byte(name))
	}
	if d.positional == nil && !d.backslash {
		head, _ := r.Peek(headSize)
		c.c.comma = separator(head)
	}
	return c
}

func (c *csvRows) next(d *doc) (int64, error) {
	cells, err := c.c.next()
	if err == nil && c.header == nil {
		for _, name := range cells {
			c.header = append(c.header, bytes.Clone(bytes.TrimSpace(name)))
		}
		cells, err = c.c.next()
	}
	if errors.Is(err, errCSV) || errors.Is(err, errTooLong) {
		return c.c.line, &rowError{err}
	}
	if err != nil {
		return c.c.line, err
	}
	// One cell more than columns, and empty, comes from a trailing comma.
	if n := len(c.header); len(cells) > n && (len(cells) > n+1 || len(cells[n]) > 0) {
		return c.c.line, &rowError{errCSV}
	}
	d.flat()
	var last int32
	for i, cell := range cells[:min(len(cells), len(c.header))] {
		k := text
		if c.dialect.nulls && !c.c.quoted(i) && (string(cell) == "NULL" || string(cell) == `\N`) {
			k, cell = null, nil
		}
		if len(c.header[i]) > 0 {
			last = d.add(last, c.header[i], cell, k)
		}
	}
	return c.c.line, nil
}
