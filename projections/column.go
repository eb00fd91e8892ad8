package projections

import (
	"encoding/binary"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// kind is a column's type. All columns are NOT NULL; nothing is the zero value.
type kind uint8

const (
	kindText kind = iota
	kindInt2
	kindInt8
	kindBool
	kindTime
)

var kinds = [...]struct {
	ddl string
	oid uint32
}{
	kindText: {`text COLLATE "C"`, pgtype.TextOID},
	kindInt2: {"smallint", pgtype.Int2OID},
	kindInt8: {"bigint", pgtype.Int8OID},
	kindBool: {"boolean", pgtype.BoolOID},
	kindTime: {"timestamptz", pgtype.TimestamptzOID},
}

// micros is a time in microseconds since 1970, as events and tables store it;
// it can be compared with ==. Zero is "never".
type micros int64

func microsOf(t time.Time) micros { return micros(t.UnixMicro()) }

// time returns the zero time for "never".
func (m micros) time() time.Time {
	if m == 0 {
		return time.Time{}
	}
	return time.UnixMicro(int64(m)).UTC()
}

// postgresEpoch is PostgreSQL's zero of time, in micros.
const postgresEpoch = 946_684_800_000_000

// column ties a column of a table to a field of its row type R. Exactly one of
// the accessors is set, by kind.
type column[R any] struct {
	name     string
	kind     kind
	personal bool

	text func(*R) *string
	int2 func(*R) *int16
	int8 func(*R) *int64
	flag func(*R) *bool
	time func(*R) *micros
}

func text[R any](name string, f func(*R) *string) column[R] {
	return column[R]{name: name, kind: kindText, text: f}
}

// personal is a text column with personal data; erasure is checked on these.
func personal[R any](name string, f func(*R) *string) column[R] {
	return column[R]{name: name, kind: kindText, text: f, personal: true}
}

func smallint[R any](name string, f func(*R) *int16) column[R] {
	return column[R]{name: name, kind: kindInt2, int2: f}
}

func bigint[R any](name string, f func(*R) *int64) column[R] {
	return column[R]{name: name, kind: kindInt8, int8: f}
}

func flag[R any](name string, f func(*R) *bool) column[R] {
	return column[R]{name: name, kind: kindBool, flag: f}
}

func moment[R any](name string, f func(*R) *micros) column[R] {
	return column[R]{name: name, kind: kindTime, time: f}
}

// encode appends the row's value in PostgreSQL's binary form behind its length:
// the form of a field of COPY and of an array's element alike.
func (c *column[R]) encode(buf []byte, r *R) []byte {
	switch c.kind {
	case kindText:
		v := *c.text(r)
		return append(binary.BigEndian.AppendUint32(buf, uint32(len(v))), v...) // #nosec G115 -- far below 4 GiB
	case kindInt2:
		return binary.BigEndian.AppendUint16(append(buf, 0, 0, 0, 2), uint16(*c.int2(r))) // #nosec G115 -- two's complement
	case kindInt8:
		return binary.BigEndian.AppendUint64(append(buf, 0, 0, 0, 8), uint64(*c.int8(r))) // #nosec G115 -- two's complement
	case kindBool:
		v := byte(0)
		if *c.flag(r) {
			v = 1
		}
		return append(buf, 0, 0, 0, 1, v)
	default:
		return binary.BigEndian.AppendUint64(append(buf, 0, 0, 0, 8), uint64(int64(*c.time(r))-postgresEpoch)) // #nosec G115 -- two's complement
	}
}

// decode reads a value that PostgreSQL sent in binary form.
func (c *column[R]) decode(b []byte, r *R) {
	switch c.kind {
	case kindText:
		*c.text(r) = string(b)
	case kindInt2:
		*c.int2(r) = int16(binary.BigEndian.Uint16(b)) // #nosec G115 -- two's complement
	case kindInt8:
		*c.int8(r) = readInt8(b)
	case kindBool:
		*c.flag(r) = b[0] != 0
	default:
		*c.time(r) = micros(readInt8(b) + postgresEpoch)
	}
}

func readInt8(b []byte) int64 { return int64(binary.BigEndian.Uint64(b)) } // #nosec G115 -- two's complement

// array is a one-dimensional PostgreSQL array in binary form (array_recv in
// PostgreSQL's source), built without a step of reflection for each element.
type array struct {
	buf []byte
	n   uint32
}

func newArray(oid uint32, capacity int) *array {
	a := &array{buf: make([]byte, 20, 20+capacity)}
	binary.BigEndian.PutUint32(a.buf[0:], 1)
	binary.BigEndian.PutUint32(a.buf[8:], oid)
	binary.BigEndian.PutUint32(a.buf[16:], 1)
	return a
}

func (a *array) bytes() []byte {
	binary.BigEndian.PutUint32(a.buf[12:], a.n)
	if a.n == 0 { // an empty array has no dimension
		binary.BigEndian.PutUint32(a.buf[0:], 0)
		return a.buf[:12]
	}
	return a.buf
}

func (a *array) text(s string) {
	a.buf = append(binary.BigEndian.AppendUint32(a.buf, uint32(len(s))), s...) // #nosec G115 -- far below 4 GiB
	a.n++
}

func (a *array) int2(v int16) {
	a.buf = binary.BigEndian.AppendUint16(append(a.buf, 0, 0, 0, 2), uint16(v)) // #nosec G115 -- two's complement
	a.n++
}

func (a *array) int8(v int64) {
	a.buf = binary.BigEndian.AppendUint64(append(a.buf, 0, 0, 0, 8), uint64(v)) // #nosec G115 -- two's complement
	a.n++
}

// copyHeader begins a binary COPY: signature, flags, no extension.
const copyHeader = "PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// copyTrailer ends it.
const copyTrailer = "\xff\xff"

func readInt4(b []byte) int32 { return int32(binary.BigEndian.Uint32(b)) } // #nosec G115 -- two's complement
func readInt2(b []byte) int16 { return int16(binary.BigEndian.Uint16(b)) } // #nosec G115 -- two's complement
