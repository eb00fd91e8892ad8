package eventstore

import (
	_ "embed"
	"encoding/binary"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// The statements stand in files of their own, where their parameters are
// explained.
var (
	//go:embed sql/lock_streams.sql
	sqlLockStreams string
	//go:embed sql/insert_claims.sql
	sqlInsertClaims string
	//go:embed sql/take_claims.sql
	sqlTakeClaims string
	//go:embed sql/find_claims.sql
	sqlFindClaims string
	//go:embed sql/reassign_claims.sql
	sqlReassignClaims string
	//go:embed sql/release_claims.sql
	sqlReleaseClaims string
	//go:embed sql/owners.sql
	sqlOwners string
	//go:embed sql/find_repeats.sql
	sqlFindRepeats string
	//go:embed sql/insert_streams.sql
	sqlInsertStreams string
	//go:embed sql/advance_streams.sql
	sqlAdvanceStreams string
	//go:embed sql/insert_events.sql
	sqlInsertEvents string
	//go:embed sql/insert_repeats.sql
	sqlInsertRepeats string
	//go:embed sql/lock_log.sql
	sqlLockLog string
	//go:embed sql/bind_batch.sql
	sqlBindBatch string
	//go:embed sql/read.sql
	sqlRead string

	//go:embed sql/read_stream.sql
	sqlReadStream string
	//go:embed sql/read_slices.sql
	sqlReadSlices string
	//go:embed sql/head.sql
	sqlHead string
	//go:embed sql/identify.sql
	sqlIdentify string
	//go:embed sql/begin_epoch.sql
	sqlBeginEpoch string
	//go:embed sql/data_keys.sql
	sqlDataKeys string
)

// array builds a PostgreSQL array in binary form, element by element. Flushes
// carry thousands of values; this spares a reflection step for each.
type array struct {
	buf []byte
	n   uint32
}

// The form (array_send in PostgreSQL's source): dimensions, a has-nulls flag,
// the element type, then length and lower bound of the one dimension.
const arrayHeader = 20

func newArray(oid uint32, capacity int) *array {
	a := &array{buf: make([]byte, arrayHeader, arrayHeader+capacity)}
	binary.BigEndian.PutUint32(a.buf[0:], 1)
	binary.BigEndian.PutUint32(a.buf[8:], oid)
	binary.BigEndian.PutUint32(a.buf[16:], 1)
	return a
}

// bytes ends the array.
func (a *array) bytes() []byte {
	binary.BigEndian.PutUint32(a.buf[12:], a.n)
	if a.n == 0 { // an empty array has no dimension
		binary.BigEndian.PutUint32(a.buf[0:], 0)
		return a.buf[:12]
	}
	return a.buf
}

func (a *array) null() {
	binary.BigEndian.PutUint32(a.buf[4:], 1)
	a.buf = binary.BigEndian.AppendUint32(a.buf, 0xffffffff)
	a.n++
}

func (a *array) text(s string) {
	a.buf = binary.BigEndian.AppendUint32(a.buf, uint32(len(s)))
	a.buf = append(a.buf, s...)
	a.n++
}

// blob appends a byte string; nil is NULL.
func (a *array) blob(b []byte) {
	if b == nil {
		a.null()
		return
	}
	a.buf = binary.BigEndian.AppendUint32(a.buf, uint32(len(b)))
	a.buf = append(a.buf, b...)
	a.n++
}

func (a *array) int2(v int16) {
	a.buf = binary.BigEndian.AppendUint32(a.buf, 2)
	a.buf = binary.BigEndian.AppendUint16(a.buf, uint16(v))
	a.n++
}

func (a *array) int4(v int32) {
	a.buf = binary.BigEndian.AppendUint32(a.buf, 4)
	a.buf = binary.BigEndian.AppendUint32(a.buf, uint32(v))
	a.n++
}

func (a *array) int8(v int64) {
	a.buf = binary.BigEndian.AppendUint32(a.buf, 8)
	a.buf = binary.BigEndian.AppendUint64(a.buf, uint64(v))
	a.n++
}

func (a *array) bool(v bool) {
	a.buf = binary.BigEndian.AppendUint32(a.buf, 1)
	if v {
		a.buf = append(a.buf, 1)
	} else {
		a.buf = append(a.buf, 0)
	}
	a.n++
}

func (a *array) time(t time.Time) { a.int8(microseconds(t)) }

// postgresEpoch is PostgreSQL's zero of time, in microseconds of Unix time.
const postgresEpoch = 946684800 * 1_000_000

func microseconds(t time.Time) int64 { return t.UnixMicro() - postgresEpoch }

func fromMicroseconds(us int64) time.Time { return time.UnixMicro(us + postgresEpoch).UTC() }

func int4Param(v int32) []byte { return binary.BigEndian.AppendUint32(nil, uint32(v)) }
func int8Param(v int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(v)) }

func readInt2(b []byte) int16 { return int16(binary.BigEndian.Uint16(b)) }
func readInt8(b []byte) int64 { return int64(binary.BigEndian.Uint64(b)) }

func textArray(values []string) []byte {
	a := newArray(pgtype.TextOID, 40*len(values))
	for _, v := range values {
		a.text(v)
	}
	return a.bytes()
}

func hashArray(values [][32]byte) []byte {
	a := newArray(pgtype.ByteaOID, 36*len(values))
	for i := range values {
		a.blob(values[i][:])
	}
	return a.bytes()
}
