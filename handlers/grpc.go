package handlers

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// The RPC library serves every protocol and every case. This file serves one of
// them in a straight line, since nearly every gRPC call is of it, at a tenth
// less processor time: one message of protobuf, uncompressed and small, and an
// answer that is small by its type. Its framing is
// https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md. Whatever turns
// out to be otherwise goes to the library as if nobody had looked.

// framing is how many bytes there are before a message: whether it is
// compressed, and its length.
const framing = 5

// smallAnswer reports whether the answers of a type are small: they have no
// lists of messages.
func smallAnswer(m protoreflect.MessageDescriptor) bool {
	for i := range m.Fields().Len() {
		if f := m.Fields().Get(i); f.IsList() && f.Message() != nil || f.IsMap() {
			return false
		}
	}
	return true
}

// straight reports whether a request may be served here, as far as its header
// tells, and the time that its caller gives it; 0 for any.
func straight(r *http.Request) (limit time.Duration, ok bool) {
	if r.ProtoMajor != 2 || r.Method != http.MethodPost || len(r.Header["Grpc-Encoding"]) > 0 {
		return 0, false
	}
	switch r.Header.Get("Content-Type") {
	case "application/grpc", "application/grpc+proto":
	default:
		return 0, false
	}
	if v := r.Header["Grpc-Timeout"]; len(v) > 0 {
		limit, ok = grpcTimeout(v[0])
		return limit, ok && len(v) == 1
	}
	return 0, true
}

// grpcTimeout reads 1 to 8 digits and a unit. ok is false for what it leaves to
// the library: anything else, and an hour or more.
func grpcTimeout(s string) (d time.Duration, ok bool) {
	if len(s) < 2 || len(s) > 9 {
		return 0, false
	}
	units := map[byte]time.Duration{'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond}
	unit, known := units[s[len(s)-1]]
	n, err := strconv.ParseUint(s[:len(s)-1], 10, 32)
	d = time.Duration(n) * unit // #nosec G115 -- eight digits of minutes are under 2^63 ns
	return d, known && err == nil && n > 0 && d < time.Hour
}

var (
	acceptedEncodings = []string{"gzip"}
	statusOK          = []string{"0"}
)

// serveStraight serves a call, or reports that it has not: then r is as it was,
// its body to be read from the beginning.
func (s *server) serveStraight(w http.ResponseWriter, r *http.Request, req proto.Message, run func(context.Context) (proto.Message, http.Header, error)) (served bool) {
	limit, ok := straight(r)
	if !ok {
		return false
	}
	buf := bodies.Get().(*[]byte) //nolint:errcheck // nothing else is put there
	b, err := (*buf)[:0], error(nil)
	for err == nil && len(b) < cap(b) {
		var n int
		n, err = r.Body.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
	}
	whole := errors.Is(err, io.EOF) && len(b) >= framing && len(b)-framing <= s.deps.MaxBody && b[0] == 0 && int(binary.BigEndian.Uint32(b[1:])) == len(b)-framing &&
		proto.Unmarshal(b[framing:], req) == nil
	if !whole {
		rest := io.Reader(r.Body)
		if err != nil {
			rest = failing{err}
		}
		r.Body = again{io.MultiReader(bytes.NewReader(bytes.Clone(b)), rest), r.Body}
	}
	clear(b) // it held passwords
	bodies.Put(buf)
	if !whole {
		return false
	}
	ctx := r.Context()
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	var (
		res    proto.Message
		header http.Header
	)
	if err = ctx.Err(); err == nil {
		res, header, err = run(ctx)
	} else {
		err = connectError(s.failure(ctx, callOf(ctx), err))
	}
	h := w.Header()
	h["Grpc-Accept-Encoding"] = acceptedEncodings
	if err == nil {
		b, err = proto.MarshalOptions{}.MarshalAppend(make([]byte, framing, 256), res)
	}
	if err != nil {
		if e := (*connect.Error)(nil); errors.As(err, &e) {
			e.Meta().Del("WWW-Authenticate") // no name that a trailer may have
		}
		_ = s.rpcErrors.Write(w, r, err) // the caller may be gone
		return true
	}
	binary.BigEndian.PutUint32(b[1:], uint32(len(b)-framing)) // #nosec G115 -- a small message
	for name, values := range header {
		h[name] = values
	}
	h["Content-Type"] = r.Header["Content-Type"]
	h[http.TrailerPrefix+"Grpc-Status"] = statusOK
	_, _ = w.Write(b) // the caller may be gone
	return true
}

// again is a body of which something has been read already.
type again struct {
	io.Reader
	io.Closer
}
