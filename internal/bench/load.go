package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"
)

// Service, PostgreSQL and load share two processors, so the load writes its
// requests to the connection by itself, as load generators do: what a client
// library costs is not the service's.

// plain is one HTTP/1.1 connection that is kept alive, for one caller.
type plain struct {
	conn net.Conn
	r    *bufio.Reader
	buf  []byte
}

// post sends body as JSON and expects 200.
func (c *plain) post(ctx context.Context, path string, body []byte) error {
	c.buf = fmt.Appendf(c.buf[:0], "POST %s HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n",
		path, benchToken, len(body))
	c.buf = append(c.buf, body...)
	if deadline, ok := ctx.Deadline(); ok {
		_ = c.conn.SetDeadline(deadline)
	}
	if _, err := c.conn.Write(c.buf); err != nil {
		return err
	}
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return err
	}
	answer, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, answer)
	}
	return err
}

// grpcConn is one cleartext HTTP/2 connection, for any number of callers at a
// time, as gRPC clients share one. A connection of a single caller's is read by
// that caller, as an HTTP/1.1 one is; a shared one has a reader.
type grpcConn struct {
	conn  net.Conn
	alone bool

	mu      sync.Mutex // guards what follows, and writing
	framer  *http2.Framer
	out     *bufio.Writer
	enc     *hpack.Encoder
	block   bytes.Buffer
	buf     []byte
	stream  uint32
	taken   int // bytes of answers not yet given back to the connection's window
	waiting map[uint32]chan error
	broken  error

	// Of an answer's fields only the trailers' are looked at.
	dec             *hpack.Decoder
	status, message string
}

func newGRPC(conn net.Conn, alone bool) (*grpcConn, error) {
	c := &grpcConn{conn: conn, alone: alone, out: bufio.NewWriter(conn), stream: 1, waiting: make(map[uint32]chan error)}
	c.framer = http2.NewFramer(c.out, bufio.NewReader(conn))
	c.framer.SetReuseFrames()
	c.enc = hpack.NewEncoder(&c.block)
	c.dec = hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		switch f.Name {
		case "grpc-status":
			c.status = f.Value
		case "grpc-message":
			c.message = f.Value
		}
	})
	if _, err := c.out.WriteString(http2.ClientPreface); err != nil {
		return nil, err
	}
	err := errors.Join(c.framer.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 0}), c.out.Flush())
	if !alone {
		go c.read() // ends when the connection is closed
	}
	return c, err
}

// call makes a unary call and expects OK; the answer is not decoded. done is the
// caller's, of capacity 1 and empty.
func (c *grpcConn) call(ctx context.Context, method string, req proto.Message, done chan error) error {
	if err := c.send(method, req, done); err != nil {
		return err
	}
	for c.alone && len(done) == 0 {
		if err := c.next(); err != nil {
			return err
		}
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *grpcConn) send(method string, req proto.Message, done chan error) (err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken != nil {
		return c.broken
	}
	c.buf = append(c.buf[:0], 0, 0, 0, 0, 0)
	if c.buf, err = (proto.MarshalOptions{}).MarshalAppend(c.buf, req); err != nil {
		return err
	}
	binary.BigEndian.PutUint32(c.buf[1:], uint32(len(c.buf)-5)) // #nosec G115 -- a small message
	c.block.Reset()
	for _, h := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", method}, {":authority", "bench"},
		{"content-type", "application/grpc+proto"}, {"te", "trailers"}, {"authorization", "Bearer " + benchToken},
	} {
		if err := c.enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}); err != nil {
			return err
		}
	}
	id := c.stream
	c.stream += 2
	c.waiting[id] = done
	err = errors.Join(
		c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.block.Bytes(), EndHeaders: true}),
		c.framer.WriteData(id, true, c.buf))
	if c.taken > 16<<10 {
		err = errors.Join(err, c.framer.WriteWindowUpdate(0, uint32(c.taken))) // #nosec G115 -- under a window
		c.taken = 0
	}
	return errors.Join(err, c.out.Flush())
}

// read hands the answers to their callers.
func (c *grpcConn) read() {
	for c.next() == nil {
	}
}

// next reads a frame. An error ends the connection and every call on it.
func (c *grpcConn) next() error {
	frame, err := c.framer.ReadFrame()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		err = c.take(frame)
	}
	if err != nil {
		c.broken = err
		for _, done := range c.waiting {
			done <- err
		}
		clear(c.waiting)
	}
	return err
}

// take takes one frame; it is called with mu held.
func (c *grpcConn) take(frame http2.Frame) error {
	switch f := frame.(type) {
	case *http2.SettingsFrame:
		if !f.IsAck() {
			return errors.Join(c.framer.WriteSettingsAck(), c.out.Flush())
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			return errors.Join(c.framer.WritePing(true, f.Data), c.out.Flush())
		}
	case *http2.DataFrame:
		c.taken += len(f.Data())
	case *http2.HeadersFrame:
		if !f.HeadersEnded() {
			return errors.New("the answer's fields are in several frames")
		}
		c.status, c.message = "", ""
		c.dec.SetEmitEnabled(f.StreamEnded())
		if _, err := c.dec.Write(f.HeaderBlockFragment()); err != nil {
			return err
		}
		if err := c.dec.Close(); err != nil || !f.StreamEnded() {
			return err
		}
		var err error
		if c.status != "0" {
			err = fmt.Errorf("gRPC status %q: %s", c.status, c.message)
		}
		c.waiting[f.StreamID] <- err
		delete(c.waiting, f.StreamID)
	case *http2.RSTStreamFrame, *http2.GoAwayFrame:
		return fmt.Errorf("the server ended the call: %v", frame)
	}
	return nil
}

// dial opens n connections to the address of a URL.
func dial(url string, n int) ([]net.Conn, func(), error) {
	conns := make([]net.Conn, 0, n)
	closeAll := func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}
	for range n {
		c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		conns = append(conns, c)
	}
	return conns, closeAll, nil
}
